// Turns of a conversation as bubbles.

import { make } from "./dom.js";
import { OBJECT, callsOf, contentOf } from "./conversation.js";

const KNOWN = new Set(["user", "assistant", "system", "tool"]);

// One turn: its role, whatever stands beside that, and what is said.
export function bubble(turn, said, ...beside) {
  const role = make("span", { className: "role", text: turn.side ? `${turn.role}, ${turn.side}` : turn.role });
  const calls = callsOf(turn).map((call) => make("code", { className: "call", text: call }));
  return make("li", { className: `turn ${KNOWN.has(turn.role) ? turn.role : "other"} ${turn.side ?? ""}` },
    make("div", { className: "turn-head" }, role, ...beside), said, ...calls);
}

export function saidOf(text, className = "said") {
  const said = make("div", { className, text });
  said.dir = "auto";
  return said;
}

// Turns to be read, of each at most some characters; `pieces` makes of a text what stands for it.
export function bubbles(turns, { most = Infinity, longest = Infinity, pieces = (text) => [text] } = {}) {
  const shown = turns.slice(0, most).map((turn) => {
    const text = contentOf(turn).replaceAll(OBJECT, "[picture] "), cut = text.length > longest ? `${text.slice(0, longest)}…` : text, said = saidOf("");
    said.append(...pieces(cut));
    return bubble(turn, said);
  });
  const more = turns.length - shown.length;
  const rest = more > 0 ? [make("li", { className: "quiet", text: `${more} more ${more === 1 ? "turn" : "turns"} in the document` })] : [];
  return make("ol", { className: "chat" }, ...shown, ...rest);
}
