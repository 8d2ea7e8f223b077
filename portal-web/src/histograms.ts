/** Histograms of columns: all points and the selected ones; a range drawn on one selects. */

import { button, el, fitCanvas, themeColour } from "./dom";
import type { Desk } from "./desk";
import type { Column, Values } from "./types";
import { count, date, number as words, ticks } from "./words";

const BINS = 48;

/** The histograms, and the list to add one from. */
export function histograms(desk: Desk): { node: HTMLElement; adder: HTMLElement } {
  const row = el("div", { class: "histograms" });
  const cards = new Map<string, Card>();
  const adder = el("select", { "aria-label": "Add a histogram", class: "adder", on: { change: () => add(adder.value) } });
  const node = el("section", { class: "panel-body", "aria-label": "Histograms" }, row);

  function add(name: string): void {
    if (!name || desk.state.histograms.includes(name)) return;
    desk.put("histograms", [...desk.state.histograms, name]);
    show();
    row.scrollTo({ left: row.scrollWidth });
  }

  function show(): void {
    const chosen = desk.state.histograms.filter((name) => desk.column(name) && desk.column(name)!.kind !== "text");
    for (const [name, card] of cards) {
      if (!chosen.includes(name)) {
        card.node.remove();
        cards.delete(name);
      }
    }
    for (const name of chosen) {
      if (cards.has(name)) continue;
      const card = new Card(desk, desk.column(name)!, () => {
        desk.selection.remove(`column:${name}`);
        desk.put("histograms", desk.state.histograms.filter((held) => held !== name));
        show();
      });
      cards.set(name, card);
    }
    adder.replaceChildren(el("option", { value: "", text: "+ Add a column" }),
      ...desk.about.columns.filter((column) => column.kind !== "text" && !cards.has(column.name)).map((column) => el("option", { value: column.name, text: column.name })));
    adder.value = "";
    adder.hidden = adder.options.length <= 1;
    row.replaceChildren(...chosen.map((name) => cards.get(name)!.node));
    if (!desk.about.columns.length) row.replaceChildren(el("p", { class: "soft", text: "There is no cutout table with this run, so there are no columns to show." }));
  }

  desk.on("selection", () => cards.forEach((card) => card.refresh()));
  desk.on("theme", () => cards.forEach((card) => card.draw()));
  desk.on("shown", () => show());
  show();
  return { node, adder };
}

/** Numbers of points in each bin, of all and of those that pass every other filter. */
class Card {
  readonly node: HTMLElement;
  private canvas = el("canvas", { class: "bars", tabindex: 0, role: "img" });
  private list = el("div", { class: "categories" });
  private foot = el("div", { class: "foot" });
  private from = el("input", { type: "text", inputmode: "decimal", "aria-label": "From" });
  private to = el("input", { type: "text", inputmode: "decimal", "aria-label": "To" });
  private values: Values | null = null;
  private bins: Uint8Array | Uint16Array | null = null;
  private all = new Uint32Array(0);
  private kept = new Uint32Array(0);
  private unknown = 0;
  private drawn: [number, number] | null = null;

