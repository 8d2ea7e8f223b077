import assert from "node:assert/strict";
import { test } from "node:test";
import { Area, thinned, type Corner } from "../src/area";

/** The crossing test, edge by edge. */
function plain(corners: Corner[], x: number, y: number): boolean {
  let inside = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const [ax, ay] = corners[j]!;
    const [bx, by] = corners[i]!;
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

let state = 7;
const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;

test("the points of a lasso are those of the plain crossing test", () => {
  for (let round = 0; round < 60; round++) {
    // Whole numbers, as the positions are: many points lie on corners and edges.
    const size = round % 2 ? 65534 : 40;
    const corners: Corner[] = Array.from({ length: 3 + Math.floor(random() * 60) }, () => [Math.floor(random() * size), Math.floor(random() * size)]);
    const area = new Area(corners);
    for (let i = 0; i < 3000; i++) {
      const x = Math.floor(random() * size);
      const y = Math.floor(random() * size);
      const wanted = x >= area.x0 && x <= area.x1 && plain(corners, x, y);
      assert.equal(area.contains(x, y), wanted, `${x}, ${y} of ${JSON.stringify(corners)}`);
    }
  }
});

test("an area without a height holds nothing, and asks nothing of a band that is not there", () => {
  const area = new Area([[0, 5], [10, 5], [4, 5]]);
  assert.equal(area.contains(4, 5), false);
  assert.equal(area.contains(4, Number.NaN), false);
});

test("corners close to each other are dropped", () => {
  assert.deepEqual(thinned([[0, 0], [0.5, 0], [3, 0], [3, 1], [3, 4]], 2), [[0, 0], [3, 0], [3, 4]]);
});
