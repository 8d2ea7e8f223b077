/** Colours of points: a palette over the values of a column, or one colour for each category. */

import { NOWHERE, type Column, type Values } from "./types";

/** Okabe and Ito's eight, told apart by the colour-blind; the last one is for all further categories. */
export const CATEGORIES: [number, number, number][] = [
  [0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [180, 165, 20], [120, 94, 240],
];
export const FURTHER: [number, number, number] = [120, 120, 120];
export const UNKNOWN = 255;

export interface Colouring {
  column: Column;
  /** Index of the colour of each point, by number. */
  codes: Uint8Array;
  /** Ends of the colour bar (numbers and times). */
  limits: [number, number] | null;
  /** What the colours mean (categories). */
  key: { text: string; colour: [number, number, number]; count: number }[] | null;
  unknown: number;
}

/** Ends that leave out the outermost hundredth on each side, from 20,000 values at most. */
export function usualLimits(values: ArrayLike<number>): [number, number] | null {
  const step = Math.max(1, Math.floor(values.length / 20_000));
  const sample: number[] = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i]!)) sample.push(values[i]!);
  if (!sample.length) for (let i = 0; i < values.length && sample.length < 20_000; i++) if (Number.isFinite(values[i]!)) sample.push(values[i]!);
  if (!sample.length) return null;
  sample.sort((a, b) => a - b);
  const lo = sample[Math.floor(0.01 * (sample.length - 1))]!;
  const hi = sample[Math.ceil(0.99 * (sample.length - 1))]!;
  return hi > lo ? [lo, hi] : [sample[0]!, sample.at(-1)!];
}

export function colouringOf(column: Column, values: Values, wanted: [number, number] | null = null): Colouring {
  const n = values.length;
  const codes = new Uint8Array(n);
  let unknown = 0;
  if (column.kind === "category") {
    const names = column.categories ?? [];
    const counts = new Uint32Array(names.length);
    for (let i = 0; i < n; i++) if (values[i]! < names.length) counts[values[i]!]!++;
    const byCount = names.map((_, code) => code).sort((a, b) => counts[b]! - counts[a]! || a - b);
    const place = new Uint8Array(names.length);
    byCount.forEach((code, rank) => (place[code] = Math.min(rank, CATEGORIES.length)));
    for (let i = 0; i < n; i++) {
      const code = values[i]!;
      if (code >= names.length || code === NOWHERE) {
        codes[i] = UNKNOWN;
        unknown++;
      } else codes[i] = place[code]!;
    }
    const key = byCount.slice(0, CATEGORIES.length).map((code, rank) => ({ text: names[code]!, colour: CATEGORIES[rank]!, count: counts[code]! }));
    const rest = byCount.slice(CATEGORIES.length);
    if (rest.length) key.push({ text: `${rest.length} more`, colour: FURTHER, count: rest.reduce((sum, code) => sum + counts[code]!, 0) });
    return { column, codes, limits: null, key, unknown };
  }
  const limits = wanted ?? usualLimits(values);
  const [lo, hi] = limits ?? [0, 1];
  const per = hi > lo ? 254 / (hi - lo) : 0;
  for (let i = 0; i < n; i++) {
    const value = values[i]!;
    if (!Number.isFinite(value)) {
      codes[i] = UNKNOWN;
      unknown++;
    } else codes[i] = Math.max(0, Math.min(254, Math.round((value - lo) * per)));
  }
  return { column, codes, limits, key: null, unknown };
}

/** The 256 colours of a drawing, RGB; the last is that of the unknown. */
export function tableOf(colouring: Colouring | null, palette: Uint8Array | null, single: [number, number, number], unknown: [number, number, number]): Uint8Array {
  const table = new Uint8Array(768);
  if (!colouring) for (let i = 0; i < 256; i++) table.set(single, 3 * i);
  else if (colouring.key) {
    for (let i = 0; i < 256; i++) table.set(CATEGORIES[i] ?? FURTHER, 3 * i);
  } else if (palette) table.set(palette.subarray(0, 768));
  if (colouring) table.set(unknown, 3 * UNKNOWN);
  return table;
}

export function parseColour(text: string): [number, number, number] {
  const hex = /^#(..)(..)(..)$/u.exec(text.trim());
  return hex ? [parseInt(hex[1]!, 16), parseInt(hex[2]!, 16), parseInt(hex[3]!, 16)] : [128, 128, 128];
}
