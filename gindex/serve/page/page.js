// The page of a gindex service: what is asked, what is answered, and which index answers.

import { readAddress, writeAddress } from "./address.js";
import { chatQuery, setChat, startChat, takePasted } from "./chat.js";
import { at, make, press } from "./dom.js";
import { cards } from "./hits.js";
import { histogram, tail } from "./plots.js";
import { call, indexPath } from "./service.js";
import { drawSources, fieldsOf, joined } from "./sources.js";
import { certificateText, drawCoverage, drawTrust } from "./trust.js";

const FIELDS = ["prompt", "completion", "contrast", "k", "where", "normalise", "hits", "exact"];
const VIEWS = ["text", "conversation"];
let indexes = [], answer = null, asked = null, shape = "histogram", running = null, later = 0;
let form = "text", measure = "sum", summing = null, sums = null;

function fail(error) {
  if (error.name === "AbortError") return;
  at("error").textContent = error.message;
  at("error").hidden = false;
  at("error").scrollIntoView({ block: "nearest" });
  at("status").textContent = "";
}

// What is asked, and the address that holds it.

function use(name) {
  form = name;
  press("as", VIEWS, name);
  at("text-view").hidden = name !== "text";
  at("conversation-view").hidden = name !== "conversation";
  at("prompt").required = name === "text";
}

function readQuery() {
  const query = form === "conversation" ? chatQuery() : { prompt: at("prompt").value };
  if (form === "text" && at("completion").value) query.completion = at("completion").value;
  if (at("contrast").value) query.contrast = at("contrast").value;
  return query;
}

function readOptions() {
  const options = { normalise: at("normalise").value };
  if (at("where").value.trim()) options.where = at("where").value;
  return options;
}

function remember({ messages, tools, turn, span }) {
  const parameters = new URLSearchParams({ index: at("index").value });
  for (const name of FIELDS) {
    const field = at(name), initial = field.type === "checkbox" ? false : field.defaultValue ?? field.options[0].value;
    const value = field.type === "checkbox" ? field.checked : field.value;
    if (value !== initial) parameters.set(name, value === true ? "1" : value);
  }
  if (at("by").value) parameters.set("by", at("by").value);
  if (messages) parameters.set("messages", JSON.stringify(messages));
  if (tools) parameters.set("tools", JSON.stringify(tools));
  if (turn) parameters.set("turn", turn);
  if (span) parameters.set("span", span.join(":"));
  at("too-long").hidden = writeAddress(parameters);
}

const listOf = (text) => {
  try {
    const read = JSON.parse(text);
    return Array.isArray(read) && read.every((each) => each !== null && typeof each === "object") ? read : [];
  } catch {
    return [];
  }
};

// Fill in what the address says; true where it asks something.
function recall() {
  const parameters = readAddress();
  if (indexes.some((index) => index.name === parameters.get("index"))) at("index").value = parameters.get("index");
  for (const name of FIELDS) {
    if (!parameters.has(name)) continue;
    if (at(name).type === "checkbox") at(name).checked = parameters.get(name) === "1";
    else at(name).value = parameters.get(name);
  }
  at("by").value = parameters.get("by") ?? "";
  const [start, end] = (parameters.get("span") ?? "").split(":").map(Number), talk = listOf(parameters.get("messages") ?? "");
  const tools = listOf(parameters.get("tools") ?? "");
  setChat({ messages: talk, tools: tools.length ? tools : undefined, turn: Number(parameters.get("turn")), span: start < end ? [start, end] : null });
  use(talk.length ? "conversation" : "text");
  at("paste").open = !talk.length;
  return parameters.has("prompt") || talk.length > 0;
}

