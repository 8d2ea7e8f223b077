/** Rows of the selection. Only those in sight are asked for and drawn. */

import { el, later } from "./dom";
import type { Desk } from "./desk";
import type { Column, Row } from "./types";
import { number as words } from "./words";

const TALL = 26;
const MOST_TALL = 8_000_000; // browsers draw no taller element

export function table(desk: Desk): HTMLElement {
  const names = ["cutout", ...desk.about.columns.map((column) => column.name)];
  const head = el("div", { class: "row head", role: "row" });
  const space = el("div", { class: "space" });
  const body = el("div", { class: "rows", role: "rowgroup" });
  const scroll = el("div", { class: "scroll table", tabindex: 0, role: "table", "aria-label": "Rows of the selection" }, head, space, body);
  const empty = el("p", { class: "soft", text: "No cutout is selected." });
  const node = el("section", { class: "panel-body" }, empty, scroll);
  let numbers: Uint32Array = new Uint32Array(0);
  let sort = { name: "", down: false };
  let turn = 0;
  let isStale = true;

  for (const name of names) {
    const column = desk.column(name);
    const sortable = column && (column.kind === "number" || column.kind === "time");
    const text = column?.unit ? `${name} [${column.unit}]` : name;
    head.append(el("div", { role: "columnheader", class: column?.kind === "number" ? "right" : "" },
      sortable ? el("button", { type: "button", class: "plain", text, title: `Sort by ${name}`, "data-sort": name, on: { click: () => press(name) } }) : el("span", { text, title: column?.meaning ?? name })));
  }

  function press(name: string): void {
    sort = sort.name === name ? (sort.down ? { name: "", down: false } : { name, down: true }) : { name, down: false };
    for (const held of head.querySelectorAll<HTMLElement>("[data-sort]")) {
      const on = held.dataset.sort === sort.name;
      held.parentElement!.setAttribute("aria-sort", on ? (sort.down ? "descending" : "ascending") : "none");
    }
    isStale = true;
    void refresh();
  }

  async function refresh(): Promise<void> {
    if (!isStale || node.offsetParent === null) return;
    isStale = false;
    const mine = ++turn;
    let found = desk.selection.numbers();
    const column = sort.name ? desk.column(sort.name) : undefined;
    if (column) {
      const values = await desk.attempt(() => desk.source.values(column));
      if (mine !== turn || !values) return;
      const known = found.filter((i) => Number.isFinite(values[i]!));
      known.sort((a, b) => values[a]! - values[b]! || a - b);
      if (sort.down) known.reverse();
      const sorted = new Uint32Array(found.length);
      sorted.set(known);
      sorted.set(found.filter((i) => !Number.isFinite(values[i]!)), known.length);
      found = sorted;
    }
    numbers = found;
    empty.hidden = numbers.length > 0;
    scroll.hidden = numbers.length === 0;
    space.style.height = `${Math.min(MOST_TALL, numbers.length * TALL)}px`;
    scroll.setAttribute("aria-rowcount", String(numbers.length + 1));
    scroll.scrollTop = 0;
    void draw();
  }

  /** Number of the first row in sight: by share of the height, where all rows together would be too tall. */
  function first(): number {
    const whole = numbers.length * TALL;
    const seen = scroll.clientHeight - TALL;
    if (whole <= MOST_TALL) return Math.floor(scroll.scrollTop / TALL);
    return Math.floor((scroll.scrollTop / Math.max(1, MOST_TALL - seen)) * Math.max(0, numbers.length - Math.floor(seen / TALL)));
  }

  async function draw(): Promise<void> {
    if (node.offsetParent === null) return;
    const from = Math.max(0, Math.min(first(), numbers.length - 1));
    const many = Math.min(numbers.length - from, Math.ceil(scroll.clientHeight / TALL) + 1);
    const wanted = [...numbers.subarray(from, from + many)];
    const mine = ++turn;
    const rows = wanted.length ? await desk.attempt(() => desk.source.rows(wanted)) : [];
    if (mine !== turn || !rows) return;
    const held = (document.activeElement as HTMLElement | null)?.closest<HTMLElement>(".rows .row")?.dataset.number;
    body.style.transform = `translateY(${numbers.length * TALL <= MOST_TALL ? from * TALL : scroll.scrollTop}px)`;
    body.replaceChildren(...rows.map((row, i) => line(row, from + i)));
    if (held) body.querySelector<HTMLElement>(`[data-number="${held}"]`)?.focus({ preventScroll: true });
  }

  function line(row: Row, at: number): HTMLElement {
    const cells = names.map((name, i) => {
      const column = i === 0 ? undefined : desk.column(name);
      const text = i === 0 ? `${row.key}:${row.row}` : cell(row.values[column!.index], column!);
      return el("div", { role: "cell", class: column?.kind === "number" ? "right" : "", text, title: text });
    });
    const chosen = desk.query?.number === row.number;
    return el("div", {
      role: "row", tabindex: 0, class: chosen ? "row chosen" : "row", "data-number": row.number, "aria-rowindex": at + 2,
      on: {
        click: () => void desk.ask(row.number),
        keydown: (event: KeyboardEvent) => {
          const self = event.currentTarget as HTMLElement;
          if (event.key === "Enter" || event.key === " ") void desk.ask(row.number);
          else if (event.key === "ArrowDown") (self.nextElementSibling as HTMLElement | null)?.focus();
          else if (event.key === "ArrowUp") (self.previousElementSibling as HTMLElement | null)?.focus();
          else return;
          event.preventDefault();
        },
        pointerenter: (event: PointerEvent) => desk.hover(row.number, [event.clientX, event.clientY]),
        pointerleave: () => desk.hover(-1, null),
      },
    }, ...cells);
  }

  const soon = later(150, () => void refresh());
  scroll.addEventListener("scroll", later(30, () => void draw()));
  new ResizeObserver(later(60, () => {
    void refresh();
    void draw();
  })).observe(scroll);
  desk.on("selection", () => {
    isStale = true;
    soon();
  });
  desk.on("shown", soon);
  desk.on("query", () => void draw());
  return node;
}

function cell(value: unknown, column: Column): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) && column.kind === "number" ? String(value) : words(value, 6);
  if (column.kind === "time") return String(value).replace("T", " ").replace(/(\.0+)?Z$/u, "");
  return typeof value === "boolean" ? (value ? "true" : "false") : String(value);
}

