// One job, node by node, while it runs.
import { useRoute } from "preact-iso";
import { call, get } from "../api/client";
import type { Job } from "../api/types";
import { bytes, plural } from "../lib/format";
import { isOver, progressOf, subjectOf } from "../lib/jobs";
import { useLive } from "../live";
import { useMay } from "../session";
import { useAnnounce } from "../ui/announce";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Badge, Bar, ConfirmButton, Digest, Facts, When } from "../ui/parts";
import { Table } from "../ui/table";
import { JobBadge } from "./jobs";

const EVERY_MS = 1000;

export function JobPage() {
  const { id } = useRoute().params;
  const live = useLive(`job-${id}`, (signal) => get<Job>(`/jobs/${id}`, signal), EVERY_MS);
  return (
    <Page title={`Preheat job ${id}`} actions={live.data && <Cancel job={live.data} refresh={live.refresh} />}>
      <Shown live={live} what={`job ${id}`}>
        {(job) => (
          <>
            <Progress job={job} />
            <Nodes job={job} />
            <Tasks job={job} />
          </>
        )}
      </Shown>
    </Page>
  );
}

function Cancel({ job, refresh }: { job: Job; refresh: () => void }) {
  const announce = useAnnounce();
  const may = useMay("operator");
  if (!may || isOver(job.state) || job.cancel_requested) return null;
  const cancel = async () => {
    await call(`/jobs/${job.id}/cancel`, { method: "POST" });
    announce(`Job ${job.id} was cancelled.`);
    refresh();
  };
  return <ConfirmButton label="Cancel job" question={`Cancel job ${job.id}? What nodes have already they keep.`} confirm="Cancel the job" onConfirm={cancel} />;
}

function Progress({ job }: { job: Job }) {
  const { done, total } = progressOf(job);
  return (
    <Section title={subjectOf(job)} wide>
      <p class="rollout-line">
        <JobBadge job={job} />
        <strong>
          {job.nodes_succeeded} of {plural(job.nodes_total, "node")}
          {job.nodes_failed > 0 && `, ${job.nodes_failed} failed`}
        </strong>
        <Bar value={done} most={total} label="of the bytes" tone={job.state === "succeeded" ? "good" : job.state === "failed" ? "bad" : "plain"} />
        <span>
          {bytes(done)} of {bytes(total)}
        </span>
      </p>
      {job.error && <p class="notice bad">{job.error}</p>}
      <Facts
        facts={[
          ["Nodes", job.args.scope ?? "–"],
          ["Platforms", job.args.platforms?.join(", ") || "all"],
          ["Clusters", job.args.cluster_ids?.join(", ") || "all"],
          ["Asked for by", job.created_by ?? "–"],
          ["Asked for", <When time={job.created_at} />],
          ["Began", <When time={job.started_at} />],
          ["Ended", <When time={job.ended_at} />],
        ]}
      />
    </Section>
  );
}

function Nodes({ job }: { job: Job }) {
  const nodes = job.nodes ?? [];
  return (
    <Section title="Nodes" wide>
      {nodes.length === 0 ? (
        <Empty>No node was chosen yet.</Empty>
      ) : (
        <Table
          caption={`Nodes of job ${job.id}`}
          rows={nodes}
          rowKey={(node) => node.host_id}
          columns={[
            { head: "Node", short: true, cell: (node) => <a href={`/hosts/${encodeURIComponent(node.host_id)}`}>{node.hostname || node.host_id}</a> },
            { head: "Cluster", cell: (node) => <a href={`/clusters/${node.cluster_id}`}>{node.cluster_id}</a> },
            { head: "State", cell: (node) => <Badge tone={node.state === "succeeded" ? "good" : node.state === "failed" ? "bad" : "plain"}>{node.state}</Badge> },
            { head: "Has", number: true, cell: (node) => `${bytes(node.bytes_done)} of ${bytes(node.bytes_total)}` },
            { head: "Progress", cell: (node) => <Bar value={node.bytes_done} most={node.bytes_total} label="of the bytes" tone={node.state === "succeeded" ? "good" : "plain"} /> },
            { head: "Why not", cell: (node) => node.error ?? "" },
          ]}
        />
      )}
    </Section>
  );
}

function Tasks({ job }: { job: Job }) {
  const tasks = job.tasks ?? [];
  if (tasks.length === 0) return null;
  return (
    <Section title="Content" wide>
      <Table
        caption={`Content of job ${job.id}`}
        rows={tasks}
        rowKey={(task) => task.task}
        columns={[
          { head: "Task", cell: (task) => <Digest task={task.task} link /> },
          { head: "Size", number: true, cell: (task) => bytes(task.bytes) },
        ]}
      />
    </Section>
  );
}
