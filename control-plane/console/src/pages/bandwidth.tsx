// What the nodes moved, measured by their kernels: over time by source and by class, between zones, by host and task,
// against its limits, and what it saved.
import { useState } from "preact/hooks";
import { getAll } from "../api/client";
import type { Bandwidth, Cluster, Page as Listed, Step } from "../api/types";
import { Stacked } from "../charts/stacked";
import { bytes, duration, exact, money, percent, rate } from "../lib/format";
import { avoided, CLASSES, delivered, deliveredTotal, FIRST_SPAN, type Grid, grid, latest, onWire, rates, SOURCES, type Span, SPANS, stepsOfNow, sum } from "../lib/series";
import { type Live, useLive } from "../live";
import { useReach } from "../session";
import { CheckField, SelectField } from "../ui/form";
import { Page, Section, Shown } from "../ui/page";
import { Bytes, Tile, Tiles } from "../ui/parts";
import { Table } from "../ui/table";
import { Limits, TopPeers, TopTasks, Zones } from "./bandwidth-parts";

/** Where every second has its step. */
const SECOND_MS = 1000;
const LIVE_MS = 2000;
/** What spans hours does not change by the second. */
const SLOW_MS = 15_000;
const FINE_SPAN_S = 3600;

export interface Asked {
  span: Span;
  /** Empty: all. */
  cluster: string;
  everyMs: number;
}

export function BandwidthPage() {
  const [span, setSpan] = useState(SPANS.find((one) => one.key === FIRST_SPAN)!);
  const reach = useReach();
  const [cluster, setCluster] = useState(reach.length > 0 ? String(reach[0]) : "");
  const [running, setRunning] = useState(true);
  const clusters = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), SLOW_MS);
  const asked: Asked = { span, cluster, everyMs: running ? rhythm(span) : 0 };
  const history = useHistory(asked);
  const choices = (clusters.data?.items ?? []).map(({ id, name }) => ({ value: String(id), label: name }));
  return (
    <Page title="Bandwidth" intro="Bytes on the wire are counted by each node's kernel; what runtimes were given, by where it came from.">
      <form class="filters" aria-label="What to look at" onSubmit={(event) => event.preventDefault()}>
        <SelectField label="The last" value={span.key} onValue={(key) => setSpan(SPANS.find((one) => one.key === key) ?? span)} options={SPANS.map(({ key, label }) => ({ value: key, label }))} />
        <SelectField label="Cluster" value={cluster} onValue={setCluster} options={reach.length > 0 ? choices : [{ value: "", label: "All" }, ...choices]} />
        <CheckField label="Live" checked={running} onChecked={setRunning} />
      </form>
      <Shown live={history} what="the bandwidth">
        {(data) => <History data={data} span={span} />}
      </Shown>
      <div class="cards">
        <Zones asked={asked} />
        <Limits asked={asked} clusters={clusters.data?.items ?? []} />
      </div>
      <div class="cards">
        <TopPeers asked={asked} />
        <TopTasks asked={asked} />
      </div>
    </Page>
  );
}

function rhythm({ step, seconds }: Span): number {
  return step === 1 ? SECOND_MS : seconds <= FINE_SPAN_S ? LIVE_MS : SLOW_MS;
}

export interface Looked extends Bandwidth {
  grid: Grid;
}

/** The question's parameters; `since` moves on with each answer. */
export function parametersOf({ span, cluster }: Asked, now: number): URLSearchParams {
  const since = Math.floor((now - span.seconds) / span.step) * span.step;
  const parameters = new URLSearchParams({ since: String(since), step: String(span.step) });
  if (cluster) parameters.set("cluster_id", cluster);
  return parameters;
}

function useHistory(asked: Asked): Live<Looked> {
  const ask = async (signal: AbortSignal): Promise<Looked> => {
    const now = Date.now() / 1000;
    const parameters = parametersOf(asked, now);
    const answer = await getAll<Bandwidth>(`/bandwidth?${parameters}`, signal);
    return { ...answer, grid: grid(answer.since, answer.step, now) };
  };
  return useLive(`bandwidth-${asked.span.key}-${asked.cluster}`, ask, asked.everyMs);
}

