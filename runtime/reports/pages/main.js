// The page: sections from data, again when there are new ones.
let data = JSON.parse(document.getElementById("data").textContent);
let connection = "";
const content = document.getElementById("content");
const shown = new Map();
const charts = new Map();
const grid = el("div", { class: "grid" });

function section(id, title, depends, build) {
  // The section `id`; made again only when `depends`, or a choice, has changed.
  const now = JSON.stringify([depends, CHOICE]);
  let entry = shown.get(id);
  if (!entry) {
    entry = { host: el("section", { id }), was: null, title };
    shown.set(id, entry);
    content.append(entry.host);
  }
  if (entry.was === now) return;
  entry.was = now;
  const inside = build();
  entry.host.hidden = !inside.length;
  entry.host.replaceChildren(...(inside.length && title ? [el("h2", {}, title)] : []), ...inside);
}

function curvesSection() {
  const specs = chartSpecs(data);
  for (const spec of specs) {
    if (!charts.has(spec.id)) {
      charts.set(spec.id, lineChart(spec));
      grid.append(charts.get(spec.id).host);
    } else charts.get(spec.id).update(spec);
  }
  return specs.length ? [toolbarOnce(), grid] : [el("p", { class: "soft" }, "Nothing is trained yet.")];
}

let bar = null;
function toolbarOnce() {
  bar = bar || toolbar();
  return bar;
}

function draw() {
  const run = chosen(data);
  document.getElementById("head").replaceChildren(...head(data, connection));
  section("summary", "", [data.runs.map(({ status, message, scores, loss, iteration, round, seconds }) => [status, message, scores, loss, iteration, round, seconds])], () => tiles(data));
  section("differences", "What differs", data.differ, () => differ(data));
  section("curves", "Curves", data.runs.map((each) => [each.curves, each.marks]), curvesSection);
  section("which", "", data.runs.map((each) => each.name), () => runPicker(data, draw));
  section("workers", "Workers", run.workers, () => workersSection(run));
  section("network", "Network", [run.evidence.times, run.graph], () => networkSection(run));
  section("histograms", "Weights and gradients", run.histograms, () => histogramSection(run, draw));
  section("filters", "First filters", run.evidence.filters, () => filterSection(run));
  section("classes", "Classes", run.evidence.scores, () => scoreSection(run));
  section("settings", "Settings", [run.start, run.notes, run.marks, run.files, run.settings, run.environment, run.evidence.problems], () => settingsSection(run));
  const links = [...shown].filter(([, entry]) => entry.title && !entry.host.hidden).map(([id, entry]) => el("li", {}, el("a", { href: `#${id}` }, entry.title)));
  document.getElementById("contents").replaceChildren(el("ul", {}, links));
}

function switchTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  setTheme(dark ? "light" : "dark");
  try { localStorage.setItem("sparknet-theme", document.documentElement.dataset.theme); } catch { /* not kept */ }
}

function setTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

async function listen() {
  // Asks the run for news; each answer waits until there are some.
  let have = -1, failures = 0;
  while (failures < 5) {
    try {
      const answer = await fetch(`data?have=${have}`);
      const news = await answer.json();
      [have, data, failures, connection] = [news.version, news.data, 0, ""];
      draw();
      if (news.ended) return;
    } catch {
      failures += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  connection = "lost";
  draw();
}

try { setTheme(localStorage.getItem("sparknet-theme")); } catch { /* no storage */ }
setTheme(new URLSearchParams(location.search).get("theme"));
draw();
if (LIVE) listen();
