"use strict";
/* The page of a step: where it was computed, from what, and the result as a picture in which a cell can be chosen. */

/* Calls from the model down to the function that made a step. */
function callChain(step) {
  const chain = [];
  for (let i = app.engine.nodes[step.node].call; i >= 0; i = app.program.calls[i].parent) chain.unshift(app.program.calls[i]);
  return chain;
}

function breadcrumb(step) {
  const chain = callChain(step), numbers = chain.map(c => app.program.calls.indexOf(c));
  const parts = chain.map((c, k) => {
    const first = app.steps.find(s => app.engine.nodes[s.node].call === numbers[k] && !isGiven(s));
    const name = c.function.replace(/\.(forward|backward)$/, "") === c.function ? c.function : `${c.module.split(".").pop() || c.function.split(".")[0]}.${c.function.split(".").pop()}`;
    return first && first !== step ? h("a", {href: encodeURI(app.address(first, null)), onclick: event => { event.preventDefault(); app.select(first.number); }}, name) : h("span", {}, name);
  });
  return h("nav", {class: "breadcrumb", "aria-label": "calls"}, parts.flatMap((p, k) => (k ? [h("i", {}, "›"), p] : [p])));
}

/* The step on the other side: scores ↔ dscores, y ↔ dy, of the same module. */
function twinStep(step) {
  const other = step.phase === "forward" ? "d" + step.name : step.name.replace(/^d/, "");
  const row = app.program.parameters.find(r => r[1] === step.node || r[2] === step.node);
  if (row) return app.stepOf.get(step.node === row[1] ? row[2] : row[1]);
  const shape = app.shape(step).join(), candidates = app.steps.filter(s => s.phase !== step.phase && s.column === step.column && !isGiven(s));
  const pairs = {images: "dimages", dimages: "images", dpixels: "pixels", pixels: "dpixels"};
  if (pairs[step.name]) return app.stepOf.get(app.program.named[pairs[step.name]]);
  return candidates.find(s => s.name === other && s.module === step.module && app.shape(s).join() === shape) || candidates.find(s => s.name === other && app.shape(s).join() === shape)
    || candidates.find(s => s.op === twinName(step.op)) || candidates[0] || null;
}

function drawStep() {
  const step = app.step(), shape = app.shape(step), data = app.data(step), axes = axesOf(step), operands = operandsOf(step);
  const twin = twinStep(step), node = app.engine.nodes[step.node], call = app.program.calls[node.call];
  const aliases = [...new Set(app.program.calls.filter(c => Math.abs(c.first) >= 0).flatMap(c => c.bindings.filter(b => b[2] === step.node && b[1] !== step.name).map(b => `${b[1]} in ${c.function}`)))].slice(0, 3);
  const go = (by, label, key) => h("button", {class: "move", title: `${label} (${key})`, "aria-label": label, disabled: !app.steps[nextNumber(by)], onclick: () => app.select(nextNumber(by))}, by < 0 ? "←" : "→");
  $("step").replaceChildren(
    breadcrumb(step),
    h("div", {class: "step-title"}, h("h1", {}, h("span", {class: `chip ${isGiven(step) ? "given" : step.phase}`}, isGiven(step) ? step.op : step.phase), h("span", {class: "step-big"}, step.name),
      h("span", {class: "step-shape"}, shapeText(shape))),
      h("div", {class: "moves"}, go(-1, "previous step", "←"), h("span", {class: "position"}, `${orderNumber() + 1} of ${app.order.length}`), go(1, "next step", "→"),
        twin ? h("button", {class: "quiet", title: "the step on the other side of the pass (b)", onclick: () => app.select(twin.number)}, step.phase === "forward" ? "its gradient ↓" : "its forward ↑") : null)),
    h("p", {class: "where"}, axes.filter(Boolean).length ? `axes: ${axes.map((a, k) => `${a || "axis"} ${shape[k]}`).join(" · ")}` : "", aliases.length ? h("span", {class: "aliases"}, ` — also called ${aliases.join(", ")}`) : null),
    node.op === "embedded" ? h("p", {class: "warning"}, `The page cannot compute ${node.attrs.name}: these values are the recorded ones.`) : "",
    h("div", {class: "flow"},
      operands.length ? h("div", {class: "operands"}, operands.slice(0, 8).map(o => h("figure", {}, h("a", {href: encodeURI(app.address(o, null)), onclick: event => { event.preventDefault(); app.select(o.number, null, {trail: [...app.trail, app.address()]}); }}, thumbnail(o)),
        h("figcaption", {}, stepLink(o), h("span", {class: "step-shape"}, app.shape(o).join("×") || "1")))), operands.length > 8 ? h("p", {class: "note"}, `and ${operands.length - 8} more`) : null) : null,
      operands.length ? h("div", {class: "arrow", "aria-hidden": "true"}, "→") : null,
      bigMap(step, data, shape, axes)),
    drawSource(),
    call ? derivationOf(call.function) : "");
}

