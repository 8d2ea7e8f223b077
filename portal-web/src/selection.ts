/**
 * What is selected: the points that pass every filter. Bit k of a point says that it fails filter k, so that one filter changes
 * without the others being asked again, and a histogram can leave its own filter out.
 */

import { Area, type Corner } from "./area";
import { TICKS, type Column, type Positions, type Region, type Values } from "./types";

export type ViewName = "map" | "globe";

/** A filter as it stands in the address of the page: names and numbers only. */
export type Filter =
  | { kind: "area"; view: ViewName; shape: "lasso" | "box"; corners: Corner[] }
  | { kind: "range"; column: string; lo: number; hi: number }
  | { kind: "category"; column: string; values: string[] }
  | { kind: "region"; name: string }
  | { kind: "class"; name: string }
  | { kind: "where"; text: string }
  | { kind: "rows"; label: string; numbers: number[] };

export function slotOf(filter: Filter): string {
  if (filter.kind === "area") return `area:${filter.view}`;
  if (filter.kind === "range" || filter.kind === "category") return `column:${filter.column}`;
  return filter.kind;
}

/** What a filter is tested on. */
export interface Facts {
  numRows: number;
  ends: Record<ViewName, [[number, number], [number, number]]>;
  positions(view: ViewName): Promise<Positions | null>;
  column(name: string): Column | undefined;
  values(column: Column): Promise<Values>;
  regions: Region[];
  classes: { name: string }[];
  ofClass(): Promise<Uint8Array>;
  where(text: string): Promise<Uint8Array>;
}

const MOST = 16;

export class Selection {
  /** Bit k: the point fails filter k. */
  readonly fails: Uint16Array;
  readonly filters: (Filter | null)[] = Array.from({ length: MOST }, () => null);
  selected: number;
  readonly total: number;
  private listeners: (() => void)[] = [];
  private turn = new Map<string, number>();

  constructor(private facts: Facts) {
    this.total = facts.numRows;
    this.selected = this.total;
    this.fails = new Uint16Array(this.total);
  }

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  get active(): Filter[] {
    return this.filters.filter((filter): filter is Filter => filter !== null);
  }

  find(slot: string): Filter | undefined {
    return this.active.find((filter) => slotOf(filter) === slot);
  }

  bitOf(slot: string): number {
    const at = this.filters.findIndex((filter) => filter !== null && slotOf(filter) === slot);
    return at < 0 ? 0 : 1 << at;
  }

  /** Set a filter, in the place of the one on the same view or column. */
  async set(filter: Filter): Promise<void> {
    const slot = slotOf(filter);
    const turn = (this.turn.get(slot) ?? 0) + 1;
    this.turn.set(slot, turn);
    const passes = await this.passes(filter);
    if (this.turn.get(slot) !== turn) return; // a later change of the same filter came first
    let at = this.filters.findIndex((held) => held !== null && slotOf(held) === slot);
    if (at < 0) at = this.filters.indexOf(null);
    if (at < 0) throw new Error(`There are ${MOST} filters already: remove one first.`);
    this.filters[at] = filter;
    const bit = 1 << at;
    const clear = ~bit;
    for (let i = 0; i < this.total; i++) this.fails[i] = passes(i) ? this.fails[i]! & clear : this.fails[i]! | bit;
    this.changed();
  }

  remove(slot: string): void {
    this.turn.set(slot, (this.turn.get(slot) ?? 0) + 1);
    const at = this.filters.findIndex((held) => held !== null && slotOf(held) === slot);
    if (at < 0) return;
    this.drop(at);
    this.changed();
  }

  /** Remove every filter but the class of the map, which is a choice of map. */
  clear(): void {
    this.filters.forEach((filter, at) => {
      if (filter && filter.kind !== "class") {
        this.turn.set(slotOf(filter), (this.turn.get(slotOf(filter)) ?? 0) + 1);
        this.drop(at);
      }
    });
    this.changed();
  }

  private drop(at: number): void {
    this.filters[at] = null;
    const clear = ~(1 << at);
    for (let i = 0; i < this.total; i++) this.fails[i]! &= clear;
  }

  private changed(): void {
    let selected = 0;
    for (let i = 0; i < this.total; i++) if (this.fails[i] === 0) selected++;
    this.selected = selected;
    for (const listener of this.listeners) listener();
  }

