// Tasks: what content there is in the clusters, and on which nodes it lies.
import { useRoute } from "preact-iso";
import { useState } from "preact/hooks";
import { get, getAll } from "../api/client";
import type { Cluster, Page as Listed, TaskDetail, TaskEntry, TaskHost } from "../api/types";
import { bytes, exact, plural } from "../lib/format";
import { useLive } from "../live";
import { SelectField } from "../ui/form";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Ago, Badge, Bar, Digest, Facts } from "../ui/parts";
import { Pager, Table } from "../ui/table";

const EVERY_MS = 3000;
const PER_PAGE = 50;

export function TasksPage() {
  const [cluster, setCluster] = useState("");
  const [page, setPage] = useState(1);
  const clusters = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), 0);
  const names = new Map((clusters.data?.items ?? []).map(({ id, name }) => [id, name]));
  const parameters = new URLSearchParams({ page: String(page), per_page: String(PER_PAGE) });
  if (cluster) parameters.set("cluster_id", cluster);
  const path = `/tasks?${parameters}`;
  const live = useLive(path, (signal) => get<Listed<TaskEntry>>(path, signal), EVERY_MS);
  const choose = (value: string) => {
    setPage(1);
    setCluster(value);
  };
  return (
    <Page title="Tasks" intro="A task is one piece of content: a layer, a manifest, a file. Its name is its digest.">
      <form class="filters" aria-label="Tasks" onSubmit={(event) => event.preventDefault()}>
        <SelectField label="Cluster" value={cluster} onValue={choose} options={[{ value: "", label: "All" }, ...[...names].map(([id, name]) => ({ value: String(id), label: name }))]} />
      </form>
      <Shown live={live} what="the tasks" route="GET /api/v1/tasks">
        {({ items, total }) => (
          <>
            <p class="count" role="status">
              {plural(total, "task")}
            </p>
            {items.length === 0 ? (
              <Empty>The schedulers know of no content.</Empty>
            ) : (
              <Table
                caption="Tasks"
                rows={items}
                rowKey={(task) => `${task.cluster_id}-${task.task}`}
                columns={[
                  { head: "Task", cell: (task) => <Digest task={task.task} link /> },
                  { head: "Cluster", cell: (task) => <a href={`/clusters/${task.cluster_id}`}>{names.get(task.cluster_id) ?? task.cluster_id}</a> },
                  { head: "Size", number: true, cell: sizeOf },
                  { head: "Pieces", number: true, cell: (task) => exact(task.pieces) },
                  { head: "Held by", number: true, cell: (task) => plural(task.holders, "node") },
                  { head: "Loading", number: true, cell: (task) => task.downloading },
                  { head: "From origin", number: true, cell: (task) => bytes(task.origin_bytes) },
                  { head: "Last seen", short: true, cell: (task) => <Ago time={task.last_seen} /> },
                ]}
              />
            )}
            <Pager page={page} perPage={PER_PAGE} total={total} go={setPage} />
          </>
        )}
      </Shown>
    </Page>
  );
}

export function TaskPage() {
  const { task = "" } = useRoute().params;
  const name = decodeURIComponent(task);
  const path = `/tasks/${encodeURIComponent(name)}`;
  const live = useLive(path, (signal) => get<TaskDetail>(path, signal), EVERY_MS);
  const nameOf = useClusterNames();
  return (
    <Page title="Task" intro={<code class="digest">{name}</code>}>
      <Shown live={live} what="the task">
        {({ clusters, hosts }) =>
          clusters.map((entry) => (
            <Section key={entry.cluster_id} title={`In ${nameOf(entry.cluster_id)}`} wide>
              <Facts
                facts={[
                  ["Size", sizeOf(entry)],
                  ["Pieces", exact(entry.pieces)],
                  ["Held by", plural(entry.holders, "node")],
                  ["Loading on", plural(entry.downloading, "node")],
                  ["From the origin", bytes(entry.origin_bytes)],
                  ["Last seen", <Ago time={entry.last_seen} />],
                ]}
              />
              <TaskHosts entry={entry} hosts={hosts.filter((host) => host.cluster_id === entry.cluster_id)} cluster={nameOf(entry.cluster_id)} />
            </Section>
          ))
        }
      </Shown>
    </Page>
  );
}

function TaskHosts({ entry, hosts, cluster }: { entry: TaskEntry; hosts: TaskHost[]; cluster: string }) {
  if (hosts.length === 0) return <Empty>No node of {cluster} holds any of it.</Empty>;
  return (
    <Table
      caption={`Nodes of ${cluster} with this task`}
      rows={hosts}
      rowKey={(host) => host.host_id}
      columns={[
        { head: "Node", short: true, cell: (host) => <a href={`/hosts/${encodeURIComponent(host.host_id)}`}>{host.hostname || host.host_id}</a> },
        { head: "Address", cell: (host) => (host.ip ? <code>{host.ip}</code> : "not in touch") },
        { head: "State", cell: (host) => <Badge tone={host.state === "complete" ? "good" : "plain"}>{host.state}</Badge> },
        { head: "Pieces", number: true, cell: (host) => exact(host.pieces) },
        { head: "Of the whole", cell: (host) => <Bar value={host.pieces} most={entry.pieces} label="of the pieces" /> },
      ]}
    />
  );
}

function useClusterNames(): (id: number) => string {
  const clusters = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), 0);
  return (id) => clusters.data?.items.find((cluster) => cluster.id === id)?.name ?? `cluster ${id}`;
}

function sizeOf({ bytes: size }: TaskEntry): string {
  return size > 0 ? bytes(size) : "not known";
}
