import assert from "node:assert/strict";
import { test } from "node:test";
import { fromHash, START, toHash, type State } from "../src/state";
import { extentOf, number, place, readPlace, shortest, ticks, unitSign } from "../src/words";

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

test("numbers that travelled as float32 are written without digits that nobody measured", () => {
  assert.equal(shortest(Math.fround(64.4156)), 64.4156);
  assert.equal(shortest(1024), 1024);
  assert.equal(typeof shortest(Math.fround(8733994254731234567)), "string");
  for (let i = 0; i < 2000; i++) {
    const value = Math.fround((Math.random() - 0.5) * 10 ** Math.floor(10 * Math.random() - 5));
    assert.equal(Math.fround(Number(shortest(value))), value);
  }
  assert.equal(unitSign("kelvin"), "K");
  assert.equal(unitSign("psu"), "psu");
});

test("the shortest arc that holds all points may cross 180 degrees", () => {
  const ticksOf = (lons: number[]): Uint16Array => Uint16Array.from(lons, (lon) => Math.round(((lon + 180) / 360) * 65534));
  const y = Uint16Array.from([0, 65534, 32767]);
  assert.deepEqual(extentOf({ x: ticksOf([170.5, -170.5, 179.5]), y }), { x0: 170, x1: 190, y0: -90, y1: 90 });
  assert.deepEqual(extentOf({ x: ticksOf([-10.5, 5.5, 0.5]), y: Uint16Array.from([32767, 32767, 32767]) }), { x0: -11, x1: 6, y0: 0, y1: 0 });
  assert.equal(extentOf({ x: Uint16Array.from([65535]), y: Uint16Array.from([65535]) }), null);
  const round = Uint16Array.from({ length: 720 }, (_, i) => Math.round((i / 720) * 65534));
  assert.equal(extentOf({ x: round, y: round })!.x1 - extentOf({ x: round, y: round })!.x0, 360);
});
