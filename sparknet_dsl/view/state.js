// The page: what is folded, chosen and searched for, and how far away one looks from.

const model = JSON.parse(document.getElementById("model").textContent);
const get = (id) => document.getElementById(id);
const [graph, scene, details, table, search] = ["graph", "scene", "details", "table", "search"].map(get);
const MANY = 40; // boxes, above which blocks are folded at first
const state = { phase: model.phases[0], folded: new Set(), chosen: null, found: [], view: { x: 0, y: 0, k: 1 } };
let seen = new Map(), whole = { w: 1, h: 1 };

for (const phase of model.phases) {
  for (const node of phase.nodes) {
    for (const metric of METRICS) node[metric] = node.parts.reduce((sum, part) => sum + part[metric], 0);
  }
  phase.groups.forEach((group, index) => {
    const within = (number) => number >= 0 && (number === index || within(phase.groups[number].parent));
    const inside = phase.nodes.filter((node) => within(node.group));
    group.layers = inside.reduce((sum, node) => sum + node.parts.length, 0);
    for (const metric of METRICS) group[metric] = inside.reduce((sum, node) => sum + node[metric], 0);
  });
}

function render() {
  const { phase } = state;
  const root = arranged(phase, state.folded, ({ node, group }) =>
    boxSize(node ? { node } : { group: phase.groups[group] }));
  whole = root;
  seen = new Map();
  const metric = get("colour").value;
  document.body.dataset.colour = metric;
  const most = metric === "type" ? 0 : Math.max(...phase.nodes.map((node) => node[metric]), 1);
  const heat = (item) => (most ? 0.6 * Math.min(1, Math.sqrt(item[metric] / most)) : 0);
  scene.replaceChildren(drawn(phase, root, seen, heat));
  get("totals").textContent = `${phase.nodes.reduce((sum, node) => sum + node.parts.length, 0)} layers, ${told(phase)}`;
  mark();
}

function mark() {
  const marked = new Set(state.found.map(visible));
  for (const [id, { element }] of seen) {
    element.classList.toggle("found", marked.has(id));
    element.classList.toggle("chosen", id === state.chosen);
    element.setAttribute("tabindex", id === state.chosen ? 0 : -1);
  }
  const source = state.chosen?.[0] === "n" ? state.chosen.slice(1) : null;
  for (const path of scene.querySelectorAll(".edge")) path.classList.toggle("chosen", path.dataset.source === source);
}

// The id of what shows the node: itself, or the folded block around it.
function visible(number) {
  let id = `n${number}`;
  for (let group = state.phase.nodes[number].group; group >= 0; group = state.phase.groups[group].parent) {
    if (state.folded.has(group)) id = `g${group}`;
  }
  return id;
}

function look({ x, y, k }, smooth = false) {
  state.view = { x, y, k };
  scene.classList.toggle("smooth", smooth);
  scene.style.transform = `translate(${x}px, ${y}px) scale(${k})`;
}

function zoom(factor, x = graph.clientWidth / 2, y = graph.clientHeight / 2) {
  const { view } = state;
  const k = Math.min(4, Math.max(0.02, view.k * factor));
  look({ x: x - ((x - view.x) * k) / view.k, y: y - ((y - view.y) * k) / view.k, k });
}

function fit(smooth = false) {
  const [w, h] = [graph.clientWidth, graph.clientHeight];
  const k = Math.min(1.5, (w - 40) / whole.w, (h - 40) / whole.h);
  look({ x: (w - whole.w * k) / 2, y: Math.max(20, (h - whole.h * k) / 2), k }, smooth);
}

// At first: everything if that can be read, else the top of the net.
function start() {
  fit();
  if (state.view.k < 0.45) {
    const k = Math.min(0.9, Math.max(0.45, (graph.clientWidth - 40) / whole.w));
    const first = [...seen.values()].sort((a, b) => a.y - b.y)[0];
    look({ x: graph.clientWidth / 2 - (first.x + first.w / 2) * k, y: 20, k });
  }
  state.begun = state.view;
}

