// The page: brings the image, the controls, the service and what is shown together.

import { agreement } from "./agreement.js";
import * as api from "./api.js";
import { Controls } from "./controls.js";
import { byId, make, ms } from "./dom.js";
import { Live } from "./live.js";
import { block, spoken } from "./results.js";
import { Pane } from "./stage.js";

const ROUNDS = 5; // of a comparison, in turns
const PAUSE = 150; // between two requests when it keeps asking

const panes = [new Pane(), new Pane()];
let image = null;
let latest = 0;
let aborter = null;
let live = null;
const controls = new Controls(() => look());

byId("panes").append(...panes.map((pane) => pane.root));

// -- the image -------------------------------------------------------------------------------------------------------

/** Shows an image and asks about it. `path` is what a shell would call it. */
async function take(blob, name, path) {
  const url = URL.createObjectURL(blob);
  const element = new Image();
  element.src = url;
  const shown = await element.decode().then(() => true, () => false);
  if (image) URL.revokeObjectURL(image.url);
  const size = shown ? { width: element.naturalWidth, height: element.naturalHeight } : { width: 4, height: 3 };
  image = { blob, name, path, url, element, shown, ...size };
  document.body.classList.add("has-image");
  byId("unseen").hidden = shown;
  byId("panes").hidden = !shown;
  byId("file-name").textContent = shown ? `${name}, ${size.width} × ${size.height}` : name;
  for (const pane of panes) pane.show(image);
  for (const button of byId("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === name));
  }
  await look();
}

async function takeSample(name) {
  controls.choose(name.split(".")[0]);
  try {
    await take(await api.sample(name), name, `samples/${name}`);
  } catch (error) {
    showProblem(error);
  }
}

function takeFiles(files) {
  const [file] = files;
  if (file) take(file, file.name || "pasted image", file.name || "image.png");
}

async function showSamples() {
  const names = await api.samples();
  byId("samples-part").hidden = !names.length;
  for (const name of names) {
    const picture = make("img", { alt: "" });
    const label = name.split(".")[0];
    byId("samples").append(make("li", {}, make("button", {
      type: "button", "data-name": name, "aria-pressed": "false", "aria-label": `Sample: ${label}`, click: () => takeSample(name),
    }, picture, make("span", {}, label))));
    api.sample(name).then((blob) => { picture.src = URL.createObjectURL(blob); }, () => {});
  }
}

// -- asking ----------------------------------------------------------------------------------------------------------

/** Asks what the controls say about the image. `quiet` when it only repeats what was asked. */
async function look(quiet = false) {
  if (controls.task) history.replaceState(null, "", `#${controls.address}`);
  showOverlays();
  const sides = controls.comparing ? [false, true] : [false];
  document.body.classList.toggle("comparing", controls.comparing);
  panes[1].root.hidden = !controls.comparing;
  if (!image || sides.some((second) => !controls.level(second))) return;

  const turn = ++latest;
  aborter?.abort();
  aborter = new AbortController();
  byId("look").setAttribute("aria-busy", "true");
  hideProblem();
  try {
    const answers = await first(sides, quiet);
    if (controls.comparing && !quiet) await inTurns(answers);
    if (turn === latest && byId("repeat").checked) setTimeout(() => again(turn), PAUSE);
  } catch (error) {
    if (error.name === "AbortError" || turn !== latest) return;
    byId("repeat").checked = false;
    for (const pane of panes) pane.clear();
    byId("answers").replaceChildren();
    byId("result").hidden = true;
    showProblem(error);
  } finally {
    if (turn === latest) byId("look").removeAttribute("aria-busy");
  }
}

function again(turn) {
  if (turn !== latest || !byId("repeat").checked) return;
  if (document.hidden) setTimeout(() => again(turn), 1000);
  else look(true);
}

/** The answers that are shown: one for each side. */
async function first(sides, quiet) {
  const [task, model, tokens] = [controls.task, controls.model, controls.merges && byId("tokens").checked];
  const answers = [];
  for (const [at, second] of sides.entries()) {
    const options = controls.options(second);
    if (tokens) options.explain = "tokens";
    if (!quiet) panes[at].wait(options.level);
    const { answer, seen } = await api.ask(task, image, options, aborter.signal);
    answers.push({ answer, seen, options, task });
    if (image.shown) panes[at].draw(answer, model, tokens);
    panes[at].time(answer.timing_ms.infer);
  }
  showAnswers(answers);
  if (!quiet) say(answers.map(({ answer }) => spoken(answer)).join(" "));
  return answers;
}

/** Asks both sides in turns, a few times, for times that can be compared: the first answer may have come cold. */
async function inTurns(answers) {
  const { task } = answers[0];
  const times = [[], []];
  byId("versus").textContent = "Measuring, in turns …";
  for (let round = 0; round < ROUNDS; round++) {
    for (const side of round % 2 ? [1, 0] : [0, 1]) {
      const { explain, ...options } = answers[side].options;
      const { answer } = await api.ask(task, image, options, aborter.signal);
      times[side].push(answer.timing_ms.infer);
    }
  }
  const medians = times.map((some) => some.sort((a, b) => a - b)[Math.floor(some.length / 2)]);
  medians.forEach((time, at) => panes[at].time(time));
  showVerdict(answers, medians);
}

// -- showing ---------------------------------------------------------------------------------------------------------

function showOverlays() {
  const map = byId("tokens");
  map.disabled = !controls.merges;
  byId("tokens-why").hidden = controls.merges;
  byId("opacity-field").hidden = controls.task !== "segment" && !(map.checked && controls.merges);
  document.body.dataset.tokens = String(map.checked && controls.merges);
}

function showAnswers(answers) {
  const scale = Math.max(...answers.map(({ answer }) => answer.timing_ms.total));
  byId("answers").replaceChildren(...answers.map(({ answer, seen }, at) => block(answer, seen, scale, (index) => panes[at].point(index))));
  byId("versus").textContent = "";
  byId("verdict").hidden = answers.length < 2;
  byId("agreement").textContent = answers.length > 1 ? agreement(answers[0].task, answers[0].answer, answers[1].answer) : "";
  byId("command").textContent = answers.map(({ task, options }) => api.curl(task, image, options)).join("\n\n");
  byId("result").hidden = false;
}

function showVerdict([{ answer: one }, { answer: other }], [time, second]) {
  const share = second / time;
  const words = share < 1 ? `${other.level} takes ${(100 * share).toFixed(0)} % of the time of ${one.level}`
    : `${other.level} takes ${share.toFixed(2)} times as long as ${one.level}`;
  byId("versus").textContent = `${words}: ${ms(second)} against ${ms(time)} in the model (median of ${ROUNDS}, asked in turns).`;
  say(`${byId("versus").textContent} ${byId("agreement").textContent}`);
}

function say(text) {
  byId("said").textContent = text;
}

function showProblem(error) {
  const known = error instanceof api.Refused;
  byId("problem-text").textContent = known ? sentence(error.message) : "This page failed; its console says more.";
  if (!known) console.error(error);
  const details = known ? [
    error.status && `HTTP ${error.status}`, error.code, error.retryAfter && `come back after ${error.retryAfter} s`,
    error.requestId && `request ${error.requestId}`,
  ] : [];
  byId("problem-details").textContent = details.filter(Boolean).join(" · ");
  byId("problem-key").hidden = error.status !== 401;
  byId("problem").hidden = false;
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

function hideProblem() {
  byId("problem").hidden = true;
}

async function showState() {
  const state = await api.readiness();
  if (byId("state").textContent !== state) {
    byId("state").textContent = state;
    byId("state").dataset.state = state;
  }
}

// -- wiring ----------------------------------------------------------------------------------------------------------

function wireImages() {
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("choose-other").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", () => {
    takeFiles(byId("file").files);
    byId("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) takeFiles(event.clipboardData.files);
  });
  let inside = 0;
  const over = (change) => {
    inside = Math.max(0, inside + change);
    document.body.classList.toggle("dragging", inside > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-inside);
    takeFiles(event.dataTransfer.files);
  });
}

