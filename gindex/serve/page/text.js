// What the page reads and marks: JSON without rounding, and the words that a query and a text share.

// An integer that a number of JavaScript does not hold. It counts as the number beside it and is shown as it was written.
class LargeInteger {
  constructor(source) { this.source = source; }
  valueOf() { return Number(this.source); }
  toString() { return this.source; }
}

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, LARGE = "\u0000large";

export function readJson(text) {
  const kept = text.replace(TOKEN, (token) =>
    /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token)) ? `{${JSON.stringify(LARGE)}:"${token}"}` : token);
  return JSON.parse(kept, (_, value) => (typeof value?.[LARGE] === "string" ? new LargeInteger(value[LARGE]) : value));
}

// A value of metadata as text; within arrays and objects as JSON, large integers as they are.
export function shown(value) {
  if (value === null || typeof value !== "object" || value instanceof LargeInteger) return String(value);
  return Array.isArray(value) ? `[${value.map(within).join(",")}]`
    : `{${Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}:${within(item)}`).join(",")}}`;
}

const within = (value) => (typeof value === "string" ? JSON.stringify(value) : shown(value));

// Scripts written without spaces are compared by pairs of characters, as the index does.
const UNSPACED = ["Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar", "Yi"]
  .map((script) => `\\p{scx=${script}}`).join("");
const WORD = /[\p{L}\p{N}\p{M}]+/gu, PIECE = new RegExp(`[${UNSPACED}]+|[^${UNSPACED}]+`, "gu"), RUN = new RegExp(`^[${UNSPACED}]`, "u");

const pieces = (word) => word.match(PIECE) ?? [];
const pairs = (run) => run.slice(1).map((character, n) => run[n] + character);

// The words of a text that are worth marking, and pairs of characters; `common` words are not.
export function wordsOf(text, common) {
  const found = (text.toLowerCase().match(WORD) ?? []).flatMap(pieces).flatMap((piece) => {
    const run = [...piece];
    return !RUN.test(piece) || run.length === 1 ? [piece] : pairs(run);
  });
  return new Set(found.filter((word) => (word.length > 1 || RUN.test(word)) && !common.has(word)));
}

// A text as pieces, each with whether it is of the words.
export function marked(text, words) {
  const found = [];
  const add = (piece, mark) => {
    if (found.length && found.at(-1)[1] === mark) found.at(-1)[0] += piece;
    else found.push([piece, mark]);
  };
  let end = 0;
  for (const match of text.matchAll(WORD)) {
    add(text.slice(end, match.index), false);
    end = match.index + match[0].length;
    for (const piece of pieces(match[0])) {
      if (!RUN.test(piece)) { add(piece, words.has(piece.toLowerCase())); continue; }
      const run = [...piece], pair = pairs(run).map((two) => words.has(two.toLowerCase()));
      run.forEach((character, n) => add(character, Boolean(pair[n - 1] || pair[n] || words.has(character.toLowerCase()))));
    }
  }
  add(text.slice(end), false);
  return found.filter(([piece]) => piece);
}
