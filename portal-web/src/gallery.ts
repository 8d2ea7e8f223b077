/** Cutouts of the selection: an even sample of it, or its first by a column. */

import { button, choice, el, later } from "./dom";
import type { Desk } from "./desk";
import { Thumbs } from "./thumbs";
import { count } from "./words";

const SHOWN = 96;

export function gallery(desk: Desk): HTMLElement {
  const thumbs = new Thumbs(desk);
  const line = el("span", { class: "soft grow" });
  let turn = 0;
  const sortable = desk.about.columns.filter((column) => (column.kind === "number" || column.kind === "time") && column.known > 0);
  const order = choice("Order of the gallery",
    [["", "an even sample"], ...sortable.flatMap((column): [string, string][] => [[`+${column.name}`, `lowest ${column.name}`], [`-${column.name}`, `highest ${column.name}`]])],
    desk.state.sort, (value) => {
      desk.put("sort", value);
      void show();
    });
  const others = button("Others", "Show other cutouts of the selection", () => {
    turn++;
    void show();
  });
  const node = el("section", { class: "panel-body", "aria-label": "Gallery of the selection" }, el("div", { class: "tools" }, line, order, others), el("div", { class: "scroll" }, thumbs.node));

  async function show(): Promise<void> {
    const chosen = desk.state.sort;
    const column = chosen && desk.column(chosen.slice(1));
    const numbers = column ? await desk.attempt(() => extremes(chosen, column.name)) : sample();
    if (!numbers) return;
    others.hidden = Boolean(column) || desk.selection.selected <= SHOWN;
    const { selected } = desk.selection;
    line.textContent = selected === 0 ? "No cutout is selected." : selected <= SHOWN ? `${count(selected)} cutouts` : `${numbers.length} of ${count(selected)}`;
    await thumbs.show(numbers);
  }

  function sample(): number[] {
    const all = desk.selection.numbers(SHOWN * 64);
    if (all.length <= SHOWN) return [...all];
    const start = turn % Math.max(1, Math.floor(all.length / SHOWN));
    return Array.from({ length: SHOWN }, (_, i) => all[Math.min(all.length - 1, Math.floor((i * all.length) / SHOWN) + start)]!);
  }

  async function extremes(chosen: string, name: string): Promise<number[]> {
    const values = await desk.source.values(desk.column(name)!);
    const sign = chosen.startsWith("-") ? -1 : 1;
    const fails = desk.selection.fails;
    let held: number[] = [];
    let worst = Infinity;
    for (let i = 0; i < values.length; i++) {
      const value = sign * values[i]!;
      if (fails[i] !== 0 || !(value < worst)) continue;
      held.push(i);
      if (held.length >= 8 * SHOWN) {
        held = held.sort((a, b) => sign * (values[a]! - values[b]!)).slice(0, SHOWN);
        worst = sign * values[held.at(-1)!]!;
      }
    }
    return held.sort((a, b) => sign * (values[a]! - values[b]!)).slice(0, SHOWN);
  }

  const soon = later(200, () => void show());
  desk.on("selection", soon);
  desk.on("look", soon);
  void show();
  return node;
}
