// What is to be seen of a phase when some blocks are folded: each unfolded block is laid out by itself, and is a box in
// the block around it. An edge across a block's border meets it at a port.

const HEAD = 26, PAD = 16;

// `phase` as describe.py has it, `folded` a set of groups' numbers, `size` gives the size of a node or a folded group.
// Returns the root: {w, h, boxes, edges}, boxes with x, y and, if unfolded, an `inner` of the same kind.
function arranged(phase, folded, size) {
  const chains = phase.nodes.map((node) => {
    const chain = [];
    for (let group = node.group; group >= 0; group = phase.groups[group].parent) chain.unshift(group);
    return chain;
  });

  // What of the block `group` at `depth` holds the node: a group within it, or the node itself; null: it is outside.
  const child = (node, group, depth) => {
    if (depth && chains[node][depth - 1] !== group) return null;
    return chains[node].length > depth ? `g${chains[node][depth]}` : `n${node}`;
  };

  function inside(group, depth) {
    const boxes = new Map();
    phase.nodes.forEach((node, index) => {
      const id = child(index, group, depth);
      if (id === null || boxes.has(id)) return;
      if (id[0] === "n") boxes.set(id, { id, node: index, ...size({ node }) });
      else boxes.set(id, block(id, chains[index][depth], depth));
    });
    const edges = new Map();
    for (const edge of phase.edges) {
      let from = child(edge.from, group, depth), to = child(edge.to, group, depth);
      if ((from === null && to === null) || from === to) continue;
      const port = `${edge.from}:${edge.blob}`;
      // Ports of a block are boxes without size, above and below all others.
      if (from === null) from = `i${port}`;
      if (to === null) to = `o${port}`;
      for (const id of [from, to]) if (!boxes.has(id)) boxes.set(id, { id, port: true, w: 0, h: 0 });
      edges.set(`${from}>${to}>${port}`, { from, to, port, blob: edge.blob, shape: edge.shape, source: edge.from });
    }
    const across = (box, way, port) => {
      const found = box.inner?.boxes.find((inner) => inner.id === way + port);
      return found ? box.dx + found.x - box.w / 2 : 0;
    };
    for (const edge of edges.values()) {
      edge.leaves = across(boxes.get(edge.from), "o", edge.port);
      edge.arrives = across(boxes.get(edge.to), "i", edge.port);
    }
    const made = { boxes: [...boxes.values()], edges: [...edges.values()] };
    Object.assign(made, layered(made.boxes, made.edges));
    for (const edge of made.edges) edge.points = points(edge, boxes);
    return made;
  }

  function block(id, group, depth) {
    if (folded.has(group)) return { id, group, ...size({ group }) };
    const inner = inside(group, depth + 1);
    const title = size({ group });
    const w = Math.max(inner.w, title.w + 20) + 2 * PAD;
    return { id, group, inner, dx: (w - inner.w) / 2, dy: HEAD + PAD, w, h: inner.h + HEAD + 2 * PAD };
  }

  function points(edge, boxes) {
    const [from, to] = [boxes.get(edge.from), boxes.get(edge.to)];
    const [start, end] = [from.x + from.w / 2 + edge.leaves, to.x + to.w / 2 + edge.arrives];
    return [[start, from.y + from.h], ...edge.bends, [end, to.y]];
  }

  // A port lies on its block's border, not within its padding.
  function stretch(part, top, bottom) {
    for (const edge of part.edges) {
      if (edge.from[0] === "i") edge.points[0][1] = -top;
      if (edge.to[0] === "o") edge.points.at(-1)[1] = part.h + bottom;
    }
    for (const box of part.boxes) if (box.inner) stretch(box.inner, PAD, PAD);
  }

  const root = inside(-1, 0);
  stretch(root, 0, 0);
  return root;
}
