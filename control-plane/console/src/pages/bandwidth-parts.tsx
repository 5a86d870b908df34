// The parts of the bandwidth page that ask for themselves: zones, limits, top lists.
import { get, getAll } from "../api/client";
import type { Bandwidth, Cluster, Host, Page as Listed, Step, TopPeer, TopTask, ZoneCell } from "../api/types";
import { HeatMap } from "../charts/heat-map";
import { bytes, percent, rate } from "../lib/format";
import { limitOf } from "../lib/scopes";
import { grid, heatMap } from "../lib/series";
import { useLive } from "../live";
import { Empty, Section, Shown } from "../ui/page";
import { Bar, Bytes, Digest } from "../ui/parts";
import { Table } from "../ui/table";
import { type Asked, parametersOf } from "./bandwidth";

const TOP = 10;
/** Nodes are looked up by name at most this often. */
const NAMES_MS = 30_000;
/** Seconds of whole steps that "now" is the mean of. */
const NOW_S = 30;

function useBy<T>(asked: Asked, by: string, limit: number) {
  const key = `by-${by}-${asked.span.key}-${asked.cluster}`;
  const ask = (signal: AbortSignal) => {
    const parameters = parametersOf(asked, Date.now() / 1000);
    parameters.set("by", by);
    parameters.set("per_page", String(limit));
    return get<Listed<T>>(`/bandwidth?${parameters}`, signal);
  };
  return useLive(key, ask, asked.everyMs);
}

export function Zones({ asked }: { asked: Asked }) {
  const live = useBy<ZoneCell>(asked, "zone", 1000);
  return (
    <Section title="Between zones" note="A zone is a location and an IDC. The row's nodes sent to the column's. Kept in steps of 5 minutes, as the lists below.">
      <Shown live={live} what="the zones" route="GET /api/v1/bandwidth?by=zone">
        {({ items }) => {
          const heat = heatMap(items);
          if (heat.total === 0) return <Empty>Nothing went from node to node in this time.</Empty>;
          return (
            <>
              <HeatMap heat={heat} />
              <p class="note">
                {bytes(heat.crossing)} of {bytes(heat.total)} crossed a zone ({percent(heat.crossing, heat.total)}).
              </p>
            </>
          );
        }}
      </Shown>
    </Section>
  );
}

function useNames(asked: Asked): (id: string) => string {
  const ask = async (signal: AbortSignal) => {
    const lists = await Promise.all(["/peers", "/seed-peers"].map((path) => getAll<Listed<Host>>(path, signal)));
    return new Map(lists.flatMap(({ items }) => items.map((host) => [host.id, host.hostname] as const)));
  };
  const live = useLive("names", ask, asked.everyMs > 0 ? NAMES_MS : 0);
  return (id) => live.data?.get(id) ?? id;
}

export function TopPeers({ asked }: { asked: Asked }) {
  const live = useBy<TopPeer>(asked, "peer", TOP);
  const nameOf = useNames(asked);
  return (
    <Section title="Top talkers" note="Nodes that moved most: to others, from others, from origins.">
      <Shown live={live} what="the top talkers" route="GET /api/v1/bandwidth?by=peer">
        {({ items }) => {
          const most = Math.max(...items.map((peer) => peer.bytes), 1);
          return items.length === 0 ? (
            <Empty>No node moved anything in this time.</Empty>
          ) : (
            <Table
              caption="Nodes by bytes moved"
              rows={items}
              rowKey={(peer) => peer.host_id}
              columns={[
                { head: "Node", short: true, cell: (peer) => <a href={`/hosts/${encodeURIComponent(peer.host_id)}`}>{peer.hostname || nameOf(peer.host_id)}</a> },
                { head: "Bytes", number: true, cell: (peer) => <Bytes value={peer.bytes} /> },
                { head: "From origins", number: true, cell: (peer) => bytes(peer.origin_bytes) },
                { head: "Of the most", cell: (peer) => <Bar value={peer.bytes} most={most} label="of what the first one moved" /> },
              ]}
            />
          );
        }}
      </Shown>
    </Section>
  );
}

