import { PointLayer, shuffled } from "../src/points.ts";
import { measure, N, value, x, y } from "./points.js";

// The page leaves WebGL where the browser computes it without a graphics card; here it is to be measured too.
const get = HTMLCanvasElement.prototype.getContext;
const isPlain = new URLSearchParams(location.search).has("plain");
HTMLCanvasElement.prototype.getContext = function (kind, options) {
  if (kind === "webgl2") return isPlain ? null : get.call(this, kind, { ...options, failIfMajorPerformanceCaveat: false });
  return get.call(this, kind, options);
};

const began = performance.now();
const ticks = (values) => Uint16Array.from(values, (one) => Math.max(0, Math.min(65534, Math.round(((one + 1) / 2) * 65534))));
const layer = new PointLayer({ x: ticks(x), y: ticks(y) }, shuffled(N));
layer.canvas.style.cssText = "width:800px;height:600px";
document.body.append(layer.canvas);
layer.setColour(Uint8Array.from(value, (one) => Math.round(254 * one)));
const colours = Uint8Array.from({ length: 768 }, (_, i) => (i * 7) % 256);
const look = { size: 2, opacity: 0.5, colours, apart: [128, 128, 128], apartOpacity: 0.1 };
void measure(began, () => layer.canvas, (dx, dy) => {
  layer.draw({ ax: 600 / 65534, bx: 100 + 300 * dx, ay: -600 / 65534, by: 600 + 300 * dy, width: 800, height: 600, period: 0 }, look, false);
});
