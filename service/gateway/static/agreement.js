// Whether two answers say the same: pure functions, in each task's own terms.

import { area, runs, shared } from "./masks.js";
import { count, percent } from "./dom.js";

const MATCH = 0.5;

/** The overlap of two boxes [x0, y0, x1, y1]: their common area over that of both together. */
export function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const size = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (size(a) + size(b) - width * height);
}

/** Pairs of objects of the same class whose boxes overlap by half or more, best overlaps first. */
export function matched(some, others) {
  const candidates = [];
  some.forEach((a, i) => others.forEach((b, j) => {
    const common = a.index === b.index ? overlap(a.box, b.box) : 0;
    if (common >= MATCH) candidates.push([common, i, j]);
  }));
  candidates.sort((a, b) => b[0] - a[0]);
  const left = new Set();
  const right = new Set();
  return candidates.filter(([, i, j]) => {
    if (left.has(i) || right.has(j)) return false;
    left.add(i);
    right.add(j);
    return true;
  });
}

/** The share of pixels to which two answers of a segmentation give the same class, or none. */
export function samePixels(a, b) {
  const [height, width] = a.size;
  const pixels = height * width;
  const others = new Map(b.segments.map((segment) => [segment.index, runs(segment.counts)]));
  let same = 0;
  for (const segment of a.segments) same += shared(runs(segment.counts), others.get(segment.index) || []);
  const inA = runs(a.mask.counts);
  const inB = runs(b.mask.counts);
  const neither = pixels - area(inA) - area(inB) + shared(inA, inB);
  return (same + neither) / pixels;
}

/** One sentence on how far two answers to the same question agree. */
export function agreement(task, a, b) {
  if (task === "segment") return `The same class on ${percent(samePixels(a, b))} of the pixels.`;
  if (task === "detect") {
    const pairs = matched(a.predictions, b.predictions);
    const most = Math.max(a.predictions.length, b.predictions.length);
    if (!most) return "Both found nothing.";
    if (!pairs.length) return `None of ${count(most, "object")} in common.`;
    const mean = pairs.reduce((sum, pair) => sum + pair[0], 0) / pairs.length;
    return `${pairs.length} of ${count(most, "object")} in common, their boxes overlapping by ${percent(mean)}.`;
  }
  const [first, second] = [a.predictions[0], b.predictions[0]];
  if (first.index !== second.index) return `They disagree: ${first.label} or ${second.label}.`;
  const apart = Math.abs(first.score - second.score);
  return `Both say ${first.label}, their scores ${(apart * 100).toFixed(1)} points apart.`;
}
