/** The page of `nenya portal`: opens the data and puts the parts together. */

import { chips } from "./chips";
import { colouringOf, parseColour, tableOf, type Colouring } from "./colour";
import { Desk } from "./desk";
import { button, choice, el, later, themeColour } from "./dom";
import { gallery } from "./gallery";
import { groundOf } from "./ground";
import { histograms } from "./histograms";
import { hoverCard } from "./hover";
import { caption, legend } from "./legend";
import { goTo, like } from "./like";
import { helpBox, menu } from "./menus";
import { Plane, type Drawing, type Tool } from "./plane";
import { shuffled } from "./points";
import { Kept, ServerSource, StaticSource, Told, type Source } from "./source";
import type { Facts, Filter, ViewName } from "./selection";
import { slotOf } from "./selection";
import { fromHash, START, toHash, type State } from "./state";
import { table } from "./table";
import { takeaway } from "./takeaway";
import type { About, Positions } from "./types";
import { count, number, readPlace, unitSign } from "./words";

const TABS: [string, string][] = [["map", "Map"], ["globe", "Globe"], ["histograms", "Columns"], ["table", "Table"], ["gallery", "Gallery"], ["like", "Like this"]];

async function start(): Promise<void> {
  const waiting = document.getElementById("waiting")!;
  try {
    const source: Source = window.NENYA_STATIC ? await StaticSource.open() : await ServerSource.open(new URLSearchParams(location.search).get("token") ?? "");
    const [map, places, coastline] = await Promise.all([source.map(), source.places(), source.about.has_places ? source.coastline() : new Float32Array()]);
    waiting.remove();
    await build(source, map, places, coastline);
  } catch (error) {
    waiting.textContent = error instanceof Told ? error.message : `The page could not start: ${error instanceof Error ? error.message : String(error)}`;
    waiting.classList.add("error");
    if (!(error instanceof Told)) throw error;
  }
}

/** The state of a page that was just opened: DT and the time line, if the run has them. */
function usual(about: About): State {
  const names = about.columns.filter((column) => column.kind !== "text" && column.known > 0);
  const times = names.filter((column) => column.kind === "time");
  const time = times.find((column) => column.name === "datetime") ?? times[0];
  const wanted = ["DT", "mean_temperature", "lat", "clear_fraction"].filter((name) => names.some((column) => column.name === name));
  const chosen = [...(time ? [time.name] : []), ...wanted];
  for (const column of names) if (chosen.length < 4 && !chosen.includes(column.name)) chosen.push(column.name);
  const DT = names.find((column) => column.name === "DT");
  const palette = about.palettes.includes("viridis") ? "viridis" : (about.palettes[0] ?? "");
  const cutouts = about.static?.palette ?? (about.palettes.includes("RdYlBu_r") ? "RdYlBu_r" : (about.palettes[0] ?? ""));
  const classes = about.map?.classes ?? [];
  const filters: Filter[] = classes.length > 1 ? [{ kind: "class", name: [...classes].sort((a, b) => b.count - a.count)[0]!.name }] : [];
  return { ...structuredClone(START), colour: DT?.name ?? "", histograms: chosen.slice(0, 4), palette, cutouts, filters };
}

function factsFor(source: Source, map: Positions | null, places: Positions | null): Facts {
  const { about } = source;
  return {
    numRows: about.num_rows,
    ends: { map: about.map?.ends ?? [[0, 1], [0, 1]], globe: [[-180, 180], [-90, 90]] },
    positions: async (view: ViewName) => (view === "map" ? map : places),
    column: (name) => about.columns.find((column) => column.name === name),
    values: (column) => source.values(column),
    regions: about.regions,
    classes: about.map?.classes ?? [],
    ofClass: () => source.ofClass(),
    where: (text) => source.where(text),
  };
}

