"use strict";
/* The result of a step as a picture in which a cell can be chosen, with pointer or arrow keys, and as digits. */

/* The result: a map, the axes that it shows, its legend, and digits around the chosen cell. */
function bigMap(step, data, shape, axes) {
  if (app.viewStep !== step) {
    app.viewStep = step;
    app.view = defaultView(shape, app.cell);
  }
  const view = app.view;
  if (app.cell !== null) {
    const index = unflatten(app.cell, shape);
    view.index = index.slice();
  }
  const plain = viewOf(shape, view),
    geometry = folded(plain),
    scale = scaleOf(data);
  const canvas = h("canvas", {class: "big-map"});
  paint(
    canvas,
    data,
    geometry.rows,
    geometry.columns,
    geometry.cell,
    scale,
  );
  const limit = Math.min(460, document.documentElement.clientWidth - 56),
    unit = Math.max(1, Math.min(30, limit / geometry.columns, Math.max(300 / geometry.rows, 3)));
  const width = Math.min(limit, geometry.columns * unit),
    height = Math.min(420, Math.max(10, geometry.rows * unit));
  const readout = h("div", {class: "readout"}, "Point at a cell to read it; click it to see where it comes from.");
  const marker = h("div", {class: "marker", hidden: true});
  const frame = h(
    "div",
    {
      class: "map-frame",
      tabindex: 0,
      role: "grid",
      id: "map",
      "aria-label": `${step.name}, ${geometry.rows} by ${geometry.columns} cells; arrow keys choose a cell`,
      "aria-rowcount": geometry.rows,
      "aria-colcount": geometry.columns,
      style: {width: `${width}px`, height: `${height}px`},
    },
    canvas,
    marker,
  );
  const locate = event => {
    const box = canvas.getBoundingClientRect(),
      c = Math.min(
        geometry.columns - 1,
        Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * geometry.columns)),
      );
    const r = Math.min(
      geometry.rows - 1,
      Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * geometry.rows)),
    );
    return geometry.cell(r, c);
  };
  const tell = flat => {
    readout.textContent =
      flat < 0 ? "" : `${step.name}${indexText(flat, shape)} = ${fmt(data[flat], 6)}   ${meaning(step, flat, axes)}`;
  };
  frame.addEventListener("mousemove", event => {
    const flat = locate(event);
    tell(flat);
    hoverToken(step, flat);
  });
  frame.addEventListener("mouseleave", () => {
    if (app.cell !== null) tell(app.cell);
    hoverToken(step, null);
  });
  frame.addEventListener("click", event => {
    const flat = locate(event);
    if (flat >= 0) {
      app.select(app.at, flat, {trail: app.trail});
      $("map")?.focus({preventScroll: true});
    }
  });
  frame.addEventListener("keydown", event => {
    const by = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!by || event.shiftKey || app.cell === null) return;
    event.preventDefault();
    event.stopPropagation();
    const [r, c] = positionIn(geometry, view, shape, app.cell);
    const flat = geometry.cell(
      Math.max(0, Math.min(geometry.rows - 1, r + by[0])),
      Math.max(0, Math.min(geometry.columns - 1, c + by[1])),
    );
    if (flat >= 0) {
      app.select(app.at, flat, {trail: app.trail});
      $("map").focus({preventScroll: true});
    }
  });
  if (app.cell !== null) {
    const [r, c] = positionIn(geometry, view, shape, app.cell);
    marker.hidden = false;
    Object.assign(marker.style, {
      left: `${(100 * c) / geometry.columns}%`,
      top: `${(100 * r) / geometry.rows}%`,
      width: `${100 / geometry.columns}%`,
      height: `${100 / geometry.rows}%`,
    });
    tell(app.cell);
  }
  return h(
    "figure",
    {class: "result"},
    axisControls(step, shape, axes, view),
    h(
      "div",
      {class: "result-row"},
      h(
        "div",
        {},
        frame,
        h(
          "div",
          {class: "map-axes"},
          view.row >= 0 ? `↓ ${axes[view.row] || "axis " + view.row}   ` : "",
          view.column >= 0 ? `→ ${axes[view.column] || "axis " + view.column}` : "",
          geometry.fold ? ` (in lines of ${geometry.fold})` : "",
        ),
        legend(scale),
      ),
      h(
        "div",
        {class: "result-info"},
        readout,
        app.cell === null ? null : jump("cell", "its terms ↓"),
        app.cell === null ? null : digits(step, geometry, positionIn(geometry, view, shape, app.cell), data, view),
      ),
    ),
  );
}

