// All clusters with what is alive in each and what it moves now.
import { getAll } from "../api/client";
import type { Bandwidth, Cluster, Page as Listed } from "../api/types";
import { plural, rate } from "../lib/format";
import { deliveredTotal, grid } from "../lib/series";
import { scopesInWords } from "../lib/scopes";
import { useLive } from "../live";
import { useMay, useReach } from "../session";
import { Page, Shown } from "../ui/page";
import { Badge, type Tone } from "../ui/parts";
import { Table } from "../ui/table";

const EVERY_MS = 2000;
/** What "now" is in the history: its last whole steps within this. */
const RECENT_S = 60;
const STEP_S = 10;

export function ClustersPage() {
  const clusters = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), EVERY_MS);
  const reach = useReach();
  const recent = useLive("recent", (signal) => recentRates(reach, signal), 2 * EVERY_MS);
  const may = useMay("operator");
  const now = (id: number) => recent.data?.get(id) ?? 0;
  const add = may && (
    <a class="button primary" href="/clusters/new">
      Add cluster
    </a>
  );
  return (
    <Page title="Clusters" actions={add} intro="A node belongs to the cluster whose scopes match it best, and fetches from nodes of that cluster only.">
      <Shown live={clusters} what="the clusters">
        {({ items }) => (
          <Table
            caption={`${plural(items.length, "cluster")}`}
            rows={items}
            rowKey={(cluster) => cluster.id}
            columns={[
              { head: "Name", short: true, cell: (cluster) => <a href={`/clusters/${cluster.id}`}>{cluster.name}</a> },
              { head: "State", cell: (cluster) => <ClusterState cluster={cluster} /> },
              { head: "Peers", number: true, cell: ({ live }) => live?.peers ?? "–" },
              { head: "Seed peers", number: true, cell: ({ live }) => live?.seed_peers ?? "–" },
              { head: "Schedulers", number: true, cell: ({ live }) => live?.schedulers ?? "–" },
              { head: "Delivers now", number: true, cell: (cluster) => rate(now(cluster.id)) },
              { head: "Takes nodes by", cell: (cluster) => <ScopeList cluster={cluster} /> },
              { head: "Id", number: true, cell: (cluster) => cluster.id },
            ]}
          />
        )}
      </Shown>
    </Page>
  );
}

/** Bytes per second that each cluster gives to its runtimes. */
async function recentRates(reach: number[], signal: AbortSignal): Promise<Map<number, number>> {
  const now = Date.now() / 1000;
  const since = Math.floor((now - RECENT_S) / STEP_S) * STEP_S;
  const path = `/bandwidth?since=${since}&step=${STEP_S}`;
  const paths = reach.length > 0 ? reach.map((id) => `${path}&cluster_id=${id}`) : [path];
  const answers = await Promise.all(paths.map((one) => getAll<Bandwidth>(one, signal)));
  const items = answers.flatMap((answer) => answer.items);
  const whole = new Set(grid(since, STEP_S, now).x.slice(-3));
  const sums = new Map<number, number>();
  for (const step of items.filter(({ at }) => whole.has(at))) {
    sums.set(step.cluster_id, (sums.get(step.cluster_id) ?? 0) + deliveredTotal([step]) / (whole.size * STEP_S));
  }
  return sums;
}

export function ClusterState({ cluster: { live } }: { cluster: Cluster }) {
  const [tone, words] = stateOf(live);
  return <Badge tone={tone}>{words}</Badge>;
}

function stateOf(live: Cluster["live"]): [Tone, string] {
  if (!live) return ["plain", "not known"];
  if (live.schedulers === 0 && live.peers + live.seed_peers === 0) return ["plain", "empty"];
  if (live.schedulers === 0) return ["bad", "no scheduler"];
  if (live.peers + live.seed_peers === 0) return ["plain", "no nodes yet"];
  return ["good", "working"];
}

function ScopeList({ cluster }: { cluster: Cluster }) {
  const words = scopesInWords(cluster.scopes);
  return (
    <>
      {cluster.is_default && <Badge>default</Badge>} {words.length > 0 ? words.join(" · ") : cluster.is_default ? "" : "nothing: no scopes"}
    </>
  );
}
