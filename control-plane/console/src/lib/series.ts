// From steps of the bandwidth history to what charts and tables show. Pure functions.
// Invariant: no step is counted twice, and what a chart shows is what the table beside it sums up.
import type { Source, Step, TrafficClass, ZoneCell } from "../api/types";

export const SOURCES: readonly { key: Source; label: string; color: string }[] = [
  { key: "local", label: "Local store", color: "--series-local" },
  { key: "peer_same_zone", label: "Peer, same zone", color: "--series-same-zone" },
  { key: "peer_cross_zone", label: "Peer, other zone", color: "--series-cross-zone" },
  { key: "seed", label: "Seed peer", color: "--series-seed" },
  { key: "origin", label: "Origin", color: "--series-origin" },
];

export const CLASSES: readonly { key: TrafficClass; label: string; color: string }[] = [
  { key: "upload", label: "To peers", color: "--series-same-zone" },
  { key: "download", label: "From peers", color: "--series-seed" },
  { key: "origin", label: "From origins", color: "--series-origin" },
  { key: "control", label: "Control", color: "--series-local" },
  { key: "others", label: "Not Hawker's", color: "--series-others" },
];

export const FIRST_SPAN = "15m";

/** A span of time to look at, and the step that gives a chart its points. */
export interface Span {
  key: string;
  label: string;
  seconds: number;
  step: number;
}

/** Steps finer than 300 s are kept for a day only, those of 1 s for 15 minutes. */
export const SPANS: readonly Span[] = [
  { key: "5m", label: "5 minutes", seconds: 300, step: 1 },
  { key: "15m", label: "15 minutes", seconds: 900, step: 10 },
  { key: "1h", label: "1 hour", seconds: 3600, step: 30 },
  { key: "6h", label: "6 hours", seconds: 6 * 3600, step: 120 },
  { key: "24h", label: "24 hours", seconds: 86400, step: 600 },
  { key: "7d", label: "7 days", seconds: 7 * 86400, step: 3600 },
  { key: "30d", label: "30 days", seconds: 30 * 86400, step: 4 * 3600 },
];

export type Pick = (step: Step) => number;

export const delivered = (source: Source): Pick => (step) => step.delivered[source];

/** One direction of a class: uploads leave, everything else comes in; what is not Hawker's and control go both ways. */
export const onWire = (kind: TrafficClass): Pick => ({ classes }) => {
  const { sent_bytes: sent, received_bytes: received } = classes[kind];
  if (kind === "upload") return sent;
  return kind === "download" || kind === "origin" ? received : sent + received;
};

export function sum(steps: readonly Step[], pick: Pick): number {
  return steps.reduce((total, step) => total + pick(step), 0);
}

export function deliveredTotal(steps: readonly Step[]): number {
  return SOURCES.reduce((total, { key }) => total + sum(steps, delivered(key)), 0);
}

/** Bytes per second in each step from `since` to before `until`; steps that nobody reported are 0. */
export function rates(steps: readonly Step[], grid: Grid, pick: Pick): number[] {
  const values = new Array<number>(grid.x.length).fill(0);
  for (const step of steps) {
    const index = Math.floor((step.at - grid.since) / grid.step);
    if (index >= 0 && index < values.length) values[index]! += pick(step) / grid.step;
  }
  return values;
}

export interface Grid {
  since: number;
  step: number;
  x: number[];
}

/** How long a figure may be on its way from a node's counter into the history. */
export const REPORTING_S = 5;

/** The steps of a span that are over and reported: a step under way would look like a drop. */
export function grid(since: number, step: number, now: number): Grid {
  const x: number[] = [];
  for (let at = since; at + step + REPORTING_S <= now; at += step) x.push(at);
  return { since, step, x };
}

/** Each layer on the sum of those before it, the lowest first. */
export function stacked(layers: readonly (readonly number[])[]): number[][] {
  const result: number[][] = [];
  for (const layer of layers) {
    const below = result.at(-1);
    result.push(layer.map((value, index) => value + (below?.[index] ?? 0)));
  }
  return result;
}

/** Seconds that "now" is the mean of, where steps are that fine. */
const NOW_S = 30;

/** How many steps, the last ones, "now" is the mean of. */
export function stepsOfNow(step: number): number {
  return Math.max(1, Math.round(NOW_S / step));
}

/** What the last whole steps carried, bytes per second: the mean of up to `count` of them. */
export function latest(values: readonly number[], count: number): number {
  const last = values.slice(-count);
  return last.length === 0 ? 0 : last.reduce((total, value) => total + value, 0) / last.length;
}

/** What did not cross the link to the origin because a peer, a seed peer or the node itself had it. */
export function avoided(steps: readonly Step[]): number {
  return deliveredTotal(steps) - sum(steps, delivered("origin"));
}

export interface HeatMap {
  zones: string[];
  /** `cells[from][to]`, bytes. */
  cells: number[][];
  largest: number;
  total: number;
  /** Between different zones. */
  crossing: number;
}

export function heatMap(cells: readonly ZoneCell[]): HeatMap {
  const zones = [...new Set(cells.flatMap(({ from, to }) => [from, to]))].sort((a, b) => a.localeCompare(b));
  const at = new Map(zones.map((zone, index) => [zone, index]));
  const table = zones.map(() => zones.map(() => 0));
  for (const { from, to, bytes } of cells) table[at.get(from)!]![at.get(to)!]! += bytes;
  const all = cells.reduce((total, cell) => total + cell.bytes, 0);
  const crossing = cells.filter(({ from, to }) => from !== to).reduce((total, cell) => total + cell.bytes, 0);
  return { zones, cells: table, largest: Math.max(0, ...table.flat()), total: all, crossing };
}
