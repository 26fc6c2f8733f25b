// The service: what is asked of it, and its answers, whole or in lines.

import { at } from "./dom.js";
import { readJson } from "./text.js";

export class Problem extends Error {}

export const indexPath = (rest) => `v1/indexes/${encodeURIComponent(at("index").value)}${rest}`;

function headersOf(body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  return headers;
}

// A picture of a document as an address that holds its data.
export async function pictureOf(id, number) {
  const body = { document_id: id, number };
  const response = await fetch(indexPath("/document/picture"), { method: "POST", headers: headersOf(body), body: JSON.stringify(body) });
  if (!response.ok) throw new Problem(`The service answered ${response.status}.`);
  const file = await response.blob(), reader = new FileReader();
  return new Promise((done, failed) => {
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

export async function call(path, body, { signal, told } = {}) {
  const headers = headersOf(body);
  if (told) headers.Accept = "application/x-ndjson";
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
