/** Where the page's data come from: the server of `nenya portal`, or the script files of a static folder. */

import { Recent } from "./dom";
import { NOWHERE, type About, type Answer, type Column, type Format, type Nearness, type Positions, type Row, type Thumbnail, type Values } from "./types";
import { shortest } from "./words";

export const ENDED = "The portal has ended. Start it again with: nenya portal";

/** A mistake with a message to be shown as it is. */
export class Told extends Error {}

export interface Look {
  palette: string;
  limits: [number, number];
}

export interface Source {
  readonly about: About;
  readonly isStatic: boolean;
  map(): Promise<Positions | null>;
  places(): Promise<Positions | null>;
  ofClass(): Promise<Uint8Array>;
  values(column: Column): Promise<Values>;
  coastline(): Promise<Float32Array>;
  palette(name: string): Promise<Uint8Array>;
  rows(numbers: number[]): Promise<Row[]>;
  thumbnails(numbers: number[], look: Look): Promise<Thumbnail[]>;
  /** One cutout, drawn large where the source can. */
  cutout(number: number, look: Look): Promise<Thumbnail>;
  search(number: number, nearness: Nearness): Promise<Answer>;
  upload(file: File, nearness: Nearness): Promise<Answer>;
  where(text: string): Promise<Uint8Array>;
  /** The selection in a format, or null where the page has to make it itself. */
  save(format: Format, bitset: Uint8Array<ArrayBuffer>): Promise<Blob | null>;
}

export function readPositions(bytes: ArrayBuffer, n: number): Positions {
  return { x: new Uint16Array(bytes, 0, n), y: new Uint16Array(bytes, 2 * n, n) };
}

export function readValues(bytes: ArrayBuffer, column: Column): Values {
  if (column.kind === "time") return new Float64Array(bytes);
  return column.kind === "category" ? new Uint16Array(bytes) : new Float32Array(bytes);
}

/** Keep the promises of what was asked for last; a failed one is asked again. */
export class Kept<T> {
  private held = new Map<string, Promise<T>>();
  constructor(private most = Infinity) {}
  get(name: string, ask: () => Promise<T>): Promise<T> {
    let found = this.held.get(name);
    if (!found) {
      found = ask();
      this.held.set(name, found);
      found.catch(() => this.held.delete(name));
      if (this.held.size > this.most) this.held.delete(this.held.keys().next().value!);
    }
    return found;
  }
}

export class ServerSource implements Source {
  readonly isStatic = false;
  private kept = new Kept<ArrayBuffer>(24);
  private pictures = new Recent<string, Promise<Thumbnail[]>>(80);
  private known = new Recent<number, Row>(4000);

  private constructor(readonly about: About, private token: string) {}

  static async open(token: string): Promise<ServerSource> {
    const answer = await ask(token, "about");
    return new ServerSource((await answer.json()) as About, token);
  }

  private async bytes(path: string): Promise<ArrayBuffer> {
    return this.kept.get(path, async () => (await ask(this.token, path)).arrayBuffer());
  }

  async map(): Promise<Positions | null> {
    return this.about.map ? readPositions(await this.bytes("map"), this.about.num_rows) : null;
  }
  async places(): Promise<Positions | null> {
    return this.about.has_places ? readPositions(await this.bytes("places"), this.about.num_rows) : null;
  }
  async ofClass(): Promise<Uint8Array> {
    return new Uint8Array(await this.bytes("classes"));
  }
  async values(column: Column): Promise<Values> {
    return readValues(await this.bytes(`column/${column.index}`), column);
  }
  async coastline(): Promise<Float32Array> {
    return new Float32Array(await this.bytes("coastline"));
  }
  async palette(name: string): Promise<Uint8Array> {
    return new Uint8Array(await this.bytes(`palette/${encodeURIComponent(name)}`));
  }

  async rows(numbers: number[]): Promise<Row[]> {
    const missing = numbers.filter((number) => !this.known.get(number));
    for (let at = 0; at < missing.length; at += 500) {
      const answer = await ask(this.token, `rows?numbers=${missing.slice(at, at + 500).join(",")}`);
      for (const row of (await answer.json()) as Row[]) this.known.set(row.number, row);
    }
    return numbers.map((number) => this.known.get(number)!);
  }

