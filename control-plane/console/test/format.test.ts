// What people read of a number must not say more, or less, than it is.
import { describe, expect, it } from "vitest";
import { ago, bytes, duration, exact, millis, money, percent, plural, rate, shortDigest } from "../src/lib/format";

describe("sizes and rates", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [1234, "1.23 kB"],
    [9994, "9.99 kB"],
    [9996, "10.0 kB"],
    [99_960, "100 kB"],
    [999_499, "999 kB"],
    [999_600, "1.00 MB"],
    [98_585_088, "98.6 MB"],
    [1.5e15, "1.50 PB"],
    [4.2e18, "4200 PB"],
    [-2048, "−2.05 kB"],
  ])("%d bytes are %s", (value, words) => expect(bytes(value)).toBe(words));

  it("says nothing of what is not known", () => expect([bytes(null), bytes(undefined)]).toEqual(["–", "–"]));
  it("counts links in bits", () => expect(rate(12_500_000)).toBe("100 Mbit/s"));
  it("writes exact numbers in groups", () => expect(exact(98_585_088)).toBe("98,585,088"));
});

describe("shares", () => {
  it.each([
    [0, 100, "0 %"],
    [1, 3, "33.3 %"],
    [99.97, 100, "100 %"],
    [1, 0, "–"],
    [0, 0, "–"],
    [Number.NaN, Number.NaN, "–"],
  ])("%d of %d is %s", (part, whole, words) => expect(percent(part, whole)).toBe(words));
});

describe("times", () => {
  it.each([
    [0.2, "0 s"],
    [59.6, "1 min"],
    [3725, "1 h 2 min"],
    [86_400, "1 d"],
    [90_061, "1 d 1 h"],
    [-5, "0 s"],
  ])("%d s are %s", (seconds, words) => expect(duration(seconds)).toBe(words));

  it("takes seconds and RFC 3339 for the same", () => {
    expect(millis(1_764_090_192)).toBe(millis("2025-11-25T17:03:12Z"));
    expect(millis("soon")).toBeNaN();
  });
  it("says how long ago, and how long until", () => {
    expect(ago(100, 112_000)).toBe("12 s ago");
    expect(ago(100, 40_000)).toBe("in 1 min");
    expect(ago(100, 100_200)).toBe("now");
    expect(ago("soon", 0)).toBe("soon");
  });
});

it("writes money in any currency, known or not", () => {
  expect(money(18.434, "USD")).toBe("$18.43");
  expect(money(18.434, "EUR")).toBe("€18.43");
  expect(money(3, "beads")).toBe("3.00 beads");
});

it("shortens digests and nothing that is short", () => {
  expect(shortDigest(`sha256:${"82cbeb56bf80".padEnd(64, "0")}`)).toBe("sha256:82cbeb56bf80…");
  expect(shortDigest("sha256:abc")).toBe("sha256:abc");
  expect(shortDigest("x".repeat(80))).toHaveLength(41);
});

it("counts one and many", () => expect([plural(1, "host"), plural(0, "host"), plural(2, "entry", "entries")]).toEqual(["1 host", "0 hosts", "2 entries"]));
