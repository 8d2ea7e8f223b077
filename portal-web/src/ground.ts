/** The ground of the globe: lines of longitude and latitude under the points, coastline and degrees over them. */

import { themeColour } from "./dom";
import type { Ground, Plane } from "./plane";

export function groundOf(coastline: Float32Array): Ground {
  return (context, plane, isOver) => {
    const [x0, y0] = plane.toUnits(0, plane.height);
    const [x1, y1] = plane.toUnits(plane.width, 0);
    const step = [60, 30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05].find((one) => (one * plane.camera.k < 130)) ?? 0.05;
    if (!isOver) return drawLines(context, plane, x0, x1, Math.max(-90, y0), Math.min(90, y1), step, "lines");
    context.strokeStyle = themeColour("coast");
    context.lineWidth = 1;
    context.lineJoin = "round";
    context.beginPath();
    for (let i = 0, open = false, before = 0; i + 1 < coastline.length; i += 2) {
      const lon = coastline[i]!;
      if (Number.isNaN(lon)) {
        open = false;
        continue;
      }
      const [px, py] = plane.toScreen(lon, coastline[i + 1]!);
      // A line that jumps across the view went around the back of the globe.
      if (open && Math.abs(px - before) < plane.camera.k * 180) context.lineTo(px, py);
      else context.moveTo(px, py);
      open = true;
      before = px;
    }
    context.stroke();
    drawLines(context, plane, x0, x1, Math.max(-90, y0), Math.min(90, y1), step, "words");
  };
}

function drawLines(context: CanvasRenderingContext2D, plane: Plane, x0: number, x1: number, y0: number, y1: number, step: number, draw: "lines" | "words"): void {
  const faint = themeColour("grid");
  const words = themeColour("soft");
  const halo = themeColour("panel");
  const digits = step < 1 ? (step < 0.1 ? 2 : 1) : 0;
  context.lineWidth = 1;
  context.strokeStyle = faint;
  context.font = "10.5px system-ui, sans-serif";
  const top = plane.toScreen(plane.camera.x, y1)[1];
  const bottom = plane.toScreen(plane.camera.x, y0)[1];
  const label = (text: string, x: number, y: number, align: CanvasTextAlign): void => {
    context.textAlign = align;
    context.lineWidth = 3;
    context.strokeStyle = halo;
    context.strokeText(text, x, y);
    context.fillStyle = words;
    context.fillText(text, x, y);
    context.lineWidth = 1;
    context.strokeStyle = faint;
  };
  const at = (x: number): number => (x - plane.camera.x) * plane.camera.k + plane.width / 2;
  for (let i = Math.ceil(x0 / step); i * step <= x1; i++) {
    const px = Math.round(at(i * step)) + 0.5;
    if (draw === "lines") {
      context.beginPath();
      context.moveTo(px, top);
      context.lineTo(px, bottom);
      context.stroke();
    } else if (px > 44 && px < plane.width - 18) {
      const lon = ((((i * step + 180) % 360) + 360) % 360) - 180;
      const east = Math.abs(lon) < 1e-9 || Math.abs(Math.abs(lon) - 180) < 1e-9 ? "" : lon > 0 ? " E" : " W";
      label(`${Math.abs(lon).toFixed(digits)}°${east}`, px, Math.min(plane.height - 5, bottom - 4), "center");
    }
  }
  for (let i = Math.ceil(y0 / step); i * step <= y1; i++) {
    const py = Math.round(plane.toScreen(plane.camera.x, i * step)[1]) + 0.5;
    if (draw === "lines") {
      context.beginPath();
      context.moveTo(0, py);
      context.lineTo(plane.width, py);
      context.stroke();
    } else if (py > top + 14 && py < bottom - 16) {
      const lat = i * step;
      label(`${Math.abs(lat).toFixed(digits)}°${Math.abs(lat) < 1e-9 ? "" : lat > 0 ? " N" : " S"}`, 5, py - 3, "left");
    }
  }
}
