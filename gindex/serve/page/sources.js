// The scores of all documents by the value of a field of their metadata, as bars with the interval of each.

import { at, make, press, signed } from "./dom.js";
import { shown } from "./text.js";

const MOST_FIELDS = 200, LONGEST_VALUE = 200;
const NAME = /^[\p{L}_][\p{L}\p{N}\p{M}_]*$/u, KEYWORDS = new Set(["and", "or", "not", "in", "like", "is", "null", "true", "false", "id"]);

const written = (name) => (NAME.test(name) && !KEYWORDS.has(name.toLowerCase()) ? name : `\`${name.replaceAll("`", "``")}\``);

// Fields of hits' metadata as a filter writes them, those within objects too.
export function fieldsOf(hits) {
  const found = new Set();
  const add = (metadata, before) => {
    for (const [name, value] of Object.entries(metadata)) {
      if (found.size >= MOST_FIELDS) return;
      const field = before + written(name);
      if (value?.constructor === Object && !before) add(value, `${field}.`);
      else found.add(field);
    }
  };
  for (const hit of hits) add(hit.metadata, "");
  return [...found];
}

// A filter of the documents with a value; null where none says it: a long text is cut, an object is shown as JSON.
export function filterOf(field, value) {
  if (value === null) return `${field} is null`;
  if (typeof value !== "string") return `${field} = ${shown(value)}`;
  if ([...value].length > LONGEST_VALUE || /^[{[]/.test(value)) return null;
  return `${field} = '${value.replaceAll("'", "''")}'`;
}

export const joined = (where, filter) => (!where.trim() ? filter : /\bor\b/i.test(where) ? `(${where}) and ${filter}` : `${where} and ${filter}`);

const counted = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

function row(group, { field, measure, place, chosen }) {
  const value = group[measure], interval = group[`${measure}_interval`], name = group.value === null ? "none" : shown(group.value);
  const filter = filterOf(field, group.value), between = interval ? `, 95% of resamples ${signed(interval[0])} to ${signed(interval[1])}` : "";
  const track = make("span", { className: "source-track" });
  const put = (className, from, to) => {
    const mark = make("span", { className });
    mark.style.left = `${place(Math.min(from, to))}%`;
    mark.style.width = `${Math.abs(place(to) - place(from))}%`;
    track.append(mark);
  };
  put(`source-bar ${value >= 0 ? "pos" : "neg"}`, 0, value);
  if (interval) put("whisker", ...interval);
  put("zero", 0, 0);
  const line = make(filter ? "button" : "div", { className: "source", title: filter ? `Filter: ${filter}` : "No filter says this value",
    label: `${name}: ${measure} ${signed(value)}${between}, ${counted(group.documents, "document")}` },
    make("span", { className: group.value === null ? "source-name quiet" : "source-name", text: name }), track,
    make("span", { className: "source-value", text: signed(value) }), make("span", { className: "source-count", text: group.documents.toLocaleString("en") }));
  line.firstChild.dir = "auto";
  if (filter) {
    line.type = "button";
    line.addEventListener("click", () => chosen(filter));
  }
  return make("li", {}, line);
}

// Draw the groups of an answer; `chosen` is given the filter of a bar that is clicked.
export function drawSources(groups, measure, chosen) {
  const sorted = groups.groups.toSorted((one, other) => other[measure] - one[measure]);
  const ends = sorted.flatMap((group) => [group[measure], ...(group[`${measure}_interval`] ?? [])]);
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends), wide = high - low || 1;
  const place = (value) => ((value - low) / wide) * 100;
  at("sources").replaceChildren(...sorted.map((group) => row(group, { field: groups.field, measure, place, chosen })));
  const { others } = groups, rest = others ? ` ${counted(others.values, "other value")} between them, of ${counted(others.documents, "document")}, sum ${signed(others.sum)}.` : "";
  at("sources-note").textContent = `The ${measure} of the scores of ${counted(groups.documents, "document")} by ${counted(groups.values, "value")}, ` +
    `with 95% intervals by bootstrap; the last column counts documents.${rest}`;
  press("measure", ["sum", "mean"], measure);
}
