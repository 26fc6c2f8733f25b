// Plots as SVG: the histogram of all scores, and the tails by rank on logarithmic axes.

const NS = "http://www.w3.org/2000/svg";
const LEFT = 46, BOTTOM = 24, TOP = 8;

function element(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-2)) return value.toExponential(1).replace("e+", "e");
  return size >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : size >= 100 ? value.toFixed(0) : String(+value.toPrecision(3));
}

function canvas(into, title) {
  const width = Math.max(300, into.clientWidth || 900), height = width < 520 ? 170 : 190;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  svg.append(element("line", { x1: LEFT, x2: width, y1: height - BOTTOM, y2: height - BOTTOM, class: "axis" }));
  into.replaceChildren(svg);
  return { svg, width, height };
}

export function histogram(into, spread) {
  const { svg, width, height } = canvas(into, `Histogram of ${spread.parts} scores, logarithmic counts`);
  const [low, high] = [spread.edges[0], spread.edges.at(-1)], most = Math.max(...spread.counts, 1);
  const x = (value) => LEFT + ((value - low) / (high - low || 1)) * (width - LEFT - 8);
  const y = (count) => height - BOTTOM - (Math.log10(count + 1) / Math.log10(most + 1)) * (height - BOTTOM - TOP);
  spread.counts.forEach((count, n) => {
    if (!count) return;
    const [from, to] = [x(spread.edges[n]), x(spread.edges[n + 1])];
    const side = spread.edges[n] + spread.edges[n + 1] >= 0 ? "pos" : "neg";
    const bar = element("rect", { x: from + 0.5, width: Math.max(1, to - from - 1), y: y(count),
      height: height - BOTTOM - y(count), class: `fill-${side}`, rx: 1 });
    bar.append(element("title", {}, `${short(spread.edges[n])} to ${short(spread.edges[n + 1])}: ${count}`));
    svg.append(bar);
  });
  for (const count of [1, 10, 100, 1000, 10000, 100000].filter((count) => count <= most)) {
    svg.append(element("text", { x: LEFT - 6, y: y(count) + 4, "text-anchor": "end" }, count.toLocaleString("en")));
  }
  for (const value of new Set([low, low < 0 && high > 0 ? 0 : (low + high) / 2, high])) {
    const anchor = value === low ? "start" : value === high ? "end" : "middle";
    svg.append(element("text", { x: x(value), y: height - 6, "text-anchor": anchor }, short(value)));
  }
}

export function tail(into, spread) {
  const { svg, width, height } = canvas(into, "Scores by rank, both axes logarithmic");
  const points = [...spread.positive, ...spread.negative].filter(([, score]) => score > 0);
  if (!points.length) return;
  const ranks = Math.log10(Math.max(...points.map(([rank]) => rank), 2));
  const top = Math.log10(Math.max(...points.map(([, score]) => score)));
  const low = Math.max(top - 4, Math.log10(Math.min(...points.map(([, score]) => score))));
  const x = (rank) => LEFT + (Math.log10(rank) / ranks) * (width - LEFT - 8);
  const y = (score) => TOP + ((top - Math.log10(score)) / (top - low || 1)) * (height - BOTTOM - TOP);
  for (const side of ["positive", "negative"]) {
    const shown = spread[side].filter(([, score]) => Math.log10(score) >= low);
    const path = shown.map(([rank, score], n) => `${n ? "L" : "M"}${x(rank).toFixed(1)} ${y(score).toFixed(1)}`).join("");
    svg.append(element("path", { d: path, class: `line-${side.slice(0, 3)}` }));
  }
  for (let power = 0; power <= ranks; power++) {
    const at = { x: x(10 ** power), y: height - 6, "text-anchor": power ? "middle" : "start" };
    svg.append(element("text", at, `${power ? "" : "rank "}${(10 ** power).toLocaleString("en")}`));
  }
  for (let power = Math.ceil(low); power <= top; power++) {
    svg.append(element("text", { x: LEFT - 6, y: y(10 ** power) + 4, "text-anchor": "end" }, short(10 ** power)));
  }
}
