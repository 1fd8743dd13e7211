// A layered layout (Sugiyama, Tagawa, Toda, 1981): ranks by longest paths, few crossings by barycentres, then places.

const GAP = { x: 26, y: 40, edge: 14, port: 24 };

// Places `nodes` (each with id, w, h) joined by `edges` (each with from, to: ids; leaves, arrives: how far right of the
// middle of either). Gives nodes their x, y (of the upper left corner) and edges their bends, and returns the size.
function layered(nodes, edges) {
  const known = new Map(nodes.map((node) => [node.id, { node, above: [], below: [], rank: 0, w: node.w, h: node.h }]));
  for (const edge of edges) join(known.get(edge.from), known.get(edge.to));
  const boxes = [...known.values()];
  rank(boxes);
  const rows = [];
  const put = (box) => (rows[box.rank] ??= []).push(box);
  boxes.forEach(put);
  for (const box of boxes) [box.above, box.below] = [[], []];
  // An edge that passes ranks goes through a bend in each of them.
  for (const edge of edges) {
    const [from, to] = [known.get(edge.from), known.get(edge.to)];
    edge.bends = [];
    let last = from, shift = edge.leaves;
    for (let r = from.rank + 1; r < to.rank; r++) {
      const bend = { above: [], below: [], rank: r, w: GAP.edge, h: 0, bend: true };
      put(bend);
      edge.bends.push(bend);
      join(last, bend, shift);
      [last, shift] = [bend, 0];
    }
    join(last, to, shift - edge.arrives);
  }
  for (let r = 0; r < rows.length; r++) rows[r] ??= [];
  order(rows);
  place(rows);
  let y = 0;
  for (const row of rows) {
    const height = Math.max(0, ...row.map((box) => box.h));
    for (const box of row) [box.y, box.row] = [y + (height - box.h) / 2, [y, y + height]];
    if (row.length) y += height + (height ? GAP.y : GAP.port);
  }
  const all = rows.flat();
  const left = Math.min(...all.map((box) => box.x - box.w / 2));
  for (const box of all) {
    box.x -= left;
    if (box.node) [box.node.x, box.node.y] = [box.x - box.w / 2, box.y];
  }
  for (const edge of edges) edge.bends = edge.bends.flatMap(({ x, row: [top, bottom] }) => [[x, top], [x, bottom]]);
  return { w: Math.max(0, ...all.map((box) => box.x + box.w / 2)), h: Math.max(0, y - (rows.at(-1)?.some((box) => box.h) ? GAP.y : GAP.port)) };
}

// Notes that they are neighbours, the lower one to stand `shift` right of the upper one.
function join(upper, lower, shift = 0) {
  upper.below.push({ other: lower, shift: -shift });
  lower.above.push({ other: upper, shift });
}

// Each box stands below all that it reads; one that reads nothing stands just above its first reader.
function rank(boxes) {
  const left = new Map(boxes.map((box) => [box, box.above.length]));
  const ready = boxes.filter((box) => !box.above.length);
  for (let i = 0; i < ready.length; i++) {
    for (const { other: next } of ready[i].below) {
      next.rank = Math.max(next.rank, ready[i].rank + 1);
      left.set(next, left.get(next) - 1);
      if (!left.get(next)) ready.push(next);
    }
  }
  for (const box of boxes) {
    if (box.node.port || box.above.length || !box.below.length) continue;
    box.rank = Math.max(0, Math.min(...box.below.map(({ other }) => other.rank)) - 1);
  }
  // Ports: what comes in stays above everything, what goes out gets below it.
  const last = 1 + Math.max(0, ...boxes.filter((box) => !box.node.port).map((box) => box.rank));
  for (const box of boxes) if (box.node.port && !box.below.length) box.rank = last;
  if (boxes.some((box) => box.node.port && box.below.length)) {
    for (const box of boxes) if (!box.node.port && !box.above.length) box.rank = Math.max(1, box.rank);
  }
}

// Sweeps down and up, each box to the mean place of its neighbours; the order with fewest crossings is kept.
function order(rows) {
  const number = () => rows.forEach((row) => row.forEach((box, i) => (box.at = i)));
  number();
  let best = rows.map((row) => [...row]), fewest = crossings(rows);
  for (let sweep = 0; sweep < 12 && fewest; sweep++) {
    const down = sweep % 2 === 0;
    for (const row of down ? rows : [...rows].reverse()) {
      const key = new Map(row.map((box) => {
        const near = down ? box.above : box.below;
        return [box, near.length ? near.reduce((sum, { other }) => sum + other.at, 0) / near.length : box.at];
      }));
      row.sort((a, b) => key.get(a) - key.get(b) || a.at - b.at);
      row.forEach((box, i) => (box.at = i));
    }
    const found = crossings(rows);
    if (found < fewest) [best, fewest] = [rows.map((row) => [...row]), found];
  }
  best.forEach((row, r) => (rows[r] = row));
  number();
}

function crossings(rows) {
  let count = 0;
  for (const row of rows) {
    const ends = row.flatMap((box) => box.below.map(({ other }) => other.at).sort((a, b) => a - b));
    for (let i = 0; i < ends.length; i++) for (let k = 0; k < i; k++) if (ends[k] > ends[i]) count++;
  }
  return count;
}

// Middles (x) of the boxes: each row as near to its neighbours' as its order and widths allow, down and up, in turns.
function place(rows) {
  for (const row of rows) {
    let x = 0;
    for (const box of row) [box.x, x] = [x + box.w / 2, x + box.w + GAP.x];
    row.forEach((box) => (box.x -= (x - GAP.x) / 2));
  }
  for (let sweep = 0; sweep < 16; sweep++) {
    const down = sweep % 2 === 0;
    for (const row of down ? rows : [...rows].reverse()) {
      const wanted = row.map((box) => {
        const near = down ? box.above : box.below;
        return near.length ? near.reduce((sum, { other, shift }) => sum + other.x + shift, 0) / near.length : box.x;
      });
      // What passes through ranks does so in straight lines.
      const straight = (box) => box.bend && (down ? box.above : box.below)[0].other.bend;
      settle(row, wanted, row.map((box) => (straight(box) ? 8 : 1)));
    }
  }
}

// Least squares from `wanted` under the order of the row and room between boxes: neighbours that are too near one
// another move together (pool adjacent violators).
function settle(row, wanted, weights) {
  const offsets = [];
  row.forEach((box, i) => {
    const before = row[i - 1];
    offsets.push(i ? offsets[i - 1] + (before.w + box.w) / 2 + (before.bend && box.bend ? GAP.edge : GAP.x) : 0);
  });
  const pools = [];
  row.forEach((box, i) => {
    let pool = { sum: weights[i] * (wanted[i] - offsets[i]), weight: weights[i], count: 1 };
    while (pools.length && pools.at(-1).sum / pools.at(-1).weight > pool.sum / pool.weight) {
      const other = pools.pop();
      pool = { sum: pool.sum + other.sum, weight: pool.weight + other.weight, count: pool.count + other.count };
    }
    pools.push(pool);
  });
  let i = 0;
  for (const pool of pools) for (let k = 0; k < pool.count; k++, i++) row[i].x = pool.sum / pool.weight + offsets[i];
}
