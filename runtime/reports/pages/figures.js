// Figures that are no curves: workers, histograms, layer times, confusion, mistakes.

const mixed = (share, from = "--cell", to = "--c0") =>
  `color-mix(in srgb, var(${to}) ${Math.round(100 * Math.max(0, Math.min(1, share)))}%, var(${from}))`;

function drawn(host, draw) {
  // Draws into `host` as wide as it is, again when it changes.
  let width = 0;
  watched(host, () => {
    if (Math.abs(host.clientWidth - width) < 2) return;
    width = host.clientWidth;
    host.replaceChildren(draw(Math.max(240, width)));
  });
  return host;
}

function workersMap({ columns, totals }) {
  // A row for each worker, a column for each stretch of rounds: how much longer than the median it took.
  const row = Math.max(7, Math.min(26, 260 / totals.length));
  const first = columns[0].first, last = columns[columns.length - 1].last;
  return drawn(el("div", { class: "map" }), (width) => {
    const left = 64, cell = (width - left - 8) / columns.length;
    const cells = columns.flatMap((column, at) => column.seconds.map((seconds, worker) => {
      const ratio = seconds === null ? null : seconds / column.median;
      const rounds = column.first === column.last ? `round ${column.first}` : `rounds ${column.first} to ${column.last}`;
      const said = ratio === null ? "left out" : `${duration(seconds)}, ${significant(ratio, 3)} × the median`;
      const paint = ratio === null ? "var(--bad)" : ratio >= 1 ? mixed((ratio - 1.05) / 0.7, "--cell", "--hot") : mixed((1 - ratio) / 0.7, "--cell", "--c0");
      return svg("rect", { x: left + at * cell, y: worker * row, width: Math.max(0.5, cell - (cell > 6 ? 1 : 0)), height: row - 1, style: { fill: paint } },
        svg("title", {}, `worker ${worker + 1}, ${rounds}: ${said}`));
    }));
    const bottom = totals.length * row;
    const every = Math.ceil(13 / row);
    const names = totals.map((_, worker) => worker % every === 0 && svg("text", { x: 0, y: worker * row + row / 2 + 4 }, `worker ${worker + 1}`));
    return svg("svg", { width, height: bottom + 24, role: "img", "aria-label": "Seconds of each worker in each round, beside the median" },
      cells, names.filter(Boolean),
      svg("text", { x: left, y: bottom + 17 }, `round ${grouped(first)}`),
      last > first && svg("text", { x: width - 8, y: bottom + 17, "text-anchor": "end" }, grouped(last)));
  });
}

function ridges(title, frames) {
  // Histograms one behind the other, the oldest at the back.
  const known = frames.filter(({ counts }) => counts.some((count) => count > 0));
  if (!known.length) return card(title, el("p", { class: "soft" }, "no finite values"));
  const ends = [Math.min(...known.map(({ ends }) => ends[0])), Math.max(...known.map(({ ends }) => ends[1]))];
  const caption = el("p", { class: "soft small" });
  const tell = (frame) => caption.replaceChildren(
    `iteration ${grouped(frame.iteration)}: mean ${significant(frame.mean, 3)}, standard deviation ${significant(frame.std, 3)}, ` +
    `${significant(frame.ends[0], 3)} to ${significant(frame.ends[1], 3)}`);
  tell(known[known.length - 1]);
  const plot = drawn(el("div"), (width) => {
    const peak = 70, step = known.length > 1 ? Math.min(14, 150 / (known.length - 1)) : 0;
    const height = peak + step * (known.length - 1) + 34;
    const px = (x) => 12 + ((x - ends[0]) / (ends[1] - ends[0] || 1)) * (width - 70);
    const shapes = known.map((frame, at) => {
      const base = peak + 4 + at * step, bins = frame.counts.length;
      const [low, high] = frame.ends, most = Math.max(...frame.counts);
      const tops = frame.counts.map((count, bin) => `${px(low + ((high - low) * (bin + 0.5)) / bins).toFixed(1)},${(base - (count / most) * peak).toFixed(1)}`);
      const path = `M${px(low).toFixed(1)},${base}L${tops.join("L")}L${px(high).toFixed(1)},${base}Z`;
      const age = known.length > 1 ? at / (known.length - 1) : 1;
      return svg("path", { class: "frame", d: path, onpointerenter: () => tell(frame), style: { fill: mixed(0.15 + 0.5 * age, "--card", "--accent"), stroke: mixed(0.35 + 0.65 * age, "--card", "--accent") } },
        svg("title", {}, `iteration ${grouped(frame.iteration)}`));
    });
    const base = height - 26;
    const labelled = known.length > 1 ? [0, known.length - 1] : [0];
    return svg("svg", { width, height, role: "img", "aria-label": `${title}: histograms over time` },
      shapes,
      labelled.map((at) => svg("text", { x: width - 2, y: peak + 4 + at * step, "text-anchor": "end" }, grouped(known[at].iteration))),
      svg("line", { class: "axis", x1: 12, x2: width - 58, y1: base, y2: base }),
      steps(ends[0], ends[1], Math.max(2, Math.floor(width / 110))).map((x) => svg("text", { x: px(x), y: base + 18, "text-anchor": "middle" }, significant(x, 3))));
  });
  return card(title, plot, caption);
}

