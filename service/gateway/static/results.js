// What an answer says, as lists, a bar of times, and facts.

import { colour, count, make, ms, percent, styled } from "./dom.js";
import { sizes, summary } from "./tokens.js";

const STAGES = [
  ["decode", "decode", "bytes to pixels, in a decoder"],
  ["queue", "queue", "waiting for a batch"],
  ["infer", "model", "in the model"],
  ["post", "answer", "from raw outputs to the answer"],
  ["rest", "rest", "reading the request and all else"],
];

/** An answer in one sentence, for who does not see it. */
export function spoken(answer) {
  const at = `at level ${answer.level}, ${ms(answer.timing_ms.total)} in all`;
  if (answer.task === "classify") {
    const best = answer.predictions[0];
    return `${best.label}, ${percent(best.score)}; ${at}.`;
  }
  const found = answer.task === "detect" ? answer.predictions : answer.segments;
  const names = found.slice(0, 6).map((one) => one.label).join(", ");
  const what = answer.task === "detect" ? count(found.length, "object") : count(found.length, "class", "classes");
  return `${what}${names ? `: ${names}` : ""}; ${at}.`;
}

/** All of one answer. `scale` is the time that fills the bar's width; `point` is told which object is looked at. */
export function block(answer, seen, scale, point) {
  const measures = make("div", { class: "measures" }, timing(answer.timing_ms, scale), mergedPart(answer));
  return make("div", { class: "answer" }, make("h3", { class: "answer-level" }, answer.level), found(answer, point), measures, facts(answer, seen));
}

function found(answer, point) {
  const rows = rowsOf(answer);
  if (!rows.length) return make("p", { class: "nothing" }, answer.task === "detect" ? "No object above this score." : "Background only.");
  const list = make("ol", { class: "found", "aria-label": listed(answer.task) });
  rows.forEach(({ label, index, share, text, swatch }, at) => {
    const bar = styled(make("span", { class: "bar", "aria-hidden": "true" }), { "--share": share });
    const name = make("span", { class: "name" }, swatch ? styled(make("i", { class: "swatch" }), { "--class": colour(index) }) : null, label);
    list.append(make("li", { pointerenter: () => point(at), pointerleave: () => point(null) }, name, bar, make("span", { class: "value" }, text)));
  });
  return list;
}

const listed = (task) => ({ classify: "Classes, best first", detect: "Objects, best first", segment: "Classes and their share of the image" })[task];

function rowsOf(answer) {
  if (answer.task === "segment") {
    const pixels = answer.size[0] * answer.size[1];
    return [...answer.segments].sort((a, b) => b.area - a.area).map(({ label, index, area }) => (
      { label, index, share: area / pixels, text: percent(area / pixels), swatch: true }));
  }
  return answer.predictions.map(({ label, index, score }) => (
    { label, index, share: score, text: percent(score), swatch: answer.task === "detect" }));
}

/** One bar, its parts the stages, as long as `scale` milliseconds would be. */
function timing(times, scale) {
  const rest = Math.max(0, times.total - times.decode - times.queue - times.infer - times.post);
  const values = { ...times, rest };
  const bar = make("div", { class: "stack", "aria-hidden": "true" });
  const legend = make("dl", { class: "legend" });
  for (const [stage, word, what] of STAGES) {
    bar.append(styled(make("span", { class: stage }), { "--share": values[stage] / scale }));
    legend.append(make("div", { title: what }, make("dt", { class: stage }, word), make("dd", {}, ms(values[stage]))));
  }
  const heading = make("h4", {}, "Time ", make("span", {}, `${ms(times.total)} in all`));
  return make("div", { class: "timing" }, heading, bar, legend);
}

function mergedPart(answer) {
  const tokens = answer.explain && answer.explain.tokens;
  if (!tokens) return null;
  const most = Math.max(...sizes(tokens).map(([, groups]) => groups));
  const bars = sizes(tokens).map(([size, groups]) => make(
    "li", { title: `${count(groups, "group")} of ${count(size, "patch", "patches")}` },
    styled(make("span", { class: "column", "aria-hidden": "true" }), { "--share": groups / most }),
    make("span", { class: "size" }, make("span", { class: "visually-hidden" }, "groups of "), String(size),
      make("span", { class: "visually-hidden" }, ` patches: ${groups}`)),
  ));
  return make("div", { class: "merged" }, make("h4", {}, "Merged tokens"), make("p", {}, summary(tokens)),
    make("ol", { class: "sizes", "aria-label": "How many groups there are of each size" }, bars));
}

function facts(answer, seen) {
  const rows = [
    ["Model", `${answer.model}, version ${answer.version}`], ["Level", answer.level], ["Backend", answer.backend],
    ["Tokens", String(answer.tokens)], ["Cost", `${answer.gmacs.toFixed(2)} GMACs`],
    ["Browser waited", ms(seen)], ["Request", answer.request_id],
  ];
  return make("dl", { class: "facts" }, rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}
