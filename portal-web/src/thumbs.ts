/** Grids of cutouts: each a button that shows its place on hover and becomes the query on a click. */

import { el } from "./dom";
import { paint, type Desk } from "./desk";

export class Thumbs {
  readonly node = el("div", { class: "thumbs" });
  private turn = 0;

  constructor(private desk: Desk) {}

  /** Show cutouts, each with a line of text below it where one is given. */
  async show(numbers: number[], below: string[] | null = null): Promise<void> {
    const turn = ++this.turn;
    const { desk } = this;
    const canvases: HTMLCanvasElement[] = [];
    const tiles = numbers.map((number, i) => {
      const canvas = el("canvas", { width: 64, height: 64 });
      canvases.push(canvas);
      const tile = el("button", {
        type: "button", class: "thumb", "data-number": number, "aria-label": `Cutout ${number}${below ? `, ${below[i]}` : ""}: find what is like it`,
        on: {
          click: () => void desk.ask(number),
          pointerenter: (event: PointerEvent) => desk.hover(number, [event.clientX, event.clientY]),
          pointerleave: () => desk.hover(-1, null),
          focus: () => {
            const box = tile.getBoundingClientRect();
            if (tile.matches(":focus-visible")) desk.hover(number, [box.right, box.bottom]);
          },
          blur: () => desk.hover(-1, null),
        },
      }, canvas, below && el("span", { text: below[i] }));
      return tile;
    });
    this.node.replaceChildren(...tiles);
    if (!desk.about.cutouts) return;
    await desk.attempt(async () => {
      for (let at = 0; at < numbers.length; at += 128) {
        const part = numbers.slice(at, at + 128);
        const found = await desk.source.thumbnails(part, desk.look);
        if (turn !== this.turn) return;
        found.forEach((thumbnail, i) => paint(canvases[at + i]!, thumbnail));
      }
    });
  }
}