async function build(source: Source, map: Positions | null, places: Positions | null, coastline: Float32Array): Promise<void> {
  const { about } = source;
  for (const held of [...about.columns, ...(about.cutouts ? [about.cutouts] : [])]) held.unit = unitSign(held.unit);
  const first = usual(about);
  const state = fromHash(location.hash, first);
  const desk = new Desk(source, state, factsFor(source, map, places));
  desk.places = places;
  document.title = `${about.title} - nenya portal`;
  applyTheme(state.theme);
  const order = shuffled(about.num_rows);

  const events = (name: ViewName) => ({
    hover: (number: number, x: number, y: number) => desk.hover(number, number < 0 ? null : [x, y]),
    choose: (number: number) => void desk.ask(number),
    area: (corners: [number, number][], shape: "lasso" | "box") => {
      const rounded = corners.map(([x, y]): [number, number] => [Number(x.toPrecision(6)), Number(y.toPrecision(6))]);
      void desk.setFilter({ kind: "area", view: name, shape, corners: rounded });
    },
    moved: () => {
      const plane = desk.planes.find((one) => one.name === name)!;
      state[name] = { x: Number(plane.camera.x.toPrecision(6)), y: Number(plane.camera.y.toPrecision(6)), k: Number(plane.camera.k.toPrecision(6)) };
      desk.tell("state");
    },
  });
  if (map && about.map) desk.planes.push(new Plane("map", "Map of patterns. Arrow keys move, plus and minus zoom.", map, about.map.ends, order, null, events("map")));
  if (places) desk.planes.push(new Plane("globe", "Globe, laid flat. Arrow keys move, plus and minus zoom.", places, [[-180, 180], [-90, 90]], order, groundOf(coastline), events("globe")));

  /** Cameras go first: a view that rests writes its own into the state. */
  const placeAll = (): void => {
    for (const plane of desk.planes) {
      const camera = state[plane.name];
      if (camera) plane.place(camera);
    }
  };
  placeAll();

  const key = legend();
  const panels = desk.planes.map((plane) => {
    const isMap = plane.name === "map";
    const head = el("header", {}, el("h2", { text: isMap ? "Patterns" : "Globe", title: isMap ? about.map!.label : "Where each cutout lies" }), isMap && el("span", { class: "soft", text: about.map!.method.toUpperCase(), title: trustIn(about.map!) }), isMap && classPicker(desk), el("span", { class: "grow" }), caption(plane, desk),
      button("−", "Zoom out (-)", () => plane.zoom(1 / 1.5), "square"), button("+", "Zoom in (+)", () => plane.zoom(1.5), "square"), button("All", "Show everything (0)", () => plane.fit()));
    return el("section", { class: `panel view view-${plane.name}` }, head, el("div", { class: "stage" }, plane.node, isMap && key.node));
  });
  if (!map && panels[0]) panels[0].querySelector(".stage")!.append(key.node);

  const columns = histograms(desk);
  const below = tabbed(desk, "below", [["histograms", "Columns", columns.node], ["table", "Table", table(desk)]], "below");
  below.querySelector("header")!.append(el("span", { class: "grow" }), columns.adder);
  const side = tabbed(desk, "side", [...(about.cutouts ? [["gallery", "Gallery", gallery(desk)] as [string, string, HTMLElement]] : []), ["like", "More like this", like(desk)]], "side");
  if (!about.cutouts) state.side = "like";
  const main = el("main", {}, el("div", { class: `views views-${panels.length}` }, ...panels), below, side);
  const help = helpBox();
  document.body.append(header(desk, help), chips(desk), main, phoneTabs(desk), hoverCard(desk), desk.messages, help, desk.bar);

  const colour = new Kept<Colouring>(4);
  let painted = 0;
  let shown: [Colouring | null, Uint8Array | null] = [null, null];
  const isDense = new Map<Plane, number | null>();
  const showLegend = (): void => key.show(...shown, isDense.get(desk.planes[0]!) ?? null);
  for (const plane of desk.planes) {
    plane.onDensity = (most) => {
      isDense.set(plane, most);
      showLegend();
    };
  }
  const recolour = async (): Promise<void> => {
    const turn = ++painted;
    const column = desk.column(state.colour);
    const named = column && column.kind !== "text" ? column : null;
    const found = await desk.attempt(async () => Promise.all([
      named ? colour.get(JSON.stringify([named.name, state.limits]), async () => colouringOf(named, await source.values(named), state.limits)) : null,
      about.palettes.length ? source.palette(state.palette) : null,
    ]));
    if (turn !== painted || !found) return;
    const [colouring, palette] = found;
    shown = [colouring, palette];
    showLegend();
    const colours = tableOf(colouring, palette, parseColour(themeColour("point")), parseColour(themeColour("unknown")));
    for (const plane of desk.planes) {
      plane.layer.setColour(colouring?.codes ?? null);
      if (palette) plane.densityColours = palette;
      restyle(plane, colours);
    }
  };
  const restyle = (plane: Plane, colours: Uint8Array): void => {
    const n = about.num_rows;
    const base = n > 500_000 ? 1.4 : n > 100_000 ? 1.8 : n > 20_000 ? 2.6 : n > 2000 ? 4 : 6;
    const full = n > 500_000 ? 0.55 : n > 100_000 ? 0.65 : n > 20_000 ? 0.8 : 0.9;
    plane.drawing = state.drawing;
    plane.look = { size: base * state.size, opacity: Math.min(1, full * state.opacity), colours, apart: parseColour(themeColour("apart")), apartOpacity: n > 20_000 ? 0.11 : 0.3 };
    plane.redraw();
  };
  const reselect = (): void => {
    const hiding = desk.selection.bitOf("class");
    for (const plane of desk.planes) {
      const area = desk.selection.find(`area:${plane.name}`);
      plane.area = area?.kind === "area" ? area : null;
      plane.setSelection(desk.selection.fails, hiding);
    }
  };
  const mark = (): void => {
    for (const plane of desk.planes) {
      plane.marks = { query: desk.query?.number ?? null, answers: desk.answer?.numbers ?? [], hovered: desk.hovered };
      plane.drawOverlay();
    }
  };
  desk.on("colour", () => void recolour());
  desk.on("selection", reselect);
  desk.on("query", mark);
  desk.on("shown", () => desk.hover(-1, null));
  desk.on("hover", mark);
  desk.on("theme", () => void recolour());
  const write = later(250, () => {
    const hash = toHash(state, first);
    if (hash !== (location.hash || "#")) history.replaceState(null, "", hash);
  });
  desk.on("state", write);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => desk.tell("theme"));

  /** Bring filters, cameras and query to what the state says. */
  const restore = async (): Promise<void> => {
    const wanted = state.filters;
    placeAll();
    for (const filter of desk.selection.active) if (!wanted.some((one) => slotOf(one) === slotOf(filter))) desk.selection.remove(slotOf(filter));
    for (const filter of wanted) await desk.setFilter(filter);
    if (state.query !== null && state.query < about.num_rows) {
      const { side: shown } = state;
      await desk.ask(state.query);
      desk.put("side", shown, "shown");
    } else if (desk.query) desk.dropQuery();
  };
  window.addEventListener("hashchange", () => {
    Object.assign(state, fromHash(location.hash, first));
    applyTheme(state.theme);
    for (const word of ["shown", "theme", "look", "colour"] as const) desk.tell(word);
    void restore();
  });
  listenForKeys(desk, help);
  listenForDrops(desk);
  reselect();
  await recolour();
  desk.tell("shown");
  await restore();
  document.body.dataset.ready = "";
}

