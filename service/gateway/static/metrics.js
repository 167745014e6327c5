// The service's metrics, as far as the charts need them: pure functions on the Prometheus text.

const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The samples of one series: [[labels, value], ...]. */
export function series(text, name) {
  const found = [];
  for (const line of text.split("\n")) {
    if (!line.startsWith(name) || !" {".includes(line[name.length])) continue;
    const labels = Object.fromEntries([...line.matchAll(LABEL)].map(([, label, value]) => [label, value]));
    const value = Number(line.slice(line.lastIndexOf("}") + 1).trim().split(/\s+/).at(line.includes("}") ? 0 : 1));
    found.push([labels, value]);
  }
  return found;
}

/** One reading: what was counted so far of answers by time, answers and refusals, and levels. */
export function reading(text, at) {
  const sum = (name, by, wanted = () => true) => {
    const totals = new Map();
    for (const [labels, value] of series(text, name)) {
      if (wanted(labels)) totals.set(labels[by], (totals.get(labels[by]) || 0) + value);
    }
    return totals;
  };
  return {
    at,
    buckets: sum("squint_request_seconds_bucket", "le", (labels) => labels.outcome === "ok"),
    // A client that goes away was not refused.
    outcomes: sum("squint_request_seconds_count", "outcome", (labels) => labels.outcome !== "client_closed_request"),
    levels: sum("squint_level_served_total", "level"),
  };
}

/** What was added between two readings, key by key. A smaller number is that of a new process. */
export function added(before, after) {
  const grown = new Map();
  for (const [name, value] of after) {
    const former = before.get(name) || 0;
    grown.set(name, value >= former ? value - former : value);
  }
  return grown;
}

/** The time, in seconds, below which this share of the answers came; null when there were none. */
export function quantile(share, buckets) {
  const bounds = [...buckets].map(([le, value]) => [le === "+Inf" ? Infinity : Number(le), value]).sort((a, b) => a[0] - b[0]);
  const total = bounds.length ? bounds.at(-1)[1] : 0;
  if (!total) return null;
  const rank = share * total;
  let [low, below] = [0, 0];
  for (const [bound, value] of bounds) {
    if (value >= rank) {
      // Of those slower than the last bound nothing more is known.
      if (bound === Infinity) return low;
      return value > below ? low + ((bound - low) * (rank - below)) / (value - below) : bound;
    }
    [low, below] = [bound, value];
  }
  return low;
}

/** What happened between two readings: quantiles in milliseconds, answers and refusals per second, answers by level. */
export function between(before, after) {
  const seconds = Math.max(0.001, (after.at - before.at) / 1000);
  const buckets = added(before.buckets, after.buckets);
  const outcomes = added(before.outcomes, after.outcomes);
  const answered = outcomes.get("ok") || 0;
  const all = [...outcomes.values()].reduce((sum, value) => sum + value, 0);
  const scaled = (value) => (value === null ? null : value * 1000);
  return {
    at: after.at,
    p50: scaled(quantile(0.5, buckets)),
    p99: scaled(quantile(0.99, buckets)),
    answered: answered / seconds,
    refused: (all - answered) / seconds,
    levels: added(before.levels, after.levels),
  };
}
