// The audit log's details: a change shows both values, nothing is left out.
import { expect, it } from "vitest";
import { detailInWords } from "../src/lib/audit";

it.each([
  [null, []],
  [{}, []],
  ["wrong password", ["wrong password"]],
  [{ role: "viewer", cluster_ids: [1, 2] }, ["role: viewer", "cluster_ids: [1,2]"]],
  [{ bio: { before: "", after: "mine" } }, ["bio: (empty) → mine"]],
  [{ config: { before: {}, after: { shaper: { uploadLimit: "9Mbps" } } } }, ['config: {} → {"shaper":{"uploadLimit":"9Mbps"}}']],
  [{ deep: { before: 1 } }, ['deep: {"before":1}']],
])("%j is %j", (detail, words) => expect(detailInWords(detail)).toEqual(words));
