// The conversation that is asked about: pasted or built turn by turn, the turn that counts, and the words of it that do.

import { at, button, make } from "./dom.js";
import { ASSISTANT, ROLES, contentOf, lastAnswer, moved, pointsOf, readConversation, trimmed, unitsOf } from "./conversation.js";
import { bubble, saidOf } from "./turns.js";

const SETTLED = 600; // milliseconds after which a selection by touch is taken as finished
const NONE = { messages: [], tools: undefined, chosen: -1, span: null };

let chat = NONE, edited = -1, pressing = false, settling = 0;

// The fields of a query; the span in the service's characters.
export function chatQuery() {
  const { messages, tools, chosen, span } = chat, query = { messages };
  if (tools) query.tools = tools;
  if (chosen >= 0) query.turn = chosen + 1;
  if (span) query.span = pointsOf(contentOf(messages[chosen]), span);
  return query;
}

export function setChat({ messages = [], tools, turn, span } = {}) {
  const named = messages[turn - 1]?.role === ASSISTANT ? turn - 1 : lastAnswer(messages);
  chat = { messages, tools, chosen: named, span: named >= 0 && span ? trimmed(contentOf(messages[named]), unitsOf(contentOf(messages[named]), span)) : null };
  edited = -1;
  draw();
  at("turns").scrollTop = at("turns").children[chat.chosen]?.offsetTop ?? 0;
}

// Take what was pasted; true where there is a conversation now.
export function takePasted() {
  const text = at("pasted").value;
  if (!text.trim()) return chat.messages.length > 0 || complain("Paste a conversation, or add its turns.");
  try {
    setChat(readConversation(text));
  } catch (error) {
    return complain(error.message);
  }
  at("pasted").value = "";
  complain("");
  at("paste").open = false;
  return true;
}

function complain(text) {
  at("paste-error").textContent = text;
  at("paste-error").hidden = !text;
  if (text) at("paste").open = true;
  return false;
}

function draw() {
  at("turns").replaceChildren(...chat.messages.map((turn, n) => (n === edited ? editor(turn, n) : shownTurn(turn, n))));
  at("turns").hidden = !chat.messages.length;
  at("chat-hint").hidden = chat.chosen < 0;
}

// Draw again and keep the focus on the part of a turn that had it.
function drawOn(n, part) {
  draw();
  at("turns").children[n]?.querySelector(part)?.focus({ preventScroll: true });
}

function choose(n) {
  if (chat.chosen === n) return;
  chat = { ...chat, chosen: n, span: null };
  drawOn(n, ".counts");
}

function select(span) {
  chat = { ...chat, span };
  drawOn(chat.chosen, ".said");
}

// Turn n is new, or says something else.
function change(messages, n) {
  const stays = messages[chat.chosen]?.role === ASSISTANT, chosen = stays ? chat.chosen : lastAnswer(messages);
  chat = { ...chat, messages, chosen, span: stays && n !== chosen ? chat.span : null };
}

function remove(n) {
  const messages = chat.messages.toSpliced(n, 1), stays = n !== chat.chosen;
  const chosen = stays ? chat.chosen - (n < chat.chosen ? 1 : 0) : lastAnswer(messages);
  chat = { ...chat, messages, chosen, span: stays ? chat.span : null };
  edited = -1;
  draw();
  (at("turns").children[Math.min(n, messages.length - 1)]?.querySelector("button") ?? at("add-turn")).focus();
}

function shownTurn(turn, n) {
  const answers = turn.role === ASSISTANT, counts = n === chat.chosen, name = `turn ${n + 1}`;
  const said = saidOf(contentOf(turn)), beside = [make("span", { className: "fill" })];
  if (answers) {
    const toggle = button(counts ? "Counts" : "Count this", () => choose(n), { className: "counts", label: `Only the tokens of ${name} count` });
    toggle.setAttribute("aria-pressed", String(counts));
    beside.push(toggle);
  }
  if (counts && chat.span) beside.push(button("All of it", () => select(null), { className: "clear" }));
  beside.push(button("Edit", () => { edited = n; drawOn(n, "textarea"); }, { label: `Edit ${name}` }),
    button("×", () => remove(n), { label: `Remove ${name}`, title: "Remove" }));
  const item = bubble(turn, said, ...beside);
  if (answers) item.addEventListener("click", (event) => { if (!event.target.closest("button") && getSelection().isCollapsed) choose(n); });
  if (counts) countable(item, said, contentOf(turn));
  return item;
}