/** How far the map can be trusted, for the one who points at its name. */
function trustIn(map: NonNullable<About["map"]>): string {
  const lines = [map.label];
  const walk = (value: unknown, name: string): void => {
    if (typeof value === "number") lines.push(`${name}: ${number(value, 3)}`);
    else if (value !== null && typeof value === "object") for (const [part, inside] of Object.entries(value)) walk(inside, name ? `${name}, ${part.replaceAll("_", " ")}` : part.replaceAll("_", " "));
  };
  walk(map.trust, "");
  return lines.join("\n");
}

function applyTheme(theme: State["theme"]): void {
  document.documentElement.dataset.theme = theme;
}

function header(desk: Desk, help: HTMLDialogElement): HTMLElement {
  const { about, state } = desk;
  const tools: [Tool, string, string][] = [["pan", "Move", "Move the view (V)"], ["lasso", "Lasso", "Select with a lasso (L, or Shift + drag)"], ["box", "Box", "Select with a box (B)"]];
  const group = el("div", { class: "group", role: "group", "aria-label": "Tool" }, ...tools.map(([tool, text, title]) =>
    el("button", { type: "button", text, title, "data-tool": tool, "aria-pressed": String(tool === "pan"), on: { click: () => setTool(desk, tool) } })));
  const colourable = about.columns.filter((column) => column.kind !== "text");
  const colour = choice("Colour by", [["", "one colour"], ...colourable.map((column): [string, string] => [column.name, column.name])], state.colour, (value) => {
    state.limits = null;
    desk.put("colour", value, "colour");
  });
  const palette = choice("Palette of the points", about.palettes.map((name) => [name, name]), state.palette, (value) => desk.put("palette", value, "colour"));
  const cutouts = choice("Palette of the cutouts", about.palettes.map((name) => [name, name]), state.cutouts, (value) => desk.put("cutouts", value, "look"));
  const slider = (name: "size" | "opacity", most: number): HTMLInputElement => {
    const input = el("input", { type: "range", min: 0.25, max: most, step: 0.05, value: state[name], "aria-label": name === "size" ? "Size of points" : "Opacity of points", on: { input: () => desk.put(name, Number(input.value), "colour") } });
    return input;
  };
  const size = slider("size", 4);
  const opacity = slider("opacity", 2);
  const drawing = choice("Draw", [["auto", "points (density above 2 million)"], ["points", "points"], ["density", "density"]], state.drawing, (value) => desk.put("drawing", value as Drawing, "colour"));
  const theme = choice("Theme", [["auto", "as the system"], ["light", "light"], ["dark", "dark"]], state.theme, (value) => {
    applyTheme(value as State["theme"]);
    desk.put("theme", value as State["theme"], "theme");
  });
  desk.on("shown", () => {
    colour.value = state.colour;
    palette.value = state.palette;
    cutouts.value = state.cutouts;
    theme.value = state.theme;
    drawing.value = state.drawing;
    size.value = String(state.size);
    opacity.value = String(state.opacity);
  });
  const field = (text: string, control: HTMLElement): HTMLElement => el("label", { class: "field" }, el("span", { text }), control);
  const looks = el("div", { class: "fields" }, field("Draw", drawing), field("Point size", size), field("Opacity", opacity), field("Palette of points", palette),
    about.cutouts && !about.static && field("Palette of cutouts", cutouts), field("Theme", theme));
  return el("header", { class: "top" }, el("h1", { text: about.title, title: about.title }),
    about.static && about.static.of > about.num_rows && el("span", { class: "soft", text: `an even sample of ${count(about.static.of)} cutouts` }),
    el("span", { class: "grow" }), group,
    colourable.length > 0 && el("label", { class: "inline" }, el("span", { text: "Colour by" }), colour),
    menu("View", "How points and cutouts are drawn", looks), menu("Save", "Take the selection or a picture away", takeaway(desk)),
    button("?", "Keys (?)", () => help.showModal(), "square"));
}

