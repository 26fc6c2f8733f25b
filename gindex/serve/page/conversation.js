// Conversations as they are pasted, stored and counted: messages with role and content, and characters of a content.

export const ROLES = ["user", "assistant", "system", "tool"], ASSISTANT = "assistant";
export const MOST_TURNS = 200;
export const OBJECT = "\uFFFC"; // stands for a picture in a content

const SHARE_GPT = { human: "user", gpt: ASSISTANT };
const SPEAKERS = { human: "user", ai: ASSISTANT };
const LINE = /^\s*(?:\*\*|#+ *)?(user|human|assistant|ai|system|tool)(?:\*\*)?\s*:\s*(?:\*\*)?[^\S\n]*(.*)$/i;

// A conversation of a pasted text: JSON in OpenAI's or ShareGPT's style, alone or with its tools, or lines of "User:" and "Assistant:".
export function readConversation(text) {
  const read = /^\s*[[{]/.test(text) ? fromJson(text) : { messages: fromLines(text) };
  if (!read.messages.length) throw new Error("There is no turn in it.");
  if (read.messages.length > MOST_TURNS) throw new Error(`It has ${read.messages.length} turns; at most ${MOST_TURNS} are taken.`);
  return read;
}

function fromJson(text) {
  let given;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new Error(`It begins like JSON, but is none: ${error.message}.`);
  }
  const list = Array.isArray(given) ? given : given.messages ?? given.conversations ?? (given.role || given.from ? [given] : null);
  if (!Array.isArray(list)) throw new Error("Expected a list of messages, or an object with messages or conversations.");
  const read = { messages: list.map(message) };
  if (Array.isArray(given.tools) && given.tools.length) read.tools = given.tools;
  return read;
}

function message(given, n) {
  if (given === null || typeof given !== "object") throw new Error(`Turn ${n + 1} is no object.`);
  const there = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
  if (there.role === undefined && there.from !== undefined) {
    const { from, value, ...rest } = there;
    return { role: SHARE_GPT[from] ?? from, ...(value === undefined ? {} : { content: value }), ...rest };
  }
  if (typeof there.role !== "string") throw new Error(`Turn ${n + 1} has no role.`);
  return there;
}

function fromLines(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const opening = line.match(LINE);
    if (opening) {
      const name = opening[1].toLowerCase();
      found.push({ role: SPEAKERS[name] ?? name, content: opening[2] });
    } else if (found.length) {
      found.at(-1).content += `\n${line}`;
    } else if (line.trim()) {
      throw new Error("Expected JSON, or lines that begin with \u201cUser:\u201d and \u201cAssistant:\u201d.");
    }
  }
  return found.map(({ role, content }) => ({ role, content: content.trim() }));
}

// What a message says, its pieces put together as the service does.
export function contentOf({ content }) {
  if (typeof content === "string") return content;
  return Array.isArray(content) ? content.map((piece) => (typeof piece?.text === "string" ? piece.text : "")).join("") : "";
}

export function callsOf(message) {
  const calls = Array.isArray(message.tool_calls) ? message.tool_calls : [];
  return calls.map((call) => call.function ?? call).map(({ name, arguments: given }) =>
    `${name}(${typeof given === "string" ? given : JSON.stringify(given ?? {})})`);
}

export const lastAnswer = (messages) => messages.findLastIndex(({ role }) => role === ASSISTANT);

// The service counts code points, as Python does; strings here count halves of them.
export const pointsOf = (text, [start, end]) => [[...text.slice(0, start)].length, [...text.slice(0, end)].length];

export function unitsOf(text, [start, end]) {
  const points = [...text];
  return [points.slice(0, start).join("").length, points.slice(0, end).join("").length];
}

// Characters without the white space around them; null where nothing else is there.
export function trimmed(text, [start, end]) {
  const chosen = text.slice(start, end);
  if (!chosen.trim()) return null;
  return [start + chosen.length - chosen.trimStart().length, end - (chosen.length - chosen.trimEnd().length)];
}

// Words as [start, end) each; of scripts without spaces, too.
export function wordSpans(text) {
  const segments = new Intl.Segmenter(undefined, { granularity: "word" }).segment(text);
  return [...segments].filter(({ segment }) => segment.trim()).map(({ index, segment }) => [index, index + segment.length]);
}

// The span after a key: the next or previous word, or the span with one word more or less at its end. Null: as it was.
export function moved(text, span, { forward, extend }) {
  const words = wordSpans(text);
  if (!words.length) return null;
  if (!span) return forward ? words[0] : words.at(-1);
  const last = words.findLastIndex(([start]) => start < span[1]), first = words.findIndex(([, end]) => end > span[0]);
  const to = (extend ? last : forward ? last : first) + (forward ? 1 : -1);
  if (to < 0 || to >= words.length || (extend && to < first)) return null;
  return extend ? [span[0], words[to][1]] : words[to];
}

// The turns of a document that is made of some; null where it is shown as its text.
export function turnsOf({ form, content }) {
  if (form === "messages") return content.messages;
  if (form === "completion" && Array.isArray(content.prompt)) return [...content.prompt, ...content.completion];
  if (form !== "preference") return null;
  const side = (name) => asTurns(content[name], ASSISTANT).map((turn) => ({ ...turn, side: name }));
  return [...asTurns(content.prompt, "user"), ...side("chosen"), ...side("rejected")];
}

const asTurns = (given, role) => (Array.isArray(given) ? given : given ? [{ role, content: given }] : []);