async function search(event) {
  event?.preventDefault();
  if (form === "conversation" && !takePasted()) return;
  running?.abort();
  summing?.abort();
  const mine = (running = new AbortController()), query = readQuery(), exact = at("exact").checked;
  if (event) remember(query);
  at("error").hidden = true;
  at("go").disabled = true;
  at("stop").hidden = !exact;
  at("status").textContent = exact ? "Searching, then recomputing the best candidates exactly …" : "Searching …";
  const told = exact ? (text) => { if (mine === running) at("status").textContent = text; } : undefined;
  const options = readOptions();
  const body = { ...query, ...options, k: Number(at("k").value) || 5, both: true, histogram: true, exact, hits: at("hits").value };
  try {
    answer = await call(indexPath("/search"), body, { signal: mine.signal, told });
    asked = { query, options, exact };
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
  const notes = [...(answer.notes ?? []).map((note) => `Note: ${note}.`), ...certificateText(answer.certificate)];
  at("notes").textContent = notes.join(" ");
  at("notes").hidden = !notes.length;
  const merit = (hit) => (asked.exact && hit.influence !== null ? hit.influence : hit.score);
  const hits = [...answer.hits, ...answer.negative_hits], largest = Math.max(...hits.map((hit) => Math.abs(merit(hit))), 1e-30);
  const found = cards(hits, asked.query, merit, largest), { length } = answer.hits;
  const fill = (id, from, to, sign) => {
    const shown = found.slice(from, to).filter((_, n) => Math.sign(merit(hits[from + n])) === sign);
    at(id).replaceChildren(...shown);
    if (!shown.length) at(id).append(make("li", { className: "empty", text: "No documents." }));
  };
  fill("positive", 0, length, 1);
  fill("negative", length, hits.length, -1);
  at("fields").replaceChildren(...fieldsOf(hits).map((field) => new Option(field)));
  drawTrust(current(), asked.exact);
  at("results").hidden = false;
  plot();
  sumSources();
}

function plot() {
  if (!answer?.histogram) return;
  const spread = answer.histogram;
  at("spread-title").textContent = `${spread.sampled ? "An even sample of " : ""}${spread.parts.toLocaleString("en")} scores, ` +
    (shape === "tail" ? "by rank" : "counts on a log scale");
  (shape === "tail" ? tail : histogram)(at("plot"), spread);
  press("view", ["histogram", "tail"], shape);
}

// All documents are scored for the sums, so these are asked for after the hits, and only where a field is named.
async function sumSources() {
  summing?.abort();
  const field = at("by").value.trim(), mine = (summing = new AbortController());
  sums = null;
  at("sources").replaceChildren();
  at("measure").hidden = true;
  at("sources-note").textContent = field ? "Scoring all documents …" : "Name a field of the metadata: which source taught it?";
  if (!field) return;
  const told = (text) => { if (mine === summing) at("sources-note").textContent = text; };
  try {
    const found = await call(indexPath("/search"), { ...asked.query, ...asked.options, k: 1, group_by: field }, { signal: mine.signal, told });
    sums = found.groups;
    drawSums();
  } catch (error) {
    if (mine === summing) at("sources-note").textContent = error.name === "AbortError" ? "" : error.message;
  }
}

function drawSums() {
  at("measure").hidden = false;
  drawSources(sums, measure, (filter) => {
    at("where").value = joined(at("where").value, filter);
    at("form").requestSubmit();
  });
}

// Which index answers.

const current = () => indexes.find((one) => one.name === at("index").value);

function chosen() {
  drawTrust(current(), asked?.exact);
  drawCoverage(current()?.coverage);
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
  const index = current();
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
  if (await list()) await whenReady(recall());
}

// What is shown is of the index before, and its buttons would ask the one chosen now.
async function switched() {
  running?.abort();
  summing?.abort();
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
for (const name of ["histogram", "tail"]) at(`view-${name}`).addEventListener("click", () => { shape = name; plot(); });
for (const name of VIEWS) at(`as-${name}`).addEventListener("click", () => use(name));
for (const name of ["sum", "mean"]) at(`measure-${name}`).addEventListener("click", () => { measure = name; drawSums(); });
at("by").addEventListener("change", () => { remember(asked.query); sumSources(); });
addEventListener("popstate", () => { at("form").reset(); if (recall()) search(); chosen(); });
addEventListener("resize", plot);
startChat();
start();
