/** The filters in force, each with a button that removes it; and how many cutouts pass them. */

import { button, el } from "./dom";
import type { Desk } from "./desk";
import { slotOf } from "./selection";
import { count } from "./words";

export function chips(desk: Desk): HTMLElement {
  const many = el("strong", { class: "count", "data-count": "" });
  const list = el("div", { class: "chips" });
  const region = el("select", { "aria-label": "Select a region", on: { change: () => {
    if (region.value) void desk.setFilter({ kind: "region", name: region.value });
    region.value = "";
  } } }, el("option", { value: "", text: "Region …" }), ...desk.about.regions.map(({ name, label }) => el("option", { value: name, text: label || name })));
  const where = el("input", { type: "text", placeholder: "where: DT > 1 and lat > 30", "aria-label": "Select by a condition on columns", title: "A condition on columns, as --where of nenya search takes it", "data-where": "" });
  const form = el("form", { class: "where", on: { submit: async (event: Event) => {
    event.preventDefault();
    const text = where.value.trim();
    if (!text) return;
    await desk.setFilter({ kind: "where", text });
    if (desk.selection.find("where")) where.value = "";
  } } }, where);
  const clear = button("Clear all", "Remove every filter (Escape)", () => desk.selection.clear(), "plain");
  const node = el("div", { class: "filters" }, many, list, clear, el("span", { class: "grow" }), desk.about.has_places && desk.about.regions.length > 0 && region, !desk.source.isStatic && desk.about.columns.length > 0 && form);

  function show(): void {
    const { selected, total } = desk.selection;
    const filters = desk.selection.active.filter((filter) => filter.kind !== "class");
    many.textContent = filters.length || selected !== total ? `${count(selected)} of ${count(total)} selected` : `${count(total)} cutouts`;
    list.replaceChildren(...filters.map((filter) => {
      const words = desk.wordsOf(filter);
      return el("span", { class: "chip" }, el("span", { text: words, title: words }), button("✕", `Remove: ${words}`, () => desk.selection.remove(slotOf(filter))));
    }));
    clear.hidden = filters.length < 2;
  }
  desk.on("selection", show);
  show();
  return node;
}
