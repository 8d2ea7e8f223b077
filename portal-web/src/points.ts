/**
 * Many points in WebGL 2, or without it in a plain canvas. The points are held in a seeded random order, so that any first part
 * of them is a fair sample: while the view moves, as many are drawn as fit in the time of a frame; at rest, all.
 */

import { createBufferInfoFromArrays, createProgramInfo, createTexture, createVertexArrayInfo, drawBufferInfo, setAttribInfoBufferFromArray, setBuffersAndAttributes, setTextureFromArray, setUniforms, type BufferInfo, type ProgramInfo, type VertexArrayInfo } from "twgl.js";
import { NOWHERE, TICKS, type Positions } from "./types";

/** State of a point in the mask. */
export const APART = 0;
export const SELECTED = 1;
export const HIDDEN = 2;

/** From ticks to css pixels: x * ax + bx, y * ay + by; `period` in ticks where x wraps around (0: it does not). */
export interface Projection {
  ax: number;
  bx: number;
  ay: number;
  by: number;
  width: number;
  height: number;
  period: number;
}

export interface Look {
  size: number;
  opacity: number;
  /** 256 colours, RGB; the last is that of the unknown. */
  colours: Uint8Array;
  apart: [number, number, number];
  apartOpacity: number;
}

const VERTEX = `#version 300 es
in vec2 position;
in float colour;
in float mask;
uniform vec4 map;      // ticks to clip coordinates: scale, offset
uniform vec2 wrap;     // period and centre in ticks
uniform float size;
uniform float opacity;
uniform vec4 apart;
uniform sampler2D colours;
out vec4 shade;
void main() {
  bool drawn = mask < 1.5 && position.x < 65534.5;
  float x = position.x;
  if (wrap.x > 0.0) x -= wrap.x * floor((x - wrap.y) / wrap.x + 0.5);
  bool chosen = mask > 0.5;
  gl_Position = drawn ? vec4(vec2(x, position.y) * map.xy + map.zw, chosen ? -0.5 : 0.5, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = size;
  shade = chosen ? vec4(texelFetch(colours, ivec2(int(colour + 0.5), 0), 0).rgb, opacity) : apart;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 shade;
uniform float round_;
out vec4 result;
void main() {
  if (round_ > 0.5) {
    vec2 d = gl_PointCoord - 0.5;
    if (dot(d, d) > 0.25) discard;
  }
  result = vec4(shade.rgb * shade.a, shade.a);
}`;

/** A random order of 0..n-1, the same every time. */
export function shuffled(n: number): Uint32Array {
  const order = new Uint32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  let state = 0x9e3779b9;
  for (let i = n - 1; i > 0; i--) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const j = (state >>> 0) % (i + 1);
    const held = order[i]!;
    order[i] = order[j]!;
    order[j] = held;
  }
  return order;
}

export class PointLayer {
  readonly canvas: HTMLCanvasElement;
  private gl: WebGL2RenderingContext | null;
  private program!: ProgramInfo;
  private buffers!: BufferInfo;
  private vertices!: VertexArrayInfo;
  private texture!: WebGLTexture;
  private readonly n: number;
  private readonly xy: Uint16Array;
  private readonly colour: Uint8Array;
  private readonly mask: Uint8Array;
  private fence: { sync: WebGLSync; begun: number; count: number } | null = null;
  /** Points drawn while the view moves. */
  prefix: number;

