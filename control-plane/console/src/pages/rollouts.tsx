// Images on their way through clusters: how many nodes have it, when the rest will, who is late and why.
import { getAll } from "../api/client";
import type { Page as Listed, Rollout } from "../api/types";
import { bytes, duration, plural } from "../lib/format";
import { useLive } from "../live";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Ago, Badge, Bar, Facts } from "../ui/parts";
import { Table } from "../ui/table";

const EVERY_MS = 2000;

export function RolloutsPage() {
  const live = useLive("rollouts", (signal) => getAll<Listed<Rollout>>("/rollouts", signal), EVERY_MS);
  return (
    <Page title="Rollouts" intro="Images that several nodes of a cluster asked for lately.">
      <Shown live={live} what="the rollouts" route="GET /api/v1/rollouts">
        {({ items }) =>
          items.length === 0 ? (
            <Empty>No image is being rolled out, and none was lately.</Empty>
          ) : (
            items.map((rollout) => <RolloutCard key={`${rollout.cluster_id}-${rollout.name}`} rollout={rollout} />)
          )
        }
      </Shown>
    </Page>
  );
}

function RolloutCard({ rollout }: { rollout: Rollout }) {
  const { name, nodes_done: done, nodes_wanted: wanted, nodes_total: total, stragglers } = rollout;
  const finished = done >= wanted;
  return (
    <Section title={name} wide>
      <p class="rollout-line">
        <Badge tone={finished ? "good" : "plain"}>{finished ? "done" : "under way"}</Badge>
        <strong>
          {done} of {plural(wanted, "node")}
        </strong>
        <Bar value={done} most={wanted} label="nodes that have all of it" tone={finished ? "good" : "plain"} />
      </p>
      <Facts
        facts={[
          ["Cluster", <a href={`/clusters/${rollout.cluster_id}`}>{rollout.cluster_id}</a>],
          ["Size", bytes(rollout.bytes)],
          ["Began", <Ago time={rollout.started_at} />],
          ["Left", finished ? "nothing" : rollout.eta_seconds === null ? "not known yet" : `about ${duration(rollout.eta_seconds)}`],
          ["Nodes of the cluster", total],
        ]}
      />
      {stragglers.length > 0 && (
        <Table
          caption={`Stragglers of ${name}`}
          showCaption
          rows={stragglers}
          rowKey={(one) => one.host_id}
          columns={[
            { head: "Node", short: true, cell: (one) => <a href={`/hosts/${encodeURIComponent(one.host_id)}`}>{one.hostname || one.host_id}</a> },
            { head: "Has", cell: (one) => <Bar value={one.bytes_done} most={rollout.bytes} label="of the image" /> },
            { head: "Why", cell: (one) => one.reason },
          ]}
        />
      )}
    </Section>
  );
}
