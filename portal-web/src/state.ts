/** The state of the page, as it stands behind the # of its address. Columns, classes and regions go by their names. */

import type { Filter } from "./selection";
import type { Camera, Drawing } from "./plane";
import type { Nearness } from "./types";

export interface State {
  colour: string;
  limits: [number, number] | null;
  palette: string;
  cutouts: string;
  size: number;
  opacity: number;
  drawing: Drawing;
  below: "histograms" | "table";
  side: "gallery" | "like";
  tab: string;
  theme: "auto" | "light" | "dark";
  histograms: string[];
  filters: Filter[];
  query: number | null;
  nearness: Nearness;
  map: Camera | null;
  globe: Camera | null;
  sort: string;
}

export const START: State = {
  colour: "", limits: null, palette: "viridis", cutouts: "RdYlBu_r", size: 1, opacity: 1, drawing: "auto", below: "histograms", side: "gallery",
  tab: "map", theme: "auto", histograms: [], filters: [], query: null, nearness: { k: 20, where: "", minDistance: 0, minHours: 0 },
  map: null, globe: null, sort: "",
};

/** Only what differs from the start, so that addresses stay short. */
export function toHash(state: State, start: State): string {
  const parts: string[] = [];
  for (const name of Object.keys(START) as (keyof State)[]) {
    const text = JSON.stringify(state[name]);
    // Commas and colons may stand in an address as they are, and there are many.
    if (text !== JSON.stringify(start[name])) parts.push(`${name}=${encodeURIComponent(text).replaceAll("%2C", ",").replaceAll("%3A", ":")}`);
  }
  return `#${parts.join("&")}`;
}

/** Read an address; what it does not say, or says in a wrong form, is as at the start. */
export function fromHash(hash: string, start: State): State {
  const state: State = structuredClone(start);
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/u, ""))) {
    if (!(name in START)) continue;
    try {
      const value: unknown = JSON.parse(text);
      if (isSound(name as keyof State, value)) (state as unknown as Record<string, unknown>)[name] = value;
    } catch {
      continue; // an address that was cut off while it was copied
    }
  }
  return state;
}

function isSound(name: keyof State, value: any): boolean {
  const finite = (...all: unknown[]): boolean => all.every((one) => typeof one === "number" && Number.isFinite(one));
  switch (name) {
    case "colour": case "palette": case "cutouts": case "tab": case "sort":
      return typeof value === "string";
    case "limits":
      return value === null || (Array.isArray(value) && value.length === 2 && finite(...value));
    case "size": case "opacity":
      return finite(value) && value > 0 && value <= 10;
    case "drawing":
      return ["auto", "points", "density"].includes(value);
    case "below":
      return ["histograms", "table"].includes(value);
    case "side":
      return ["gallery", "like"].includes(value);
    case "theme":
      return ["auto", "light", "dark"].includes(value);
    case "histograms":
      return Array.isArray(value) && value.every((one) => typeof one === "string");
    case "query":
      return value === null || (Number.isInteger(value) && value >= 0);
    case "nearness":
      return value !== null && typeof value === "object" && finite(value.k, value.minDistance, value.minHours) && typeof value.where === "string" && value.k >= 1;
    case "map": case "globe":
      return value === null || (typeof value === "object" && finite(value.x, value.y, value.k) && value.k > 0);
    case "filters":
      return Array.isArray(value) && value.every(isFilter);
  }
}

function isFilter(value: any): value is Filter {
  const finite = (one: unknown): boolean => typeof one === "number" && Number.isFinite(one);
  if (value === null || typeof value !== "object") return false;
  switch (value.kind) {
    case "area":
      return ["map", "globe"].includes(value.view) && ["lasso", "box"].includes(value.shape) && Array.isArray(value.corners) && value.corners.length >= 3 &&
        value.corners.every((corner: unknown) => Array.isArray(corner) && corner.length === 2 && corner.every(finite));
    case "range":
      return typeof value.column === "string" && finite(value.lo) && finite(value.hi);
    case "category":
      return typeof value.column === "string" && Array.isArray(value.values);
    case "region": case "class":
      return typeof value.name === "string";
    case "where":
      return typeof value.text === "string";
    case "rows":
      return typeof value.label === "string" && Array.isArray(value.numbers) && value.numbers.every(Number.isInteger);
    default:
      return false;
  }
}
