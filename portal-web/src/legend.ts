/** What the colours of the points mean: a colour bar, a key, or the scale of the density. */

import { el } from "./dom";
import type { Colouring } from "./colour";
import type { Desk } from "./desk";
import type { Plane } from "./plane";
import { count, date, number as words } from "./words";

export function legend(): { node: HTMLElement; show(colouring: Colouring | null, palette: Uint8Array | null, most: number | null): void } {
  const node = el("div", { class: "legend" });
  const bar = (title: HTMLElement, palette: Uint8Array, ends: string[]): void => {
    const canvas = el("canvas", { width: 256, height: 1 });
    paintBar(canvas, palette);
    node.replaceChildren(title, canvas, el("div", { class: "ends" }, ...ends.map((text) => el("span", { text }))));
  };
  return {
    node,
    show(colouring, palette, most) {
      if (most !== null && palette) {
        node.hidden = false;
        return bar(el("div", { class: "title", text: "selected cutouts in a cell (log)" }), palette, ["1", count(most)]);
      }
      node.hidden = !colouring;
      if (!colouring) return;
      const { column, limits, key, unknown } = colouring;
      const title = el("div", { class: "title", text: column.unit ? `${column.name} [${column.unit}]` : column.name });
      const grey = unknown ? el("div", { class: "soft", text: `grey: ${count(unknown)} unknown` }) : null;
      if (key) {
        node.replaceChildren(title, ...key.map(({ text, colour, count: many }) => {
          const dot = el("i");
          dot.style.background = `rgb(${colour.join(",")})`;
          return el("div", { class: "entry" }, dot, el("span", { text, title: `${text}: ${count(many)}` }));
        }));
        if (grey) node.append(grey);
        return;
      }
      if (!limits || !palette) {
        node.replaceChildren(title, el("div", { class: "soft", text: "No value is known." }));
        return;
      }
      const say = column.kind === "time" ? date : (value: number): string => words(value, 3);
      bar(title, palette, column.kind === "time" ? limits.map(say) : [limits[0], (limits[0] + limits[1]) / 2, limits[1]].map(say));
      if (grey) node.append(grey);
    },
  };
}

export function paintBar(canvas: HTMLCanvasElement, palette: Uint8Array): void {
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([palette[3 * i]!, palette[3 * i + 1]!, palette[3 * i + 2]!, 255], 4 * i);
  context.putImageData(image, 0, 0);
}

/** A line below a view: how many of the selected it shows. */
export function caption(plane: Plane, desk: Desk): HTMLElement {
  const node = el("div", { class: "caption soft" });
  const say = (): void => {
    if (plane.node.offsetParent === null) return;
    const shown = plane.countSelected();
    node.textContent = shown === desk.selection.selected ? "" : `${count(shown)} in view`;
  };
  plane.onRest = say;
  desk.on("selection", () => window.setTimeout(say, 0));
  return node;
}
