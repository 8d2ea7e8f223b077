/** The card beside the pointer: the cutout with its colour bar, place, time, DT. */

import { el, later, Recent } from "./dom";
import { paint, type Desk } from "./desk";
import type { Row } from "./types";
import { number as words } from "./words";

export function hoverCard(desk: Desk): HTMLElement {
  const canvas = el("canvas", { class: "cutout", width: 64, height: 64 });
  const bar = colourBar(desk);
  const facts = el("dl");
  const node = el("aside", { class: "card", "aria-live": "off" }, desk.about.cutouts && el("div", { class: "pictured" }, canvas, bar.node), facts);
  node.hidden = true;
  const rows = new Recent<number, Row>(500);

  const fill = later(40, async (number: number) => {
    try {
      const [row] = rows.get(number) ? [rows.get(number)!] : await desk.source.rows([number]);
      rows.set(number, row!);
      if (desk.hovered === number) facts.replaceChildren(...factsOf(desk, row!));
      if (!desk.about.cutouts) return;
      const picture = await desk.source.cutout(number, desk.look);
      if (desk.hovered === number) paint(canvas, picture);
    } catch (error) {
      desk.say(error instanceof Error ? error.message : String(error), true);
    }
  });

  desk.on("hover", () => {
    const number = desk.hovered;
    const at = desk.hoverAt;
    node.hidden = number < 0 || at === null;
    if (number < 0 || !at) return;
    if (node.dataset.number !== String(number)) {
      node.dataset.number = String(number);
      canvas.getContext("2d")!.clearRect(0, 0, canvas.width, canvas.height);
      const where = desk.placeOf(number);
      facts.replaceChildren(el("dt", { text: "cutout" }), el("dd", { text: String(number) }), ...(where ? [el("dt", { text: "place" }), el("dd", { text: where })] : []));
      fill(number);
    }
    const box = node.getBoundingClientRect();
    const right = at[0] + 18 + box.width < window.innerWidth - 8;
    node.style.left = `${Math.max(8, right ? at[0] + 18 : at[0] - 18 - box.width)}px`;
    node.style.top = `${Math.max(8, Math.min(at[1] + 14, window.innerHeight - box.height - 8))}px`;
  });
  return node;
}

/** A few facts of a row: name, place, time, and what the page is coloured by. */
export function factsOf(desk: Desk, row: Row): HTMLElement[] {
  const found: HTMLElement[] = [];
  const put = (name: string, value: string): void => void found.push(el("dt", { text: name }), el("dd", { text: value }));
  put("cutout", `${row.key}:${row.row}`);
  const where = desk.placeOf(row.number);
  if (where) put("place", where);
  const times = desk.about.columns.filter((column) => column.kind === "time");
  const time = times.find((column) => column.name === "datetime") ?? times[0];
  if (time) put("time", row.values[time.index] ? `${String(row.values[time.index]).slice(0, 16).replace("T", " ")} UTC` : "unknown");
  const wanted = new Set(["DT", desk.state.colour]);
  if (desk.about.columns.every((column) => column.name !== "DT")) desk.state.histograms.forEach((name) => wanted.add(name));
  for (const column of desk.about.columns) {
    if (!wanted.has(column.name) || column === time) continue;
    const value = row.values[column.index];
    const text = value === null || value === undefined ? "unknown" : typeof value === "number" ? words(value) : String(value).slice(0, 60);
    put(column.name, column.unit && typeof value === "number" ? `${text} ${column.unit}` : text);
  }
  return found;
}

/** The colour bar of the cutouts, upright, with its ends and unit. */
export function colourBar(desk: Desk): { node: HTMLElement } {
  const canvas = el("canvas", { width: 1, height: 256 });
  const { cutouts } = desk.about;
  const [lo, hi] = cutouts?.limits ?? [0, 1];
  const node = el("div", { class: "upright" }, canvas, el("div", { class: "ends" }, el("span", { text: words(hi, 3) }), el("span", { class: "soft", text: cutouts?.unit ?? "" }), el("span", { text: words(lo, 3) })));
  if (!cutouts?.limits || cutouts.colour) {
    node.hidden = true;
    return { node };
  }
  const draw = async (): Promise<void> => {
    const palette = await desk.source.palette(desk.state.cutouts);
    const context = canvas.getContext("2d")!;
    const image = context.createImageData(1, 256);
    for (let i = 0; i < 256; i++) image.data.set([palette[3 * (255 - i)]!, palette[3 * (255 - i) + 1]!, palette[3 * (255 - i) + 2]!, 255], 4 * i);
    context.putImageData(image, 0, 0);
  };
  desk.on("look", () => void desk.attempt(draw));
  void desk.attempt(draw);
  return { node };
}