function History({ data, span }: { data: Looked; span: Span }) {
  const { items, grid: steps } = data;
  const bySource = SOURCES.map((source) => ({ ...source, values: rates(items, steps, delivered(source.key)) }));
  const byClass = CLASSES.map((one) => ({ ...one, values: rates(items, steps, onWire(one.key)) }));
  return (
    <>
      <Summary data={data} />
      <Section title="Delivered to runtimes, by source" wide>
        <Stacked title="Delivered to runtimes, by source" x={steps.x} step={steps.step} layers={bySource} />
        <SourceTable items={items} span={span} />
      </Section>
      <Section title="On the wire, by class" note="By the kernel's own count at each node; what one node sends another receives, so a byte between peers shows twice. The nodes' other traffic for comparison." wide>
        <Stacked title="On the wire, by class" x={steps.x} step={steps.step} layers={byClass} />
        <ClassTable items={items} />
      </Section>
    </>
  );
}

function Summary({ data }: { data: Looked }) {
  const { items, saved, grid: steps } = data;
  const total = deliveredTotal(items);
  const origin = sum(items, delivered("origin"));
  const count = stepsOfNow(steps.step);
  const now = SOURCES.reduce((all, { key }) => all + latest(rates(items, steps, delivered(key)), count), 0);
  const spared = saved?.origin_bytes_avoided ?? avoided(items);
  const amount = saved?.money ?? null;
  return (
    <Tiles>
      <Tile id="tile-now" label="Delivers now" value={rate(now)} detail={`mean of the last ${duration(count * steps.step)}`} />
      <Tile id="tile-delivered" label="Delivered" value={bytes(total)} detail={`${exact(total)} bytes`} />
      <Tile id="tile-origin" label="From origins" value={bytes(origin)} detail={`${percent(origin, total)} of what was delivered`} />
      <Tile id="tile-avoided" label="Origin bytes avoided" value={bytes(spared)} detail={`${percent(spared, total)} of what was delivered`} />
      <Tile
        id="tile-money"
        label="Money saved"
        value={amount === null ? "–" : money(amount, saved?.currency ?? "")}
        detail={amount === null ? "no cluster has prices, or they are in several currencies" : "by the clusters' prices"}
      />
    </Tiles>
  );
}

function SourceTable({ items, span }: { items: Step[]; span: Span }) {
  const total = deliveredTotal(items);
  const rows = SOURCES.map((source) => ({ ...source, bytes: sum(items, delivered(source.key)) }));
  return (
    <Table
      caption={`Delivered in the last ${span.label}, by source`}
      rows={rows}
      rowKey={(row) => row.key}
      columns={[
        {
          head: "Source",
          cell: (row) => (
            <>
              <span class="swatch" style={{ background: `var(${row.color})` }} /> {row.label}
            </>
          ),
        },
        { head: "Bytes", number: true, cell: (row) => <Bytes value={row.bytes} /> },
        { head: "In short", number: true, cell: (row) => bytes(row.bytes) },
        { head: "Share", number: true, cell: (row) => percent(row.bytes, total) },
        { head: "Mean rate", number: true, cell: (row) => rate(row.bytes / span.seconds) },
      ]}
      foot={["All", <Bytes value={total} />, bytes(total), percent(total, total), rate(total / span.seconds)]}
    />
  );
}

function ClassTable({ items }: { items: Step[] }) {
  const rows = CLASSES.map((one) => ({
    ...one,
    sent: sum(items, ({ classes }) => classes[one.key].sent_bytes),
    received: sum(items, ({ classes }) => classes[one.key].received_bytes),
  }));
  return (
    <Table
      caption="On the wire, by class and direction"
      rows={rows}
      rowKey={(row) => row.key}
      columns={[
        {
          head: "Class",
          cell: (row) => (
            <>
              <span class="swatch" style={{ background: `var(${row.color})` }} /> {row.label}
            </>
          ),
        },
        { head: "Sent, bytes", number: true, cell: (row) => <Bytes value={row.sent} /> },
        { head: "Received, bytes", number: true, cell: (row) => <Bytes value={row.received} /> },
        { head: "Sent", number: true, cell: (row) => bytes(row.sent) },
        { head: "Received", number: true, cell: (row) => bytes(row.received) },
      ]}
    />
  );
}
