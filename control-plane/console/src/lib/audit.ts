// What an entry of the audit log says in its detail, in words. Pure functions.
import type { Json } from "../api/types";

/** `{bio: {before: "a", after: "b"}, role: "viewer"}` → ["bio: a → b", "role: viewer"]. */
export function detailInWords(detail: Json): string[] {
  if (detail === null || detail === "") return [];
  if (typeof detail !== "object" || Array.isArray(detail)) return [word(detail)];
  return Object.entries(detail).map(([name, value]) => {
    const change = value !== null && typeof value === "object" && !Array.isArray(value) && "before" in value && "after" in value;
    return change ? `${name}: ${word(value.before)} → ${word(value.after)}` : `${name}: ${word(value)}`;
  });
}

function word(value: Json | undefined): string {
  if (value === "" || value === undefined) return "(empty)";
  return typeof value === "string" ? value : JSON.stringify(value);
}