/* Row and column of a cell in what the map shows. */
function positionIn(geometry, view, shape, flat) {
  const index = unflatten(flat, shape),
    r = view.row < 0 ? 0 : index[view.row],
    c = view.column < 0 ? 0 : index[view.column];
  return geometry.fold ? [Math.floor(c / geometry.fold), c % geometry.fold] : [r, c];
}

/* Which axes the map shows, and a stepper for each of the others. */
function axisControls(step, shape, axes, view) {
  if (shape.filter(n => n > 1).length < 2) return null;
  const redraw = () => {
    app.cell = null;
    app.draw();
  };
  const name = axis => axes[axis] || `axis ${axis}`;
  const choose = (which, other) =>
    h(
      "label",
      {},
      which === "row" ? "rows " : "columns ",
      h(
        "select",
        {
          "aria-label": which,
          onchange: event => {
            const axis = Number(event.target.value);
            if (axis === view[other]) view[other] = view[which];
            view[which] = axis;
            redraw();
          },
        },
        shape.map((n, axis) => h("option", {value: axis, selected: axis === view[which]}, name(axis))),
      ),
    );
  const fixed = shape
    .map((n, axis) => axis)
    .filter(axis => axis !== view.row && axis !== view.column && shape[axis] > 1);
  return h(
    "div",
    {class: "axes"},
    shape.length > 2 ? [choose("row", "column"), choose("column", "row")] : null,
    fixed.map(axis =>
      h(
        "label",
        {class: "stepper"},
        `${name(axis)} `,
        h(
          "button",
          {
            class: "quiet",
            "aria-label": `previous ${name(axis)}`,
            onclick: () => {
              view.index[axis] = (view.index[axis] + shape[axis] - 1) % shape[axis];
              redraw();
            },
          },
          "‹",
        ),
        h("b", {}, view.index[axis]),
        h("span", {class: "of"}, ` of ${shape[axis]}`),
        h(
          "button",
          {
            class: "quiet",
            "aria-label": `next ${name(axis)}`,
            onclick: () => {
              view.index[axis] = (view.index[axis] + 1) % shape[axis];
              redraw();
            },
          },
          "›",
        ),
      ),
    ),
  );
}

/* The digits around a cell: readable without colours. */
function digits(step, geometry, [row, column], data, view) {
  const from = (at, size, n) => Math.max(0, Math.min(at - (n >> 1), size - n)),
    rows = Math.min(5, geometry.rows),
    columns = Math.min(5, geometry.columns);
  const top = from(row, geometry.rows, rows),
    left = from(column, geometry.columns, columns),
    scale = scaleOf(data);
  return h(
    "table",
    {class: "digits"},
    h("caption", {}, "the cells around it"),
    h(
      "tr",
      {},
      h("th", {}),
      Array.from({length: columns}, (_, c) => h("th", {}, geometry.fold ? row * geometry.fold + left + c : left + c)),
    ),
    Array.from({length: rows}, (_, r) =>
      h(
        "tr",
        {},
        h("th", {}, geometry.fold ? "" : top + r),
        Array.from({length: columns}, (_, c) => {
          const flat = geometry.cell(top + r, left + c);
          if (flat < 0) return h("td", {});
          const colour = colourOf(data[flat], scale),
            dark = colour[0] * 0.3 + colour[1] * 0.59 + colour[2] * 0.11 < 130;
          return h(
            "td",
            {
              class: flat === app.cell ? "here" : null,
              style: {background: `rgb(${colour.map(Math.round).join(",")})`, color: dark ? "#fff" : "#111"},
              onclick: () => app.select(app.at, flat, {trail: app.trail}),
            },
            fmt(data[flat], 3),
          );
        }),
      ),
    ),
  );
}

/* What a cell stands for, in words. */
function meaning(step, flat, axes) {
  const shape = app.shape(step),
    index = unflatten(flat, shape),
    words = [];
  index.forEach((n, axis) => {
    if (shape[axis] === 1 || !axes[axis]) return;
    if (axes[axis] === "parameter") words.push(`of ${app.program.parameters.filter(r => r[3] !== r[1])[n][0]}`);
    else if (axes[axis] === "class") words.push(`class ${app.program.about.classes[n] ?? n}`);
    else if (["token", "query", "key"].includes(axes[axis]))
      words.push(`${axes[axis]} ${tokenName(step, n, axes[axis], index)}`);
    else words.push(`${axes[axis]} ${n}`);
  });
  return words.length ? `(${words.join(", ")})` : "";
}
