import createScatterplot from "regl-scatterplot";
import { measure, value, x, y } from "./points.js";

const began = performance.now();
const canvas = document.createElement("canvas");
canvas.style.cssText = "width:800px;height:600px";
document.body.append(canvas);
const colours = Array.from({ length: 256 }, (_, i) => [i / 255, 0.5, 1 - i / 255, 1]);
const plot = createScatterplot({ canvas, width: 800, height: 600, pointSize: 2, opacity: 0.5, pointColor: colours, colorBy: "valueA", pointSizeMouseDetection: 0 });
let isDrawn = false;
const drawn = () => new Promise((resolve) => {
  const stop = plot.subscribe("draw", () => {
    plot.unsubscribe(stop);
    resolve();
  });
});
void measure(began, () => canvas, async (dx, dy) => {
  if (!isDrawn) {
    isDrawn = true;
    await plot.draw({ x, y, valueA: value });
    return;
  }
  const ready = drawn();
  plot.set({ cameraView: new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, dx, dy, 0, 1]) });
  await ready;
});
