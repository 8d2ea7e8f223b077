/** Take the selection away as a file, or the view as a picture. */

import { button, el, themeColour } from "./dom";
import type { Desk } from "./desk";
import type { Format } from "./types";
import { count } from "./words";

const ENDING: Record<Format, string> = { csv: "csv", parquet: "parquet", rows: "txt", hdf5: "h5" };

export function takeaway(desk: Desk): HTMLElement {
  const said = el("p", { class: "soft" });
  const save = (format: Format, text: string, title: string): HTMLElement =>
    button(text, title, () => void desk.attempt(() => take(desk, format)), "wide");
  const byServer = desk.about.can_save && !desk.source.isStatic;
  const node = el("div", {}, said,
    save("csv", "Table, CSV", "All columns of the selected rows as CSV"),
    byServer && save("parquet", "Table, Parquet", "All columns of the selected rows as Parquet"),
    save("rows", "Row list", "One key:row a line"),
    byServer && desk.about.cutouts && save("hdf5", "Cutouts, HDF5", "The selected cutouts in a file that nenya train reads"),
    button("Picture of the views, PNG", "The map and the globe with their legend as PNG", () => void desk.attempt(() => picture(desk)), "wide"));
  const say = (): void => {
    const { selected, total } = desk.selection;
    said.textContent = selected === total ? `All ${count(total)} cutouts` : `${count(selected)} selected cutouts`;
  };
  desk.on("selection", say);
  say();
  return node;
}

async function take(desk: Desk, format: Format): Promise<void> {
  if (desk.selection.selected === 0) throw new Error("No cutout is selected, so there is nothing to save.");
  const blob = (await desk.source.save(format, desk.selection.bitset())) ?? (await made(desk, format));
  download(blob, `selection.${ENDING[format]}`);
}

/** Of a folder without a server: CSV and row list, made here. */
async function made(desk: Desk, format: Format): Promise<Blob> {
  const rows = await desk.source.rows([...desk.selection.numbers()]);
  if (format === "rows") return new Blob([rows.map((row) => `${row.key}:${row.row}\n`).join("")], { type: "text/plain" });
  const { columns } = desk.about;
  const quoted = (value: unknown): string => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [["key", "pp_idx", ...columns.map(({ name }) => name)], ...rows.map((row) => [row.key, row.row, ...columns.map(({ index }) => row.values[index])])];
  return new Blob([lines.map((line) => line.map(quoted).join(",") + "\r\n").join("")], { type: "text/csv" });
}

export function download(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** The views side by side at the screen's resolution, with the legend and a line that says what is shown. */
async function picture(desk: Desk): Promise<void> {
  const planes = desk.planes.filter((plane) => plane.node.offsetParent !== null);
  if (!planes.length) throw new Error("Neither the map nor the globe is on the screen.");
  const ratio = Math.max(2, window.devicePixelRatio || 1);
  const gap = 12;
  const width = planes.reduce((sum, plane) => sum + plane.width + gap, gap);
  const tall = Math.max(...planes.map((plane) => plane.height));
  const height = tall + 2 * gap + 44;
  const canvas = el("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const context = canvas.getContext("2d")!;
  context.scale(ratio, ratio);
  context.fillStyle = themeColour("panel");
  context.fillRect(0, 0, width, height);
  let left = gap;
  for (const plane of planes) {
    context.save();
    context.translate(left, gap);
    context.beginPath();
    context.rect(0, 0, plane.width, plane.height);
    context.clip();
    plane.paint(context);
    context.restore();
    left += plane.width + gap;
  }
  context.fillStyle = themeColour("ink");
  context.font = "13px system-ui, sans-serif";
  const { selected, total } = desk.selection;
  const filters = desk.selection.active.map((filter) => desk.wordsOf(filter)).join("; ");
  context.fillText(`${desk.about.title}: ${count(selected)} of ${count(total)} cutouts${filters ? ` (${filters})` : ""}`, gap, tall + gap + 22, width - 2 * gap);
  const shown = document.querySelector<HTMLElement>(".legend:not([hidden])");
  const bar = shown?.querySelector("canvas");
  context.fillStyle = themeColour("soft");
  context.font = "11.5px system-ui, sans-serif";
  if (shown) {
    const title = shown.querySelector(".title")?.textContent ?? "";
    const ends = [...shown.querySelectorAll(".ends span")].map((end) => end.textContent ?? "");
    context.fillText(title, gap, tall + gap + 42);
    let at = gap + context.measureText(title).width + 14;
    if (bar) {
      context.fillText(ends[0] ?? "", at, tall + gap + 42);
      at += context.measureText(ends[0] ?? "").width + 6;
      context.drawImage(bar, at, tall + gap + 33, 160, 10);
      context.fillText(ends.at(-1) ?? "", at + 166, tall + gap + 42);
    }
    for (const entry of shown.querySelectorAll<HTMLElement>(".entry")) {
      context.fillStyle = entry.querySelector("i")!.style.background;
      context.fillRect(at, tall + gap + 33, 10, 10);
      context.fillStyle = themeColour("soft");
      context.fillText(entry.textContent ?? "", at + 14, tall + gap + 42);
      at += context.measureText(entry.textContent ?? "").width + 28;
    }
  }
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("The browser could not make the picture.");
  download(blob, "nenya-portal.png");
}