/* The result: a map, the axes that it shows, its legend, and digits around the chosen cell. */
function bigMap(step, data, shape, axes) {
  if (app.viewStep !== step) { app.viewStep = step; app.view = defaultView(shape, app.cell); }
  const view = app.view;
  if (app.cell !== null) {
    const index = unflatten(app.cell, shape);
    view.index = index.slice();
  }
  const plain = viewOf(shape, view), geometry = folded(plain), scale = scaleOf(data);
  const canvas = h("canvas", {class: "big-map"});
  paint(canvas, data, geometry.rows, geometry.columns, (r, c) => { const at = geometry.cell(r, c); return at < 0 ? 0 : at; }, scale);
  const limit = Math.min(460, document.documentElement.clientWidth - 56), unit = Math.max(1, Math.min(30, limit / geometry.columns, Math.max(300 / geometry.rows, 3)));
  const width = Math.min(limit, geometry.columns * unit), height = Math.min(420, Math.max(10, geometry.rows * unit * (geometry.rows * unit > 420 ? 1 : 1)));
  const readout = h("div", {class: "readout"}, "Point at a cell to read it; click it to see where it comes from.");
  const marker = h("div", {class: "marker", hidden: true});
  const frame = h("div", {class: "map-frame", tabindex: 0, role: "grid", id: "map", "aria-label": `${step.name}, ${geometry.rows} by ${geometry.columns} cells; arrow keys choose a cell`,
    "aria-rowcount": geometry.rows, "aria-colcount": geometry.columns, style: {width: `${width}px`, height: `${height}px`}}, canvas, marker);
  const locate = event => {
    const box = canvas.getBoundingClientRect(), c = Math.min(geometry.columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * geometry.columns)));
    const r = Math.min(geometry.rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * geometry.rows)));
    return geometry.cell(r, c);
  };
  const tell = flat => { readout.textContent = flat < 0 ? "" : `${step.name}${indexText(flat, shape)} = ${fmt(data[flat], 6)}   ${meaning(step, flat, axes)}`; };
  frame.addEventListener("mousemove", event => { const flat = locate(event); tell(flat); hoverToken(step, flat); });
  frame.addEventListener("mouseleave", () => { if (app.cell !== null) tell(app.cell); hoverToken(step, null); });
  frame.addEventListener("click", event => { const flat = locate(event); if (flat >= 0) { app.select(app.at, flat, {trail: app.trail}); $("map")?.focus({preventScroll: true}); } });
  frame.addEventListener("keydown", event => {
    const by = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!by || event.shiftKey || app.cell === null) return;
    event.preventDefault();
    event.stopPropagation();
    const [r, c] = positionIn(geometry, view, shape, app.cell);
    const flat = geometry.cell(Math.max(0, Math.min(geometry.rows - 1, r + by[0])), Math.max(0, Math.min(geometry.columns - 1, c + by[1])));
    if (flat >= 0) { app.select(app.at, flat, {trail: app.trail}); $("map").focus({preventScroll: true}); }
  });
  if (app.cell !== null) {
    const [r, c] = positionIn(geometry, view, shape, app.cell);
    marker.hidden = false;
    Object.assign(marker.style, {left: `${(100 * c) / geometry.columns}%`, top: `${(100 * r) / geometry.rows}%`, width: `${100 / geometry.columns}%`, height: `${100 / geometry.rows}%`});
    tell(app.cell);
  }
  return h("figure", {class: "result"}, axisControls(step, shape, axes, view), frame, h("div", {class: "map-axes"}, view.row >= 0 ? `↓ ${axes[view.row] || "axis " + view.row}   ` : "", view.column >= 0 ? `→ ${axes[view.column] || "axis " + view.column}` : "", geometry.fold ? ` (in lines of ${geometry.fold})` : ""),
    legend(scale), readout, app.cell === null ? null : digits(step, geometry, positionIn(geometry, view, shape, app.cell), data, view));
}

/* Row and column of a cell in what the map shows. */
function positionIn(geometry, view, shape, flat) {
  const index = unflatten(flat, shape), r = view.row < 0 ? 0 : index[view.row], c = view.column < 0 ? 0 : index[view.column];
  return geometry.fold ? [Math.floor(c / geometry.fold), c % geometry.fold] : [r, c];
}