// The turn that counts: its words are selected with the pointer, or with the arrows.
function countable(item, said, text) {
  item.classList.add("counted");
  said.tabIndex = 0;
  said.setAttribute("role", "group");
  said.setAttribute("aria-describedby", "chat-hint");
  said.setAttribute("aria-label", chat.span ? `Only these words count: ${text.slice(...chat.span)}` : "The whole turn counts");
  if (chat.span) {
    const [start, end] = chat.span;
    said.replaceChildren(text.slice(0, start), make("mark", { text: text.slice(start, end) }), text.slice(end));
  }
  said.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const forward = event.key === "ArrowRight";
    if (event.key === "Escape" && chat.span) select(null);
    else if (forward || event.key === "ArrowLeft") {
      const span = moved(text, chat.span, { forward, extend: event.shiftKey });
      if (span) select(span);
    } else return;
    event.preventDefault();
  });
}

// What the pointer has selected of an assistant's turn: its number, and characters of its content; null for nothing.
function pointed() {
  const selection = getSelection();
  if (selection.isCollapsed || !selection.rangeCount) return null;
  const range = selection.getRangeAt(0), from = range.startContainer;
  const said = (from.nodeType === Node.TEXT_NODE ? from.parentElement : from).closest("#turns .assistant .said");
  if (!said) return null;
  const before = document.createRange();
  before.selectNodeContents(said);
  if (!said.contains(range.endContainer)) range.setEnd(said, said.childNodes.length);
  before.setEnd(range.startContainer, range.startOffset);
  const start = before.toString().length, span = trimmed(said.textContent, [start, start + range.toString().length]);
  return span && { n: [...at("turns").children].indexOf(said.closest(".turn")), span };
}

function takePointed() {
  clearTimeout(settling);
  const found = pointed();
  if (!found) return;
  getSelection().removeAllRanges();
  chat = { ...chat, chosen: found.n };
  select(found.span);
}

function editor(turn, n) {
  const role = make("select", { label: "Who speaks" }), text = make("textarea", { label: "What is said" });
  role.append(...[...new Set([...ROLES, turn.role])].map((name) => new Option(name, name)));
  role.value = turn.role;
  text.value = contentOf(turn);
  text.rows = Math.min(12, 2 + text.value.split("\n").length);
  text.dir = "auto";
  const keep = () => {
    const said = text.value === contentOf(turn) ? {} : { content: text.value };
    change(chat.messages.with(n, { ...chat.messages[n], role: role.value, ...said }), n);
  };
  role.addEventListener("change", keep);
  text.addEventListener("input", keep);
  const done = button("Done", () => { edited = -1; drawOn(n, "button"); });
  return make("li", { className: "turn editing" }, make("div", { className: "turn-head" }, role, make("span", { className: "fill" }), done), text);
}

function add() {
  const last = chat.messages.at(-1)?.role, n = chat.messages.length;
  change([...chat.messages, { role: last === "user" ? ASSISTANT : "user", content: "" }], n);
  if (last === "user") chat = { ...chat, chosen: n, span: null };
  edited = n;
  complain("");
  drawOn(n, "textarea");
}

export function startChat() {
  at("take").addEventListener("click", takePasted);
  at("pasted").addEventListener("paste", () => setTimeout(takePasted));
  at("add-turn").addEventListener("click", add);
  at("clear-chat").addEventListener("click", () => { setChat(); at("paste").open = true; at("pasted").focus(); });
  addEventListener("pointerdown", () => { pressing = true; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressing = false; });
  addEventListener("mouseup", () => setTimeout(takePointed));
  document.addEventListener("selectionchange", () => {
    clearTimeout(settling);
    settling = setTimeout(() => { if (!pressing) takePointed(); }, SETTLED);
  });
}
