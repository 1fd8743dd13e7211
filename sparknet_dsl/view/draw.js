// Boxes, edges and their texts as SVG.

const KINDS = [
  ["data", /Data$|^Input$|Data\b/],
  ["loss", /Loss|Accuracy/],
  ["conv", /Convolution|Deconvolution|Crop|Im2col/],
  ["pool", /Pool|Upsample|Unpool|Interp/],
  ["full", /InnerProduct|Embed|LSTM|RNN/],
  ["norm", /Norm|LRN|Scale|Bias|^BN$|MVN/],
  ["act", /ReLU|Sigmoid|TanH|ELU|Swish|Clip|Softmax|Dropout|Power|Exp|Log|Abs|BNLL/],
  ["join", /Concat|Eltwise|Slice|Split|Flatten|Reshape|Permute|Tile|Reduction/],
];
const METRICS = ["work", "parameters", "memory"];
const NAMES = { work: "multiply-adds", parameters: "parameters", memory: "memory" };
const LONGEST = 34;

const kind = (type) => KINDS.find(([, types]) => types.test(type))?.[0] ?? "other";
const cut = (text, most = LONGEST) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// 6.99 M, three digits; bytes in powers of 1000, too.
function short(value) {
  if (value < 1000) return String(value);
  const power = Math.min(4, Math.floor(Math.log10(value) / 3));
  return `${(value / 1000 ** power).toPrecision(3)} ${"kMGT"[power - 1]}`;
}

function told(item) {
  const said = [];
  if (item.parameters) said.push(`${short(item.parameters)} parameters`);
  if (item.work) said.push(`${short(item.work)} multiply-adds`);
  if (item.memory) said.push(`${short(item.memory)}B`);
  return said.join(", ");
}

const pen = document.createElement("canvas").getContext("2d");
function width(text, bold) {
  pen.font = `${bold ? "600 " : ""}12px system-ui, sans-serif`;
  return pen.measureText(text).width;
}

// The lines of a node's or a folded group's box, each a class and a text.
function lines({ node, group }) {
  if (group) {
    const title = group.label || group.block;
    const kinds = group.label && group.block ? `${group.block}, ` : "";
    return [["title", cut(`▸ ${title}`)], ["name", cut(`${kinds}${group.layers} layers`)]];
  }
  const [main, ...others] = node.parts;
  const found = [["title", cut(main.what ? `${main.type} ${main.what}` : main.type)], ["name", cut(main.name)]];
  if (others.length) found.push(["name", cut(others.map((part) => `+ ${part.type}`).join(" "), LONGEST + 4)]);
  if (node.tags.length) found.push(["name", cut(`← ${node.tags.join(", ")}`)]);
  return found;
}

function boxSize(item) {
  const said = lines(item);
  const w = Math.max(...said.map(([role, text]) => width(text, role === "title")));
  return { w: Math.ceil(w) + 26, h: 14 + 16 * said.length, said };
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A smooth line through points, upright where it leaves and arrives.
function curve(points) {
  let path = `M${points[0].map(Math.round)}`;
  for (let i = 1; i < points.length; i++) {
    const [[x1, y1], [x2, y2]] = [points[i - 1], points[i]];
    if (Math.abs(x1 - x2) < 1) path += `V${Math.round(y2)}`;
    else path += `C${[x1, (y1 + y2) / 2, x2, (y1 + y2) / 2, x2, y2].map(Math.round)}`;
  }
  return path;
}

// Draws `part` of `phase`; `seen` gets every box with its place on the whole drawing, by its id.
function drawn(phase, part, seen, heat, x = 0, y = 0) {
  const layer = svg("g");
  const labels = [];
  const labelled = new Set();
  for (const edge of part.edges) {
    const path = svg("path", { class: "edge", d: curve(edge.points.map(([a, b]) => [a + x, b + y])) });
    path.dataset.source = edge.source;
    path.append(svg("title", {}, `${edge.blob}: ${edge.shape}`));
    if (edge.to[0] !== "o") path.setAttribute("marker-end", "url(#arrow)");
    layer.append(path);
    const [[ax, ay]] = edge.points;
    const name = `${edge.from}>${edge.port}`;
    if (edge.from[0] === "i" || labelled.has(name)) continue;
    labelled.add(name);
    labels.push(svg("text", { class: "shape", x: Math.round(ax + x + 5), y: Math.round(ay + y + 13) }, edge.shape));
  }
  for (const box of part.boxes) {
    if (!box.port) layer.append(boxDrawn(phase, box, seen, heat, x, y));
  }
  layer.append(...labels);
  return layer;
}

function boxDrawn(phase, box, seen, heat, x, y) {
  const node = phase.nodes[box.node], group = phase.groups[box.group], at = [box.x + x, box.y + y];
  const made = svg("g", { class: `box ${node ? kind(node.parts[0].type) : "block"}`, tabindex: -1, role: "button" });
  made.dataset.id = box.id;
  const { w, h } = box;
  const place = { x: Math.round(at[0]), y: Math.round(at[1]), width: Math.round(w), height: Math.round(h), rx: 6 };
  if (group && !box.inner) made.append(svg("rect", { ...place, x: place.x + 4, y: place.y + 4, class: "stack" }));
  made.append(svg("rect", { ...place, class: box.inner ? "unfolded" : "face" }));
  if (!box.inner) {
    const warm = svg("rect", { ...place, class: "heat" });
    warm.style.fillOpacity = heat(node ?? group);
    made.append(warm);
  }
  if (node) made.append(svg("rect", { ...place, width: 5, rx: 2.5, class: "mark" }));
  const said = box.inner ? [["title", `▾ ${group.label || group.block}`]] : box.said;
  said.forEach(([role, text], i) => {
    const line = { class: role, x: place.x + (node ? 14 : 12), y: place.y + 20 + 16 * i };
    made.append(svg("text", line, text));
  });
  const what = node ? node.parts.map((part) => `${part.name}: ${part.type}`).join(", ") : `block ${group.label || group.block}`;
  made.setAttribute("aria-label", `${what}. ${told(node ?? group)}`);
  if (group) made.setAttribute("aria-expanded", Boolean(box.inner));
  seen.set(box.id, { box, element: made, x: at[0], y: at[1], w, h, node, group });
  if (!box.inner) return made;
  return svg("g", {}, made, drawn(phase, box.inner, seen, heat, at[0] + box.dx, at[1] + box.dy));
}