  constructor(private readonly positions: Positions, private readonly order: Uint32Array) {
    this.canvas = document.createElement("canvas");
    this.canvas.className = "layer";
    this.n = order.length;
    this.prefix = Math.min(this.n, 400_000);
    this.xy = new Uint16Array(2 * this.n);
    for (let i = 0; i < this.n; i++) {
      const row = order[i]!;
      const known = positions.x[row]! <= TICKS && positions.y[row]! <= TICKS;
      this.xy[2 * i] = known ? positions.x[row]! : NOWHERE;
      this.xy[2 * i + 1] = known ? positions.y[row]! : NOWHERE;
    }
    this.colour = new Uint8Array(this.n);
    this.mask = new Uint8Array(this.n).fill(SELECTED);
    // Without a graphics card the browser computes WebGL itself, about twenty times slower than the plain drawing below.
    this.gl = this.canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, powerPreference: "high-performance", failIfMajorPerformanceCaveat: true });
    if (this.gl) {
      this.prepare(this.gl);
      this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
      this.canvas.addEventListener("webglcontextrestored", () => {
        this.prepare(this.gl!);
        this.canvas.dispatchEvent(new Event("again"));
      });
    }
  }

  private prepare(gl: WebGL2RenderingContext): void {
    this.fence = null;
    this.program = createProgramInfo(gl, [VERTEX, FRAGMENT]);
    this.buffers = createBufferInfoFromArrays(gl, {
      position: { data: this.xy, numComponents: 2, normalize: false },
      colour: { data: this.colour, numComponents: 1, normalize: false, drawType: gl.DYNAMIC_DRAW },
      mask: { data: this.mask, numComponents: 1, normalize: false, drawType: gl.DYNAMIC_DRAW },
    });
    this.vertices = createVertexArrayInfo(gl, this.program, this.buffers);
    this.texture = createTexture(gl, { width: 256, height: 1, min: gl.NEAREST, mag: gl.NEAREST, format: gl.RGBA, src: new Uint8Array(1024), auto: false });
  }

  /** Index of the colour of each point, by number. */
  setColour(byNumber: Uint8Array | null): void {
    if (byNumber) for (let i = 0; i < this.n; i++) this.colour[i] = byNumber[this.order[i]!]!;
    else this.colour.fill(0);
    this.upload("colour", this.colour);
  }

  /** The mask of each point, from the bits that it fails and those that hide it. */
  setMask(fails: Uint16Array, hiding: number): void {
    for (let i = 0; i < this.n; i++) {
      const bits = fails[this.order[i]!]!;
      this.mask[i] = bits === 0 ? SELECTED : bits & hiding ? HIDDEN : APART;
    }
    this.upload("mask", this.mask);
  }

  private upload(name: "colour" | "mask", data: Uint8Array): void {
    if (this.gl) setAttribInfoBufferFromArray(this.gl, this.buffers.attribs![name]!, data);
  }

  /**
   * Draw. While the view moves it may leave a frame out, or draw the first part of the points only.
   *
   * Returns: whether it drew.
   */
  draw(projection: Projection, look: Look, moving: boolean): boolean {
    const count = moving ? Math.min(this.prefix, this.n) : this.n;
    if (!this.gl) {
      const begun = performance.now();
      this.drawPlain(projection, look, count);
      if (moving) this.adapt(performance.now() - begun, count);
      return true;
    }
    const gl = this.gl;
    if (this.fence) {
      const status = gl.clientWaitSync(this.fence.sync, 0, 0);
      if (status !== gl.TIMEOUT_EXPIRED) {
        gl.deleteSync(this.fence.sync);
        this.adapt(performance.now() - this.fence.begun, this.fence.count);
        this.fence = null;
      } else if (moving) return false;
    }
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(projection.width * ratio));
    const height = Math.max(1, Math.round(projection.height * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const rgba = new Uint8Array(1024);
    for (let i = 0; i < 256; i++) rgba.set([look.colours[3 * i]!, look.colours[3 * i + 1]!, look.colours[3 * i + 2]!, 255], 4 * i);
    setTextureFromArray(gl, this.texture, rgba, { width: 256, height: 1, format: gl.RGBA, auto: false });
    const { ax, bx, ay, by, period } = projection;
    gl.useProgram(this.program.program);
    setBuffersAndAttributes(gl, this.program, this.vertices);
    const centre = (projection.width / 2 - bx) / ax;
    setUniforms(this.program, {
      map: [(2 * ax) / projection.width, (-2 * ay) / projection.height, (2 * bx) / projection.width - 1, 1 - (2 * by) / projection.height],
      wrap: [period, centre],
      size: Math.max(1, look.size * ratio),
      opacity: look.opacity,
      apart: [...look.apart.map((part) => part / 255), look.apartOpacity],
      colours: this.texture,
      round_: look.size * ratio >= 3 ? 1 : 0,
    });
    const begun = performance.now();
    drawBufferInfo(gl, this.vertices, gl.POINTS, count);
    if (moving) {
      const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
      if (sync) this.fence = { sync, begun, count };
    }
    gl.flush();
    return true;
  }

  /** Fit the number of points drawn in motion to what a frame allows: `count` of them took so many ms. */
  private adapt(took: number, count: number): void {
    if (took > 30) this.prefix = Math.max(20_000, Math.round(count * Math.max(0.5, 27 / took)));
    else if (took < 20 && count === this.prefix) this.prefix = Math.min(this.n, Math.round(this.prefix * 1.25));
    this.canvas.dataset.moving = String(this.prefix);
  }

  /** Without a graphics card: squares written into the pixels of a canvas, the selected ones last. */
  private drawPlain(projection: Projection, look: Look, count: number): void {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(projection.width * ratio));
    const height = Math.max(1, Math.round(projection.height * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const context = this.canvas.getContext("2d")!;
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const side = Math.max(1, Math.round(look.size * ratio));
    const alpha = Math.round(255 * Math.max(look.opacity, 0.75)) << 24;
    const table = new Uint32Array(256);
    for (let c = 0; c < 256; c++) table[c] = alpha | (look.colours[3 * c + 2]! << 16) | (look.colours[3 * c + 1]! << 8) | look.colours[3 * c]!;
    const apart = ((Math.round(255 * Math.max(0.3, look.apartOpacity)) << 24) | (look.apart[2] << 16) | (look.apart[1] << 8) | look.apart[0]) >>> 0;
    const { period } = projection;
    const ax = projection.ax * ratio;
    const bx = projection.bx * ratio - side / 2 + 0.5;
    const ay = projection.ay * ratio;
    const by = projection.by * ratio - side / 2 + 0.5;
    const centre = (projection.width / 2 - projection.bx) / projection.ax;
    const { xy, mask, colour } = this;
    for (const wanted of mask.includes(APART) ? [APART, SELECTED] : [SELECTED]) {
      for (let i = 0; i < count; i++) {
        if (mask[i] !== wanted) continue;
        let x = xy[2 * i]!;
        if (x === NOWHERE) continue;
        if (period > 0) x -= period * Math.floor((x - centre) / period + 0.5);
        const left = Math.floor(x * ax + bx);
        const top = Math.floor(xy[2 * i + 1]! * ay + by);
        if (left < 0 || top < 0 || left + side > width || top + side > height) continue;
        const value = wanted === APART ? apart : table[colour[i]!]!;
        for (let row = top * width + left, end = row + side * width; row < end; row += width) {
          for (let at = row; at < row + side; at++) pixels[at] = value;
        }
      }
    }
    context.putImageData(image, 0, 0);
  }

  /** How many points lie in the view, up to `most`. */
  countInView(projection: Projection, most: number): number {
    let found = 0;
    eachInView(this.positions, projection, () => ++found < most);
    return found;
  }

  /** Number of the drawn point nearest to a place on the view, within `reach` css pixels; -1 for none. Selected ones come first. */
  pick(projection: Projection, px: number, py: number, reach: number, fails: Uint16Array, hiding: number): number {
    const { ax, bx, ay, by, period } = projection;
    const centre = (projection.width / 2 - bx) / ax;
    let best = -1;
    let least = reach * reach;
    let bestSelected = false;
    const { x: xs, y: ys } = this.positions;
    const reachY = reach / Math.abs(ay);
    const atY = (py - by) / ay;
    for (let i = 0; i < xs.length; i++) {
      const ty = ys[i]!;
      if (ty < atY - reachY || ty > atY + reachY || ty > TICKS) continue;
      let tx = xs[i]!;
      if (tx > TICKS) continue;
      if (period > 0) tx -= period * Math.floor((tx - centre) / period + 0.5);
      const dx = tx * ax + bx - px;
      const dy = ty * ay + by - py;
      const far = dx * dx + dy * dy;
      if (far > reach * reach) continue;
      const bits = fails[i]!;
      if (bits & hiding) continue;
      const selected = bits === 0;
      if ((selected && !bestSelected) || (selected === bestSelected && far < least)) {
        best = i;
        least = far;
        bestSelected = selected;
      }
    }
    return best;
  }
}

/** Call `see(i, px, py)` for each point inside the view until it returns false. */
export function eachInView(positions: Positions, projection: Projection, see: (i: number, px: number, py: number) => boolean): void {
  const { ax, bx, ay, by, period, width, height } = projection;
  const centre = (width / 2 - bx) / ax;
  const { x: xs, y: ys } = positions;
  for (let i = 0; i < xs.length; i++) {
    const ty = ys[i]!;
    let tx = xs[i]!;
    if (ty > TICKS || tx > TICKS) continue;
    const py = ty * ay + by;
    if (py < 0 || py >= height) continue;
    if (period > 0) tx -= period * Math.floor((tx - centre) / period + 0.5);
    const px = tx * ax + bx;
    if (px < 0 || px >= width) continue;
    if (!see(i, px, py)) return;
  }
}
