// Clusters as forms hold them: lists as lines of text, the configuration's known keys as fields. Pure functions.
// Invariant: what a form does not show of a cluster's configuration is sent back as it came.
import type { Cluster, Json, JsonObject, Scopes } from "../api/types";

export interface ClusterForm {
  name: string;
  bio: string;
  is_default: boolean;
  cidrs: string;
  idc: string;
  location: string;
  hostnames: string;
  uploadLimit: string;
  perPeerLimit: string;
  downloadLimit: string;
  originLimit: string;
  yield: boolean;
  currency: string;
  originPerGB: string;
  crossZonePerGB: string;
}

export const EMPTY_FORM: ClusterForm = {
  name: "",
  bio: "",
  is_default: false,
  cidrs: "",
  idc: "",
  location: "",
  hostnames: "",
  uploadLimit: "",
  perPeerLimit: "",
  downloadLimit: "",
  originLimit: "",
  yield: false,
  currency: "",
  originPerGB: "",
  crossZonePerGB: "",
};

/** The manager's names of what the form has, for refusals. */
export const FORM_FIELDS = [
  "name",
  "bio",
  "is_default",
  "scopes.cidrs",
  "scopes.idc",
  "scopes.location",
  "scopes.hostnames",
  "config.shaper.uploadLimit",
  "config.shaper.perPeerLimit",
  "config.shaper.downloadLimit",
  "config.shaper.originLimit",
  "config.shaper.yield",
  "config.prices.currency",
  "config.prices.originPerGB",
  "config.prices.crossZonePerGB",
] as const;

const LIMITS = ["uploadLimit", "perPeerLimit", "downloadLimit", "originLimit"] as const;
const PRICES = ["originPerGB", "crossZonePerGB"] as const;

export function toForm(cluster: Cluster): ClusterForm {
  const { name, bio, is_default, scopes, config } = cluster;
  const [shaper, prices] = [object(config.shaper), object(config.prices)];
  const form: ClusterForm = {
    ...EMPTY_FORM,
    name,
    bio,
    is_default,
    cidrs: scopes.cidrs.join("\n"),
    idc: scopes.idc,
    location: scopes.location,
    hostnames: scopes.hostnames.join("\n"),
    yield: shaper.yield === true,
    currency: text(prices.currency),
  };
  for (const key of LIMITS) form[key] = text(shaper[key]);
  for (const key of PRICES) form[key] = text(prices[key]);
  return form;
}

export interface ClusterBody {
  name: string;
  bio: string;
  is_default?: boolean;
  scopes: Scopes;
  config: JsonObject;
}

/** What is sent; `config` is the one that the form began with. */
export function toBody(form: ClusterForm, config: JsonObject): ClusterBody {
  const [shaper, prices] = [{ ...object(config.shaper) }, { ...object(config.prices) }];
  for (const key of LIMITS) set(shaper, key, rateOrText(form[key]));
  set(shaper, "yield", form.yield ? true : undefined);
  set(prices, "currency", form.currency.trim() || undefined);
  for (const key of PRICES) set(prices, key, numberOrText(form[key]));
  const wanted = { ...config };
  set(wanted, "shaper", Object.keys(shaper).length > 0 ? shaper : undefined);
  set(wanted, "prices", Object.keys(prices).length > 0 ? prices : undefined);
  return {
    name: form.name,
    bio: form.bio,
    is_default: form.is_default,
    scopes: { cidrs: lines(form.cidrs), idc: form.idc.trim(), location: form.location.trim(), hostnames: lines(form.hostnames) },
    config: wanted,
  };
}

/** One entry a line, commas as well; blank ones are none. */
export function lines(text: string): string[] {
  return text
    .split(/[\n,]/)
    .map((line) => line.trim())
    .filter(Boolean);
}

/** A cluster's scopes in a line. */
export function scopesInWords({ cidrs, idc, location, hostnames }: Scopes): string[] {
  const some = (kind: string, values: string[]) => {
    if (values.length === 0) return [];
    const more = values.length > 3 ? ` and ${values.length - 3} more` : "";
    return [`${kind} ${values.slice(0, 3).join(", ")}${more}`];
  };
  const one = (kind: string, value: string) => (value ? [`${kind} ${value}`] : []);
  return [...some("CIDR", cidrs), ...one("IDC", idc), ...one("location", location), ...some("host", hostnames)];
}

function set(target: JsonObject, key: string, value: Json | undefined) {
  if (value === undefined) delete target[key];
  else target[key] = value;
}

/** "" is no limit; a number is bytes per second; what is neither goes to the manager, which says what is wrong with it. */
function rateOrText(value: string): Json | undefined {
  const trimmed = value.trim();
  if (trimmed === "") return undefined;
  return /^\d+$/.test(trimmed) ? Number(trimmed) : trimmed;
}

function numberOrText(value: string): Json | undefined {
  const trimmed = value.trim();
  if (trimmed === "") return undefined;
  const number = Number(trimmed);
  return Number.isNaN(number) ? trimmed : number;
}

function object(value: Json | undefined): JsonObject {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

function text(value: Json | undefined): string {
  return value === undefined || value === null ? "" : String(value);
}

/** Bytes per second of a limit as people write it: `100Mbps`, `12.5MB/s`, 12500000; 0: none, or not understood. */
export function limitOf(config: JsonObject, key: (typeof LIMITS)[number]): number {
  const value = object(config.shaper)[key];
  if (typeof value === "number") return value;
  const [, figure, scale, unit] = /^\s*([\d.]+)\s*([kKMGT]?)(i?(?:bps|bit\/s|B\/s))\s*$/.exec(text(value)) ?? [];
  if (!figure || !unit) return 0;
  const base = unit.startsWith("i") ? 1024 : 1000;
  const power = { "": 0, k: 1, K: 1, M: 2, G: 3, T: 4 }[scale ?? ""] ?? 0;
  return (Number(figure) * base ** power) / (unit.endsWith("B/s") ? 1 : 8);
}
