/** How many points lie where: counted over cells of the view, drawn as a picture under the coastline. */

import { eachInView, type Projection } from "./points";
import type { Camera, Plane } from "./plane";
import type { Positions } from "./types";

const CELL = 2; // css pixels

export interface Density {
  columns: number;
  rows: number;
  /** Selected points in each cell, and those apart. */
  selected: Uint32Array;
  apart: Uint32Array;
  most: number;
  camera: Camera;
  width: number;
  height: number;
  picture: HTMLCanvasElement | null;
  colours: Uint8Array | null;
}

export function densityOf(positions: Positions, projection: Projection, camera: Camera, fails: Uint16Array, hiding: number): Density {
  const columns = Math.ceil(projection.width / CELL);
  const rows = Math.ceil(projection.height / CELL);
  const selected = new Uint32Array(columns * rows);
  const apart = new Uint32Array(columns * rows);
  eachInView(positions, projection, (i, px, py) => {
    const bits = fails[i]!;
    const cell = ((py / CELL) | 0) * columns + ((px / CELL) | 0);
    if (bits === 0) selected[cell]!++;
    else if (!(bits & hiding)) apart[cell]!++;
    return true;
  });
  let most = 0;
  for (let i = 0; i < selected.length; i++) if (selected[i]! > most) most = selected[i]!;
  return { columns, rows, selected, apart, most, camera: { ...camera }, width: projection.width, height: projection.height, picture: null, colours: null };
}

/** Where a count stands between none and the most, 0..1, by logarithm. */
export function shareOf(count: number, most: number): number {
  return most <= 1 ? (count > 0 ? 1 : 0) : Math.log1p(count) / Math.log1p(most);
}

export function drawDensity(context: CanvasRenderingContext2D, density: Density, plane: Plane, colours: Uint8Array): void {
  if (!density.picture || density.colours !== colours) {
    const picture = document.createElement("canvas");
    picture.width = density.columns;
    picture.height = density.rows;
    const own = picture.getContext("2d")!;
    const image = own.createImageData(density.columns, density.rows);
    for (let i = 0; i < density.selected.length; i++) {
      const count = density.selected[i]!;
      if (count > 0) {
        const c = 3 * Math.round(255 * (0.12 + 0.88 * shareOf(count, density.most)));
        image.data.set([colours[c]!, colours[c + 1]!, colours[c + 2]!, 255], 4 * i);
      } else if (density.apart[i]! > 0) image.data.set([140, 145, 150, 60], 4 * i);
    }
    own.putImageData(image, 0, 0);
    density.picture = picture;
    density.colours = colours;
  }
  const grown = plane.camera.k / density.camera.k;
  const [cx, cy] = plane.toScreen(density.camera.x, density.camera.y);
  context.imageSmoothingEnabled = false;
  context.drawImage(density.picture, cx - (density.width / 2) * grown, cy - (density.height / 2) * grown, density.columns * CELL * grown, density.rows * CELL * grown);
}
