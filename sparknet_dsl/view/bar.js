// The bar above, and the beginning.

function enter(phase) {
  Object.assign(state, { phase, folded: new Set(phase.nodes.length > MANY ? phase.groups.keys() : []), chosen: null });
  for (const button of get("phases").children) button.setAttribute("aria-checked", button.textContent === phase.phase);
  render();
  find();
  show();
  if (!table.hidden) listed();
  start();
}

get("phases").append(...model.phases.map((phase) => {
  const button = element("button", { onclick: () => enter(phase) }, phase.phase);
  button.setAttribute("role", "radio");
  return button;
}));
const dark = matchMedia("(prefers-color-scheme: dark)");
const buttons = {
  fold: () => foldAll(true), unfold: () => foldAll(false), fit: () => fit(true), list: () => tabled(table.hidden),
  keys: () => get("help").showModal(),
  theme: () => {
    const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  },
};
for (const [id, act] of Object.entries(buttons)) get(id).addEventListener("click", act);
get("colour").addEventListener("change", render);
// A frame may get its room only after this has run.
window.addEventListener("resize", () => state.view === state.begun ? start() : look(state.view));
enter(state.phase);
