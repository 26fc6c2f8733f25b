// The documents that were found: a card each, why it counts, and the whole document.

import { at, bar, button, make, signed } from "./dom.js";
import { OBJECT, contentOf, turnsOf } from "./conversation.js";
import { call, indexPath, pictureOf } from "./service.js";
import { marked, shown, wordsOf } from "./text.js";
import { bubbles } from "./turns.js";

const COMMON = new Set("a an and are as at be but by for from has have if in into is it its no not of on or so that the then there these they this to was which will with".split(" "));
const TURNS = { most: 6, longest: 600 };
const MOST_PICTURES = 4;
const OF_TURNS = new Set(["messages", "completion", "preference"]);

const documentOf = (id) => call(indexPath(`/documents/${encodeURIComponent(id)}`));

export const textOf = (query) => (query.messages ? query.messages.map(contentOf).join("\n") : `${query.prompt}${query.completion ?? ""}`);

export function chips(metadata) {
  return Object.entries(metadata).filter(([, value]) => value !== null && value !== "").map(([name, value]) => {
    const text = `${name}: ${shown(value)}`;
    return make("span", { className: "chip", text, title: text });
  });
}

// Conversations are read when they come into view; where that fails there is the excerpt.
const soon = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    soon.unobserve(target);
    target.dispatchEvent(new Event("seen"));
  }
}, { rootMargin: "200px" });

async function showTurns(hit, text, pieces) {
  const turns = await documentOf(hit.document_id).then(turnsOf).catch(() => null);
  if (!turns) {
    text.replaceChildren(...pieces(hit.text.trim()));
    return;
  }
  const within = turns.filter((turn) => hit.text.includes(contentOf(turn).replaceAll(OBJECT, "").trim().slice(0, 60)));
  text.replaceWith(bubbles(within.length ? within : turns, { ...TURNS, pieces }));
}

// The pictures beside a document's text, the first of them.
async function showPictures(id, count, place) {
  for (let number = 0; number < Math.min(count, MOST_PICTURES); number += 1) {
    const picture = make("img", { title: `Picture ${number + 1} of ${count}` });
    picture.alt = picture.title;
    picture.src = await pictureOf(id, number).catch(() => "");
    place.append(picture);
  }
}

// The cards of hits; `query` is what was asked, and explains them.
export function cards(hits, query, merit, largest) {
  const words = wordsOf(textOf(query), COMMON);
  soon.disconnect();
  return hits.map((hit) => card(hit, query, merit(hit), largest, words));
}

function card(hit, query, value, largest, words) {
  const of = hit.parts ? `best of ${hit.parts} parts` : hit.part ? `part ${hit.part + 1}` : "";
  const figures = hit.influence === null ? `score ${signed(hit.score)}` : `influence ${signed(hit.influence)} · score ${signed(hit.score)}`;
  const why = make("div", { className: "why" });
  why.hidden = true;
  const explain = button("Explain", () => toggleWhy(hit.document_id, query, explain, why));
  explain.setAttribute("aria-expanded", "false");
  const pieces = (text) => marked(text, words).map(([piece, mark]) => (mark ? make("mark", { text: piece }) : piece));
  const text = make("p", { className: "text" });
  text.dir = "auto";
  if (!OF_TURNS.has(hit.form)) text.append(...pieces(hit.text.trim()));
  else {
    text.append("Reading the document …");
    text.addEventListener("seen", () => showTurns(hit, text, pieces));
    soon.observe(text);
  }
  const pictures = make("div", { className: "pictures" });
  const count = hit.pictures ?? (hit.form === "picture" ? 1 : 0);
  if (count) {
    pictures.addEventListener("seen", () => showPictures(hit.document_id, count, pictures));
    soon.observe(pictures);
  }
  return make("li", { className: "hit" },
    make("h3", {}, make("span", { className: "rank", text: String(hit.rank) }), make("span", { text: hit.document_id }), make("span", { className: "part", text: of })),
    make("div", { className: "score" }, bar(value, largest), make("span", { text: figures })),
    pictures,
    text,
    make("div", { className: "chips" }, ...chips(hit.metadata)),
    make("div", { className: "actions" }, explain, button("View document", () => openDocument(hit.document_id))), why);
}

async function toggleWhy(id, query, toggle, why) {
  if (toggle.getAttribute("aria-expanded") === "true") {
    why.hidden = true;
    toggle.setAttribute("aria-expanded", "false");
    return;
  }
  why.hidden = false;
  toggle.setAttribute("aria-expanded", "true");
  if (why.childElementCount && !why.dataset.failed) return;
  delete why.dataset.failed;
  const step = make("p", { className: "quiet", text: "Recomputing this document exactly …" });
  why.replaceChildren(step);
  try {
    const body = { ...query, document_id: id };
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
  at("document-title").textContent = id;
  at("document-metadata").replaceChildren();
  at("document-pictures").replaceChildren();
  try {
    const found = await documentOf(id), turns = turnsOf(found);
    at("document-metadata").replaceChildren(...chips(found.metadata));
    at("document-text").replaceChildren(turns ? bubbles(turns) : found.text);
    showPictures(id, found.content?.pictures ?? (found.form === "picture" ? 1 : 0), at("document-pictures"));
  } catch (error) {
    at("document-text").replaceChildren(error.message);
  }
  at("document").showModal();
}
