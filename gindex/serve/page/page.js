// The page of a gindex service. Text of documents only ever enters the page as text, never as markup.

import { histogram, short, tail } from "./plots.js";
import { marked, readJson, shown, wordsOf } from "./text.js";

const at = (id) => document.getElementById(id);
const FIELDS = ["prompt", "completion", "k", "where", "normalise", "hits", "exact"];
const COMMON = new Set("a an and are as at be but by for from has have if in into is it its no not of on or so that the then there these they this to was which will with".split(" "));
let indexes = [], answer = null, asked = null, view = "histogram", running = null, later = 0;

function make(name, { text, className, title } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (title) made.title = title;
  made.append(...children);
  return made;
}

class Problem extends Error {}

async function call(path, body, { signal, told } = {}) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (told) headers.Accept = "application/x-ndjson";
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it still running?");
  }
  if (response.headers.get("Content-Type")?.startsWith("application/x-ndjson")) return lastOf(response, told);
  const content = await response.text().then(readJson).catch(() => ({}));
  if (response.ok) return content;
  if (response.status === 401) at("key").closest("details").open = true;
  throw new Problem(content.detail || `The service answered ${response.status}.`);
}

// Slow work is answered in lines: its place in the queue, how far it is, last the answer or what went wrong.

async function lastOf(response, told) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    if (done) throw new Problem("The service ended its answer too early. Try again.");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map(readJson)) {
      if (line.state === "done") return line.result;
      if (line.state === "failed") throw new Problem(line.problem.detail);
      told(line.state === "waiting" ? `Waiting, place ${line.place} in the queue …` : line.phase ? stepOf(line) : "Searching …");
    }
  }
}

const stepOf = ({ phase, done, total, unit }) => `${phase[0].toUpperCase()}${phase.slice(1)}: ${done}${total ? ` of ${total}` : ""} ${unit} …`;

const indexPath = (rest) => `v1/indexes/${encodeURIComponent(at("index").value)}${rest}`;
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + short(Math.abs(value));

function fail(error) {
  if (error.name === "AbortError") return;
  at("error").textContent = error.message;
  at("error").hidden = false;
  at("status").textContent = "";
}

// What is asked, and the address that holds it.

function readForm() {
  return Object.fromEntries(FIELDS.map((name) => [name, at(name).type === "checkbox" ? at(name).checked : at(name).value]));
}

function writeAddress(form) {
  const parameters = new URLSearchParams({ index: at("index").value });
  for (const name of FIELDS) {
    const field = at(name), initial = field.type === "checkbox" ? false : field.defaultValue ?? field.options?.[0].value;
    if (form[name] !== initial && form[name] !== "none" && form[name] !== "part") parameters.set(name, form[name] === true ? "1" : form[name]);
  }
  history.pushState(null, "", `?${parameters}`);
}

function readAddress() {
  const parameters = new URLSearchParams(location.search);
  if (indexes.some((index) => index.name === parameters.get("index"))) at("index").value = parameters.get("index");
  for (const name of FIELDS) {
    if (!parameters.has(name)) continue;
    if (at(name).type === "checkbox") at(name).checked = parameters.get(name) === "1";
    else at(name).value = parameters.get(name);
  }
  return parameters.has("prompt");
}

async function search(event) {
  event?.preventDefault();
  running?.abort();
  const mine = (running = new AbortController()), form = readForm();
  if (event) writeAddress(form);
  at("error").hidden = true;
  at("go").disabled = true;
  at("stop").hidden = !form.exact;
  at("status").textContent = form.exact ? "Searching, then recomputing the best candidates exactly …" : "Searching …";
  const told = form.exact ? (text) => { if (mine === running) at("status").textContent = text; } : undefined;
  const body = { prompt: form.prompt, k: Number(form.k) || 5, both: true, histogram: true, exact: form.exact,
    normalise: form.normalise, hits: form.hits };
  if (form.completion) body.completion = form.completion;
  if (form.where.trim()) body.where = form.where;
  try {
    answer = await call(indexPath("/search"), body, { signal: mine.signal, told });
    asked = body;
    show();
    if (event) at("results").focus({ preventScroll: true });
  } catch (error) {
    if (mine === running) at("results").hidden = at("notes").hidden = true;
    fail(error);
  } finally {
    if (mine === running) {
      at("go").disabled = false;
      at("stop").hidden = true;
    }
  }
}

// What is answered.

