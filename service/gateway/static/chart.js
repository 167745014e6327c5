// Small charts over time. Each redraws itself whole; there are few points.

import { draw } from "./dom.js";

const TALL = 132;
const MARGIN = { top: 8, right: 6, bottom: 18, left: 38 };

/** A round number at or above `value`. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** One chart inside `root`. `kind` is `lines` or `columns`; points come as [{at, values: {name: number or null}}]. */
export class Chart {
  #svg = draw("svg", { "aria-hidden": "true", focusable: "false" });
  #points = [];

  constructor(root, { kind, span, unit, top = null }) {
    Object.assign(this, { kind, span, unit, top });
    root.append(this.#svg);
    new ResizeObserver(() => this.#render()).observe(root);
  }

  /** Shows these points, of the last `span` milliseconds before `now`; `names` in the order in which they stack. */
  update(points, names, now) {
    this.#points = points;
    this.names = names;
    this.now = now;
    this.#render();
  }

  #render() {
    const wide = this.#svg.parentElement.clientWidth;
    if (!wide || !this.names) return;
    this.#svg.setAttribute("viewBox", `0 0 ${wide} ${TALL}`);
    this.#svg.setAttribute("width", wide);
    this.#svg.setAttribute("height", TALL);
    const values = this.#points.flatMap((point) => this.kind === "columns"
      ? [this.names.reduce((sum, name) => sum + (point.values[name] || 0), 0)]
      : this.names.map((name) => point.values[name] || 0));
    const most = this.top ?? ceiling(Math.max(0, ...values));
    const x = (at) => MARGIN.left + (1 - (this.now - at) / this.span) * (wide - MARGIN.left - MARGIN.right);
    const y = (value) => TALL - MARGIN.bottom - (value / most) * (TALL - MARGIN.top - MARGIN.bottom);
    const drawn = this.kind === "columns" ? this.#columns(x, y) : this.#lines(x, y);
    this.#svg.replaceChildren(...this.#axes(x, y, most, wide), ...drawn);
  }

  #axes(x, y, most, wide) {
    const parts = [0, most / 2, most].flatMap((value) => [
      draw("line", { class: value ? "grid" : "axis", x1: MARGIN.left, x2: wide - MARGIN.right, y1: y(value), y2: y(value) }),
      draw("text", { class: "tick", x: MARGIN.left - 6, y: y(value) + 3.5, "text-anchor": "end" }, this.unit(value)),
    ]);
    const minutes = Math.round(this.span / 60000);
    parts.push(draw("text", { class: "tick", x: MARGIN.left, y: TALL - 3 }, `${minutes} min ago`));
    parts.push(draw("text", { class: "tick", x: wide - MARGIN.right, y: TALL - 3, "text-anchor": "end" }, "now"));
    return parts;
  }

  #lines(x, y) {
    return this.names.flatMap((name) => {
      let path = "";
      let pen = false;
      let last = null;
      for (const point of this.#points) {
        const value = point.values[name];
        if (value === null || value === undefined) pen = false;
        else {
          path += `${pen ? "L" : "M"}${x(point.at).toFixed(1)} ${y(value).toFixed(1)}`;
          pen = true;
          last = point;
        }
      }
      if (!last) return [];
      const end = draw("circle", { class: `end ${name}`, cx: x(last.at), cy: y(last.values[name]), r: 2.5 });
      return [draw("path", { class: `line ${name}`, d: path }), end];
    });
  }

  #columns(x, y) {
    return this.#points.flatMap((point, index) => {
      const from = index ? Math.max(x(this.#points[index - 1].at), MARGIN.left) : x(point.at) - 4;
      let below = 0;
      return this.names.flatMap((name) => {
        const value = point.values[name] || 0;
        if (!value) return [];
        below += value;
        const width = Math.max(1, x(point.at) - from - 1);
        return [draw("rect", { class: `column ${name}`, x: from, width, y: y(below), height: Math.max(0, y(below - value) - y(below)) })];
      });
    });
  }
}