  constructor(private desk: Desk, private column: Column, remove: () => void) {
    const unit = column.unit ? ` [${column.unit}]` : "";
    this.node = el("article", { class: `card-h kind-${column.kind}`, "data-column": column.name },
      el("header", {}, el("h3", { text: column.name + unit, title: column.meaning ?? column.name }), button("✕", `Remove the histogram of ${column.name}`, remove, "plain")),
      column.kind === "category" ? this.list : this.canvas, this.foot);
    if (column.kind !== "category") {
      this.foot.append(this.from, el("span", { text: "to" }), this.to);
      for (const input of [this.from, this.to]) input.addEventListener("change", () => this.typed());
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.canvas);
    }
    void desk.attempt(() => this.load());
  }

  private async load(): Promise<void> {
    const { column } = this;
    const values = await this.desk.source.values(column);
    const n = values.length;
    this.values = values;
    if (column.kind === "category") {
      const size = column.categories?.length ?? 0;
      this.bins = values as Uint16Array;
      this.all = new Uint32Array(size);
      for (let i = 0; i < n; i++) if (values[i]! < size) this.all[values[i]!]!++;
      else this.unknown++;
    } else {
      const bins = new Uint8Array(n);
      const [lo, hi] = this.range;
      const per = hi > lo ? BINS / (hi - lo) : 0;
      this.all = new Uint32Array(BINS);
      for (let i = 0; i < n; i++) {
        const value = values[i]!;
        if (!Number.isFinite(value)) {
          bins[i] = 255;
          this.unknown++;
          continue;
        }
        const bin = Math.max(0, Math.min(BINS - 1, Math.floor((value - lo) * per)));
        bins[i] = bin;
        this.all[bin]!++;
      }
      this.bins = bins;
    }
    this.refresh();
  }

  private get range(): [number, number] {
    return [this.column.min ?? 0, this.column.max ?? 1];
  }

  refresh(): void {
    if (!this.bins) return;
    const { fails } = this.desk.selection;
    const others = ~this.desk.selection.bitOf(`column:${this.column.name}`);
    const kept = new Uint32Array(this.all.length);
    const bins = this.bins;
    for (let i = 0; i < fails.length; i++) if ((fails[i]! & others) === 0 && bins[i]! < kept.length) kept[bins[i]!]!++;
    this.kept = kept;
    this.draw();
  }

  private get chosen(): [number, number] | null {
    if (this.drawn) return this.drawn;
    const filter = this.desk.selection.find(`column:${this.column.name}`);
    return filter?.kind === "range" ? [filter.lo, filter.hi] : null;
  }

  draw(): void {
    if (!this.bins) return;
    if (this.column.kind === "category") return this.drawCategories();
    const { width, height } = this.canvas.getBoundingClientRect();
    if (width < 2) return;
    const context = fitCanvas(this.canvas, width, height);
    const base = height - 16;
    const [lo, hi] = this.range;
    const say = this.column.kind === "time" ? date : (value: number) => words(value);
    const chosen = this.chosen;
    if (document.activeElement !== this.from) this.from.value = chosen ? say(chosen[0]) : this.column.min === null ? "" : say(lo);
    if (document.activeElement !== this.to) this.to.value = chosen ? say(chosen[1]) : this.column.max === null ? "" : say(hi);
    this.from.disabled = this.to.disabled = this.column.min === null;
    const unknown = this.unknown ? `, ${count(this.unknown)} unknown` : "";
    this.canvas.setAttribute("aria-label", `Histogram of ${this.column.name} from ${say(lo)} to ${say(hi)}${unknown}`);
    this.canvas.title = this.unknown ? `${count(this.unknown)} of ${count(this.values!.length)} unknown` : "";
    context.font = "10.5px system-ui, sans-serif";
    if (this.column.min === null) {
      context.fillStyle = themeColour("soft");
      context.fillText("No value is known.", 2, height / 2);
      return;
    }
    const most = Math.max(1, ...this.all);
    const wide = width / BINS;
    const inside = (bin: number): boolean => {
      if (!chosen) return true;
      const middle = lo + ((bin + 0.5) * (hi - lo)) / BINS;
      return middle >= chosen[0] && middle <= chosen[1];
    };
    const bar = (bin: number, of: Uint32Array, colour: string): void => {
      const tall = of[bin]! ? Math.max(1, (of[bin]! / most) * (base - 4)) : 0;
      context.fillStyle = colour;
      context.fillRect(bin * wide, base - tall, Math.max(1, wide - 1), tall);
    };
    const back = themeColour("bar");
    const front = themeColour("accent");
    const outside = themeColour("bar-out");
    for (let bin = 0; bin < BINS; bin++) {
      bar(bin, this.all, back);
      bar(bin, this.kept, inside(bin) ? front : outside);
    }
    context.fillStyle = themeColour("line");
    context.fillRect(0, base, width, 1);
    if (chosen && hi > lo) {
      context.fillStyle = front;
      for (const value of chosen) context.fillRect(Math.round(Math.max(0, Math.min(width - 2, ((value - lo) / (hi - lo)) * width - 1))), 0, 2, base);
    }
    context.fillStyle = themeColour("soft");
    const marks = this.column.kind === "time" ? years(lo, hi, width) : ticks(lo, hi, Math.max(2, width / 48)).map((value) => ({ value, text: words(value) }));
    let free = -Infinity;
    for (const { value, text } of marks) {
      const size = context.measureText(text).width;
      const at = Math.max(0, Math.min(width - size, hi > lo ? ((value - lo) / (hi - lo)) * width - size / 2 : width / 2));
      if (at < free) continue;
      context.fillText(text, at, height - 4);
      free = at + size + 8;
    }
  }

  private drawCategories(): void {
    const { column, desk } = this;
    const filter = desk.selection.find(`column:${column.name}`);
    const chosen = filter?.kind === "category" ? filter.values : [];
    const order = [...this.all.keys()].sort((a, b) => this.all[b]! - this.all[a]!);
    const most = Math.max(1, ...this.all);
    const held = document.activeElement instanceof HTMLElement && this.list.contains(document.activeElement) ? document.activeElement.dataset.code : null;
    this.list.replaceChildren(...order.map((code) => {
      const name = column.categories![code]!;
      const on = chosen.includes(name);
      const bar = el("span", { class: "share" }, el("i"), el("b"));
      (bar.firstChild as HTMLElement).style.width = `${(100 * this.all[code]!) / most}%`;
      (bar.lastChild as HTMLElement).style.width = `${(100 * this.kept[code]!) / most}%`;
      return el("button", {
        type: "button", class: chosen.length && !on ? "category off" : "category", "aria-pressed": String(on), title: `${name}: ${count(this.kept[code]!)} of ${count(this.all[code]!)}`, "data-code": code,
        on: { click: () => this.toggle(name, chosen) },
      }, el("span", { class: "name", text: name }), bar, el("span", { class: "count", text: count(this.kept[code]!) }));
    }));
    if (held !== null) (this.list.querySelector(`[data-code="${held}"]`) as HTMLElement | null)?.focus();
    this.foot.textContent = this.unknown ? `${count(this.unknown)} unknown` : "";
  }

  private toggle(name: string, chosen: string[]): void {
    const values = chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name];
    if (values.length) void this.desk.setFilter({ kind: "category", column: this.column.name, values });
    else this.desk.selection.remove(`column:${this.column.name}`);
  }

  private choose(a: number, b: number): void {
    void this.desk.setFilter({ kind: "range", column: this.column.name, lo: Math.min(a, b), hi: Math.max(a, b) });
  }

  /** Ends that were typed: numbers, or dates. */
  private typed(): void {
    const read = (text: string): number => (this.column.kind === "time" ? Date.parse(/T|:/u.test(text) ? text.replace(" ", "T") + "Z" : text) : Number(text.replace(",", ".")));
    const lo = read(this.from.value);
    let hi = read(this.to.value);
    if (!Number.isFinite(lo) || !Number.isFinite(hi)) {
      this.desk.say(this.column.kind === "time" ? "Write a date as 2015-06-30." : "Write a number, such as 0.5.", true);
      return;
    }
    // What stands in a box is rounded: an end that was not typed anew stays as it is.
    const say = this.column.kind === "time" ? date : (value: number): string => words(value);
    const [first, last] = this.chosen ?? this.range;
    if (this.column.kind === "time") hi += 86_399_999;
    this.choose(this.from.value === say(first) ? first : lo, this.to.value === say(last) ? last : hi);
  }

  private listen(): void {
    const { canvas } = this;
    const [lo, hi] = this.range;
    const valueAt = (event: PointerEvent): number => {
      const box = canvas.getBoundingClientRect();
      return lo + Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * (hi - lo);
    };
    let begun: { value: number; x: number; moved: [number, number] | null } | null = null;
    let waiting = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.column.min === null) return;
      canvas.setPointerCapture(event.pointerId);
      const value = valueAt(event);
      const held = this.chosen;
      const near = (8 * (hi - lo)) / canvas.clientWidth;
      if (held && Math.abs(value - held[0]) < near) begun = { value: held[1], x: event.clientX, moved: null };
      else if (held && Math.abs(value - held[1]) < near) begun = { value: held[0], x: event.clientX, moved: null };
      else begun = { value, x: event.clientX, moved: held && value > held[0] && value < held[1] ? held : null };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!begun) return;
      const value = valueAt(event);
      if (Math.abs(event.clientX - begun.x) < 3 && !this.drawn) return;
      const shift = value - begun.value;
      this.drawn = begun.moved ? [begun.moved[0] + shift, begun.moved[1] + shift] : [Math.min(begun.value, value), Math.max(begun.value, value)];
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (this.drawn) this.choose(...this.drawn);
      });
    });
    const end = (): void => {
      if (!begun) return;
      if (this.drawn) this.choose(...this.drawn);
      else if (!begun.moved) this.desk.selection.remove(`column:${this.column.name}`);
      this.drawn = null;
      begun = null;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("keydown", (event) => {
      const step = (hi - lo) / BINS;
      const move = { ArrowLeft: -step, ArrowRight: step }[event.key];
      if (move === undefined) return;
      const [a, b] = this.chosen ?? [lo, hi];
      if (event.shiftKey) this.choose(a, Math.max(a, b + move));
      else if (this.chosen) this.choose(a + move, b + move);
      else this.choose(move > 0 ? a + move : a, move > 0 ? b : b + move);
      event.preventDefault();
    });
  }
}

