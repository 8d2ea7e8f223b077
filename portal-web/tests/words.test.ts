import assert from "node:assert/strict";
import { test } from "node:test";
import { fromHash, START, toHash, type State } from "../src/state";
import { number, place, readPlace, ticks } from "../src/words";

test("places are read as people write them", () => {
  const monterey = { lat: 36.2, lon: -122.5 };
  for (const text of ["36.2, -122.5", "36.2N 122.5W", "36.2 -122.5", "122.5W, 36.2N", "lat: 36.2 lon: -122.5", "36.2° N, 122.5° W", "(36.2, 237.5)", "36°12'N 122°30'W", "36.2; −122.5"]) {
    const found = readPlace(text);
    assert.ok(found, text);
    assert.ok(Math.abs(found.lat - monterey.lat) < 1e-9 && Math.abs(found.lon - monterey.lon) < 1e-9, `${text}: ${JSON.stringify(found)}`);
  }
});

test("what is no place is none", () => {
  for (const text of ["", "36.2", "1 2 3", "91, 0", "36.2E 122.5W", "0, 361", "hello 1, 2", "36.2N 122.5N", "<b>1,2</b>"]) assert.equal(readPlace(text), null, text);
});

test("numbers and places in words", () => {
  assert.equal(number(0.123456), "0.1235");
  assert.equal(number(3.76e-6), "3.76e-6");
  assert.equal(number(Number.NaN), "unknown");
  assert.equal(place(181, -10), "10.00° S, 179.00° W");
  assert.deepEqual(ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(ticks(2, 2, 5), [2]);
});

test("the state of the page goes into its address and comes back", () => {
  const state: State = {
    ...structuredClone(START), colour: "a & b=c # \"%<script>", query: 12, theme: "dark", map: { x: 1.5, y: -2, k: 30 }, histograms: ["DT", "时间"],
    filters: [{ kind: "area", view: "map", shape: "lasso", corners: [[0, 1], [2, 3], [4, -5]] }, { kind: "category", column: "x", values: ["a,b", "'"] }, { kind: "range", column: "DT", lo: -1, hi: 2 }],
  };
  const hash = toHash(state, START);
  assert.deepEqual(fromHash(hash, START), state);
  assert.deepEqual(fromHash(new URL(`http://127.0.0.1/?token=x${hash}`).hash, START), state);
});

test("an address that is cut off or wrong gives the start", () => {
  const hash = toHash({ ...START, filters: [{ kind: "range", column: "DT", lo: 0, hi: 1 }], query: 3 }, START);
  for (let at = 0; at < hash.length; at++) assert.ok(fromHash(hash.slice(0, at), START).size === 1);
  const wrong = `#filters=${encodeURIComponent('[{"kind":"area","view":"map","shape":"box","corners":[[1]]}]')}&size=1e9&theme="x"&map={"x":null}&query=-4&nearness=3&__proto__=1`;
  assert.deepEqual(fromHash(wrong, START), START);
});