function layerTimes({ layers, batch, threads, passes }) {
  // Of many layers those that take most, in the net's order; all of them on demand.
  const cost = (layer) => layer.forward_ms + layer.backward_ms;
  const least = layers.length > 30 ? layers.map(cost).sort((a, b) => b - a)[19] : 0;
  const whole = layers.reduce((sum, layer) => sum + cost(layer), 0);
  const most = Math.max(...layers.map(cost), 1e-9);
  const rows = (some) => el("div", { class: "times" }, some.map((layer) => {
    const said = `${layer.name} (${layer.type}): forward ${significant(layer.forward_ms, 3)} ms, backward ${significant(layer.backward_ms, 3)} ms`;
    const bar = (ms) => el("i", { style: { width: `${(100 * ms) / most}%` } });
    return [
      el("span", { title: said }, layer.name),
      el("div", { class: "track", title: said, role: "img", "aria-label": said }, bar(layer.forward_ms), bar(layer.backward_ms)),
      el("span", { class: "soft" }, `${significant(cost(layer), 3)} ms · ${((100 * cost(layer)) / whole).toFixed(1)} %`),
    ];
  }));
  const key = (paint, text) => el("span", { class: "key" }, el("i", { style: { background: paint } }), text);
  return el("div", { class: "card" },
    el("p", { class: "small" }, key("var(--c0)", "forward"), key("var(--c1)", "backward"),
      el("span", { class: "soft" }, `batches of ${batch}, ${threads} threads, medians of ${passes} passes on this machine; together ${significant(whole, 3)} ms`)),
    rows(layers.filter((layer) => cost(layer) > 0 && cost(layer) >= least)),
    least > 0 && el("details", {}, el("summary", {}, `All ${layers.length} layers`), el("div", { class: "scroll" }, rows(layers))));
}

function confusionMatrix(matrix) {
  const classes = matrix.length;
  const plot = drawn(el("div"), (width) => {
    const left = 44, top = 34;
    const cell = Math.min(44, (Math.min(width, 620) - left - 4) / classes);
    const numbers = cell >= 22;
    const every = Math.ceil(22 / cell);
    const cells = matrix.flatMap((row, i) => {
      const rows = row.reduce((sum, count) => sum + count, 0) || 1;
      return row.map((count, j) => [
        svg("rect", { x: left + j * cell, y: top + i * cell, width: cell - 1, height: cell - 1, style: { fill: mixed(Math.sqrt(count / rows), "--cell", i === j ? "--c0" : "--hot") } },
          svg("title", {}, `class ${i} taken for ${j}: ${grouped(count)} of ${grouped(rows)} rows`)),
        numbers && count > 0 && svg("text", { x: left + (j + 0.5) * cell - 0.5, y: top + (i + 0.5) * cell + 3.5, "text-anchor": "middle", style: { fontSize: `${Math.min(12, cell / 2.4)}px`, fill: count / rows > 0.3 ? "var(--card)" : "var(--text)", pointerEvents: "none" } }, count),
      ]);
    });
    const labels = matrix.flatMap((_, i) => (i % every ? [] : [
      svg("text", { x: left - 6, y: top + (i + 0.5) * cell + 4, "text-anchor": "end" }, i),
      svg("text", { x: left + (i + 0.5) * cell, y: top - 6, "text-anchor": "middle" }, i),
    ]));
    return svg("svg", { width: left + classes * cell + 4, height: top + classes * cell + 4, role: "img", "aria-label": "Confusion matrix" },
      svg("text", { x: left, y: 12 }, "predicted →"), svg("text", { x: 0, y: top - 6 }, "true ↓"), cells, labels);
  });
  return plot;
}

function mistakesOf(mistakes) {
  return el("div", { class: "mistakes" }, mistakes.map((mistake) => el("figure", {},
    mistake.image && el("img", { src: mistake.image, alt: `row ${mistake.row} of the test set`, loading: "lazy" }),
    el("figcaption", {}, el("b", {}, `${mistake.true} taken for ${mistake.predicted}`),
      el("div", { class: "soft" }, `p(${mistake.predicted}) = ${significant(mistake.predicted_share, 3)}`),
      el("div", { class: "soft" }, `p(${mistake.true}) = ${significant(mistake.share, 2)}`),
      el("div", { class: "soft" }, `row ${grouped(mistake.row)}`)))));
}