function show() {
  const took = answer.timing_ms;
  at("status").textContent = `${answer.query.tokens} tokens · gradient ${took.gradient.toFixed(0)} ms · search ` +
    `${took.search.toFixed(1)} ms${took.rerank ? ` · exact re-rank ${(took.rerank / 1000).toFixed(1)} s` : ""} · version ${answer.version}`;
  at("notes").textContent = (answer.notes ?? []).map((note) => `Note: ${note}.`).join(" ");
  at("notes").hidden = !answer.notes;
  const merit = (hit) => (asked.exact && hit.influence !== null ? hit.influence : hit.score);
  const hits = [...answer.hits, ...answer.negative_hits], largest = Math.max(...hits.map((hit) => Math.abs(merit(hit))), 1e-30);
  const words = wordsOf(`${asked.prompt}${asked.completion ?? ""}`, COMMON);
  const fill = (id, found, sign) => {
    const shown = found.filter((hit) => Math.sign(merit(hit)) === sign);
    at(id).replaceChildren(...shown.map((hit) => card(hit, merit(hit), largest, words)));
    if (!shown.length) at(id).append(make("li", { className: "empty", text: "No documents." }));
  };
  fill("positive", answer.hits, 1);
  fill("negative", answer.negative_hits, -1);
  badge();
  at("results").hidden = false;
  plot();
}

function plot() {
  if (!answer?.histogram) return;
  const spread = answer.histogram;
  at("spread-title").textContent = `${spread.sampled ? "An even sample of " : ""}${spread.parts.toLocaleString("en")} scores, ` +
    (view === "tail" ? "by rank" : "counts on a log scale");
  (view === "tail" ? tail : histogram)(at("plot"), spread);
  for (const name of ["histogram", "tail"]) at(`view-${name}`).setAttribute("aria-pressed", String(view === name));
}

function chips(metadata) {
  return Object.entries(metadata).filter(([, value]) => value !== null && value !== "").map(([name, value]) => {
    const text = `${name}: ${shown(value)}`;
    return make("span", { className: "chip", text, title: text });
  });
}

function bar(value, largest) {
  const share = Math.min(1, Math.abs(value) / largest) * 50, fill = make("div", { className: `bar ${value >= 0 ? "pos" : "neg"}` });
  fill.style.width = `${share}%`;
  fill.style.left = `${value >= 0 ? 50 : 50 - share}%`;
  return make("div", { className: "track" }, fill);
}

function card(hit, value, largest, words) {
  const of = hit.parts ? `best of ${hit.parts} parts` : hit.part ? `part ${hit.part + 1}` : "";
  const figures = hit.influence === null ? `score ${signed(hit.score)}` : `influence ${signed(hit.influence)} · score ${signed(hit.score)}`;
  const view = make("button", { text: "View document" }), explain = make("button", { text: "Explain" });
  view.type = explain.type = "button";
  const why = make("div", { className: "why" });
  why.hidden = true;
  explain.setAttribute("aria-expanded", "false");
  view.addEventListener("click", () => openDocument(hit.document_id));
  explain.addEventListener("click", () => toggleWhy(hit.document_id, explain, why));
  return make("li", { className: "hit" },
    make("h3", {}, make("span", { className: "rank", text: String(hit.rank) }), make("span", { text: hit.document_id }), make("span", { className: "part", text: of })),
    make("div", { className: "score" }, bar(value, largest), make("span", { text: figures })),
    make("p", { className: "text" }, ...marked(hit.text.trim(), words).map(([piece, mark]) => (mark ? make("mark", { text: piece }) : piece))),
    make("div", { className: "chips" }, ...chips(hit.metadata)),
    make("div", { className: "actions" }, explain, view), why);
}

async function toggleWhy(id, button, why) {
  if (button.getAttribute("aria-expanded") === "true") {
    why.hidden = true;
    button.setAttribute("aria-expanded", "false");
    return;
  }
  why.hidden = false;
  button.setAttribute("aria-expanded", "true");
  if (why.childElementCount && !why.dataset.failed) return;
  delete why.dataset.failed;
  const step = make("p", { className: "quiet", text: "Recomputing this document exactly …" });
  why.replaceChildren(step);
  try {
    const body = { document_id: id, prompt: asked.prompt };
    if (asked.completion) body.completion = asked.completion;
    why.replaceChildren(...explanation(await call(indexPath("/explain"), body, { told: (text) => { step.textContent = text; } })));
  } catch (error) {
    why.dataset.failed = "1";
    why.replaceChildren(make("p", { text: error.message }));
  }
}

