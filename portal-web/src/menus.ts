/** Panels that drop from a button, and the list of keys. */

import { el } from "./dom";

/** A button that opens a panel; Escape, a press elsewhere, or the button closes it. */
export function menu(text: string, title: string, content: HTMLElement): HTMLElement {
  const panel = el("div", { class: "menu-panel", role: "group", "aria-label": title }, content);
  panel.hidden = true;
  const open = el("button", { type: "button", text, title, "aria-expanded": "false", on: { click: () => show(Boolean(panel.hidden)) } });
  const node = el("div", { class: "menu" }, open, panel);
  function show(on: boolean): void {
    panel.hidden = !on;
    open.setAttribute("aria-expanded", String(on));
    if (on) panel.querySelector<HTMLElement>("button, select, input")?.focus();
  }
  document.addEventListener("pointerdown", (event) => {
    if (!panel.hidden && !node.contains(event.target as Node)) show(false);
  });
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    show(false);
    open.focus();
    event.stopPropagation();
  });
  return node;
}

const KEYS: [string, string][] = [
  ["V, L, B", "move the view, draw a lasso, draw a box"],
  ["Shift + drag", "draw a lasso with any tool"],
  ["Arrow keys", "move the view (or a histogram's range; with Shift its end)"],
  ["+ and -, wheel", "zoom"],
  ["0", "show everything"],
  ["S", "select what is in view"],
  ["Enter", "make the point nearest to the middle of the view the query"],
  ["Click", "make a point, a cutout or a row the query"],
  ["Escape", "leave a drawing, close a panel; else remove all filters, then the query"],
  ["G, T", "gallery or more like this; histograms or table"],
  ["P", "picture of the views"],
  ["?", "this list"],
];

export function helpBox(): HTMLDialogElement {
  const box: HTMLDialogElement = el("dialog", { class: "help", "aria-label": "Keys" },
    el("h2", { text: "Keys" }),
    el("dl", {}, ...KEYS.flatMap(([key, does]) => [el("dt", { text: key }), el("dd", { text: does })])),
    el("p", { class: "soft", text: "What you select in one view is selected in all of them. The address of the page keeps the view: copy it to come back, or to show it to others who have this portal open." }),
    el("footer", {}, el("button", { type: "button", text: "Close", on: { click: () => box.close() } })));
  return box;
}
