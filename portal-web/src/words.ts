/** How numbers, places and times are written. */

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
