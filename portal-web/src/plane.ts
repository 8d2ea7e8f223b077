/** A view of points in a plane: the map of patterns, or the globe laid flat. Moves, zooms, selects, marks. */

import { thinned, type Corner } from "./area";
import { drawDensity, type Density, densityOf } from "./density";
import { el, fitCanvas, later, themeColour } from "./dom";
import { eachInView, PointLayer, type Look, type Projection } from "./points";
import type { Filter, ViewName } from "./selection";
import { TICKS, type Positions } from "./types";
import { extentOf } from "./words";

export type Tool = "pan" | "lasso" | "box";
export type Drawing = "auto" | "points" | "density";

/** What is in the middle, in units of the view, and css pixels per unit. */
export interface Camera {
  x: number;
  y: number;
  k: number;
}

export interface Events {
  hover(number: number, clientX: number, clientY: number): void;
  choose(number: number): void;
  area(corners: Corner[], shape: "lasso" | "box"): void;
  moved(): void;
}

export interface Marks {
  query: number | null;
  answers: number[];
  hovered: number;
}

/** Draws what lies under the points, or over them: lines of longitude and latitude, a coastline. */
export type Ground = (context: CanvasRenderingContext2D, plane: Plane, isOver: boolean) => void;

const TOO_MANY = 2_000_000;

export class Plane {
  readonly node: HTMLElement;
  readonly layer: PointLayer;
  camera: Camera = { x: 0, y: 0, k: 1 };
  tool: Tool = "pan";
  drawing: Drawing = "auto";
  width = 300;
  height = 200;
  look!: Look;
  marks: Marks = { query: null, answers: [], hovered: -1 };
  area: (Filter & { kind: "area" }) | null = null;
  densityColours: Uint8Array = new Uint8Array(768);
  onRest: () => void = () => {};
  /** Told the largest count of a cell when the view shows density, null when it shows points. */
  onDensity: (most: number | null) => void = () => {};
  private told: number | null = null;
  private isFirst = true;
  private isSized = false;
  private isPlaced = false;
  private isFitted = false;
  private ground = el("canvas", { class: "layer" });
  private overlay = el("canvas", { class: "layer" });
  private density: Density | null = null;
  private drawn: Corner[] | null = null;
  private moving = false;
  private asked = false;
  private fails: Uint16Array = new Uint16Array(0);
  private hiding = 0;
  private readonly fitted: { x0: number; x1: number; y0: number; y1: number };
  private rest = later(140, () => {
    this.moving = false;
    this.redraw();
    this.events.moved();
    this.onRest();
  });

