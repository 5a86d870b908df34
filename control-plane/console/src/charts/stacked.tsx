// A chart of rates over time, layers on one another, drawn by uPlot. The same numbers stand in a table under it.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { bytes, clock, dateTime, rate } from "../lib/format";
import { stacked } from "../lib/series";
import { Table } from "../ui/table";

export interface Layer {
  key: string;
  label: string;
  /** Name of a custom property. */
  color: string;
  /** Bytes per second at each x. */
  values: number[];
}

export interface StackedProps {
  title: string;
  /** Seconds since 1970. */
  x: number[];
  /** Seconds between two points. */
  step: number;
  layers: Layer[];
  /** A line across: what is allowed, bytes per second. */
  limit?: { label: string; value: number } | null;
}

const HEIGHT_PX = 260;

export function Stacked({ title, x, step, layers, limit }: StackedProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [at, setAt] = useState<number | null>(null);
  const scheme = useScheme();
  const shape = layers.map((layer) => layer.key).join() + (limit ? "+limit" : "");
  const data = toData(x, layers, limit?.value);
  const current = useRef(data);
  current.current = data;

  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const made = new uPlot(options(element, layers, limit?.label, setAt), current.current, element);
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, scheme]);
  useEffect(() => plot.current?.setData(data), [data]);

  const index = at ?? x.length - 1;
  const total = layers.reduce((sum, layer) => sum + (layer.values[index] ?? 0), 0);
  return (
    <figure class="chart">
      <div ref={place} class="chart-place" role="img" aria-label={`${title}; the numbers are in the table below`} />
      <figcaption>
        <ul class="legend">
          {[...layers].reverse().map((layer) => (
            <li key={layer.key}>
              <span class="swatch" style={{ background: `var(${layer.color})` }} />
              <span class="legend-label">{layer.label}</span>
              <span class="legend-value">{rate(layer.values[index] ?? 0)}</span>
            </li>
          ))}
          <li class="legend-total">
            <span class="legend-label">{at === null || x[index] === undefined ? "All" : `All, ${clock(x[index])}`}</span>
            <span class="legend-value">{rate(total)}</span>
          </li>
          {limit && (
            <li>
              <span class="swatch dashed" />
              <span class="legend-label">{limit.label}</span>
              <span class="legend-value">{rate(limit.value)}</span>
            </li>
          )}
        </ul>
      </figcaption>
      <NumbersTable title={title} x={x} step={step} layers={layers} />
    </figure>
  );
}

/** The chart's points, newest first, in bytes. */
function NumbersTable({ title, x, step, layers }: Pick<StackedProps, "title" | "x" | "step" | "layers">) {
  const [open, setOpen] = useState(false);
  const rows = x.map((_, index) => x.length - 1 - index);
  return (
    <details class="numbers" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Numbers: {title.toLowerCase()}</summary>
      {open && (
        <Table
          caption={`${title}: bytes in each step of ${step} s, newest first`}
          showCaption
          rows={rows}
          rowKey={(index) => x[index] ?? index}
          columns={[
            { head: "From", cell: (index) => dateTime(x[index] ?? 0) },
            ...layers.map((layer) => ({ head: layer.label, number: true, cell: (index: number) => bytes((layer.values[index] ?? 0) * step) })),
            { head: "All", number: true, cell: (index) => bytes(step * layers.reduce((sum, layer) => sum + (layer.values[index] ?? 0), 0)) },
          ]}
        />
      )}
    </details>
  );
}

function toData(x: number[], layers: Layer[], limit: number | undefined): uPlot.AlignedData {
  // Drawn from the highest down, so that each layer's fill ends where the next begins.
  const sums = stacked(layers.map((layer) => layer.values.map((value) => value * 8))).reverse();
  const line = limit === undefined ? [] : [x.map(() => limit * 8)];
  return [x, ...sums, ...line];
}

function options(element: HTMLElement, layers: Layer[], limit: string | undefined, hover: (index: number | null) => void): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim() || "#888";
  const font = `12px ${style.fontFamily}`;
  const axis = { stroke: color("--text-soft"), font, grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
  const areas = [...layers].reverse().map((layer) => ({ label: layer.label, stroke: color(layer.color), fill: color(layer.color), width: 1, points: { show: false } }));
  const line = limit === undefined ? [] : [{ label: limit, stroke: color("--text"), width: 1.5, dash: [6, 4], points: { show: false } }];
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.05, 1000)] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map(tickTime(ticks)) },
      { ...axis, size: 84, values: (_, ticks) => ticks.map((tick) => rate(tick / 8)) },
    ],
    series: [{}, ...areas, ...line],
    hooks: { setCursor: [(plot) => hover(plot.cursor.idx ?? null)] },
  };
}

/** Days where the axis spans several, else times. */
function tickTime(ticks: number[]): (tick: number) => string {
  const span = (ticks.at(-1) ?? 0) - (ticks[0] ?? 0);
  const days: Intl.DateTimeFormatOptions = { day: "numeric", month: "short" };
  const times: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", ...(span < 300 ? { second: "2-digit" } : {}) };
  return (tick) => new Date(tick * 1000).toLocaleString("en-GB", span > 2 * 86400 ? days : times);
}

/** Changes with the colour scheme: what is drawn on a canvas does not follow by itself. */
function useScheme(): boolean {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setDark(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);
  return dark;
}
