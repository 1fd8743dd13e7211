// The sections of the page. Each is made again only when what it shows has changed.
const CHOICE = { run: 0, layer: null };
const TITLES = { start: "", run: "settings", solver: "solver", environment: "environment" };

const several = (data) => data.runs.length > 1;
const chosen = (data) => data.runs[Math.min(CHOICE.run, data.runs.length - 1)];
const text = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

function head(data, connection) {
  const run = chosen(data);
  const begun = run.began ? new Date(run.began * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "";
  const state = connection === "lost" && run.status === "running" ? "connection lost" : run.status;
  const about = several(data) ? `${data.runs.length} runs side by side` : [
    run.start.model, run.start.parameters && `${grouped(run.start.parameters)} parameters`,
    run.start.train && `trained on ${run.start.train}`, run.start.workers && `${run.start.workers} workers`, begun,
  ].filter(Boolean).join(" · ");
  return [
    el("h1", {}, several(data) ? "Comparison" : run.name),
    !several(data) && el("span", { class: `badge ${run.status}`, role: "status" }, state),
    el("span", { class: "grow" }),
    el("button", { type: "button", onclick: switchTheme, title: "Light or dark" }, "Light / dark"),
    el("div", { class: "about" }, about),
  ].filter(Boolean);
}

function tiles(data) {
  if (several(data)) return runsTable(data);
  const run = data.runs[0];
  const tile = (value, name, title) => el("div", { class: "tile", title }, el("b", {}, value), el("span", {}, name));
  const tested = run.scores.map((score) => tile(
    /loss/i.test(score.name) ? significant(score.last) : FORMATS[score.last !== null && score.last <= 1 && score.last >= 0 ? "share" : "number"](score.last),
    `test ${score.name}` + (score.best !== null && score.best !== score.last ? `; best ${significant(score.best)} at ${grouped(score.iteration)}` : "")));
  const planned = run.rounds ? `round ${grouped(run.round)} of ${grouped(run.rounds)}` : run.start.max_iter ? `iterations of ${grouped(run.start.max_iter)}` : "iterations";
  return [
    el("div", { class: "tiles" }, tested,
      tile(run.loss === undefined || run.iteration === null ? "–" : significant(run.loss), "training loss"),
      tile(grouped(run.iteration), run.rounds ? `iterations, ${planned}` : planned),
      tile(duration(run.seconds), "time"),
      run.speed !== null && tile(FORMATS.count(run.speed), "images per second"),
      run.averaging !== null && tile(FORMATS.share(run.averaging), "of rounds not spent training")),
    run.message && el("div", { class: "message", role: "alert" }, run.message),
  ].filter(Boolean);
}

function runsTable(data) {
  const names = [...new Set(data.runs.flatMap((run) => run.scores.map((score) => score.name)))];
  const score = (run, name) => significant((run.scores.find((each) => each.name === name) || { last: null }).last);
  const rows = data.runs.map((run, at) => [
    el("span", { class: "key" }, el("i", { style: { background: colour(at) } }), run.name), run.status,
    ...names.map((name) => (run.scores.some((each) => each.name === name) ? score(run, name) : "–")),
    run.loss === undefined ? "–" : significant(run.loss), grouped(run.iteration), duration(run.seconds),
    run.speed === null ? "–" : FORMATS.count(run.speed), run.averaging === null ? "–" : FORMATS.share(run.averaging),
  ]);
  return [el("div", { class: "card", style: { marginTop: "20px" } },
    table(["run", "status", ...names.map((name) => `#test ${name}`), "#training loss", "#iterations", "#time", "#images/s", "#averaging"], rows))];
}

function chartSpecs(data) {
  // One chart for each `id`, its lines those of all runs: a colour each line or, of several runs, each run.
  const specs = new Map();
  data.runs.forEach((run, at) => run.curves.forEach((chart) => {
    if (!specs.has(chart.id)) specs.set(chart.id, { ...chart, series: [], marks: [] });
    const spec = specs.get(chart.id);
    spec.marks.push(...(several(data) ? [] : run.marks));
    chart.series.forEach((line, index) => spec.series.push({
      ...line, key: `${chart.id} ${at} ${line.name}`,
      name: several(data) ? run.name + (chart.series.length > 1 ? `, ${line.name}` : "") : line.name,
      colour: colour(several(data) ? at : index), dash: several(data) && index ? ["", "6 3", "2 3", "8 2 2 2"][index % 4] : null,
    }));
  }));
  return [...specs.values()];
}

function toolbar() {
  const slider = el("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: VIEW.smooth, oninput: (event) => {
    VIEW.smooth = Number(event.target.value);
    look(VIEW.x);
  } });
  const log = el("input", { type: "checkbox", onchange: (event) => {
    VIEW.log = event.target.checked;
    look(VIEW.x);
  } });
  const reset = el("button", { type: "button", onclick: () => look(null) }, "Show all");
  VIEW.changed.push(() => { reset.hidden = VIEW.x === null; });
  reset.hidden = true;
  return el("div", { class: "bar" }, el("label", {}, "Smoothing", slider), el("label", {}, log, "Logarithmic"),
    el("span", { class: "soft small" }, "Drag to zoom, double-click to show all"), reset);
}

function runPicker(data, redraw) {
  if (!several(data)) return [];
  const options = data.runs.map((run, at) => el("option", { value: at, selected: at === CHOICE.run }, run.name));
  return [el("div", { class: "bar", style: { marginTop: "28px" } }, el("label", {}, "Details of",
    el("select", { onchange: (event) => { CHOICE.run = Number(event.target.value); redraw(); } }, options)))];
}