/* Which axes the map shows, and a stepper for each of the others. */
function axisControls(step, shape, axes, view) {
  if (shape.filter(n => n > 1).length < 2) return null;
  const redraw = () => { app.cell = null; app.draw(); };
  const name = axis => axes[axis] || `axis ${axis}`;
  const choose = (which, other) => h("label", {}, which === "row" ? "rows " : "columns ", h("select", {"aria-label": which, onchange: event => {
    const axis = Number(event.target.value);
    if (axis === view[other]) view[other] = view[which];
    view[which] = axis;
    redraw();
  }}, shape.map((n, axis) => h("option", {value: axis, selected: axis === view[which]}, name(axis)))));
  const fixed = shape.map((n, axis) => axis).filter(axis => axis !== view.row && axis !== view.column && shape[axis] > 1);
  return h("div", {class: "axes"}, shape.length > 2 ? [choose("row", "column"), choose("column", "row")] : null, fixed.map(axis => h("label", {class: "stepper"}, `${name(axis)} `,
    h("button", {class: "quiet", "aria-label": `previous ${name(axis)}`, onclick: () => { view.index[axis] = (view.index[axis] + shape[axis] - 1) % shape[axis]; redraw(); }}, "‹"),
    h("b", {}, view.index[axis]), h("span", {class: "of"}, ` of ${shape[axis]}`), h("button", {class: "quiet", "aria-label": `next ${name(axis)}`, onclick: () => { view.index[axis] = (view.index[axis] + 1) % shape[axis]; redraw(); }}, "›"))));
}

/* The digits around a cell: readable without colours. */
function digits(step, geometry, [row, column], data, view) {
  const from = (at, size, n) => Math.max(0, Math.min(at - (n >> 1), size - n)), rows = Math.min(5, geometry.rows), columns = Math.min(7, geometry.columns);
  const top = from(row, geometry.rows, rows), left = from(column, geometry.columns, columns), scale = scaleOf(data);
  return h("table", {class: "digits"}, h("caption", {}, "the cells around it"), h("tr", {}, h("th", {}), Array.from({length: columns}, (_, c) => h("th", {}, geometry.fold ? row * geometry.fold + left + c : left + c))),
    Array.from({length: rows}, (_, r) => h("tr", {}, h("th", {}, geometry.fold ? "" : top + r), Array.from({length: columns}, (_, c) => {
      const flat = geometry.cell(top + r, left + c);
      if (flat < 0) return h("td", {});
      const colour = colourOf(data[flat], scale), dark = colour[0] * 0.3 + colour[1] * 0.59 + colour[2] * 0.11 < 130;
      return h("td", {class: flat === app.cell ? "here" : null, style: {background: `rgb(${colour.map(Math.round).join(",")})`, color: dark ? "#fff" : "#111"}, onclick: () => app.select(app.at, flat, {trail: app.trail})}, fmt(data[flat], 3));
    }))));
}

/* What a cell stands for, in words. */
function meaning(step, flat, axes) {
  const shape = app.shape(step), index = unflatten(flat, shape), words = [];
  index.forEach((n, axis) => {
    if (shape[axis] === 1 || !axes[axis]) return;
    if (axes[axis] === "class") words.push(`class ${app.program.about.classes[n] ?? n}`);
    else if (["token", "query", "key"].includes(axes[axis])) words.push(`${axes[axis]} ${tokenName(step, n, axes[axis], index)}`);
    else words.push(`${axes[axis]} ${n}`);
  });
  return words.length ? `(${words.join(", ")})` : "";
}

/* ← and → follow the order of execution; steps that are given from outside are not in it. */
function buildOrder() { app.order = app.steps.filter(s => !isGiven(s)).map(s => s.number); }
function orderNumber() {
  const found = app.order.findIndex(n => n >= app.at);
  return found < 0 ? app.order.length - 1 : found;
}
function nextNumber(by) {
  const at = app.order.indexOf(app.at);
  return at < 0 ? app.order[Math.max(0, orderNumber() + (by < 0 ? -1 : 0))] : app.order[at + by];
}
/* Shift: the first step of the next op (of the previous one). */
function nextOp(by) {
  const call = n => app.engine.nodes[app.steps[n].node].call;
  let at = orderNumber();
  const start = call(app.order[at]);
  while (app.order[at + by] !== undefined && call(app.order[at]) === start) at += by;
  if (by < 0) while (app.order[at - 1] !== undefined && call(app.order[at - 1]) === call(app.order[at])) at--;
  return app.order[at];
}
