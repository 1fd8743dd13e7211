// Keys, the wheel, and fingers.

// The nearest box in a direction, from the chosen one or from the top.
function step(dx, dy) {
  const from = seen.get(state.chosen);
  if (!from) return choose([...seen.values()].sort((a, b) => a.y - b.y)[0]?.element.dataset.id ?? null);
  const middle = (at) => [at.x + at.w / 2, at.box.inner ? at.y + HEAD / 2 : at.y + at.h / 2];
  const [x, y] = middle(from);
  let best = null, least = Infinity;
  for (const at of seen.values()) {
    if (at === from) continue;
    const [px, py] = middle(at);
    const along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (along > 1 && along + 2 * aside < least) [best, least] = [at, along + 2 * aside];
  }
  if (best) choose(best.element.dataset.id);
}

const KEYS = {
  ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1), ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => fit(true),
  f: () => foldAll(true), u: () => foldAll(false), t: () => tabled(table.hidden),
  "/": () => search.focus(), "?": () => get("help").showModal(), Escape: () => { tabled(false); choose(null); },
  Enter: () => state.chosen?.[0] === "g" && toggle(Number(state.chosen.slice(1))),
  " ": () => KEYS.Enter(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || get("help").open) return;
  const typed = ["BUTTON", "SELECT", "INPUT"].includes(event.target.tagName);
  if (!KEYS[event.key] || (typed && ["Enter", " ", "ArrowUp", "ArrowDown"].includes(event.key))) return;
  event.preventDefault();
  KEYS[event.key]();
});

graph.addEventListener("wheel", (event) => {
  // In a notebook the wheel scrolls the notebook, unless the graph was clicked first.
  if (document.body.classList.contains("embedded") && document.activeElement === document.body && !event.ctrlKey) return;
  event.preventDefault();
  const { left, top } = graph.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - left, event.clientY - top);
}, { passive: false });

const fingers = new Map();
let moved = 0;
graph.addEventListener("pointerdown", (event) => {
  if (!fingers.size) moved = 0;
  fingers.set(event.pointerId, event);
});
window.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const { left, top } = graph.getBoundingClientRect();
  const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
  if (other) {
    const span = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
    zoom(span(event) / Math.max(1, span(before)), (event.clientX + other.clientX) / 2 - left, (event.clientY + other.clientY) / 2 - top);
  } else {
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    moved += Math.abs(dx) + Math.abs(dy);
    look({ ...state.view, x: state.view.x + dx, y: state.view.y + dy });
  }
  fingers.set(event.pointerId, event);
});
for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, (event) => fingers.delete(event.pointerId));
graph.addEventListener("click", (event) => {
  if (moved > 6) return;
  const id = event.target.closest(".box")?.dataset.id ?? null;
  if (id?.[0] === "g") toggle(Number(id.slice(1)));
  else choose(id);
});
