"use strict";
/* Arrays as pictures: one canvas pixel a cell, stretched by the style sheet. */

const mix = (a, b, t) => a.map((x, k) => x + (b[k] - x) * t);

const THEMES = {
  light: {
    zero: [250, 250, 249],
    plus: [[244, 165, 130], [178, 24, 43]],
    minus: [[146, 197, 222], [33, 102, 172]],
    share: [[253, 253, 251], [109, 193, 164], [8, 81, 78]],
    none: [214, 211, 209],
  },
  dark: {
    zero: [28, 30, 36],
    plus: [[190, 86, 60], [255, 176, 140]],
    minus: [[48, 108, 168], [150, 208, 255]],
    share: [[28, 30, 36], [30, 130, 110], [180, 245, 215]],
    none: [70, 70, 76],
  },
};
const theme = () => THEMES[document.documentElement.dataset.theme] || THEMES.light;

/* How a map's values become colours: signed values around zero, shares from zero up. */
function scaleOf(data, arcsinh = app.arcsinh) {
  let low = 0,
    high = 0;
  for (const x of data)
    if (x - x === 0) {
      if (x < low) low = x;
      if (x > high) high = x;
    }
  const most = Math.max(-low, high) || 1,
    signed = low < 0;
  const stretch = arcsinh ? x => Math.asinh((x / most) * 50) / Math.asinh(50) : x => x / most;
  return {low, high, most, signed, stretch};
}

function colourOf(x, scale, colours = theme()) {
  if (x - x !== 0) return colours.none;
  const t = scale.stretch(x),
    a = Math.min(1, Math.abs(t)),
    half = pair => (a < 0.5 ? mix(colours.zero, pair[0], a * 2) : mix(pair[0], pair[1], a * 2 - 1));
  if (!scale.signed)
    return a < 0.5
      ? mix(colours.share[0], colours.share[1], a * 2)
      : mix(colours.share[1], colours.share[2], a * 2 - 1);
  return half(t < 0 ? colours.minus : colours.plus);
}

/* Paint rows × columns cells, where cell(r, c) is a position in data; where it is −1, nothing is painted. */
function paint(canvas, data, rows, columns, cell, scale) {
  canvas.width = columns;
  canvas.height = rows;
  if (rows === 0 || columns === 0) return; // an empty array, as the class tokens of a model without any
  const image = new ImageData(columns, rows),
    colours = theme();
  for (let r = 0, at = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, at += 4) {
      const k = cell(r, c);
      if (k < 0) continue;
      const colour = colourOf(data[k], scale, colours);
      image.data[at] = colour[0];
      image.data[at + 1] = colour[1];
      image.data[at + 2] = colour[2];
      image.data[at + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/* Which two axes a map shows, and where it stands on the others. */
function defaultView(shape, flat = null) {
  const index = flat === null ? shape.map(() => 0) : unflatten(flat, shape),
    n = shape.length;
  let [row, column] = [n - 2, n - 1];
  if (n >= 2 && shape[n - 2] === 1) {
    const other = shape.findLastIndex((size, axis) => size > 1 && axis < n - 1);
    if (other >= 0) row = other;
  }
  return {row: n >= 2 ? row : -1, column: n >= 1 ? column : -1, index};
}

/* The geometry of a view: rows, columns, and the cell at (r, c). */
function viewOf(shape, view) {
  const strides = stridesOf(shape),
    rows = view.row < 0 ? 1 : shape[view.row],
    columns = view.column < 0 ? 1 : shape[view.column];
  const start = view.index.reduce(
    (at, n, axis) => at + (axis === view.row || axis === view.column ? 0 : n * strides[axis]),
    0,
  );
  const dr = view.row < 0 ? 0 : strides[view.row],
    dc = view.column < 0 ? 0 : strides[view.column];
  return {rows, columns, cell: (r, c) => start + r * dr + c * dc};
}

/* A vector of many channels is folded into lines, so that its cells stay visible. */
function folded(geometry) {
  const {rows, columns, cell} = geometry;
  if (rows > 1 || columns <= 64) return {...geometry, fold: 0};
  const width = [64, 48, 50, 40, 36, 32].find(w => columns % w === 0) || 64,
    lines = Math.ceil(columns / width);
  return {
    rows: lines,
    columns: width,
    fold: width,
    cell: (r, c) => (r * width + c < columns ? cell(0, r * width + c) : -1),
  };
}

/* A small picture of a step, for operands. */
function thumbnail(step, flat = null) {
  const data = app.data(step),
    shape = app.shape(step),
    geometry = folded(viewOf(shape, defaultView(shape, flat)));
  const canvas = h("canvas", {class: "thumb", "aria-hidden": "true"});
  paint(canvas, data, geometry.rows, geometry.columns, geometry.cell, scaleOf(data));
  if (data.length === 1) return h("span", {class: "lone-number"}, fmt(data[0], 3));
  const wide = geometry.columns >= geometry.rows,
    ratio = geometry.rows / geometry.columns,
    side = 92;
  canvas.style.width = `${wide ? side : Math.max(16, side / ratio)}px`;
  canvas.style.height = `${wide ? Math.max(12, side * ratio) : side}px`;
  return canvas;
}

/* The bar under a map that says which colour is which number. */
function legend(scale) {
  const canvas = h("canvas", {class: "legend-bar", width: 128, height: 1, "aria-hidden": "true"});
  const from = scale.signed ? -scale.most : 0,
    values = Float64Array.from({length: 128}, (_, k) => from + ((scale.most - from) * k) / 127);
  paint(canvas, values, 1, 128, (r, c) => c, scale);
  return h(
    "div",
    {class: "legend"},
    h("span", {}, fmt(from, 3)),
    canvas,
    h("span", {}, fmt(scale.most, 3)),
    h(
      "button",
      {
        class: "quiet",
        title: "how numbers become colours: in proportion, or stretched near zero",
        "aria-pressed": String(!!app.arcsinh),
        onclick: () => {
          app.arcsinh = !app.arcsinh;
          app.draw();
        },
      },
      app.arcsinh ? "arcsinh" : "linear",
    ),
  );
}
