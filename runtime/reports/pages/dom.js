// Elements and numbers: what the other scripts make pages of.
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
// Calls `draw` whenever the size of `host` has changed; not in the middle of laying out the page.
const watched = (host, draw) => new ResizeObserver(() => requestAnimationFrame(draw)).observe(host);
const colour = (index) => `var(--c${index % 8})`;

function significant(value, digits = 4) {
  if (value === null || value === undefined) return "NaN";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

const grouped = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US"));
const FORMATS = {
  number: (value) => significant(value),
  share: (value) => (value === null ? "NaN" : `${significant(100 * value)} %`),
  count: (value) => (value === null ? "NaN" : value >= 100 ? grouped(value) : significant(value, 3)),
};

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${significant(seconds, 3)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

function steps(low, high, count) {
  // 1, 2 or 5 times a power of ten, so that there are about `count` of them.
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0) || !isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function table(heads, rows) {
  // A head that begins with "#" is of numbers.
  const kind = heads.map((head) => (head.startsWith("#") ? "number" : "wrap"));
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head, at) => el("th", { class: kind[at], scope: "col" }, head.replace("#", ""))))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) => el("td", { class: kind[at] }, cell ?? "–")))))));
}

const card = (title, ...children) => el("div", { class: "card" }, title && el("h3", {}, title), ...children);
