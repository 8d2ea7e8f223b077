/** "More like this": the query, how near is too near, and the answers. */

import { button, el } from "./dom";
import { paint, type Desk } from "./desk";
import { colourBar, factsOf } from "./hover";
import { Thumbs } from "./thumbs";
import { count, readPlace } from "./words";

export function like(desk: Desk): HTMLElement {
  const { state, about } = desk;
  const canvas = el("canvas", { class: "cutout", width: 64, height: 64 });
  const facts = el("dl");
  const asked = el("div", { class: "query" }, about.cutouts && el("div", { class: "pictured" }, canvas, colourBar(desk).node), facts);
  const empty = el("p", { class: "soft", text: "Click a point, a cutout or a row: the cutouts that are most like it are shown here." });
  const head = el("span", { class: "grow soft" });
  const thumbs = new Thumbs(desk);

  const box = (label: string, value: number, unit: string, change: (value: number) => void, most = Infinity): HTMLElement => {
    const input = el("input", { type: "number", min: 0, value, step: "any", on: { change: () => {
      const typed = Number(input.value);
      if (!(typed >= 0)) return;
      input.value = String(Math.min(most, typed));
      change(Math.min(most, typed));
      again();
    } } });
    return el("label", {}, el("span", { text: label }), input, el("span", { class: "soft", text: unit }));
  };
  const most = desk.source.isStatic ? (about.static?.neighbours ?? 20) : 1000;
  const options = el("div", { class: "options" },
    box("show", state.nearness.k, "", (value) => (state.nearness = { ...state.nearness, k: Math.max(1, Math.round(value)) }), most),
    !desk.source.isStatic && about.has_places && box("at least", state.nearness.minDistance, "km away", (value) => (state.nearness = { ...state.nearness, minDistance: value })),
    !desk.source.isStatic && about.has_times && box("at least", state.nearness.minHours, "hours apart", (value) => (state.nearness = { ...state.nearness, minHours: value })),
  );
  if (!desk.source.isStatic && about.columns.length) {
    const where = el("input", { type: "text", class: "grow", placeholder: "DT > 1", value: state.nearness.where, on: { change: () => {
      state.nearness = { ...state.nearness, where: where.value.trim() };
      again();
    } } });
    options.append(el("label", { class: "wide" }, el("span", { text: "where" }), where));
  }

  const file = el("input", { type: "file", accept: ".npy", class: "hidden", tabindex: -1, "aria-label": "Cutout as .npy", on: { change: () => {
    if (file.files?.[0]) void desk.askFile(file.files[0]);
    file.value = "";
  } } });
  const place = el("input", { type: "text", class: "grow", placeholder: "36.2, -122.5", "aria-label": "Coordinates, latitude first" });
  const go = el("form", { class: "tools", on: { submit: (event: Event) => {
    event.preventDefault();
    goTo(desk, place.value);
  } } }, place, el("button", { type: "submit", text: "Nearest cutout" }));

  const select = button("Select these", "Select the query and its answers in all views", () => {
    if (!desk.answer) return;
    const numbers = [...(desk.query?.number === null || !desk.query ? [] : [desk.query.number]), ...desk.answer.numbers];
    void desk.setFilter({ kind: "rows", label: `Like ${desk.query?.name || `cutout ${desk.query?.number}`}`, numbers });
  });
  const more = el("details", { class: "more" }, el("summary", { text: "Limits, coordinates, a cutout of your own" }), options,
    about.has_places && go,
    about.can_upload && el("div", { class: "tools" }, button("Upload a cutout (.npy)", "Query by a cutout of your own, one array in a .npy file", () => file.click()), file, el("span", { class: "soft", text: "or drop it here" })));
  more.open = state.query === null;
  const node = el("section", { class: "panel-body", "aria-label": "More like this" },
    el("div", { class: "scroll" }, empty, asked, more, el("div", { class: "tools" }, head, select), thumbs.node));

  function again(): void {
    desk.tell("state");
    if (desk.query?.file) void desk.askFile(desk.query.file);
    else if (desk.query && desk.query.number !== null) void desk.ask(desk.query.number);
  }

  async function show(): Promise<void> {
    const { query, answer } = desk;
    empty.hidden = query !== null;
    asked.hidden = query === null;
    select.hidden = !answer?.numbers.length;
    head.textContent = !query ? "" : !answer ? "Looking for what is like it ..." : answer.numbers.length ? `${count(answer.numbers.length)} most like it (cosine)` : "Nothing fits these limits.";
    const shown = answer?.numbers ?? [];
    void thumbs.show(shown, shown.map((_, i) => (Number.isFinite(answer!.similarity[i]!) ? answer!.similarity[i]!.toFixed(desk.source.isStatic ? 2 : 3) : "")));
    if (!query) return;
    asked.querySelector<HTMLElement>(".pictured")?.toggleAttribute("hidden", query.number === null);
    if (query.number === null) {
      facts.replaceChildren(el("dt", { text: "query" }), el("dd", { text: query.name }));
      return;
    }
    const number = query.number;
    await desk.attempt(async () => {
      const [row] = await desk.source.rows([number]);
      if (desk.query?.number === number) facts.replaceChildren(...factsOf(desk, row!));
      if (!about.cutouts) return;
      const picture = await desk.source.cutout(number, desk.look);
      if (desk.query?.number === number) paint(canvas, picture);
    });
  }

  let shownQuery: unknown;
  let shownAnswer: unknown;
  desk.on("query", () => {
    if (desk.query === shownQuery && desk.answer === shownAnswer) return;
    if (!shownQuery && desk.query) more.open = false;
    shownQuery = desk.query;
    shownAnswer = desk.answer;
    void show();
  });
  desk.on("look", () => void show());
  void show();
  return node;
}

/** Make the cutout nearest to coordinates the query. */
export function goTo(desk: Desk, text: string): void {
  const at = readPlace(text);
  if (!at) return desk.say(`"${text.slice(0, 40)}" is not a place. Write latitude and longitude, such as 36.2, -122.5 or 36.2N 122.5W.`, true);
  const found = desk.nearest(at.lon, at.lat);
  if (!found) return desk.say("No cutout of this run has a place.", true);
  desk.say(`The nearest cutout is ${found.km < 10 ? found.km.toFixed(1) : Math.round(found.km)} km from there.`);
  desk.planes.find((plane) => plane.name === "globe")?.show(at.lon - 15, at.lon + 15, at.lat - 10, at.lat + 10);
  void desk.ask(found.number);
}