function reveal(id) {
  const at = seen.get(id);
  if (!at) return;
  const { view } = state;
  const [x, y] = [(at.x + at.w / 2) * view.k + view.x, (at.y + Math.min(at.h, 60) / 2) * view.k + view.y];
  const inside = x > 60 && y > 40 && x < graph.clientWidth - 60 && y < graph.clientHeight - 40;
  if (!inside) look({ ...view, x: view.x + graph.clientWidth / 2 - x, y: view.y + graph.clientHeight / 2 - y }, true);
}

function choose(id, focus = true) {
  state.chosen = seen.has(id) ? id : null;
  mark();
  show();
  if (!state.chosen) return;
  reveal(id);
  if (focus) seen.get(id).element.focus({ preventScroll: true });
}

// Folds or unfolds a block; it stays where it is on the screen.
function toggle(group) {
  const id = `g${group}`;
  const before = seen.get(id);
  if (!state.folded.delete(group)) state.folded.add(group);
  render();
  const after = seen.get(id);
  const { view } = state;
  const middle = (at) => at.x + at.w / 2;
  look({ ...view, x: view.x + (middle(before) - middle(after)) * view.k, y: view.y + (before.y - after.y) * view.k });
  choose(id);
}

function foldAll(fold) {
  state.folded = new Set(fold ? state.phase.groups.keys() : []);
  const chosen = state.chosen;
  render();
  start();
  if (chosen && !seen.has(chosen)) choose(null);
}

function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

function show() {
  const at = seen.get(state.chosen);
  details.hidden = !at;
  if (!at) return;
  const close = element("button", { className: "close", title: "Close (Esc)", onclick: () => choose(null) }, "×");
  const content = [close];
  if (at.group) {
    content.push(element("h2", {}, at.group.label || at.group.block));
    content.push(element("p", {}, `block${at.group.block ? ` ${at.group.block}` : ""}, ${at.group.layers} layers`), facts(at.group));
    const fold = at.box.inner ? "Fold" : "Unfold";
    content.push(element("button", { onclick: () => toggle(Number(state.chosen.slice(1))) }, fold));
  } else {
    for (const part of at.node.parts) {
      content.push(element("h2", {}, part.name), element("p", {}, part.type), facts(part));
      content.push(element("pre", {}, part.text));
    }
  }
  details.replaceChildren(...content);
}

function facts(item) {
  const rows = [];
  const whole = state.phase;
  if (item.shapes?.length) rows.push(["output", item.shapes.join(", ")]);
  for (const metric of METRICS) {
    if (!item[metric]) continue;
    const share = whole[metric] ? ` (${((100 * item[metric]) / whole[metric]).toPrecision(2)} %)` : "";
    rows.push([NAMES[metric], `${item[metric].toLocaleString("en")}${metric === "memory" ? " bytes" : ""}${share}`]);
  }
  return element("dl", {}, ...rows.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
}

// ---- search ----

function find() {
  const asked = search.value.trim().toLowerCase();
  const matches = (part) => `${part.name} ${part.type}`.toLowerCase().includes(asked);
  state.found = asked ? [...state.phase.nodes.keys()].filter((i) => state.phase.nodes[i].parts.some(matches)) : [];
  search.classList.toggle("nothing", Boolean(asked) && !state.found.length);
  mark();
  if (!table.hidden) listed();
}

// Unfolds what hides a node, and goes there.
function unveil(number) {
  let changed = false;
  for (let group = state.phase.nodes[number].group; group >= 0; group = state.phase.groups[group].parent) {
    changed = state.folded.delete(group) || changed;
  }
  if (changed) render();
  choose(`n${number}`);
}

let next = 0;
search.addEventListener("input", () => { next = 0; find(); });
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && state.found.length) {
    unveil(state.found[next++ % state.found.length]);
    search.focus();
  }
  if (event.key === "Escape") { search.value = ""; find(); graph.focus(); }
  event.stopPropagation();
});
