/** What the parts of the page share: the data, the selection, the query, the state, and word of changes. */

import { el } from "./dom";
import { Selection, type Facts, type Filter } from "./selection";
import { ENDED, Told, type Look, type Source } from "./source";
import type { Plane } from "./plane";
import type { State } from "./state";
import type { About, Answer, Column, Positions, Thumbnail } from "./types";
import { date, number as words, place } from "./words";

export type Word = "selection" | "hover" | "query" | "colour" | "look" | "state" | "theme" | "shown";

export class Desk {
  readonly about: About;
  readonly selection: Selection;
  planes: Plane[] = [];
  places: Positions | null = null;
  hovered = -1;
  hoverAt: [number, number] | null = null;
  answer: Answer | null = null;
  query: { number: number | null; name: string; file?: File } | null = null;
  private listeners = new Map<Word, (() => void)[]>();
  readonly messages = el("div", { class: "messages", role: "status", "aria-live": "polite" });
  private busy = 0;
  readonly bar = el("div", { class: "busy", "aria-hidden": "true" });

  constructor(readonly source: Source, readonly state: State, facts: Facts) {
    this.about = source.about;
    this.selection = new Selection(facts);
    this.selection.onChange(() => {
      this.state.filters = this.selection.active;
      this.tell("selection");
      this.tell("state");
    });
  }

  on(word: Word, listener: () => void): void {
    this.listeners.set(word, [...(this.listeners.get(word) ?? []), listener]);
  }

  tell(word: Word): void {
    for (const listener of this.listeners.get(word) ?? []) listener();
  }

  /** Change a part of the state that its address keeps. */
  put<K extends keyof State>(name: K, value: State[K], word?: Word): void {
    this.state[name] = value;
    if (word) this.tell(word);
    this.tell("state");
  }

  column(name: string): Column | undefined {
    return this.about.columns.find((column) => column.name === name);
  }

  get look(): Look {
    return { palette: this.state.cutouts, limits: this.about.cutouts?.limits ?? [0, 1] };
  }

  hover(number: number, at: [number, number] | null): void {
    if (number === this.hovered && (number < 0 || at === null)) return;
    this.hovered = number;
    this.hoverAt = at;
    this.tell("hover");
  }

  /** Do something that may fail, showing that it goes on and what went wrong. */
  async attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    this.busy++;
    this.bar.classList.add("on");
    try {
      return await work();
    } catch (error) {
      this.say(error instanceof Error ? error.message : String(error), true, error instanceof Told && error.message === ENDED);
      return undefined;
    } finally {
      if (--this.busy === 0) this.bar.classList.remove("on");
    }
  }

  say(text: string, isError = false, stays = false): void {
    if ([...this.messages.children].some((held) => held.firstChild?.textContent === text)) return;
    const close = el("button", { type: "button", class: "plain", "aria-label": "Close this message", text: "✕", on: { click: () => message.remove() } });
    const message = el("div", { class: isError ? "message error" : "message" }, el("span", { text }), close);
    this.messages.append(message);
    if (!stays) window.setTimeout(() => message.remove(), isError ? 12_000 : 5000);
  }

  /** Set a filter in all views; how long it took stands in the browser's list of measures. */
  async setFilter(filter: Filter): Promise<void> {
    const start = performance.now();
    await this.attempt(() => this.selection.set(filter));
    performance.measure("filter", { start });
  }

  /** Make a cutout the query, and look for what is like it. */
  async ask(number: number): Promise<void> {
    this.query = { number, name: "" };
    this.answer = null;
    this.state.query = number;
    this.state.side = "like";
    this.tell("query");
    this.tell("shown");
    this.tell("state");
    const answer = await this.attempt(() => this.source.search(number, this.state.nearness));
    if (this.query?.number !== number || !answer) return;
    this.answer = answer;
    this.tell("query");
  }

  async askFile(file: File): Promise<void> {
    const answer = await this.attempt(() => this.source.upload(file, this.state.nearness));
    if (!answer) return;
    this.query = { number: null, name: file.name, file };
    this.answer = answer;
    this.state.query = null;
    this.state.side = "like";
    this.tell("query");
    this.tell("shown");
    this.tell("state");
  }

  dropQuery(): void {
    this.query = null;
    this.answer = null;
    this.state.query = null;
    this.tell("query");
    this.tell("state");
  }

  /** The cutout nearest to a place; null where no cutout has a place. */
  nearest(lon: number, lat: number): { number: number; km: number } | null {
    if (!this.places) return null;
    const { x, y } = this.places;
    const rad = Math.PI / 180;
    const [px, py, pz] = unit(lon * rad, lat * rad);
    let best = -1;
    let most = -2;
    for (let i = 0; i < x.length; i++) {
      if (x[i]! > 65534 || y[i]! > 65534) continue;
      const [qx, qy, qz] = unit(((x[i]! * 360) / 65534 - 180) * rad, ((y[i]! * 180) / 65534 - 90) * rad);
      const close = px * qx + py * qy + pz * qz;
      if (close > most) {
        most = close;
        best = i;
      }
    }
    return best < 0 ? null : { number: best, km: 6371 * Math.acos(Math.min(1, most)) };
  }

  /** Place of a cutout in words, from the positions that the page holds. */
  placeOf(number: number): string | null {
    if (!this.places) return null;
    const x = this.places.x[number]!;
    const y = this.places.y[number]!;
    return x > 65534 || y > 65534 ? null : place((x * 360) / 65534 - 180, (y * 180) / 65534 - 90);
  }

  /** A filter in words. */
  wordsOf(filter: Filter): string {
    switch (filter.kind) {
      case "area":
        return `${filter.shape === "lasso" ? "Lasso" : "Box"} on the ${filter.view === "map" ? "map" : "globe"}`;
      case "range": {
        const column = this.column(filter.column);
        const isTime = column?.kind === "time";
        const say = (value: number): string => (isTime ? date(value) : words(value));
        return `${filter.column} ${say(filter.lo)} to ${say(filter.hi)}${column?.unit && !isTime ? ` ${column.unit}` : ""}`;
      }
      case "category":
        return `${filter.column}: ${filter.values.join(", ")}`;
      case "region":
        return this.about.regions.find((one) => one.name === filter.name)?.label || filter.name;
      case "class":
        return `Class ${filter.name}`;
      case "where":
        return `where ${filter.text}`;
      case "rows":
        return filter.label;
    }
  }
}

function unit(lon: number, lat: number): [number, number, number] {
  return [Math.cos(lat) * Math.cos(lon), Math.cos(lat) * Math.sin(lon), Math.sin(lat)];
}

/** Draw a thumbnail into a canvas of its own. */
export function paint(canvas: HTMLCanvasElement, thumbnail: Thumbnail): void {
  canvas.width = thumbnail.side;
  canvas.height = thumbnail.side;
  const context = canvas.getContext("2d")!;
  context.imageSmoothingEnabled = false;
  context.drawImage(thumbnail.image, thumbnail.x, thumbnail.y, thumbnail.side, thumbnail.side, 0, 0, thumbnail.side, thumbnail.side);
}
