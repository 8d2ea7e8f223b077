import { Deck, OrthographicView } from "@deck.gl/core";
import { ScatterplotLayer } from "@deck.gl/layers";
import { measure, N, value, x, y } from "./points.js";

const began = performance.now();
const positions = new Float32Array(2 * N);
const colours = new Uint8Array(4 * N);
for (let i = 0; i < N; i++) {
  positions[2 * i] = 300 * x[i];
  positions[2 * i + 1] = 300 * y[i];
  colours.set([255 * value[i], 128, 255 - 255 * value[i], 128], 4 * i);
}
const layer = new ScatterplotLayer({
  id: "points", radiusUnits: "pixels", getRadius: 1, antialiasing: false,
  data: { length: N, attributes: { getPosition: { value: positions, size: 2 }, getFillColor: { value: colours, size: 4, normalized: true } } },
});
let told = () => {};
const deck = new Deck({
  parent: document.body, width: 800, height: 600, views: new OrthographicView({}), useDevicePixels: false,
  viewState: { target: [0, 0, 0], zoom: 0 }, layers: [layer], onAfterRender: () => told(),
});
const rendered = () => new Promise((resolve) => (told = resolve));
let isDrawn = false;
void measure(began, () => document.querySelector("canvas"), async (dx, dy) => {
  if (isDrawn) {
    deck.setProps({ viewState: { target: [300 * dx, 300 * dy, 0], zoom: 0 } });
    deck.redraw("the view has moved");
    return;
  }
  isDrawn = true;
  await rendered();
});