function explanation(found) {
  const all = found.parts.flatMap((part) => part.tokens), largest = Math.max(...all.map((token) => Math.abs(token.influence)), 1e-30);
  const spans = all.filter((token) => !token.context).map((token) => {
    const span = make("span", { text: token.text, title: signed(token.influence) });
    const side = token.influence >= 0 ? "--pos-rgb" : "--neg-rgb";
    span.style.background = `rgb(var(${side}) / ${((Math.abs(token.influence) / largest) * 0.75).toFixed(3)})`;
    return span;
  });
  const groups = Object.entries(found.groups), most = Math.max(...groups.map(([, value]) => Math.abs(value)), 1e-30);
  return [
    make("p", { text: `Exact influence ${signed(found.influence)}, the sum over tokens and over layers. Hold the pointer over a token for its share.` }),
    make("p", { className: "tokens" }, ...spans),
    make("div", { className: "layers" }, ...groups.flatMap(([name, value]) => [
      make("span", { text: name.replace(/^model\.layers\.|^transformer\.h\.|^gpt_neox\.layers\./, "layer ") }), bar(value, most),
      make("span", { className: "value", text: signed(value) })])),
  ];
}

async function openDocument(id) {
  try {
    const found = await call(indexPath(`/documents/${encodeURIComponent(id)}`));
    at("document-title").textContent = found.document_id;
    at("document-metadata").replaceChildren(...chips(found.metadata));
    at("document-text").textContent = found.text;
    at("document").showModal();
  } catch (error) {
    fail(error);
  }
}

// Which index, and how far its answers can be trusted.

function badge() {
  const index = indexes.find((one) => one.name === at("index").value);
  at("badge").hidden = !index?.ready;
  if (!index?.ready) return;
  const recall = index.recall ? `recall@10 ${index.recall.at_10.toFixed(2)}` : "recall not measured";
  at("badge").textContent = asked?.exact ? `exact influence · candidates ${recall}` : index.lossless ? "full search of stored vectors" : `approximate · ${recall}`;
  at("badge").title = `${index.documents.toLocaleString("en")} documents, ${index.parts.toLocaleString("en")} parts, ${index.search_index}, ${recall} of a full scan`;
}

function coverage() {
  const found = indexes.find((one) => one.name === at("index").value)?.coverage;
  at("coverage").hidden = !found;
  if (!found) return;
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  at("coverage").classList.toggle("warning", Boolean(found.warning));
  at("coverage-share").textContent = found.warning ? `Warning: ${found.warning}.`
    : `${percent(found.share)} of the model\u2019s ${found.of === "body" ? "body" : "weights"} is tracked; what is not`;
  at("coverage-untracked").replaceChildren(...found.untracked.map((each) => make("li", {
    text: `${each.weights}: ${each.reason} (${each.share === null ? "outside the body" : percent(each.share)})` })));
}

function chosen() {
  badge();
  coverage();
}

async function list() {
  try {
    indexes = (await call("v1/indexes")).indexes;
  } catch (error) {
    fail(error);
    return false;
  }
  at("error").hidden = true;
  const names = indexes.map((index) => (index.ready ? index.name : `${index.name} (unavailable)`)), before = at("index").value;
  if ([...at("index").options].map((option) => option.text).join("\n") !== names.join("\n")) {
    at("index").replaceChildren(...indexes.map((index, n) => new Option(names[n], index.name)));
    if (indexes.some((index) => index.name === before)) at("index").value = before;
  }
  return true;
}

// Search where that was asked for, or say why the chosen index is not ready and look again; another may be chosen meanwhile.
async function whenReady(complete) {
  clearTimeout(later);
  chosen();
  const index = indexes.find((one) => one.name === at("index").value);
  if (index && !index.ready) {
    at("status").textContent = `The index is not ready: ${index.reason}. It is looked at again every second …`;
    later = setTimeout(async () => {
      if (await list()) await whenReady(complete && at("index").value === index.name);
    }, 1000);
    return;
  }
  at("status").textContent = "";
  if (complete) await search();
}

async function start() {
  at("key").value = sessionStorage.getItem("gindex-key") ?? "";
  if (await list()) await whenReady(readAddress());
}

// What is shown is of the index before, and its buttons would ask the one chosen now.
async function switched() {
  running?.abort();
  at("results").hidden = at("notes").hidden = at("error").hidden = true;
  await whenReady(false);
}

at("form").addEventListener("submit", search);
at("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});
at("stop").addEventListener("click", () => {
  running?.abort();
  at("status").textContent = "Cancelled.";
});
at("key").addEventListener("change", () => {
  sessionStorage.setItem("gindex-key", at("key").value);
  start();
});
at("index").addEventListener("change", switched);
for (const name of ["histogram", "tail"]) at(`view-${name}`).addEventListener("click", () => { view = name; plot(); });
addEventListener("popstate", () => { at("form").reset(); if (readAddress()) search(); chosen(); });
addEventListener("resize", plot);
start();
