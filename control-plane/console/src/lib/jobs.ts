// Preheat jobs as forms hold them and as pages sum them up. Pure functions.
import type { Job, JobState } from "../api/types";

export interface PreheatForm {
  /** An image's reference, or a URL. */
  what: string;
  platforms: string;
  clusters: number[];
  reach: "seeds" | "all" | "some";
  /** With `some`: `5` nodes, `20%`. */
  some: string;
}

export const EMPTY_PREHEAT: PreheatForm = { what: "", platforms: "", clusters: [], reach: "seeds", some: "" };

/** The manager's names of the form's fields. */
export const PREHEAT_FIELDS = ["args.image", "args.url", "args.platforms", "args.cluster_ids", "args.scope"] as const;

export function preheatBody(form: PreheatForm) {
  const what = form.what.trim();
  const subject = /^[a-z][a-z0-9+.-]*:\/\//i.test(what) ? { url: what } : { image: what };
  const platforms = form.platforms.split(/[\s,]+/).filter(Boolean);
  const scope = form.reach === "some" ? form.some.trim() : form.reach;
  return { type: "preheat", args: { ...subject, platforms, cluster_ids: form.clusters, scope } };
}

export interface Progress {
  /** Bytes. */
  done: number;
  total: number;
}

export function progressOf({ nodes = [] }: Job): Progress {
  return {
    done: nodes.reduce((sum, node) => sum + node.bytes_done, 0),
    total: nodes.reduce((sum, node) => sum + node.bytes_total, 0),
  };
}

export function isOver(state: JobState): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

export function subjectOf({ args, type }: Job): string {
  return args.image || args.url || type;
}