export function TopTasks({ asked }: { asked: Asked }) {
  const live = useBy<TopTask>(asked, "task", TOP);
  return (
    <Section title="Top tasks" note="Content that moved most.">
      <Shown live={live} what="the top tasks" route="GET /api/v1/bandwidth?by=task">
        {({ items }) => {
          const most = Math.max(...items.map((task) => task.bytes), 1);
          return items.length === 0 ? (
            <Empty>Nothing moved in this time.</Empty>
          ) : (
            <Table
              caption="Tasks by bytes moved"
              rows={items}
              rowKey={(task) => `${task.cluster_id}-${task.task}`}
              columns={[
                { head: "Task", cell: (task) => <Digest task={task.task} link /> },
                { head: "Bytes", number: true, cell: (task) => <Bytes value={task.bytes} /> },
                { head: "From origins", number: true, cell: (task) => bytes(task.origin_bytes) },
                { head: "Of the most", cell: (task) => <Bar value={task.bytes} most={most} label="of what the first one moved" /> },
              ]}
            />
          );
        }}
      </Shown>
    </Section>
  );
}

interface Use {
  host: string;
  cluster: Cluster;
  kind: string;
  used: number;
  limit: number;
}

/** Each node's rate now against what its cluster allows a node, the fullest first. */
export function Limits({ asked, clusters }: { asked: Asked; clusters: Cluster[] }) {
  const ask = (signal: AbortSignal) => {
    const now = Date.now() / 1000;
    const since = Math.floor((now - 2 * NOW_S) / 10) * 10;
    const of = asked.cluster ? `&cluster_id=${asked.cluster}` : "";
    return getAll<Bandwidth>(`/bandwidth?by=host&since=${since}&step=10${of}`, signal).then((answer) => ({ answer, now }));
  };
  const live = useLive(`limits-${asked.cluster}`, ask, asked.everyMs);
  const nameOf = useNames(asked);
  const limited = clusters.filter((cluster) => KINDS.some(({ key }) => limitOf(cluster.config, key) > 0));
  return (
    <Section title="Limit against use" note={`Each node's mean of the last ${NOW_S} s against its cluster's limits; payload, so a full limit shows as a few percent more on the wire.`}>
      {limited.length === 0 ? (
        <Empty>No cluster has limits.</Empty>
      ) : (
        <Shown live={live} what="the use">
          {({ answer, now }) => {
            const steps = grid(answer.since, answer.step, now).x.slice(-NOW_S / answer.step);
            const rows = uses(answer.items, new Set(steps), limited).slice(0, TOP);
            return rows.length === 0 ? (
              <Empty>No node with a limit moved anything just now.</Empty>
            ) : (
              <Table
                caption="Limit against use, the fullest first"
                rows={rows}
                rowKey={(row) => `${row.host}-${row.kind}`}
                columns={[
                  { head: "Node", short: true, cell: (row) => nameOf(row.host) },
                  { head: "Limit of", cell: (row) => row.kind },
                  { head: "Now", number: true, cell: (row) => rate(row.used) },
                  { head: "Limit", number: true, cell: (row) => rate(row.limit) },
                  { head: "Use", cell: (row) => <Bar value={row.used} most={row.limit} label="of the limit" tone={row.used > 0.9 * row.limit ? "warn" : "good"} /> },
                ]}
              />
            );
          }}
        </Shown>
      )}
    </Section>
  );
}

const KINDS = [
  { key: "uploadLimit", label: "upload", of: (step: Step) => step.classes.upload.sent_bytes },
  { key: "downloadLimit", label: "download", of: (step: Step) => step.classes.download.received_bytes },
  { key: "originLimit", label: "origins", of: (step: Step) => step.classes.origin.received_bytes },
] as const;

function uses(items: Step[], steps: Set<number>, clusters: Cluster[]): Use[] {
  const found = new Map<string, Use>();
  const seconds = 10 * Math.max(1, steps.size);
  for (const step of items.filter(({ at }) => steps.has(at))) {
    const cluster = clusters.find(({ id }) => id === step.cluster_id);
    if (!cluster || !step.host_id) continue;
    for (const { key, label, of } of KINDS) {
      const limit = limitOf(cluster.config, key);
      if (limit === 0) continue;
      const use = found.get(`${step.host_id}-${key}`) ?? { host: step.host_id, cluster, kind: label, used: 0, limit };
      use.used += of(step) / seconds;
      found.set(`${step.host_id}-${key}`, use);
    }
  }
  return [...found.values()].filter((use) => use.used > 0).sort((a, b) => b.used / b.limit - a.used / a.limit);
}
