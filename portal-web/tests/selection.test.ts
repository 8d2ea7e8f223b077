import assert from "node:assert/strict";
import { test } from "node:test";
import { Selection, slotOf, type Facts, type Filter } from "../src/selection";
import type { Column } from "../src/types";

const N = 5000;
let state = 3;
const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
const lon = Uint16Array.from({ length: N }, (_, i) => (i % 50 === 0 ? 65535 : Math.round(random() * 65534)));
const lat = Uint16Array.from({ length: N }, (_, i) => (i % 50 === 0 ? 65535 : Math.round(random() * 65534)));
const DT = Float32Array.from({ length: N }, (_, i) => (i % 7 === 0 ? Number.NaN : random() * 3));
const sensor = Uint16Array.from({ length: N }, (_, i) => (i % 11 === 0 ? 65535 : i % 3));
const of = (name: string, kind: Column["kind"], index: number, categories: string[] | null = null): Column => ({ index, name, kind, unit: null, meaning: null, known: N, min: 0, max: 3, categories });
const columns = [of("DT", "number", 0), of("sensor", "category", 1, ["a", "<b>", "c"])];
const facts: Facts = {
  numRows: N,
  ends: { map: [[-1, 1], [-1, 1]], globe: [[-180, 180], [-90, 90]] },
  positions: async () => ({ x: lon, y: lat }),
  column: (name) => columns.find((column) => column.name === name),
  values: async (column) => [DT, sensor][column.index]!,
  regions: [{ name: "across", lon0: 170, lon1: -160, lat0: -20, lat1: 20 }],
  classes: [{ name: "DT1" }],
  ofClass: async () => new Uint8Array(N),
  where: async () => new Uint8Array(Math.ceil(N / 8)).fill(0b00000101),
};
const degrees = (i: number): [number, number] => [(lon[i]! * 360) / 65534 - 180, (lat[i]! * 180) / 65534 - 90];

function passes(filter: Filter, i: number): boolean {
  const [x, y] = degrees(i);
  const isPlaced = lon[i] !== 65535;
  if (filter.kind === "range") return DT[i]! >= filter.lo && DT[i]! <= filter.hi;
  if (filter.kind === "category") return filter.values.includes(columns[1]!.categories![sensor[i]!] ?? "none");
  if (filter.kind === "region") return isPlaced && (x >= 170 || x <= -160) && Math.abs(y) <= 20;
  if (filter.kind === "where") return i % 8 === 0 || i % 8 === 2;
  if (filter.kind === "rows") return filter.numbers.includes(i);
  return isPlaced && (x > 150 || x < -150) && y > -30 && y < 30; // the box below
}

const FILTERS: Filter[] = [
  { kind: "range", column: "DT", lo: 0.5, hi: 2 },
  { kind: "category", column: "sensor", values: ["<b>", "c"] },
  { kind: "area", view: "globe", shape: "box", corners: [[150, -30], [210, -30], [210, 30], [150, 30]] },
  { kind: "where", text: "DT > 1" },
];

test("what is selected passes every filter, whatever was set and removed before", async () => {
  const selection = new Selection(facts);
  const set: Filter[] = [];
  for (const filter of [...FILTERS, { kind: "region", name: "across" } as Filter]) {
    await selection.set(filter);
    set.push(filter);
    const wanted = Array.from({ length: N }, (_, i) => i).filter((i) => set.every((one) => passes(one, i)));
    assert.deepEqual([...selection.numbers()], wanted);
    assert.equal(selection.selected, wanted.length);
  }
  assert.ok(selection.selected > 0);
  selection.remove(slotOf(FILTERS[0]!));
  const wanted = Array.from({ length: N }, (_, i) => i).filter((i) => set.slice(1).every((one) => passes(one, i)));
  assert.deepEqual([...selection.numbers()], wanted);
  selection.clear();
  assert.equal(selection.selected, N);
});

test("a filter takes the place of the one on the same column", async () => {
  const selection = new Selection(facts);
  await selection.set({ kind: "range", column: "DT", lo: 0, hi: 0.1 });
  await selection.set({ kind: "range", column: "DT", lo: 1, hi: 2 });
  assert.equal(selection.active.length, 1);
  assert.deepEqual([...selection.numbers()], Array.from({ length: N }, (_, i) => i).filter((i) => DT[i]! >= 1 && DT[i]! <= 2));
});

test("of two changes of one filter the later one holds, also if it is answered first", async () => {
  let answer: (bits: Uint8Array) => void = () => {};
  const slow = new Promise<Uint8Array>((resolve) => (answer = resolve));
  const selection = new Selection({ ...facts, where: (text) => (text === "slow" ? slow : facts.where(text)) });
  const first = selection.set({ kind: "where", text: "slow" });
  await selection.set({ kind: "where", text: "quick" });
  answer(new Uint8Array(Math.ceil(N / 8)));
  await first;
  assert.equal(selection.selected, N / 4);
});

test("a range up to the end of a column holds what float32 rounds beyond it", async () => {
  const selection = new Selection({ ...facts, numRows: 2, values: async () => Float32Array.from([0.1, 0.7]), column: () => ({ ...columns[0]!, min: 0.1, max: 0.7 }) });
  await selection.set({ kind: "range", column: "DT", lo: 0.1, hi: 0.7 });
  assert.equal(selection.selected, 2);
});

test("the bitset has the least bit first, and an even sample is in order", async () => {
  const selection = new Selection(facts);
  await selection.set({ kind: "where", text: "x" });
  assert.deepEqual([...selection.bitset()], [...new Uint8Array(N / 8).fill(0b101)]);
  const few = selection.numbers(100);
  assert.equal(few.length, 100);
  assert.ok(few.every((i, at) => at === 0 || i > few[at - 1]!));
  assert.ok(few[0]! < 100 && few.at(-1)! > N - 100);
});

test("more filters than bits are refused", async () => {
  const many = new Selection({ ...facts, column: (name) => ({ ...columns[0]!, name }) });
  for (let i = 0; i < 16; i++) await many.set({ kind: "range", column: `c${i}`, lo: 0, hi: 1 });
  await assert.rejects(many.set({ kind: "range", column: "one more", lo: 0, hi: 1 }), /16 filters/u);
});
