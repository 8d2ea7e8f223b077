/** How numbers, places and times are written. */

import { TICKS, type Positions } from "./types";

const WHOLE = new Intl.NumberFormat("en-GB");

export function count(n: number): string {
  return WHOLE.format(n);
}

/** Four significant digits, without trailing zeros. */
export function number(value: unknown, digits = 4): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return "unknown";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

export function place(lon: number, lat: number): string {
  const east = ((lon + 540) % 360) - 180;
  return `${Math.abs(lat).toFixed(2)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(east).toFixed(2)}° ${east < 0 ? "W" : "E"}`;
}

export function time(ms: number): string {
  if (!Number.isFinite(ms) || Math.abs(ms) > 8.64e15) return "unknown";
  return new Date(ms).toISOString().slice(0, 16).replace("T", " ");
}

export function date(ms: number): string {
  return time(ms).slice(0, 10);
}

/**
 * Read a place as people paste it: "36.2, -122.5", "36.2N 122.5W", "36°12'N, 122°30'W", "122.5W 36.2N". Latitude comes first
 * where no letter tells. Longitudes 0..360 are taken too. Null where it is not a place.
 */
export function readPlace(text: string): { lon: number; lat: number } | null {
  const part = /([+-]?\d+(?:\.\d+)?)\s*(?:°\s*)?(?:(\d+(?:\.\d+)?)\s*['′]\s*)?(?:(\d+(?:\.\d+)?)\s*["″]\s*)?([NSEW])?/giu;
  const cleaned = text.replaceAll("−", "-").replace(/\b(lat|lon|latitude|longitude)\b\s*[:=]?/giu, " ").trim();
  if (cleaned.replace(part, "").replace(/[\s,;()[\]]/gu, "") !== "") return null;
  const found = [...cleaned.matchAll(part)];
  if (found.length !== 2) return null;
  const values = found.map((match) => {
    const degrees = Math.abs(Number(match[1])) + Number(match[2] ?? 0) / 60 + Number(match[3] ?? 0) / 3600;
    const letter = (match[4] ?? "").toUpperCase();
    const negative = match[1]!.startsWith("-") !== (letter === "S" || letter === "W");
    return { value: negative ? -degrees : degrees, letter };
  });
  const turned = /[EW]/u.test(values[0]!.letter) || /[NS]/u.test(values[1]!.letter);
  const [first, second] = turned ? [values[1]!, values[0]!] : [values[0]!, values[1]!];
  if (/[EW]/u.test(first.letter) || /[NS]/u.test(second.letter)) return null;
  if (Math.abs(first.value) > 90 || second.value < -180 || second.value > 360) return null;
  return { lat: first.value, lon: second.value > 180 ? second.value - 360 : second.value };
}

/** Round steps of 1, 2 or 5 over [lo, hi], about `wanted` of them. */
export function ticks(lo: number, hi: number, wanted: number): number[] {
  if (!(hi > lo)) return [lo];
  const raw = (hi - lo) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw)! * power;
  const found: number[] = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

const SHORT: Record<string, string> = {
  kelvin: "K", degree_kelvin: "K", degrees_kelvin: "K", celsius: "°C", degree_celsius: "°C", degrees_celsius: "°C", degc: "°C", deg_c: "°C",
  degree: "°", degrees: "°", degrees_north: "° N", degrees_east: "° E", degree_north: "° N", degree_east: "° E", meter: "m", metre: "m", meters: "m", metres: "m", "1": "",
};

/** The sign of a unit whose name is written out, as CF files have it. */
export function unitSign(unit: string | null): string | null {
  return unit === null ? null : (SHORT[unit.toLowerCase()] ?? unit);
}

/** The shortest number that is the same as float32; one that float32 can't hold to the last digit is text that says so. */
export function shortest(value: number): number | string {
  for (let digits = 6; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return Math.abs(value) > 2 ** 24 ? short.toExponential() : short;
  }
  return value;
}

/**
 * Where points lie around the globe: the shortest arc of longitude that holds all, and their latitudes, in degrees. Arcs across
 * 180 degrees reach beyond it. Null where no point has a place.
 */
export function extentOf({ x, y }: Positions): { x0: number; x1: number; y0: number; y1: number } | null {
  const held = new Uint8Array(360);
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < x.length; i++) {
    if (x[i]! > TICKS || y[i]! > TICKS) continue;
    held[Math.min(359, Math.floor((x[i]! * 360) / TICKS))] = 1;
    if (y[i]! < low) low = y[i]!;
    if (y[i]! > high) high = y[i]!;
  }
  if (low > high) return null;
  // The longest run of empty degrees is what is left out.
  let longest = 0;
  let end = 0;
  for (let at = 0, run = 0; at < 720; at++) {
    run = held[at % 360] ? 0 : run + 1;
    if (run > longest && run <= 360) {
      longest = run;
      end = at + 1;
    }
  }
  const x0 = (end % 360) - 180;
  return { x0, x1: x0 + 360 - longest, y0: (low * 180) / TICKS - 90, y1: (high * 180) / TICKS - 90 };
}
