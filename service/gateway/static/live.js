// The charts: reads the service's metrics every two seconds while somebody looks.

import * as api from "./api.js";
import { Chart } from "./chart.js";
import { byId, make, ms } from "./dom.js";
import { between, reading } from "./metrics.js";

const EVERY = 2000;
const SPAN = 180000;
const WINDOW = 5; // readings over which quantiles are taken: one answer more or less should not make them jump
const NAMED = ["full", "high", "balanced", "fast", "custom"];

const HIDDEN = {
  401: "The metrics of this service need a key. Give one above, with the button “Key”.",
  403: "This key may not read the metrics of this service.",
  404: "This service does not show its metrics here; they may be on another port.",
};

/** The section with the charts. */
export class Live {
  #readings = [];
  #points = [];
  #timer = null;
  #on = true;

  constructor() {
    const number = (value) => (value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(2))));
    this.latency = new Chart(byId("latency"), { kind: "lines", span: SPAN, unit: number });
    this.rate = new Chart(byId("rate"), { kind: "columns", span: SPAN, unit: number });
    this.levels = new Chart(byId("levels-chart"), { kind: "columns", span: SPAN, unit: (value) => `${value * 100}%`, top: 1 });
    byId("pause").addEventListener("click", () => this.#pause());
    document.addEventListener("visibilitychange", () => this.#schedule(0));
    this.#schedule(0);
  }

  /** Begins anew, with what has changed: a key. */
  again() {
    this.#readings = [];
    this.#on = true;
    this.#showPause();
    this.#schedule(0);
  }

  #pause() {
    this.#on = !this.#on;
    this.#showPause();
    this.#schedule(0);
  }

  #showPause() {
    byId("pause").textContent = this.#on ? "Pause" : "Go on";
    byId("pause").setAttribute("aria-pressed", String(!this.#on));
  }

  #schedule(delay) {
    clearTimeout(this.#timer);
    if (this.#on && !document.hidden) this.#timer = setTimeout(() => this.#read(), delay);
  }

  async #read() {
    try {
      this.#take(reading(await api.metrics(), Date.now()));
      this.#note("");
      this.#schedule(EVERY);
    } catch (error) {
      this.#readings = [];
      this.#note(HIDDEN[error.status] || `No metrics: ${error.message}.`);
      if (HIDDEN[error.status]) {
        this.#on = false;
        this.#showPause();
      }
      this.#schedule(EVERY * 2);
    }
  }

  #note(text) {
    if (byId("live-note").textContent !== text) byId("live-note").textContent = text;
    byId("charts").hidden = Boolean(text);
  }

  #take(now) {
    this.#readings = [...this.#readings, now].slice(-WINDOW - 1);
    if (this.#readings.length > 1) {
      const last = between(this.#readings.at(-2), now);
      const wide = between(this.#readings[0], now);
      this.#points.push({ ...last, p50: wide.p50, p99: wide.p99 });
    }
    this.#points = this.#points.filter((point) => point.at > now.at - SPAN);
    this.#show(now.at);
  }

  #show(now) {
    const points = (values) => this.#points.map((point) => ({ at: point.at, values: values(point) }));
    const seen = NAMED.filter((name) => this.#points.some((point) => point.levels.get(name)));
    this.latency.update(points(({ p50, p99 }) => ({ p50, p99 })), ["p50", "p99"], now);
    this.rate.update(points(({ answered, refused }) => ({ answered, refused })), ["answered", "refused"], now);
    this.levels.update(points(({ levels }) => {
      const all = [...levels.values()].reduce((sum, value) => sum + value, 0);
      return Object.fromEntries(seen.map((name) => [name, all ? (levels.get(name) || 0) / all : 0]));
    }), seen, now);
    this.#say(seen);
  }

  /** The numbers of now, in words. */
  #say(seen) {
    const last = this.#points.at(-1) || { p50: null, p99: null, answered: 0, refused: 0, levels: new Map() };
    const time = (value) => (value === null ? "–" : ms(value));
    byId("p50").textContent = time(last.p50);
    byId("p99").textContent = time(last.p99);
    byId("answered").textContent = `${last.answered.toFixed(last.answered < 10 ? 1 : 0)} /s`;
    byId("refused").textContent = last.refused ? `${last.refused.toFixed(1)} /s refused` : "none refused";
    const totals = seen.map((name) => [name, this.#points.reduce((sum, point) => sum + (point.levels.get(name) || 0), 0)]);
    byId("levels-legend").replaceChildren(...(totals.length
      ? totals.map(([name, total]) => make("li", { class: name }, `${name} `, make("b", {}, String(total))))
      : [make("li", { class: "none" }, "nothing asked in the last 3 minutes")]));
  }
}
