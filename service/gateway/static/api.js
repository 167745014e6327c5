// What the page asks the service. Every address is relative to the page, so that it works below a proxy's prefix.

let key = "";

/** Use this API key from now on. It lives in this variable and nowhere else. */
export function useKey(text) {
  key = text.trim();
}

/** Whether a key is in use. */
export const hasKey = () => key !== "";

/** The service said no, in its own words; or nobody said anything (`status` 0). */
export class Refused extends Error {
  constructor(status, body, retryAfter = null) {
    super(body.error || `the service answered ${status} and said nothing more`);
    this.status = status;
    this.code = body.code || "";
    this.requestId = body.request_id || "";
    this.retryAfter = retryAfter;
  }
}

async function call(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { error: "the service cannot be reached", code: "unreachable" });
  }
  if (!response.ok) throw new Refused(response.status, await spoken(response), response.headers.get("retry-after"));
  return response;
}

/** What an error says of itself; nothing when it is not of the service's shape, such as a proxy's page. */
async function spoken(response) {
  try {
    const body = await response.json();
    return typeof body === "object" && body !== null ? body : {};
  } catch {
    return {};
  }
}

/** All models. */
export async function models() {
  return (await (await call("v1/models")).json()).models;
}

/** The names of the shipped samples. */
export async function samples() {
  return (await (await call("playground/samples")).json()).samples;
}

/** One sample as a blob. */
export async function sample(name) {
  return (await call(`playground/samples/${encodeURIComponent(name)}`)).blob();
}

/** The metrics as text. */
export async function metrics(signal) {
  return (await call("metrics", { signal, headers: { accept: "text/plain" } })).text();
}

/** One word: ready, starting, draining, unavailable, unreachable. */
export async function readiness() {
  try {
    const response = await fetch("readyz", { cache: "no-store" });
    return (await response.json()).status || "unavailable";
  } catch {
    return "unreachable";
  }
}

/** Ask a task about an image. Answers its JSON, and how long it took as the browser saw it. */
export async function ask(task, image, options, signal) {
  const began = performance.now();
  const type = image.blob.type || "application/octet-stream";
  const response = await call(target(task, options), {
    method: "POST", body: image.blob, signal, headers: { "content-type": type },
  });
  const answer = await response.json();
  return { answer, seen: performance.now() - began };
}

function target(task, options) {
  const query = new URLSearchParams(Object.entries(options).filter(([, value]) => value !== "" && value !== null));
  return query.size ? `${task}?${readable(query)}` : task;
}

/** The same query with `:`, `/`, `+` and `,` as levels are spelled; a plus stays escaped, for it means a space. */
const readable = (query) => query.toString().replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%2C", ",");

/** The line that asks the same from a shell. The key is not in it. */
export function curl(task, image, options) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl --data-binary ${quoted(`@${image.path}`)}`];
  parts.push(`-H ${quoted(`Content-Type: ${image.blob.type || "application/octet-stream"}`)}`);
  if (key) parts.push('-H "Authorization: Bearer $SQUINT_KEY"');
  parts.push(quoted(new URL(target(task, options), document.baseURI).href));
  return parts.join(" \\\n  ");
}
