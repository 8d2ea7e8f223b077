/** The same made points for every library: x, y in -1..1 and a value 0..1. */
export const N = Number(new URLSearchParams(location.search).get("n") ?? 1_000_000);
let state = 12345;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 4294967296;
};
const gauss = () => random() + random() + random() + random() - 2;
export const x = new Float32Array(N);
export const y = new Float32Array(N);
export const value = new Float32Array(N);
const centres = Array.from({ length: 24 }, () => [1.4 * random() - 0.7, 1.4 * random() - 0.7]);
for (let i = 0; i < N; i++) {
  const [cx, cy] = centres[Math.floor(random() * 24)];
  x[i] = cx + 0.15 * gauss();
  y[i] = cy + 0.15 * gauss();
  value[i] = random();
}

const FRAMES = 12;
const waitForFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

/** All that was asked of the graphics card is done when a pixel of the picture can be read. */
function finish(canvas) {
  pixel.drawImage(canvas, 0, 0, 1, 1);
  pixel.getImageData(0, 0, 1, 1);
}

/** Time from `began` to the first picture, then that of each frame while the view moves. */
export async function measure(began, canvas, draw) {
  await draw(0, 0);
  finish(canvas());
  const first = performance.now() - began;
  const frames = [];
  for (let i = 0; i < FRAMES; i++) {
    await waitForFrame();
    const start = performance.now();
    await draw(0.3 * Math.sin(i / 6), 0.3 * Math.cos(i / 6));
    finish(canvas());
    frames.push(performance.now() - start);
  }
  frames.sort((a, b) => a - b);
  window.measured = { first: Math.round(first), median: Math.round(frames[FRAMES / 2]), slowest: Math.round(frames.at(-1)) };
  document.body.dataset.done = JSON.stringify(window.measured);
}
