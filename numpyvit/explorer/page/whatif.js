"use strict";
/* What if: a weight or a pixel is changed, everything is computed again, and the gradient is held against
   the loss's slope. */

/* A given array that may be changed; its first values are kept for "undo". */
app.first = new Map();
app.ownLeaf = function (node) {
  if (!this.first.has(node)) {
    this.first.set(node, this.engine.leaves.get(node));
    this.engine.leaves.set(node, this.engine.leaves.get(node).slice());
  }
  this.changed.add(node);
  return this.engine.leaves.get(node);
};

async function resetAll() {
  for (const [node, values] of app.first) app.engine.leaves.set(node, values);
  const nodes = [...app.first.keys(), ...app.engine.edits.keys()];
  app.first.clear();
  app.changed.clear();
  app.engine.edits.clear();
  switches.heads.clear();
  switches.tokens.clear();
  await app.edited(nodes);
}

/* The gradient step of something that is given: a parameter's, or the pixels'. */
function gradientOf(step) {
  const row = app.program.parameters.find(r => r[1] === step.node);
  if (row) return app.stepOf.get(row[2]);
  return step.node === app.program.named.pixels ? app.stepOf.get(app.program.named.dpixels) : null;
}

/* Where a value was last dragged to, and what the tangent at the value before said: it is shown until the next change,
   as a change draws the panel again. */
let dragged = null;

function whatIfCell(step, flat) {
  const gradient = gradientOf(step);
  if (!gradient) return null;
  const loss = app.engine.get(app.program.named.loss)[0],
    slope = app.data(gradient)[flat],
    value = app.data(step)[flat],
    pixel = step.op === "image";
  const spread = pixel ? 64 : Math.max(3 * rms(app.first.get(step.node) || app.data(step)), 1e-3),
    start = app.first.get(step.node)?.[flat] ?? value;
  const chart = h("div", {class: "chart"}),
    table = h("table", {});
  const slider = h("input", {
    type: "range",
    min: 0,
    max: 200,
    value: Math.round(100 + (100 * (value - start)) / spread),
    "aria-label": `value of ${step.name}`,
  });
  const at = () => start + (spread * (slider.value - 100)) / 100;
  const samples = [];
  const say = ({now, predicted, real}) =>
    table.replaceChildren(
      ...[
        ["value", fmt(now, 5)],
        ["loss by the tangent", fmt(predicted, 6)],
        ["loss, computed again", fmt(real, 6)],
      ].map(([k, v]) => h("tr", {}, h("td", {}, k), h("td", {}, v))),
    );
  const tell = () => {
    const now = at();
    dragged = {node: step.node, flat, now, predicted: loss + slope * (now - value), real: supposeLoss(step, flat, now)};
    say(dragged);
    drawChart(chart, samples, value, loss, slope, start - spread, start + spread, now, dragged.real);
  };
  slider.addEventListener("input", tell);
  slider.addEventListener("change", async () => {
    app.ownLeaf(step.node)[flat] = at();
    await app.edited([step.node]);
  });
  const kept = dragged?.node === step.node && dragged.flat === flat && dragged.now === value && dragged.real === loss;
  say(kept ? dragged : {now: value, predicted: loss, real: loss});
  setTimeout(async () => {
    for (const k of [8, 0, 16, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15]) {
      if (!chart.isConnected) return;
      const x = start - spread + (2 * spread * k) / 16;
      samples.push([x, supposeLoss(step, flat, x)]);
      samples.sort((a, b) => a[0] - b[0]);
      drawChart(chart, samples, value, loss, slope, start - spread, start + spread, at(), null);
      await new Promise(go => setTimeout(go));
    }
  }, 60);
  const row = app.program.parameters.find(r => r[1] === step.node),
    updated = row && row[3] >= 0 && row[3] !== row[1] ? app.stepOf.get(row[3]) : null;
  return h(
    "section",
    {class: "whatif"},
    h("h3", {}, "Is this gradient true?"),
    h(
      "p",
      {class: "note"},
      "Drag the value: the loss follows the curve, and the straight line with the slope ",
      stepLink(gradient, flat, fmt(slope, 5)),
      " touches it.",
    ),
    chart,
    slider,
    table,
    app.isChanged ? h("button", {class: "quiet", onclick: resetAll}, "undo all changes") : null,
    updated
      ? h(
          "p",
          {class: "update"},
          "after one step of the optimiser: ",
          stepLink(updated, flat, fmt(app.data(updated)[flat], 6)),
        )
      : null,
  );
}

function supposeLoss(step, flat, x) {
  const values = app.data(step).slice();
  values[flat] = x;
  return app.engine.suppose(step.node, values, app.program.named.loss)[0];
}

/* Loss against value, with the tangent. */
function drawChart(box, samples, value, loss, slope, low, high, now, real) {
  const W = 340,
    H = 150,
    pad = 26,
    points = real === null ? samples : [...samples, [now, real]].sort((a, b) => a[0] - b[0]);
  const ys = [...points.map(p => p[1]), loss],
    top = Math.max(...ys),
    bottom = Math.min(...ys),
    room = Math.max((top - bottom) * 0.2, Math.abs(loss) * 1e-6, 1e-12);
  const x = v => pad + ((v - low) / (high - low)) * (W - pad - 8),
    y = v => 8 + ((top + room - v) / (top - bottom + 2 * room)) * (H - 30);
  const dot = (cx, cy, r, extra) => h("svg:circle", {cx, cy, r, ...extra}),
    clip = `clip-${Math.random().toString(36).slice(2)}`;
  box.replaceChildren(
    h(
      "svg:svg",
      {
        viewBox: `0 0 ${W} ${H}`,
        role: "img",
        "aria-label": `the loss as a function of this value, and its tangent with slope ${fmt(slope, 4)}`,
      },
      h("svg:clipPath", {id: clip}, h("svg:rect", {x: pad, y: 6, width: W - pad - 8, height: H - 28})),
      h("svg:rect", {x: pad, y: 6, width: W - pad - 8, height: H - 28, fill: "none", stroke: "var(--line)"}),
      h(
        "svg:g",
        {"clip-path": `url(#${clip})`},
        h("svg:line", {
          x1: x(low),
          y1: y(loss + slope * (low - value)),
          x2: x(high),
          y2: y(loss + slope * (high - value)),
          stroke: "var(--backward)",
          "stroke-width": 2,
          "stroke-dasharray": "6 4",
        }),
        h("svg:polyline", {
          points: points.map(p => `${x(p[0])},${y(p[1])}`).join(" "),
          fill: "none",
          stroke: "var(--forward)",
          "stroke-width": 2.2,
        }),
        dot(x(value), y(loss), 4.5, {fill: "var(--ink)"}),
        real === null ? "" : dot(x(now), y(real), 5, {fill: "none", stroke: "var(--ink)", "stroke-width": 2}),
      ),
      h("svg:text", {x: pad, y: H - 8, "font-size": 11, fill: "var(--soft)"}, fmt(low, 3)),
      h("svg:text", {x: W - 8, y: H - 8, "font-size": 11, fill: "var(--soft)", "text-anchor": "end"}, fmt(high, 3)),
      h(
        "svg:text",
        {x: (W + pad) / 2, y: H - 8, "font-size": 11, fill: "var(--soft)", "text-anchor": "middle"},
        "value",
      ),
      h(
        "svg:text",
        {
          x: 14,
          y: H / 2,
          "font-size": 11,
          fill: "var(--soft)",
          transform: `rotate(-90 14 ${H / 2})`,
          "text-anchor": "middle",
        },
        "loss",
      ),
    ),
  );
}