function differ(data) {
  if (!several(data)) return [];
  const rows = data.differ.map(({ group, name, values }) => [TITLES[group] ? `${TITLES[group]}: ${name}` : name, ...values.map(text)]);
  return rows.length ? [card("", table(["setting", ...data.runs.map((run) => run.name)], rows))] : [el("p", { class: "soft" }, "The runs do not differ in any setting.")];
}

function workersSection(run) {
  if (!run.workers) return [];
  const some = run.workers.totals.some((total) => total.out);
  const rows = run.workers.totals.map((total, worker) => [
    `worker ${worker + 1}`, total.seconds === null ? "–" : duration(total.seconds), total.rows === null ? "–" : FORMATS.count(total.rows),
    `${significant(100 * total.slowest, 2)} %`, ...(some ? [grouped(total.out)] : []),
  ]);
  return [card("Seconds in each round, beside the round's median", workersMap(run.workers),
    el("p", { class: "soft small" }, "Orange took longer than the median, blue less; red was left out.")),
  el("div", { class: "card below" }, table(["", "#a round", "#images/s", "#slowest in", ...(some ? ["#left out of"] : [])], rows))];
}

function histogramSection(run, redraw) {
  if (!run.histograms.length) return [];
  const name = (entry) => `${entry.layer} ${["weights", "bias"][entry.param] || `parameter ${entry.param}`}`;
  const layers = [...new Set(run.histograms.map((entry) => entry.layer))];
  if (!layers.includes(CHOICE.layer)) CHOICE.layer = layers[0];
  const picker = el("select", { onchange: (event) => { CHOICE.layer = event.target.value; redraw(); } },
    layers.map((layer) => el("option", { value: layer, selected: layer === CHOICE.layer }, layer)));
  const entries = run.histograms.filter((entry) => entry.layer === CHOICE.layer);
  const cards = entries.flatMap((entry) => {
    const gradients = entry.frames.filter((frame) => frame.gradient).map((frame) => ({ iteration: frame.iteration, ...frame.gradient }));
    const title = `${name(entry)} (${entry.shape.join(" × ")})`;
    return [ridges(title, entry.frames), ...(gradients.length ? [ridges(`gradient of ${name(entry)}`, gradients)] : [])];
  });
  return [el("div", { class: "bar" }, el("label", {}, "Layer", picker)), el("div", { class: "grid" }, cards)];
}

function filterSection(run) {
  const found = run.evidence.filters;
  if (!found) return [];
  const more = found.count > found.images.length ? `, the first ${found.images.length} of ${found.count}` : "";
  return [card(`${found.layer} (${found.shape.join(" × ")})${more}`,
    el("div", { class: "filters" }, found.images.map((image, at) => el("img", { src: image, alt: `filter ${at + 1}`, title: `filter ${at + 1}` }))))];
}

function scoreSection(run) {
  const found = run.evidence.scores;
  if (!found) return [];
  const rows = [...found.classes].sort((a, b) => (a.recall ?? 2) - (b.recall ?? 2)).slice(0, 20).map((each) => [
    String(each.class), each.precision === null ? "–" : FORMATS.share(each.precision), each.recall === null ? "–" : FORMATS.share(each.recall), grouped(each.support)]);
  const pairs = found.pairs.slice(0, 10).map((pair) => [`${pair.true} taken for ${pair.predicted}`, grouped(pair.rows)]);
  const said = `${grouped(found.rows)} rows of the test set, ${FORMATS.share(found.accuracy)} right, by the last weights`;
  return [
    el("p", { class: "soft" }, said),
    el("div", { class: "grid" },
      found.confusion && card("Confusion matrix", confusionMatrix(found.confusion)),
      el("div", { class: "card" },
        pairs.length ? [el("h3", {}, "Most often mistaken"), table(["classes", "#rows"], pairs)] : null,
        el("details", { open: !found.confusion || found.classes.length <= 20 }, el("summary", {}, found.classes.length > 20 ? "The 20 classes with the least recall" : "Precision and recall"),
          table(["class", "#precision", "#recall", "#rows"], rows)))),
    found.mistakes.length > 0 && el("div", { class: "card below", style: { marginTop: "var(--gap)" } }, el("h3", {}, "Worst mistakes"),
      el("p", { class: "soft small" }, "Rows whose own class the net finds least likely."), mistakesOf(found.mistakes)),
  ].filter(Boolean);
}

function networkSection(run) {
  const found = [];
  if (run.evidence.times) found.push(el("h3", {}, "Time of each layer"), layerTimes(run.evidence.times));
  if (run.graph) {
    // A page of its own, which reaches nothing here, whoever has changed the file since.
    const graph = el("iframe", { class: "graph", sandbox: "allow-scripts", title: "The network", srcdoc: run.graph });
    found.push(el("h3", { style: { marginTop: "16px" } }, "Graph"), graph);
  }
  return found;
}

function settingsSection(run) {
  const group = (title, entries, open) => Object.keys(entries || {}).length > 0 && el("details", { class: "card", open },
    el("summary", {}, title), table(["", ""], Object.entries(entries).filter(([, value]) => value !== null && value !== "").map(([name, value]) => [name, text(value)])));
  const lines = [...run.notes, ...run.marks.map((mark) => (mark.iteration === null ? "" : `iteration ${grouped(mark.iteration)}: `) + mark.text), ...(run.evidence.problems || [])];
  return [
    lines.length > 0 && el("details", { class: "card", open: lines.length < 12 }, el("summary", {}, "Notes"), el("ul", {}, lines.map((line) => el("li", { class: "wrap" }, line)))),
    run.files.length > 0 && el("details", { class: "card" }, el("summary", {}, "Files"), el("ul", {}, run.files.map((file) => el("li", { class: "wrap" }, file)))),
    group("Run", { ...run.start, ...(run.settings.run || {}) }), group("Solver", run.settings.solver), group("Environment", run.environment),
  ].filter(Boolean);
}