  thumbnails(numbers: number[], look: Look): Promise<Thumbnail[]> {
    return this.picture(`sheet?numbers=${numbers.join(",")}&side=64&${words(look)}`, (image) =>
      numbers.map((_, i) => ({ image, x: (i % 16) * 64, y: Math.floor(i / 16) * 64, side: 64 })));
  }

  async cutout(number: number, look: Look): Promise<Thumbnail> {
    const found = await this.picture(`cutout/${number}?side=256&${words(look)}`, (image) => [{ image, x: 0, y: 0, side: 256 }]);
    return found[0]!;
  }

  private picture(path: string, cut: (image: ImageBitmap) => Thumbnail[]): Promise<Thumbnail[]> {
    let found = this.pictures.get(path);
    if (!found) {
      found = ask(this.token, path).then((answer) => answer.blob()).then((blob) => createImageBitmap(blob)).then(cut);
      this.pictures.set(path, found);
      found.catch(() => this.pictures.delete(path));
    }
    return found;
  }

  async search(number: number, nearness: Nearness): Promise<Answer> {
    const body: Record<string, unknown> = { numbers: [number], k: nearness.k };
    if (nearness.where) body.where = nearness.where;
    if (nearness.minDistance) body.min_distance_km = nearness.minDistance;
    if (nearness.minHours) body.min_hours = nearness.minHours;
    return (await ask(this.token, "search", { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } })).json();
  }

  async upload(file: File, nearness: Nearness): Promise<Answer> {
    if (file.size > 8 << 20) throw new Told(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MB; a query may have 8 MB. Save one cutout as .npy.`);
    const query = new URLSearchParams({ k: String(nearness.k) });
    if (nearness.where) query.set("where", nearness.where);
    if (nearness.minDistance) query.set("min_distance_km", String(nearness.minDistance));
    if (nearness.minHours) query.set("min_hours", String(nearness.minHours));
    const answer = await ask(this.token, `search/upload?${query}`, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    const found = (await answer.json()) as Answer;
    return { ...found, query: { number: null, name: file.name } };
  }

  async where(text: string): Promise<Uint8Array> {
    const answer = await ask(this.token, "where", { method: "POST", body: JSON.stringify({ text }), headers: { "Content-Type": "application/json" } });
    return new Uint8Array(await answer.arrayBuffer());
  }

  async save(format: Format, bitset: Uint8Array<ArrayBuffer>): Promise<Blob> {
    return (await ask(this.token, `save?format=${format}`, { method: "POST", body: bitset, headers: { "Content-Type": "application/octet-stream" } })).blob();
  }
}

function words(look: Look): string {
  return `palette=${encodeURIComponent(look.palette)}&lo=${look.limits[0]}&hi=${look.limits[1]}`;
}

async function ask(token: string, path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(`api/${path}`, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });
  } catch {
    throw new Told(ENDED);
  }
  if (answer.ok) return answer;
  let message = "";
  try {
    message = String(((await answer.json()) as { error?: unknown }).error ?? "");
  } catch {
    message = "";
  }
  if (answer.status === 403) throw new Told(message || "The address lacks the right token. Open the address that nenya portal printed.");
  throw new Told(message || `The portal answered with an error (${answer.status}).`);
}

declare global {
  interface Window {
    NENYA?: { put(name: string, base64: string): void };
    NENYA_STATIC?: boolean;
  }
}

/** Data in script files: a page from file:// may fetch nothing, but it may load scripts and pictures. */
export class StaticSource implements Source {
  readonly isStatic = true;
  readonly about!: About;
  private kept = new Kept<ArrayBuffer>();
  private arrived = new Map<string, string>();
  private sheets = new Kept<HTMLImageElement>();

  static async open(): Promise<StaticSource> {
    const source = new StaticSource();
    window.NENYA = { put: (name, base64) => source.arrived.set(name, base64) };
    const about = JSON.parse(new TextDecoder().decode(await source.bytes("about"))) as About;
    Object.assign(source, { about });
    return source;
  }

  private bytes(name: string): Promise<ArrayBuffer> {
    return this.kept.get(name, async () => {
      await new Promise<void>((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${encodeURIComponent(name)}.js`;
        script.onload = () => resolve();
        script.onerror = () => reject(new Told(`The file data/${name}.js of this folder can't be read. Copy the whole folder, or write it again with nenya portal --static.`));
        document.head.append(script);
      });
      const text = this.arrived.get(name);
      if (text === undefined) throw new Told(`The file data/${name}.js of this folder is damaged. Write it again with nenya portal --static.`);
      this.arrived.delete(name);
      const letters = atob(text);
      const bytes = new Uint8Array(letters.length);
      for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
      return bytes.buffer;
    });
  }

  async map(): Promise<Positions | null> {
    return this.about.map ? readPositions(await this.bytes("map"), this.about.num_rows) : null;
  }
  async places(): Promise<Positions | null> {
    return this.about.has_places ? readPositions(await this.bytes("places"), this.about.num_rows) : null;
  }
  async ofClass(): Promise<Uint8Array> {
    return new Uint8Array(await this.bytes("classes"));
  }
  async values(column: Column): Promise<Values> {
    return readValues(await this.bytes(`column-${column.index}`), column);
  }
  async coastline(): Promise<Float32Array> {
    return new Float32Array(await this.bytes("coastline"));
  }
  async palette(name: string): Promise<Uint8Array> {
    return new Uint8Array(await this.bytes(`palette-${name}`));
  }

  async rows(numbers: number[]): Promise<Row[]> {
    const n = this.about.num_rows;
    const source = await this.bytes("rows");
    const keys = new Uint8Array(source, 0, n);
    const rows = new DataView(source, n);
    const found: Row[] = numbers.map((number) => ({ number, key: this.about.keys[keys[number]!]?.name ?? "", row: rows.getUint32(4 * number, true), values: [] }));
    for (const column of this.about.columns) {
      if (column.kind === "text") {
        const texts = JSON.parse(new TextDecoder().decode(await this.bytes(`text-${column.index}`))) as (string | null)[];
        for (const row of found) row.values.push(texts[row.number] ?? null);
        continue;
      }
      const values = await this.values(column);
      for (const row of found) row.values.push(asRead(values[row.number]!, column));
    }
    return found;
  }

  async thumbnails(numbers: number[]): Promise<Thumbnail[]> {
    return Promise.all(numbers.map(async (number) => {
      const side = this.about.static!.side;
      const image = await this.sheet(Math.floor(number / 256));
      const at = number % 256;
      return { image, x: (at % 16) * side, y: Math.floor(at / 16) * side, side };
    }));
  }

  async cutout(number: number): Promise<Thumbnail> {
    return (await this.thumbnails([number]))[0]!;
  }

  private sheet(index: number): Promise<HTMLImageElement> {
    return this.sheets.get(String(index), () => new Promise((resolve, reject) => {
      const image = new Image();
      const name = `sheets/${String(index).padStart(4, "0")}.png`;
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Told(`The picture ${name} of this folder can't be read. Copy the whole folder.`));
      image.src = name;
    }));
  }

  async search(number: number, nearness: Nearness): Promise<Answer> {
    const width = this.about.static!.neighbours;
    const all = new Uint32Array(await this.bytes("neighbours"));
    const close = new Uint8Array(await this.bytes("similarity").catch(() => new ArrayBuffer(0)));
    const numbers: number[] = [];
    const similarity: number[] = [];
    for (let at = number * width; at < (number + 1) * width && numbers.length < nearness.k; at++) {
      const found = all[at]!;
      if (found >= this.about.num_rows || found === number) continue;
      numbers.push(found);
      similarity.push(close.length ? close[at]! / 127.5 - 1 : NaN);
    }
    return { query: { number, name: "" }, numbers, similarity, exact: true };
  }

  async upload(): Promise<Answer> {
    throw new Told("This is a folder without a server: a cutout can't be uploaded here.");
  }
  async where(): Promise<Uint8Array> {
    throw new Told("This is a folder without a server: use the histograms to choose rows.");
  }
  async save(): Promise<null> {
    return null;
  }
}

function asRead(value: number, column: Column): unknown {
  if (column.kind === "category") return value === NOWHERE ? null : (column.categories?.[value] ?? null);
  if (!Number.isFinite(value)) return null;
  return column.kind === "time" ? new Date(value).toISOString().slice(0, 19) + "Z" : shortest(value);
}
