// What a form sends, and where a refusal is shown.
import { describe, expect, it } from "vitest";
import { withoutIndices } from "../src/api/client";
import type { Cluster, Job } from "../src/api/types";
import { EMPTY_PREHEAT, preheatBody, progressOf } from "../src/lib/jobs";
import { EMPTY_FORM, FORM_FIELDS, limitOf, lines, scopesInWords, toBody, toForm } from "../src/lib/scopes";
import { closest } from "../src/ui/form";

const cluster: Cluster = {
  id: 2,
  name: "cluster-2",
  bio: "",
  is_default: false,
  scopes: { cidrs: ["10.1.0.0/16", "fd00::/8"], idc: "a|b", location: "asia|cn", hostnames: ["gpu-*"] },
  scheduler_cluster_id: 2,
  seed_peer_cluster_id: 2,
  config: { shaper: { uploadLimit: "100Mbps", peers: [{ network: "10.0.0.0/8", weight: 3 }] }, registries: ["https://ghcr.io"] },
  created_at: 0,
  updated_at: 0,
};

describe("refusals", () => {
  it("of an entry are refusals of its list", () => {
    expect(withoutIndices("scopes.cidrs[2]")).toBe("scopes.cidrs");
    expect(withoutIndices("config.shaper.peers[3].weight")).toBe("config.shaper.peers.weight");
  });

  it("are shown at the closest field there is", () => {
    expect(closest("config.shaper.uploadLimit", FORM_FIELDS)).toBe("config.shaper.uploadLimit");
    expect(closest("args.scope.x", ["args.scope"])).toBe("args.scope");
    expect(closest("config.shaper.peers.weight", FORM_FIELDS)).toBeNull();
  });
});

describe("a cluster's form", () => {
  it("sends back what it was given", () => {
    const { scopes, config } = toBody(toForm(cluster), cluster.config);
    expect(scopes).toEqual(cluster.scopes);
    expect(config).toEqual(cluster.config);
  });

  it("takes away what was emptied, and keeps what it does not show", () => {
    const { config } = toBody({ ...toForm(cluster), uploadLimit: " ", yield: true, currency: "EUR", originPerGB: "0.09" }, cluster.config);
    expect(config).toEqual({
      shaper: { peers: [{ network: "10.0.0.0/8", weight: 3 }], yield: true },
      registries: ["https://ghcr.io"],
      prices: { currency: "EUR", originPerGB: 0.09 },
    });
    expect(toBody(EMPTY_FORM, {}).config).toEqual({});
  });

  it("leaves it to the manager to say what is wrong with a value", () => {
    const { config } = toBody({ ...EMPTY_FORM, uploadLimit: "fast", downloadLimit: "1000000", originPerGB: "much" }, {});
    expect(config).toEqual({ shaper: { uploadLimit: "fast", downloadLimit: 1_000_000 }, prices: { originPerGB: "much" } });
  });

  it("reads lists by lines and commas", () => expect(lines(" a\n\nb, c ,\r\n")).toEqual(["a", "b", "c"]));

  it("says scopes in words, long lists in short", () => {
    expect(scopesInWords(cluster.scopes)).toEqual(["CIDR 10.1.0.0/16, fd00::/8", "IDC a|b", "location asia|cn", "host gpu-*"]);
    expect(scopesInWords({ cidrs: ["1", "2", "3", "4", "5"], idc: "", location: "", hostnames: [] })).toEqual(["CIDR 1, 2, 3 and 2 more"]);
  });
});

it.each([
  ["100Mbps", 12_500_000],
  ["12.5MB/s", 12_500_000],
  ["1Gbit/s", 125_000_000],
  ["8MiB/s", 8_388_608],
  [12_500_000, 12_500_000],
  ["0", 0],
  ["fast", 0],
])("a limit of %s is %d bytes a second", (uploadLimit, value) => expect(limitOf({ shaper: { uploadLimit } }, "uploadLimit")).toBe(value));

describe("preheat jobs", () => {
  it("tell an image from a URL", () => {
    expect(preheatBody({ ...EMPTY_PREHEAT, what: " ghcr.io/a/b:v1 ", platforms: "linux/amd64, linux/arm64" })).toEqual({
      type: "preheat",
      args: { image: "ghcr.io/a/b:v1", platforms: ["linux/amd64", "linux/arm64"], cluster_ids: [], scope: "seeds" },
    });
    const { args } = preheatBody({ ...EMPTY_PREHEAT, what: "https://files/x", reach: "some", some: "20%", clusters: [2] });
    expect(args).toEqual({ url: "https://files/x", platforms: [], cluster_ids: [2], scope: "20%" });
  });

  it("sum up their nodes", () => {
    const node = { host_id: "a", hostname: "a", cluster_id: 1, state: "succeeded", bytes_done: 10, bytes_total: 10, error: null };
    const job = { nodes: [node, { ...node, state: "failed", bytes_done: 3 }, { ...node, state: "running", bytes_done: 5 }] } as unknown as Job;
    expect(progressOf(job)).toEqual({ done: 18, total: 30 });
    expect(progressOf({} as Job)).toEqual({ done: 0, total: 0 });
  });
});
