// A chart of lines. All charts of a page show the same stretch of x: `VIEW`.
const VIEW = { x: null, log: false, smooth: 0, hidden: new Set(), changed: [] };
const HEIGHT = 230, LEFT = 58, RIGHT = 14, TOP = 10, BOTTOM = 30;

function look(x) {
  VIEW.x = x;
  for (const redraw of VIEW.changed) redraw();
}

function smoothed(points, weight) {
  // An exponential mean, free of the bias of its beginning, as in TensorBoard.
  let sum = 0, norm = 0;
  return points.map(([x, y]) => {
    if (y === null) return [x, y];
    sum = weight * sum + (1 - weight) * y;
    norm = weight * norm + (1 - weight);
    return [x, sum / norm];
  });
}

function pathOf(points, px, py) {
  let path = "", pen = "M";
  for (const [x, y] of points) {
    const at = y === null ? NaN : py(y);
    if (!isFinite(at)) { pen = "M"; continue; }
    path += `${pen}${px(x).toFixed(1)},${at.toFixed(1)}`;
    pen = "L";
  }
  return path;
}

function lineChart(spec) {
  const plot = el("div", { class: "chart" });
  const legend = el("div", { class: "legend" });
  const host = card(spec.title, legend, plot);
  let focus = null, drag = null, scale = null;

  const shown = () => spec.series.filter((line) => !VIEW.hidden.has(line.key));

  function drawLegend() {
    legend.replaceChildren(...spec.series.map((line) => el("button", {
      type: "button", "aria-pressed": String(!VIEW.hidden.has(line.key)), title: "Show or hide",
      onclick: () => {
        VIEW.hidden[VIEW.hidden.has(line.key) ? "delete" : "add"](line.key);
        draw();
        drawLegend();
      },
    }, svg("svg", { width: 22, height: 8, "aria-hidden": "true" },
      svg("line", { x1: 1, x2: 21, y1: 4, y2: 4, stroke: line.colour, "stroke-width": 2.5, "stroke-dasharray": line.dash })), line.name)));
    legend.hidden = spec.series.length < 2;
  }

  function scales(width) {
    const lines = shown();
    const all = lines.flatMap((line) => line.points);
    const xs = all.map(([x]) => x);
    let [x0, x1] = VIEW.x || [Math.min(...xs), Math.max(...xs)];
    if (!(x1 > x0)) [x0, x1] = [x0 - 1, x1 + 1];
    if (!isFinite(x0)) [x0, x1] = [0, 1];
    const log = VIEW.log && spec.format === "number";
    const inside = all.filter(([x, y]) => x >= x0 && x <= x1 && y !== null && (!log || y > 0)).map(([, y]) => y);
    let [y0, y1] = inside.length ? [Math.min(...inside), Math.max(...inside)] : [0, 1];
    if (log && !inside.length) y0 = 0.1;
    if (y0 === y1) [y0, y1] = log ? [y0 / 2, y1 * 2] : [y0 - (Math.abs(y0) || 1) * 0.1, y1 + (Math.abs(y1) || 1) * 0.1];
    const value = log ? Math.log10 : (y) => y;
    const margin = (value(y1) - value(y0)) * 0.06;
    let [v0, v1] = [value(y0) - margin, value(y1) + margin];
    if (!log && y0 >= 0) v0 = Math.max(0, v0);
    if (spec.format === "share" && y1 <= 1) v1 = Math.min(1, Math.max(v1, v0 + 1e-9));
    const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (width - LEFT - RIGHT);
    const py = (y) => (log && y <= 0 ? NaN : HEIGHT - BOTTOM - ((value(y) - v0) / (v1 - v0)) * (HEIGHT - TOP - BOTTOM));
    const xOf = (at) => x0 + ((at - LEFT) / (width - LEFT - RIGHT)) * (x1 - x0);
    return { x0, x1, v0, v1, log, px, py, xOf, width };
  }

  function ticks({ v0, v1, log }) {
    if (!log) return steps(v0, v1, 4);
    const whole = [];
    for (let power = Math.ceil(v0); power <= v1; power++) whole.push(10 ** power);
    if (whole.length >= 2) return whole;
    return [1, 2, 3, 5, 7].flatMap((k) => [Math.floor(v0), Math.ceil(v0)].map((p) => k * 10 ** p))
      .filter((y) => Math.log10(y) >= v0 && Math.log10(y) <= v1).sort((a, b) => a - b);
  }

  function draw() {
    const width = Math.max(240, plot.clientWidth || 400);
    scale = scales(width);
    const { x0, x1, px, py } = scale;
    const format = FORMATS[spec.format];
    const id = `clip-${spec.id.replace(/\W/g, "_")}`;
    const bottom = HEIGHT - BOTTOM;
    const inner = [];
    for (const mark of spec.marks) {
      if (mark.iteration === null || mark.iteration < x0 || mark.iteration > x1) continue;
      inner.push(svg("line", { class: "mark", x1: px(mark.iteration), x2: px(mark.iteration), y1: TOP, y2: bottom }, svg("title", {}, mark.text)));
    }
    for (const line of shown()) {
      const style = { fill: "none", stroke: line.colour, "stroke-linejoin": "round", "stroke-dasharray": line.dash };
      const smooth = VIEW.smooth && spec.id !== "rate" && line.points.length > 20;
      inner.push(svg("path", { ...style, d: pathOf(line.points, px, py), "stroke-width": 1.8, opacity: smooth ? 0.25 : 1 }));
      if (smooth) inner.push(svg("path", { ...style, d: pathOf(smoothed(line.points, VIEW.smooth), px, py), "stroke-width": 2 }));
      if (line.points.length <= 30) {
        for (const [x, y] of line.points) if (y !== null && isFinite(py(y))) inner.push(svg("circle", { cx: px(x), cy: py(y), r: 2.6, fill: line.colour }));
      }
      for (const [x, y] of line.points) {
        if (y === null) inner.push(svg("line", { class: "lost", x1: px(x), x2: px(x), y1: bottom - 9, y2: bottom }, svg("title", {}, `${line.name}: NaN`)));
      }
    }
    const known = shown().some((line) => line.points.some(([, y]) => y !== null));
    const drawing = svg("svg", {
      viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, tabindex: 0, role: "img", "aria-label": spoken(),
      onpointermove: hover, onpointerdown: press, onpointerup: release, onpointerleave: leave, ondblclick: () => look(null), onkeydown: key,
    },
      svg("clipPath", { id }, svg("rect", { x: LEFT - 3, y: 0, width: Math.max(0, width - LEFT - RIGHT + 6), height: bottom + 3 })),
      ticks(scale).map((y) => [
        svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: py(y), y2: py(y) }),
        svg("text", { x: LEFT - 8, y: py(y) + 4, "text-anchor": "end" }, format(y)),
      ]),
      svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: bottom, y2: bottom }),
      steps(x0, x1, Math.max(2, Math.floor(width / 95))).filter((x) => Number.isInteger(x)).map((x) =>
        svg("text", { x: px(x), y: HEIGHT - 10, "text-anchor": px(x) > width - RIGHT - 20 ? "end" : "middle" }, grouped(x))),
      svg("g", { "clip-path": `url(#${id})` }, inner),
      !known && svg("text", { x: (LEFT + width) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no finite values"),
      svg("g", { class: "over" }));
    const focused = plot.contains(document.activeElement);
    plot.replaceChildren(drawing);
    if (focused) drawing.focus();
    if (focus !== null) point(focus);
  }

  function spoken() {
    const last = spec.series.map((line) => `${line.name} ${FORMATS[spec.format]((line.points.findLast(([, y]) => y !== null) || [0, null])[1])}`);
    return `${spec.title}, last: ${last.join(", ")}. Arrow keys go along the curve, + and - zoom, 0 shows all.`;
  }

  const nearest = (points, x) => points.reduce((best, each) => (Math.abs(each[0] - x) < Math.abs(best[0] - x) ? each : best), points[0]);

  function point(x) {
    // The values at the iteration nearest to x.
    const lines = shown().filter((line) => line.points.length);
    const over = plot.querySelector(".over");
    plot.querySelector(".tip")?.remove();
    over?.replaceChildren();
    focus = x;
    if (x === null || !lines.length || !over) return;
    const places = lines.map((line) => nearest(line.points, x));
    focus = places.reduce((best, each) => (Math.abs(each[0] - x) < Math.abs(best[0] - x) ? each : best))[0];
    const at = scale.px(focus);
    over.append(svg("line", { class: "cross", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    const rows = lines.map((line, index) => {
      const [px, y] = places[index];
      const cy = y === null ? NaN : scale.py(y);
      if (isFinite(cy) && px >= scale.x0 && px <= scale.x1) over.append(svg("circle", { cx: scale.px(px), cy, r: 4, fill: line.colour, stroke: "var(--card)", "stroke-width": 1.5 }));
      const where = px === focus ? "" : ` (at ${grouped(px)})`;
      return el("div", {}, el("i", { style: { background: line.colour } }), el("span", {}, line.name + where), el("b", {}, FORMATS[spec.format](y)));
    });
    const marks = spec.marks.filter((mark) => mark.iteration === focus).map((mark) => el("div", { class: "soft" }, mark.text));
    const tip = el("div", { class: "tip", role: "status" }, el("div", { class: "soft" }, `iteration ${grouped(focus)}`), rows, marks);
    plot.append(tip);
    const left = at + 14 + tip.offsetWidth > plot.clientWidth ? at - 14 - tip.offsetWidth : at + 14;
    Object.assign(tip.style, { left: `${Math.max(0, left)}px`, top: "8px" });
  }

  const place = (event) => {
    const box = plot.getBoundingClientRect();
    return ((event.clientX - box.left) / box.width) * scale.width;
  };

  function hover(event) {
    const at = place(event);
    if (drag !== null && Math.abs(at - drag) > 4) {
      point(null);
      plot.querySelector(".over").replaceChildren(svg("rect", { class: "zone", x: Math.min(at, drag), width: Math.abs(at - drag), y: TOP, height: HEIGHT - TOP - BOTTOM }));
    } else point(scale.xOf(at));
  }
  function press(event) {
    drag = place(event);
    try { event.currentTarget.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
  }
  function release(event) {
    const [from, to] = [drag, place(event)].sort((a, b) => a - b);
    drag = null;
    if (from !== null && to - from > 8) {
      focus = null;
      look([Math.max(scale.x0, scale.xOf(from)), Math.min(scale.x1, scale.xOf(to))]);
    }
  }
  function leave() {
    if (drag === null) point(null);
  }
  function key(event) {
    const lines = shown().filter((line) => line.points.length);
    if (!lines.length) return;
    const xs = [...new Set(lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b).filter((x) => x >= scale.x0 && x <= scale.x1);
    const at = focus === null ? xs.length : xs.indexOf(focus);
    const middle = focus ?? (scale.x0 + scale.x1) / 2;
    const zoom = (factor) => look([middle - (middle - scale.x0) * factor, middle + (scale.x1 - middle) * factor]);
    const actions = {
      ArrowLeft: () => point(xs[Math.max(0, at - 1)]), ArrowRight: () => point(xs[Math.min(xs.length - 1, at + 1)]),
      Home: () => point(xs[0]), End: () => point(xs[xs.length - 1]),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => look(null), Escape: () => { point(null); look(null); },
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }

  VIEW.changed.push(draw);
  watched(plot, draw);
  drawLegend();
  return {
    host,
    update: (next) => {
      spec = next;
      drawLegend();
      draw();
    },
  };
}
