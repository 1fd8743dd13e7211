// The table of layers, which each heading sorts.

let sorted = { by: null, down: false };

function listed() {
  const rows = state.phase.nodes.flatMap((node, number) => node.parts.map((part) => ({ ...part, number })));
  rows.forEach((row, place) => (row.place = place));
  if (sorted.by) {
    const way = sorted.down ? -1 : 1;
    rows.sort((a, b) => (a[sorted.by] > b[sorted.by] ? way : a[sorted.by] < b[sorted.by] ? -way : a.place - b.place));
  }
  const heads = { name: "layer", type: "type", shapes: "output", ...NAMES };
  const head = element("tr", {}, ...Object.entries(heads).map(([key, text]) => {
    const sign = sorted.by === key ? (sorted.down ? " ▾" : " ▴") : "";
    const sort = element("button", { onclick: () => {
      sorted = { by: key, down: sorted.by === key ? !sorted.down : METRICS.includes(key) };
      listed();
    } }, text + sign);
    return element("th", { scope: "col", className: METRICS.includes(key) ? "number" : "" }, sort);
  }));
  const body = rows.map((row) => {
    const go = element("button", { onclick: () => { tabled(false); unveil(row.number); } }, row.name);
    const numbers = METRICS.map((metric) =>
      element("td", { className: "number" }, row[metric] ? row[metric].toLocaleString("en") : ""));
    const cells = [go, row.type, row.shapes.join(", ")].map((cell) => element("td", {}, cell));
    return element("tr", { className: state.found.includes(row.number) ? "found" : "" }, ...cells, ...numbers);
  });
  table.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function tabled(asked) {
  table.hidden = !asked;
  graph.classList.toggle("hidden", asked);
  get("list").setAttribute("aria-pressed", asked);
  if (asked) listed();
}
