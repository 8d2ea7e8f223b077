/** What the server (or a static folder) says about a run; see docs/portal.md for the wire format. */

export type ColumnKind = "number" | "time" | "category" | "text";

export interface Column {
  index: number;
  name: string;
  kind: ColumnKind;
  unit: string | null;
  meaning: string | null;
  known: number;
  min: number | null;
  max: number | null;
  categories: string[] | null;
}

export interface Region {
  name: string;
  label?: string;
  lon0: number;
  lon1: number;
  lat0: number;
  lat1: number;
}

export interface About {
  version: string;
  title: string;
  num_rows: number;
  keys: { name: string; count: number }[];
  space: string;
  map: null | {
    method: string;
    label: string;
    classes: { name: string; label: string; count: number }[];
    trust: Record<string, unknown> | null;
    ends: [[number, number], [number, number]];
  };
  columns: Column[];
  has_places: boolean;
  has_times: boolean;
  regions: Region[];
  cutouts: null | {
    height: number;
    width: number;
    channels: number;
    colour?: boolean;
    unit: string | null;
    demeaned: boolean;
    limits: [number, number] | null;
  };
  can_upload: boolean;
  can_save: boolean;
  palettes: string[];
  static?: { side: number; neighbours: number; of: number; palette: string };
}

/** Positions on the wire: 0..65534 over the ends, 65535 for none. */
export interface Positions {
  x: Uint16Array;
  y: Uint16Array;
}

export type Values = Float32Array | Float64Array | Uint16Array;

/** A row of the table: what stands in each column, in the order of the columns. */
export interface Row {
  number: number;
  key: string;
  row: number;
  values: unknown[];
}

export interface Answer {
  query: { number: number | null; name: string };
  numbers: number[];
  similarity: number[];
  exact: boolean;
}

export interface Nearness {
  k: number;
  where: string;
  minDistance: number;
  minHours: number;
}

/** A thumbnail is a square of an image. */
export interface Thumbnail {
  image: CanvasImageSource;
  x: number;
  y: number;
  side: number;
}

export type Format = "csv" | "parquet" | "rows" | "hdf5";

export const TICKS = 65534;
export const NOWHERE = 65535;
