// Charts and tables are made of the same steps: sums must agree, and no step may be lost or counted twice.
import { describe, expect, it } from "vitest";
import type { Source, Step } from "../src/api/types";
import { avoided, delivered, deliveredTotal, grid, heatMap, latest, onWire, rates, SOURCES, stacked, stepsOfNow, sum } from "../src/lib/series";

const none = { sent_bytes: 0, received_bytes: 0 };

function step(at: number, given: Partial<Record<Source, number>>, cluster_id = 1): Step {
  const delivered = { local: 0, peer_same_zone: 0, peer_cross_zone: 0, seed: 0, origin: 0, ...given };
  return { at, cluster_id, delivered, classes: { upload: none, download: none, origin: none, control: none, others: none } };
}

describe("a grid of steps", () => {
  it("ends with the last step that is over and reported", () => {
    // At 1044 the step from 1030 is over, but its last second may still be on its way.
    expect(grid(1000, 10, 1044).x).toEqual([1000, 1010, 1020]);
    expect(grid(1000, 10, 1045).x).toEqual([1000, 1010, 1020, 1030]);
    expect(grid(1000, 10, 1000).x).toEqual([]);
  });

  it("puts each step in its place, of several clusters together", () => {
    const steps = [step(1010, { seed: 100 }), step(1010, { seed: 300 }, 2), step(1030, { seed: 50 }), step(990, { seed: 7 }), step(1040, { seed: 9 })];
    expect(rates(steps, grid(1000, 10, 1045), delivered("seed"))).toEqual([0, 40, 0, 5]);
  });

  it("sums up to what was delivered in the shown steps", () => {
    const steps = Array.from({ length: 90 }, (_, index) => step(1000 + 10 * index, { local: index, peer_same_zone: 3 * index, origin: 7 }));
    const whole = grid(1000, 10, 1905);
    const layers = SOURCES.map(({ key }) => rates(steps, whole, delivered(key)));
    const charted = 10 * layers.flat().reduce((total, value) => total + value, 0);
    expect(charted).toBeCloseTo(deliveredTotal(steps), 6);
    const top = stacked(layers).at(-1)!;
    expect(10 * top.reduce((total, value) => total + value, 0)).toBeCloseTo(deliveredTotal(steps), 6);
  });
});

it("stacks layers on one another", () => {
  expect(stacked([[1, 2], [10, 20], [0, 5]])).toEqual([[1, 2], [11, 22], [11, 27]]);
  expect(stacked([])).toEqual([]);
});

it("counts a byte on the wire in the direction its class has", () => {
  const moved = { sent_bytes: 100, received_bytes: 3 };
  const one: Step = { ...step(0, {}), classes: { upload: moved, download: moved, origin: moved, control: moved, others: moved } };
  expect((["upload", "download", "origin", "control", "others"] as const).map((key) => sum([one], onWire(key)))).toEqual([100, 3, 3, 103, 103]);
});

it("avoids at the origin what came from elsewhere", () => {
  expect(avoided([step(0, { origin: 10, local: 1, seed: 20 }), step(10, { peer_cross_zone: 5 })])).toBe(26);
});

it("takes the mean of the last steps for now", () => {
  expect(latest([100, 1, 2, 3], 3)).toBe(2);
  expect(latest([4], 3)).toBe(4);
  expect(latest([], 3)).toBe(0);
  expect([1, 10, 600].map(stepsOfNow)).toEqual([30, 3, 1]);
});

it("makes a heat map of cells, zones in order, doubles added", () => {
  const heat = heatMap([
    { from: "b", to: "a", bytes: 5 },
    { from: "a", to: "a", bytes: 10 },
    { from: "b", to: "a", bytes: 1 },
    { from: "", to: "b", bytes: 2 },
  ]);
  expect(heat.zones).toEqual(["", "a", "b"]);
  expect(heat.cells).toEqual([
    [0, 0, 2],
    [0, 10, 0],
    [0, 6, 0],
  ]);
  expect([heat.largest, heat.total, heat.crossing]).toEqual([10, 18, 8]);
  expect(heatMap([]).largest).toBe(0);
});
