// Numbers and times as people read them. Pure functions; the exact number stands in the tables beside.
import type { Time } from "../api/types";

const LOCALE = "en-GB";
const STEPS = ["", "k", "M", "G", "T", "P"] as const;
const exactNumber = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 1234567 → "1,234,567". */
export function exact(value: number): string {
  return exactNumber.format(value);
}

/** 1536000 → "1.54 MB": powers of 1000, as links and clouds are sold. */
export function bytes(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : scaled(value, "B");
}

/** Bytes per second → "12.3 Mbit/s". */
export function rate(bytesPerSecond: number): string {
  return scaled(bytesPerSecond * 8, "bit/s");
}

/** Three significant digits, never scientific. */
function scaled(value: number, unit: string): string {
  let [rest, step] = [Math.abs(value), 0];
  // 999.6 would be shown as 1000.
  while (rest >= 999.5 && step < STEPS.length - 1) {
    rest /= 1000;
    step += 1;
  }
  const digits = step === 0 || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
  return `${value < 0 ? "−" : ""}${rest.toFixed(digits)} ${STEPS[step]}${unit}`;
}

/** 0.1234 → "12.3 %"; nothing of nothing is "–". */
export function percent(part: number, whole: number): string {
  if (!(whole > 0)) return "–";
  const share = (100 * part) / whole;
  return `${share === 0 || share >= 99.95 ? share.toFixed(0) : share.toFixed(1)} %`;
}

/** 3725 → "1 h 2 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const units: [number, string][] = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([length]) => whole >= length);
  if (first < 0) return "0 s";
  let rest = whole;
  const parts: string[] = [];
  for (const [length, name] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) parts.push(`${count} ${name}`);
  }
  return parts.join(" ");
}

/** Milliseconds since 1970; NaN where it is no time. */
export function millis(time: Time): number {
  return typeof time === "number" ? time * 1000 : Date.parse(time);
}

/** "25 Nov 2026, 17:03:12", in the browser's time zone. */
export function dateTime(time: Time): string {
  const at = millis(time);
  if (Number.isNaN(at)) return String(time);
  return new Date(at).toLocaleString(LOCALE, { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString(LOCALE);
}

/** "12 s ago", "in 3 d". */
export function ago(time: Time, nowMillis: number): string {
  const seconds = (nowMillis - millis(time)) / 1000;
  if (Number.isNaN(seconds)) return String(time);
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

/** An amount in a currency of the price table; a currency that no standard knows is only written behind. */
export function money(amount: number, currency: string): string {
  try {
    return new Intl.NumberFormat("en-US", { style: "currency", currency }).format(amount);
  } catch {
    return `${amount.toFixed(2)} ${currency}`;
  }
}

/** "sha256:82cbeb56bf80…": enough of a digest to tell it from others. */
export function shortDigest(task: string): string {
  const [, algorithm, hex] = /^([a-z0-9+._-]+):([0-9a-f]{24,})$/.exec(task) ?? [];
  return algorithm && hex ? `${algorithm}:${hex.slice(0, 12)}…` : task.length > 40 ? `${task.slice(0, 40)}…` : task;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${exact(count)} ${count === 1 ? one : many}`;
}