function setTool(desk: Desk, tool: Tool): void {
  for (const plane of desk.planes) {
    plane.tool = tool;
    plane.node.dataset.tool = tool;
  }
  for (const held of document.querySelectorAll<HTMLElement>("[data-tool][aria-pressed]")) held.setAttribute("aria-pressed", String(held.dataset.tool === tool));
}

function classPicker(desk: Desk): HTMLElement | null {
  const classes = desk.about.map?.classes ?? [];
  if (classes.length < 2) return null;
  const pick = choice("Class", classes.map(({ name, label, count: many }) => [name, `${label || name} (${count(many)})`]), "", (name) => void desk.setFilter({ kind: "class", name }));
  const say = (): void => {
    const filter = desk.selection.find("class");
    if (filter?.kind === "class") pick.value = filter.name;
  };
  desk.on("selection", say);
  return pick;
}

/** A panel with two faces; the state says which is shown. */
function tabbed(desk: Desk, name: "below" | "side", faces: [string, string, HTMLElement][], kind: string): HTMLElement {
  const tabs = faces.map(([face, text, body]) => {
    body.id = `face-${face}`;
    return el("button", { type: "button", role: "tab", text, "aria-controls": body.id, "data-face": face, on: { click: () => {
      desk.put(name, face as never, "shown");
    } } });
  });
  const node = el("section", { class: `panel ${kind}` }, el("header", { role: "tablist" }, ...tabs), ...faces.map(([, , body]) => body));
  const show = (): void => {
    const chosen = faces.some(([face]) => face === desk.state[name]) ? desk.state[name] : faces[0]![0];
    faces.forEach(([face, , body], i) => {
      body.hidden = face !== chosen;
      tabs[i]!.setAttribute("aria-selected", String(face === chosen));
    });
    node.dataset.shown = chosen;
  };
  desk.on("shown", show);
  show();
  return node;
}