function wireControls() {
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!image) byId("choose").focus();
    look();
  });
  byId("repeat").addEventListener("change", () => {
    if (byId("repeat").checked) look(true);
  });
  byId("tokens").addEventListener("change", () => look());
  byId("opacity").addEventListener("input", () => {
    byId("panes").style.setProperty("--opacity", byId("opacity").value / 100);
  });
  byId("copy").addEventListener("click", async () => {
    const copied = await navigator.clipboard?.writeText(byId("command").textContent).then(() => true, () => false);
    if (!copied) getSelection().selectAllChildren(byId("command"));
    byId("copy").textContent = copied ? "Copied" : "Selected";
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 2000);
  });
}

function wireKey() {
  const dialog = byId("key-dialog");
  const open = () => dialog.showModal();
  byId("key-open").addEventListener("click", open);
  byId("problem-key").addEventListener("click", open);
  byId("problem-close").addEventListener("click", hideProblem);
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    api.useKey(byId("key").value);
    byId("key-open").dataset.used = String(api.hasKey());
    dialog.close();
    start();
  });
}

/** Asks what the service has. Once at the beginning, and again with a key. */
async function start() {
  hideProblem();
  if (live) live.again();
  else live = new Live();
  try {
    controls.offer(await api.models(), new URLSearchParams(location.hash.slice(1)));
    if (!byId("samples").childElementCount) await showSamples();
    await look();
  } catch (error) {
    showProblem(error);
  }
}

wireImages();
wireControls();
wireKey();
showState();
setInterval(() => { if (!document.hidden) showState(); }, 4000);
start();
