// What to ask: task, model, level and options. Knows what the models offer and nothing of images.

import { byId, make, percent, styled } from "./dom.js";

export const EXPLICIT = "explicit";
export const AUTO = "auto";
const TASKS = ["classify", "detect", "segment"];

/** The form at the side. `changed` is called whenever something else would be asked. */
export class Controls {
  #models = [];
  #changed;

  constructor(changed) {
    this.#changed = changed;
    this.form = byId("controls");
    this.form.addEventListener("change", (event) => this.#onChange(event));
    this.form.addEventListener("input", (event) => {
      if (event.target.id === "threshold") this.#showThreshold();
    });
  }

  /** What the service serves. `wanted` is what to begin with, from the page's address. */
  offer(models, wanted) {
    this.#models = models;
    for (const task of TASKS) {
      const radio = this.form.querySelector(`input[name=task][value=${task}]`);
      radio.disabled = !models.some((model) => model.task === task);
    }
    const named = models.find((model) => model.name === wanted.get("model"));
    this.choose(named ? named.task : wanted.get("task"), wanted.get("level"), named && named.name);
  }

  /** Chooses a task, if some model does it, and a level, if there is such. */
  choose(task, level = null, model = null) {
    const open = TASKS.filter((one) => this.#models.some((other) => other.task === one));
    const chosen = open.includes(task) ? task : (this.task || open[0]);
    if (!chosen) return;
    const shown = this.model;
    this.form.querySelector(`input[name=task][value=${chosen}]`).checked = true;
    if (model || shown?.task !== chosen) this.#showModels(model);
    if (level) this.#chooseLevel(level);
    this.#showFields();
  }

  get task() {
    return this.form.querySelector("input[name=task]:checked")?.value;
  }

  get model() {
    return this.#models.find((model) => model.name === byId("model").value);
  }

  get comparing() {
    return byId("compare").checked;
  }

  /** Its graph can tell which patches were merged. */
  get merges() {
    return Boolean(this.model?.merges_tokens);
  }

  /** The level asked for, of the first or the second side; empty when it is still to be written. */
  level(second = false) {
    const name = second ? byId("second").value : this.form.querySelector("input[name=level]:checked")?.value;
    return name === EXPLICIT ? byId(second ? "second-explicit" : "explicit").value.trim() : name;
  }

  /** The query of a request. */
  options(second = false) {
    const level = this.level(second);
    const several = this.#models.filter((model) => model.task === this.task).length > 1;
    const options = { model: several ? this.model.name : "", level };
    if (level === AUTO && byId("floor").value) options.min_level = byId("floor").value;
    if (this.task === "classify") options.top_k = byId("top_k").value;
    if (this.task === "detect") options.threshold = byId("threshold").value;
    return options;
  }

  /** What to begin with the next time, for the page's address. */
  get address() {
    const parts = new URLSearchParams({ task: this.task, level: this.level() || EXPLICIT });
    if (this.#models.filter((model) => model.task === this.task).length > 1) parts.set("model", this.model.name);
    return parts.toString().replaceAll("%3A", ":").replaceAll("%2F", "/");
  }

  #onChange(event) {
    if (event.target.name === "task") this.#showModels(null);
    if (event.target.id === "model") this.#showLevels();
    this.#showFields();
    const wanting = event.target.value === EXPLICIT;
    if (wanting) byId(event.target.id === "second" ? "second-explicit" : "explicit").focus();
    if (event.target.id !== "repeat") this.#changed();
  }

  #showModels(name) {
    const fitting = this.#models.filter((model) => model.task === this.task);
    byId("model").replaceChildren(...fitting.map((model) => make("option", { value: model.name }, model.name)));
    if (name) byId("model").value = name;
    this.#showLevels();
  }

  #showLevels() {
    const model = this.model;
    // An explicit level is spelled in the terms of one model, and does not follow to another.
    const before = this.form.querySelector("input[name=level]:checked")?.value;
    const highest = Math.max(...model.levels.map((level) => level.gmacs), 0.001);
    const rows = model.levels.map((level) => this.#row(
      level.name, `${level.gmacs.toFixed(2)} GMACs, ${level.tokens} tokens`, quality(model, level), level.gmacs / highest));
    rows.push(this.#row(AUTO, "as high as the deadline allows", "", null));
    if (model.explicit_levels) rows.push(this.#row(EXPLICIT, "as you write it", "", null));
    byId("levels").replaceChildren(...rows);
    const named = [AUTO, ...model.levels.map((level) => level.name)];
    this.#chooseLevel(named.includes(before) ? before : model.default_level);

    const choices = () => model.levels.map((level) => make("option", { value: level.name }, level.name));
    byId("floor").replaceChildren(make("option", { value: "" }, "the operator's floor"), ...choices());
    const kept = byId("second").value;
    const others = [make("option", { value: AUTO }, AUTO)];
    if (model.explicit_levels) others.push(make("option", { value: EXPLICIT }, "explicit …"));
    byId("second").replaceChildren(...choices(), ...others);
    const offered = [...byId("second").options].map((option) => option.value);
    byId("second").value = offered.includes(kept) ? kept : model.levels.at(-1).name;
    for (const hint of document.querySelectorAll(".grammar")) hint.textContent = model.explicit_levels || "";
    byId("suggestions").replaceChildren(
      ...model.levels.filter((level) => level.explicit !== level.name).map((level) => make("option", { value: level.explicit })));
  }

  #row(name, below, right, share) {
    const radio = make("input", { type: "radio", name: "level", value: name });
    const bar = share === null ? null : styled(make("span", { class: "cost", "aria-hidden": "true" }), { "--share": share });
    return make("label", { class: "level" }, radio, make("span", { class: "level-name" }, name),
      make("span", { class: "level-quality" }, right), bar, make("span", { class: "level-cost" }, below));
  }

  #chooseLevel(level) {
    const radio = this.form.querySelector(`input[name=level][value="${CSS.escape(level)}"]`);
    const open = this.form.querySelector(`input[name=level][value=${EXPLICIT}]`);
    if (radio) radio.checked = true;
    else if (open) {
      open.checked = true;
      byId("explicit").value = level;
    } else this.form.querySelector("input[name=level]").checked = true;
  }

  #showFields() {
    const level = this.form.querySelector("input[name=level]:checked")?.value;
    byId("explicit-field").hidden = level !== EXPLICIT;
    byId("floor-field").hidden = level !== AUTO;
    byId("second-field").hidden = !this.comparing;
    byId("second-explicit-field").hidden = !this.comparing || byId("second").value !== EXPLICIT;
    for (const field of document.querySelectorAll("[data-task]")) field.hidden = field.dataset.task !== this.task;
    byId("top_k").max = this.model ? this.model.labels.length : 5;
    this.#showThreshold();
  }

  #showThreshold() {
    byId("threshold-value").textContent = Number(byId("threshold").value).toFixed(2);
  }
}

/** How good a level is, in the words of its task; what was never measured is not claimed. */
function quality(model, level) {
  const name = { classify: "top-1", detect: "mAP", segment: "mIoU" }[model.task];
  if (typeof level.accuracy === "number") return `${name} ${percent(level.accuracy)}`;
  return typeof level.agreement === "number" ? `${percent(level.agreement)} as full` : "";
}
