/** Which points lie in an area drawn on a view. */

export type Corner = [x: number, y: number];

/**
 * Tells the points inside a polygon (even-odd rule), fast for many: the edges are sorted into bands of y once, and a point is
 * tested against those of its band only. The same comparison as the plain crossing test, so the same answer.
 */
export class Area {
  readonly x0: number;
  readonly x1: number;
  readonly y0: number;
  readonly y1: number;
  private readonly bands: Float64Array[] = [];
  private readonly perUnit: number;

  constructor(corners: Corner[], numBands = 256) {
    const xs = corners.map((corner) => corner[0]);
    const ys = corners.map((corner) => corner[1]);
    this.x0 = Math.min(...xs);
    this.x1 = Math.max(...xs);
    this.y0 = Math.min(...ys);
    this.y1 = Math.max(...ys);
    const height = this.y1 - this.y0;
    this.perUnit = height > 0 ? numBands / height : 0;
    const held: number[][] = Array.from({ length: numBands + 1 }, () => []);
    corners.forEach(([ax, ay], i) => {
      const [bx, by] = corners[(i + 1) % corners.length]!;
      const first = this.band(Math.min(ay, by));
      const last = this.band(Math.max(ay, by));
      for (let band = first; band <= last; band++) held[band]!.push(ax, ay, bx, by);
    });
    this.bands = held.map((edges) => Float64Array.from(edges));
  }

  private band(y: number): number {
    return Math.floor((y - this.y0) * this.perUnit);
  }

  contains(x: number, y: number): boolean {
    if (!(x >= this.x0 && x <= this.x1 && y >= this.y0 && y <= this.y1)) return false;
    const edges = this.bands[this.band(y)]!;
    let inside = false;
    for (let i = 0; i < edges.length; i += 4) {
      const ay = edges[i + 1]!;
      const by = edges[i + 3]!;
      if (ay > y !== by > y) {
        const ax = edges[i]!;
        if (x < ((edges[i + 2]! - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
      }
    }
    return inside;
  }
}

/** Drop corners that lie within `close` of the one before. */
export function thinned(corners: Corner[], close: number): Corner[] {
  const kept: Corner[] = [];
  for (const corner of corners) {
    const last = kept.at(-1);
    if (!last || Math.hypot(corner[0] - last[0], corner[1] - last[1]) >= close) kept.push(corner);
  }
  return kept;
}
