// One view of the image, with what was found drawn over it. Two of them stand side by side in a comparison.

import { colour, make, ms, percent, rgb, styled } from "./dom.js";
import { classMap } from "./masks.js";
import { TokenMap } from "./tokens.js";

const LEAST_WIDTH = 320; // of a drawing, in pixels, should the page not know yet how wide it is

const EDGE = [255, 255, 255, 255];

/** A figure: the image, its overlays, and one line below. */
export class Pane {
  #mask = make("canvas", { class: "mask", "aria-hidden": "true" });
  #tokens = make("canvas", { class: "tokens", "aria-hidden": "true" });
  #boxes = make("div", { class: "boxes", "aria-hidden": "true" });
  #title = make("span", { class: "pane-level" });
  #time = make("span", { class: "pane-time" });
  #under = make("span", { class: "pane-under" });
  #map = null;
  #image = null;

  constructor() {
    this.picture = make("img", { alt: "" });
    this.frame = make("div", { class: "frame" }, this.picture, this.#mask, this.#tokens, this.#boxes);
    const caption = make("figcaption", {}, this.#title, this.#under, this.#time);
    this.root = make("figure", { class: "pane" }, this.frame, caption);
    this.#tokens.addEventListener("pointermove", (event) => this.#point(event));
    this.#tokens.addEventListener("pointerleave", () => { this.#under.textContent = ""; });
  }

  /** Shows an image with nothing over it. */
  show(image) {
    this.#image = image;
    this.picture.src = image.url;
    this.picture.alt = `The image you chose: ${image.name}`;
    styled(this.root, { "--ratio": image.width / image.height });
    this.clear();
  }

  /** Takes away what was drawn. */
  clear() {
    for (const canvas of [this.#mask, this.#tokens]) canvas.hidden = true;
    this.#boxes.replaceChildren();
    this.#map = null;
    for (const text of [this.#title, this.#time, this.#under]) text.textContent = "";
    this.root.classList.remove("waiting");
  }

  /** Marks what is shown as about to be replaced. */
  wait(title) {
    this.root.classList.add("waiting");
    this.#title.textContent = title;
    this.#time.textContent = "";
  }

  /** Draws an answer. */
  draw(answer, model, withTokens) {
    this.root.classList.remove("waiting");
    this.#title.textContent = answer.level;
    if (answer.task === "detect") this.#drawBoxes(answer.predictions);
    else this.#boxes.replaceChildren();
    this.#mask.hidden = answer.task !== "segment";
    if (answer.task === "segment") this.#drawMask(answer);
    const tokens = withTokens && answer.explain ? answer.explain.tokens : null;
    this.#tokens.hidden = !tokens;
    this.#map = tokens ? new TokenMap(tokens, this.#image, model.input) : null;
    if (this.#map) this.#map.paint(this.#tokens, this.#sized(this.#tokens));
  }

  /** Shows how long it took. */
  time(milliseconds) {
    this.#time.textContent = `${ms(milliseconds)} in the model`;
  }

  /** Brings one class or object out, or none. */
  point(index) {
    for (const box of this.#boxes.children) box.classList.toggle("dim", index !== null && box.dataset.at !== String(index));
  }

  /** Gives a canvas as many pixels as the screen has for it; answers how many of them a pixel of the image gets. */
  #sized(canvas) {
    canvas.width = Math.max(LEAST_WIDTH, Math.round(this.frame.clientWidth * devicePixelRatio));
    const scale = canvas.width / this.#image.width;
    canvas.height = Math.max(1, Math.round(this.#image.height * scale));
    return scale;
  }

  #drawBoxes(predictions) {
    const { width, height } = this.#image;
    const corners = new Set();
    const boxes = predictions.map((found, at) => {
      const [x0, y0, x1, y1] = found.box;
      const corner = `${Math.round((x0 / width) * 25)},${Math.round((y0 / height) * 25)}`;
      const tag = make("span", { class: y0 < height * 0.06 ? "tag inside" : "tag" }, `${found.label} ${percent(found.score)}`);
      if (x0 > width * 0.75) tag.classList.add("left");
      if (corners.has(corner)) tag.classList.add("under");
      corners.add(corner);
      return styled(make("div", { class: "box", "data-at": at }, tag), {
        "--class": colour(found.index),
        left: `${(100 * x0) / width}%`, top: `${(100 * y0) / height}%`,
        width: `${(100 * (x1 - x0)) / width}%`, height: `${(100 * (y1 - y0)) / height}%`,
      });
    });
    // The best is drawn last, and so on top.
    this.#boxes.replaceChildren(...boxes.reverse());
  }

  #drawMask(answer) {
    this.#sized(this.#mask);
    const { width, height } = this.#mask;
    const classes = classMap(answer.segments, answer.size[0], answer.size[1], height, width);
    const context = this.#mask.getContext("2d");
    const pixels = context.createImageData(width, height);
    const colours = new Map(answer.segments.map((segment) => [segment.index, [...rgb(segment.index), 235]]));
    for (let at = 0; at < classes.length; at++) {
      const index = classes[at];
      if (!index) continue;
      const x = at % width;
      // Beyond the first and the last row there is nothing (undefined), which is no edge.
      const edge = (x > 0 && classes[at - 1] !== index) || (x < width - 1 && classes[at + 1] !== index)
        || (classes[at - width] ?? index) !== index || (classes[at + width] ?? index) !== index;
      pixels.data.set(edge ? EDGE : colours.get(index), at * 4);
    }
    context.putImageData(pixels, 0, 0);
  }

  #point(event) {
    if (!this.#map) return;
    const shown = this.#tokens.getBoundingClientRect();
    const x = ((event.clientX - shown.left) / shown.width) * this.#image.width;
    const y = ((event.clientY - shown.top) / shown.height) * this.#image.height;
    const size = this.#map.at(x, y);
    this.#under.textContent = size > 1 ? `${size} patches as one token` : size ? "a patch of its own" : "";
  }
}