/** On a narrow screen one part is shown at a time. */
function phoneTabs(desk: Desk): HTMLElement {
  const { about, state } = desk;
  const has = (tab: string): boolean => tab === "map" ? Boolean(about.map) : tab === "globe" ? about.has_places : tab === "gallery" ? Boolean(about.cutouts) : tab === "table" || tab === "histograms" ? about.columns.length > 0 : true;
  const buttons = TABS.filter(([tab]) => has(tab)).map(([tab, text]) => el("button", { type: "button", text, "data-tab": tab, on: { click: () => go(tab) } }));
  const go = (tab: string): void => {
    if (tab === "histograms" || tab === "table") state.below = tab;
    if (tab === "gallery" || tab === "like") state.side = tab;
    desk.put("tab", tab, "shown");
  };
  const show = (): void => {
    document.body.dataset.tab = state.tab;
    for (const held of buttons) held.setAttribute("aria-pressed", String(held.dataset.tab === state.tab));
  };
  let before = desk.query;
  desk.on("query", () => {
    if (desk.query && desk.query !== before && window.matchMedia("(max-width: 760px)").matches && state.tab !== "map" && state.tab !== "globe") go("like");
    before = desk.query;
  });
  desk.on("shown", show);
  show();
  return el("nav", { class: "phone", "aria-label": "Parts of the page" }, ...buttons);
}

function listenForKeys(desk: Desk, help: HTMLDialogElement): void {
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || /^(INPUT|SELECT|TEXTAREA)$/u.test(target.tagName)) return;
    const does: Record<string, () => void> = {
      v: () => setTool(desk, "pan"), l: () => setTool(desk, "lasso"), b: () => setTool(desk, "box"), "?": () => help.showModal(),
      g: () => desk.put("side", desk.state.side === "gallery" ? "like" : "gallery", "shown"),
      t: () => desk.put("below", desk.state.below === "table" ? "histograms" : "table", "shown"),
      p: () => [...document.querySelectorAll<HTMLButtonElement>(".menu-panel button")].find((one) => one.textContent!.startsWith("Picture"))?.click(),
      Escape: () => (desk.selection.active.some((filter) => filter.kind !== "class") ? desk.selection.clear() : desk.dropQuery()),
    };
    const act = does[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    act();
    event.preventDefault();
  });
  document.addEventListener("paste", (event) => {
    if (/^(INPUT|TEXTAREA)$/u.test((event.target as HTMLElement).tagName)) return;
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (readPlace(text)) goTo(desk, text);
  });
}

function listenForDrops(desk: Desk): void {
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    if (!desk.about.can_upload) desk.say("A cutout can't be uploaded here: this page has no model or no server.", true);
    else if (!file.name.toLowerCase().endsWith(".npy")) desk.say(`${file.name} is not a .npy file. Save one cutout with numpy.save.`, true);
    else void desk.askFile(file);
  });
}

void start();