  constructor(
    readonly name: ViewName, label: string, readonly positions: Positions, readonly ends: [[number, number], [number, number]],
    order: Uint32Array, private readonly groundOf: Ground | null, private readonly events: Events,
  ) {
    this.layer = new PointLayer(positions, order);
    this.layer.canvas.addEventListener("again", () => this.redraw());
    this.node = el("div", { class: "plane", tabindex: 0, role: "application", "aria-label": label, "data-view": name },
      this.ground, this.layer.canvas, this.overlay);
    this.fitted = this.round;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.node);
  }

  private get round(): { x0: number; x1: number; y0: number; y1: number } {
    const [[x0, x1], [y0, y1]] = this.ends;
    if (this.name === "globe") return { x0, x1, y0, y1 };
    const pad = 0.04;
    const w = x1 - x0 || 1;
    const h = y1 - y0 || 1;
    return { x0: x0 - pad * w, x1: x1 + pad * w, y0: y0 - pad * h, y1: y1 + pad * h };
  }

  get projection(): Projection {
    const [[x0, x1], [y0, y1]] = this.ends;
    const { x, y, k } = this.camera;
    const perX = (x1 - x0 || 1) / TICKS;
    const perY = (y1 - y0 || 1) / TICKS;
    return {
      ax: perX * k, bx: (x0 - x) * k + this.width / 2,
      ay: -perY * k, by: (y - y0) * k + this.height / 2,
      width: this.width, height: this.height, period: this.name === "globe" ? TICKS : 0,
    };
  }

  toScreen(x: number, y: number): [number, number] {
    const { camera } = this;
    let dx = x - camera.x;
    if (this.name === "globe") dx -= 360 * Math.floor(dx / 360 + 0.5);
    return [dx * camera.k + this.width / 2, (camera.y - y) * camera.k + this.height / 2];
  }

  toUnits(px: number, py: number): Corner {
    const { camera } = this;
    return [(px - this.width / 2) / camera.k + camera.x, camera.y - (py - this.height / 2) / camera.k];
  }

  /** Place of a point on the screen, null where it has none. */
  screenOf(number: number): [number, number] | null {
    const x = this.positions.x[number]!;
    const y = this.positions.y[number]!;
    if (!(x <= TICKS && y <= TICKS)) return null;
    const [[x0, x1], [y0, y1]] = this.ends;
    return this.toScreen(x0 + (x * (x1 - x0)) / TICKS, y0 + (y * (y1 - y0)) / TICKS);
  }

  /** Show everything: on the globe, where the points lie, and at a second time all of it. */
  fit(): void {
    const { x0, x1, y0, y1 } = this.fitted;
    const found = this.name === "globe" && !this.isFitted ? extentOf(this.positions) : null;
    this.isFitted = found !== null;
    if (found && found.x1 - found.x0 < 200) {
      const pad = 0.08 * Math.max(found.x1 - found.x0, found.y1 - found.y0) + 1;
      const w = found.x1 - found.x0 + 2 * pad;
      const h = found.y1 - found.y0 + 2 * pad;
      this.camera = { x: (found.x0 + found.x1) / 2, y: (found.y0 + found.y1) / 2, k: Math.min(this.width / w, this.height / h) };
      return this.moved();
    }
    this.camera = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, k: this.least };
    this.moved();
  }

  /** Bring the camera to where it was, also before the view has its size. */
  place(camera: Camera): void {
    this.camera = { ...camera };
    this.isPlaced = true;
    if (this.isSized) this.moved();
  }

  /** Show a part of the view. */
  show(x0: number, x1: number, y0: number, y1: number): void {
    this.camera = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, k: 0.85 * Math.min(this.width / (x1 - x0 || 1), this.height / (y1 - y0 || 1)) };
    this.moved();
  }

  private get least(): number {
    const { x0, x1, y0, y1 } = this.fitted;
    // The globe never shows more than once around.
    if (this.name === "globe") return this.width / 360;
    return Math.min(this.width / (x1 - x0), this.height / (y1 - y0));
  }

  private resize(): void {
    const box = this.node.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) return;
    const grown = box.width / this.width;
    this.width = box.width;
    this.height = box.height;
    if (!this.isSized && !this.isPlaced) this.fit();
    else {
      if (this.isSized && this.name === "globe") this.camera.k *= grown;
      this.moved();
    }
    this.isSized = true;
    this.moving = false;
    this.redraw();
  }

  /** Keep the camera where there is something to see, and draw. */
  moved(): void {
    const { camera } = this;
    const { x0, x1, y0, y1 } = this.fitted;
    const most = (10 * TICKS) / Math.max(x1 - x0, y1 - y0);
    camera.k = Math.min(most, Math.max(this.name === "globe" ? this.least : 0.6 * this.least, camera.k));
    if (this.name === "globe") {
      camera.x = ((((camera.x + 180) % 360) + 360) % 360) - 180;
      const half = this.height / 2 / camera.k;
      camera.y = half >= 90 ? 0 : Math.min(90 - half, Math.max(half - 90, camera.y));
    } else {
      camera.x = Math.min(x1, Math.max(x0, camera.x));
      camera.y = Math.min(y1, Math.max(y0, camera.y));
    }
    this.moving = true;
    this.redraw();
    this.rest();
  }

  zoom(factor: number, px = this.width / 2, py = this.height / 2): void {
    const [x, y] = this.toUnits(px, py);
    const { x0, x1, y0, y1 } = this.fitted;
    const most = (10 * TICKS) / Math.max(x1 - x0, y1 - y0);
    const least = this.name === "globe" ? this.least : 0.6 * this.least;
    const k = Math.min(most, Math.max(least, this.camera.k * factor));
    this.camera = { k, x: x - (px - this.width / 2) / k, y: y + (py - this.height / 2) / k };
    this.moved();
  }

  /** What the selection says of each point. */
  setSelection(fails: Uint16Array, hiding: number): void {
    this.fails = fails;
    this.hiding = hiding;
    this.layer.setMask(fails, hiding);
    this.density = null;
    this.redraw();
  }

  /** Select what is in view, for those who use the keyboard. */
  selectView(): void {
    const [x0, y0] = this.toUnits(0, this.height);
    const [x1, y1] = this.toUnits(this.width, 0);
    this.events.area([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], "box");
  }

  redraw(): void {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      if (this.width > 2 && this.look) this.drawNow();
    });
  }

  drawNow(): void {
    const projection = this.projection;
    const dense = this.drawing === "density" || (this.drawing === "auto" && this.isCrowded(projection));
    if (dense) {
      if (!this.moving || !this.density) this.density = densityOf(this.positions, projection, this.camera, this.fails, this.hiding);
      this.layer.canvas.hidden = true;
    } else {
      this.layer.canvas.hidden = false;
      if (!this.layer.draw(projection, this.look, this.moving)) this.redraw();
    }
    const most = dense && this.density ? this.density.most : null;
    if (most !== this.told) this.onDensity((this.told = most));
    const under = fitCanvas(this.ground, this.width, this.height);
    this.groundOf?.(under, this, false);
    if (dense && this.density) drawDensity(under, this.density, this, this.densityColours);
    this.drawOverlay();
    if (this.isFirst) performance.mark(`${this.name} drawn`);
    this.isFirst = false;
  }

  private isCrowded(projection: Projection): boolean {
    if (this.positions.x.length <= TOO_MANY) return false;
    if (this.moving) return Boolean(this.layer.canvas.hidden);
    return this.layer.countInView(projection, TOO_MANY) >= TOO_MANY;
  }

  /** How many of the selected are in view. */
  countSelected(): number {
    let found = 0;
    eachInView(this.positions, this.projection, (i) => {
      if (this.fails[i] === 0) found++;
      return true;
    });
    return found;
  }

  drawOverlay(): void {
    const context = fitCanvas(this.overlay, this.width, this.height);
    this.paintOverlay(context);
  }

  private paintOverlay(context: CanvasRenderingContext2D): void {
    const ink = themeColour("ink");
    const halo = themeColour("panel");
    const accent = themeColour("accent");
    this.groundOf?.(context, this, true);
    const outline = (corners: [number, number][]): void => {
      context.beginPath();
      corners.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.lineWidth = 1.5;
      context.strokeStyle = accent;
      context.stroke();
      context.globalAlpha = 0.08;
      context.fillStyle = accent;
      context.fill();
      context.globalAlpha = 1;
    };
    if (this.area && !this.drawn) {
      // One corner is placed, the others follow it: an area across 180 degrees stays in one piece.
      const [first] = this.area.corners;
      const [fx, fy] = this.toScreen(first![0], first![1]);
      const k = this.camera.k;
      const corners = this.area.corners.map(([x, y]): [number, number] => [fx + (x - first![0]) * k, fy - (y - first![1]) * k]);
      outline(corners);
      if (this.name === "globe") for (const turn of [-360, 360]) outline(corners.map(([x, y]) => [x + turn * k, y]));
    }
    if (this.drawn) outline(this.drawn);
    const ring = (number: number, radius: number, width: number, colour: string): void => {
      const at = this.screenOf(number);
      if (!at) return;
      context.beginPath();
      context.arc(at[0], at[1], radius, 0, 2 * Math.PI);
      context.lineWidth = width + 2;
      context.strokeStyle = halo;
      context.stroke();
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    };
    for (const number of this.marks.answers) ring(number, 5, 1.5, ink);
    if (this.marks.query !== null) {
      ring(this.marks.query, 8, 2.5, themeColour("mark"));
      ring(this.marks.query, 2, 1.5, themeColour("mark"));
    }
    if (this.marks.hovered >= 0) ring(this.marks.hovered, 7, 2, accent);
  }

  /** Paint the view on another canvas, for a picture. */
  paint(context: CanvasRenderingContext2D): void {
    this.moving = false;
    this.drawNow();
    context.drawImage(this.ground, 0, 0, this.width, this.height);
    if (!this.layer.canvas.hidden) context.drawImage(this.layer.canvas, 0, 0, this.width, this.height);
    context.drawImage(this.overlay, 0, 0, this.width, this.height);
  }

  private pick(px: number, py: number, reach: number): number {
    return this.layer.pick(this.projection, px, py, reach, this.fails, this.hiding);
  }

  private listen(): void {
    const { node } = this;
    const held = new Map<number, [number, number]>();
    let begun: [number, number] | null = null;
    let travelled = 0;
    const at = (event: PointerEvent | WheelEvent): [number, number] => {
      const box = node.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    let waiting: PointerEvent | null = null;
    const hover = (event: PointerEvent): void => {
      if (waiting) {
        waiting = event;
        return;
      }
      waiting = event;
      requestAnimationFrame(() => {
        const latest = waiting;
        waiting = null;
        if (!latest || held.size) return;
        const [px, py] = at(latest);
        this.events.hover(this.pick(px, py, 8), latest.clientX, latest.clientY);
      });
    };
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      node.setPointerCapture(event.pointerId);
      node.focus({ preventScroll: true });
      held.set(event.pointerId, at(event));
      travelled = 0;
      begun = at(event);
      const tool = event.shiftKey ? "lasso" : this.tool;
      this.drawn = held.size === 1 && tool !== "pan" ? [begun] : null;
      this.shape = tool === "box" ? "box" : "lasso";
    });
    node.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return hover(event);
      const now = at(event);
      travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (held.size === 2) {
        const other = [...held.entries()].find(([id]) => id !== event.pointerId)![1];
        const was = Math.hypot(before[0] - other[0], before[1] - other[1]);
        const is = Math.hypot(now[0] - other[0], now[1] - other[1]);
        this.drawn = null;
        held.set(event.pointerId, now);
        this.camera.x -= (now[0] - before[0]) / 2 / this.camera.k;
        this.camera.y += (now[1] - before[1]) / 2 / this.camera.k;
        this.zoom(is / (was || 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
        return;
      }
      held.set(event.pointerId, now);
      if (this.drawn && begun) {
        this.drawn = this.shape === "box" ? [begun, [now[0], begun[1]], now, [begun[0], now[1]]] : [...this.drawn, now];
        this.drawOverlay();
      } else if (travelled > 3) {
        this.camera.x -= (now[0] - before[0]) / this.camera.k;
        this.camera.y += (now[1] - before[1]) / this.camera.k;
        this.events.hover(-1, 0, 0);
        this.moved();
      }
    });
    const end = (event: PointerEvent): void => {
      if (!held.delete(event.pointerId)) return;
      const drawn = this.drawn;
      this.drawn = null;
      if (event.type === "pointercancel") return this.drawOverlay();
      if (travelled <= 4) {
        const [px, py] = at(event);
        const number = this.pick(px, py, event.pointerType === "touch" ? 16 : 8);
        this.drawOverlay();
        if (event.pointerType === "touch") this.events.hover(number, event.clientX, event.clientY);
        if (number >= 0) this.events.choose(number);
      } else if (drawn) {
        const corners = this.shape === "box" ? drawn : thinned(drawn, 2);
        if (corners.length >= 3) this.events.area(corners.map(([x, y]) => this.toUnits(x, y)), this.shape);
        else this.drawOverlay();
      }
    };
    node.addEventListener("pointerup", end);
    node.addEventListener("pointercancel", end);
    node.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") this.events.hover(-1, 0, 0);
    });
    node.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [px, py] = at(event);
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0016)), px, py);
    }, { passive: false });
    node.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = 60 / this.camera.k;
      const moves: Record<string, () => void> = {
        ArrowLeft: () => (this.camera.x -= step), ArrowRight: () => (this.camera.x += step),
        ArrowUp: () => (this.camera.y += step), ArrowDown: () => (this.camera.y -= step),
      };
      if (moves[event.key]) {
        moves[event.key]!();
        this.moved();
      } else if (event.key === "+" || event.key === "=") this.zoom(1.3);
      else if (event.key === "-") this.zoom(1 / 1.3);
      else if (event.key === "0") this.fit();
      else if (event.key === "s") this.selectView();
      else if (event.key === "Enter") {
        const number = this.pick(this.width / 2, this.height / 2, Math.max(this.width, this.height));
        if (number >= 0) this.events.choose(number);
      } else if (event.key === "Escape" && this.drawn) {
        this.drawn = null;
        this.drawOverlay();
        event.stopPropagation();
      } else return;
      event.preventDefault();
    });
  }

  private shape: "lasso" | "box" = "lasso";
}
