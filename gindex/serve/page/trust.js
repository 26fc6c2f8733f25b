// How far the answers of an index can be trusted: its recall, what an exact re-rank may have missed, and how much of the model is tracked.

import { at, make } from "./dom.js";

export function drawTrust(index, exact) {
  at("badge").hidden = !index?.ready;
  if (!index?.ready) return;
  const recall = index.recall ? `recall@10 ${index.recall.at_10.toFixed(2)}` : "recall not measured";
  at("badge").textContent = exact ? `exact influence · candidates ${recall}` : index.lossless ? "full search of stored vectors" : `approximate · ${recall}`;
  at("badge").title = `${index.documents.toLocaleString("en")} documents, ${index.parts.toLocaleString("en")} parts, ${index.search_index}, ${recall} of a full scan`;
}

// How likely it is that none of the true best was missed, as sentences; none where nothing is said of it.
export function certificateText(certificate) {
  if (!certificate) return [];
  if (!certificate.outside) return ["Every part was recomputed: none of the true best is missing."];
  const chance = certificate.probability < 0.05 ? "less than .05" : certificate.probability.toFixed(certificate.candidates ? 2 : 3);
  const advice = certificate.candidates ? ` About ${certificate.candidates.toLocaleString("en")} candidates would make it .95.` : "";
  return [`None of the true best is missing with probability ${chance}.${advice}`];
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