/** Marks of a time line: years, months or days. */
function years(lo: number, hi: number, width: number): { value: number; text: string }[] {
  const span = hi - lo;
  const day = 86_400_000;
  const wanted = Math.max(2, width / 48);
  if (span > 2 * 365 * day) {
    const first = new Date(lo).getUTCFullYear();
    const last = new Date(hi).getUTCFullYear();
    const step = Math.max(1, Math.ceil((last - first) / wanted));
    return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => first + i * step)
      .map((year) => ({ value: Date.UTC(year, 0, 1), text: String(year) })).filter(({ value }) => value >= lo && value <= hi);
  }
  if (span > 60 * day) {
    const found: { value: number; text: string }[] = [];
    const first = new Date(lo);
    for (let month = 0; ; month++) {
      const value = Date.UTC(first.getUTCFullYear(), first.getUTCMonth() + month, 1);
      if (value > hi) return found;
      if (value >= lo) found.push({ value, text: new Date(value).toISOString().slice(0, 7) });
    }
  }
  const step = span > 2 * day ? day * Math.max(1, Math.ceil(span / day / wanted)) : 3_600_000 * Math.max(1, Math.ceil(span / 3_600_000 / wanted));
  const found: { value: number; text: string }[] = [];
  for (let value = Math.ceil(lo / step) * step; value <= hi && step > 0 && found.length < 200; value += step) {
    const text = new Date(value).toISOString();
    found.push({ value, text: span > 2 * day ? text.slice(5, 10) : text.slice(11, 16) });
  }
  return found.length ? found : [{ value: lo, text: date(lo) }];
}