  /** Numbers of the selected points, in their order; `most` of them, evenly spread, where there are more. */
  numbers(most = Infinity): Uint32Array {
    const wanted = Math.min(most, this.selected);
    const found = new Uint32Array(wanted);
    let seen = 0;
    let kept = 0;
    for (let i = 0; i < this.total && kept < wanted; i++) {
      if (this.fails[i] !== 0) continue;
      if (Math.floor(((seen + 1) * wanted) / this.selected) > Math.floor((seen * wanted) / this.selected)) found[kept++] = i;
      seen++;
    }
    return found;
  }

  /** ceil(N / 8) bytes, bit i % 8 of byte i // 8. */
  bitset(): Uint8Array<ArrayBuffer> {
    const bits = new Uint8Array(Math.ceil(this.total / 8));
    for (let i = 0; i < this.total; i++) if (this.fails[i] === 0) bits[i >> 3]! |= 1 << (i & 7);
    return bits;
  }

  private async passes(filter: Filter): Promise<(i: number) => boolean> {
    const facts = this.facts;
    switch (filter.kind) {
      case "area": {
        const positions = await facts.positions(filter.view);
        if (!positions) throw new Error(`This run has no ${filter.view === "map" ? "map" : "places"}: the area can't be shown.`);
        return inArea(filter, positions, facts.ends[filter.view]);
      }
      case "region": {
        const region = facts.regions.find((one) => one.name === filter.name);
        const positions = await facts.positions("globe");
        if (!region || !positions) throw new Error(`There is no region "${filter.name}" here.`);
        return inRegion(region, positions);
      }
      case "range": {
        const column = this.needed(filter.column);
        const values = await facts.values(column);
        // Values travel as float32, the ends of a column as they are: a range up to an end holds what was rounded beyond it.
        const lo = column.min !== null && filter.lo <= column.min ? -Infinity : filter.lo;
        const hi = column.max !== null && filter.hi >= column.max ? Infinity : filter.hi;
        return (i) => values[i]! >= lo && values[i]! <= hi;
      }
      case "category": {
        const column = this.needed(filter.column);
        const values = await facts.values(column);
        const codes = new Set(filter.values.map((value) => column.categories?.indexOf(value) ?? -1));
        return (i) => codes.has(values[i]!);
      }
      case "class": {
        const index = facts.classes.findIndex((one) => one.name === filter.name);
        const ofClass = await facts.ofClass();
        return (i) => ofClass[i] === index;
      }
      case "where": {
        const bits = await facts.where(filter.text);
        return (i) => ((bits[i >> 3]! >> (i & 7)) & 1) === 1;
      }
      case "rows": {
        const held = new Set(filter.numbers);
        return (i) => held.has(i);
      }
    }
  }

  private needed(name: string): Column {
    const column = this.facts.column(name);
    if (!column) throw new Error(`This run has no column "${name}".`);
    return column;
  }
}

function inArea(
  filter: Filter & { kind: "area" }, { x, y }: Positions, ends: [[number, number], [number, number]],
): (i: number) => boolean {
  const [[x0, x1], [y0, y1]] = ends;
  const toX = TICKS / (x1 - x0 || 1);
  const toY = TICKS / (y1 - y0 || 1);
  const area = new Area(filter.corners.map(([cx, cy]): Corner => [(cx - x0) * toX, (cy - y0) * toY]));
  if (filter.view === "map") return (i) => x[i]! <= TICKS && y[i]! <= TICKS && area.contains(x[i]!, y[i]!);
  // Once around the globe is TICKS: an area across 180 degrees reaches beyond the ends.
  return (i) => {
    if (x[i]! > TICKS || y[i]! > TICKS) return false;
    for (let at = x[i]! + TICKS * Math.ceil((area.x0 - x[i]!) / TICKS); at <= area.x1; at += TICKS) {
      if (area.contains(at, y[i]!)) return true;
    }
    return false;
  };
}

function inRegion(region: Region, { x, y }: Positions): (i: number) => boolean {
  const { lon0, lon1, lat0, lat1 } = region;
  const crosses = lon0 > lon1;
  return (i) => {
    if (x[i]! > TICKS || y[i]! > TICKS) return false;
    const lon = (x[i]! * 360) / TICKS - 180;
    const lat = (y[i]! * 180) / TICKS - 90;
    return lat >= lat0 && lat <= lat1 && (crosses ? lon >= lon0 || lon <= lon1 : lon >= lon0 && lon <= lon1);
  };
}
