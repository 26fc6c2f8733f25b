// Elements of the page, and numbers as it writes them. Text of documents only ever enters the page as text, never as markup.

import { short } from "./plots.js";

export const at = (id) => document.getElementById(id);

export function make(name, { text, className, title, label } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (title) made.title = title;
  if (label) made.setAttribute("aria-label", label);
  made.append(...children);
  return made;
}

export function button(text, clicked, more) {
  const made = make("button", { text, ...more });
  made.type = "button";
  made.addEventListener("click", clicked);
  return made;
}

// Buttons of which one is pressed; they are called `${name}-${choice}`.
export function press(name, choices, pressed) {
  for (const choice of choices) at(`${name}-${choice}`).setAttribute("aria-pressed", String(choice === pressed));
}

export const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + short(Math.abs(value));

export function bar(value, largest) {
  const share = Math.min(1, Math.abs(value) / largest) * 50, fill = make("div", { className: `bar ${value >= 0 ? "pos" : "neg"}` });
  fill.style.width = `${share}%`;
  fill.style.left = `${value >= 0 ? 50 : 50 - share}%`;
  return make("div", { className: "track" }, fill);
}
