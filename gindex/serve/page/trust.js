// How far the answers of an index can be trusted: its recall, and how much of the model is tracked.

import { at, make } from "./dom.js";

export function drawTrust(index, exact) {
  at("badge").hidden = !index?.ready;
  if (!index?.ready) return;
  const recall = index.recall ? `recall@10 ${index.recall.at_10.toFixed(2)}` : "recall not measured";
  at("badge").textContent = exact ? `exact influence · candidates ${recall}` : index.lossless ? "full search of stored vectors" : `approximate · ${recall}`;
  at("badge").title = `${index.documents.toLocaleString("en")} documents, ${index.parts.toLocaleString("en")} parts, ${index.search_index}, ${recall} of a full scan`;
}

export function drawCoverage(found) {
  at("coverage").hidden = !found;
  if (!found) return;
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  at("coverage").classList.toggle("warning", Boolean(found.warning));
  at("coverage-share").textContent = found.warning ? `Warning: ${found.warning}.`
    : `${percent(found.share)} of the model\u2019s ${found.of === "body" ? "body" : "weights"} is tracked; what is not`;
  at("coverage-untracked").replaceChildren(...found.untracked.map((each) => make("li", {
    text: `${each.weights}: ${each.reason} (${each.share === null ? "outside the body" : percent(each.share)})` })));
}
