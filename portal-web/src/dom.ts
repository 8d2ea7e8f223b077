/** Small helpers to build the page. Text from data goes through `textContent` only. */

type Child = Node | string | null | undefined | false;

interface Properties {
  class?: string;
  text?: string;
  title?: string;
  on?: Record<string, (event: any) => void>;
  [attribute: string]: unknown;
}

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K, properties: Properties = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = String(value);
    else if (name === "text") node.textContent = String(value);
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value as object)) node.addEventListener(event, listener);
    } else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) node.append(child);
  return node;
}

/** A button; its title says more than its text, and is its name where the text is a sign only. */
export function button(text: string, title: string, press: (event: MouseEvent) => void, extra = ""): HTMLButtonElement {
  return el("button", { type: "button", class: extra, text, title, "aria-label": text.length === 1 && title, on: { click: press } });
}

export function choice(
  label: string, options: [value: string, text: string][], chosen: string, change: (value: string) => void,
): HTMLSelectElement {
  const select = el("select", { "aria-label": label, title: label, on: { change: () => change(select.value) } });
  for (const [value, text] of options) select.append(el("option", { value, text }));
  select.value = chosen;
  return select;
}

/** Draw at the screen's own resolution: a canvas of css size w x h, its context scaled to css pixels. */
export function fitCanvas(canvas: HTMLCanvasElement, w: number, h: number): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(w * ratio));
  const height = Math.max(1, Math.round(h * ratio));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d")!;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  return context;
}

/** A colour of the present theme, from the style sheet. */
export function themeColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Run `work` once per `wait` ms at most, with the last arguments. */
export function later<A extends unknown[]>(wait: number, work: (...values: A) => void): (...values: A) => void {
  let timer = 0;
  return (...values) => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => work(...values), wait);
  };
}

/** A map that forgets what was used longest ago. */
export class Recent<K, V> {
  private held = new Map<K, V>();
  constructor(private size: number, private forget: (value: V) => void = () => {}) {}
  get(key: K): V | undefined {
    const value = this.held.get(key);
    if (value !== undefined) {
      this.held.delete(key);
      this.held.set(key, value);
    }
    return value;
  }
  set(key: K, value: V): void {
    this.held.delete(key);
    this.held.set(key, value);
    if (this.held.size > this.size) {
      const [oldest, dropped] = this.held.entries().next().value!;
      this.held.delete(oldest);
      this.forget(dropped);
    }
  }
  delete(key: K): void {
    this.held.delete(key);
  }
}
