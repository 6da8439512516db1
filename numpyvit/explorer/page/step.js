"use strict";
/* The page of a step: where it was computed, from what, and the result as a picture in which a cell can be chosen. */

/* Calls from the model down to the function that made a step. */
function callChain(step) {
  const chain = [];
  for (let i = app.engine.nodes[step.node].call; i >= 0; i = app.program.calls[i].parent)
    chain.unshift(app.program.calls[i]);
  return chain;
}

function breadcrumb(step) {
  const chain = callChain(step),
    numbers = chain.map(c => app.program.calls.indexOf(c));
  const parts = chain.map((c, k) => {
    const first = app.steps.find(s => app.engine.nodes[s.node].call === numbers[k] && !isGiven(s));
    const name =
      c.function.replace(/\.(forward|backward)$/, "") === c.function
        ? c.function
        : `${c.module.match(/[^.]+(\.\d+)?$/)?.[0] ?? c.function.split(".")[0]}.${c.function.split(".").pop()}`;
    return first && first !== step
      ? h(
          "a",
          {
            href: encodeURI(app.address(first, null)),
            onclick: event => {
              event.preventDefault();
              app.select(first.number);
            },
          },
          name,
        )
      : h("span", {}, name);
  });
  return h(
    "nav",
    {class: "breadcrumb", "aria-label": "calls"},
    parts.flatMap((p, k) => (k ? [h("i", {}, "›"), p] : [p])),
  );
}

/* The other names that lines gave to an array: node → "name in function". */
let cachedNames = null;
function otherNames() {
  if (cachedNames) return cachedNames;
  cachedNames = new Map();
  for (const call of app.program.calls)
    for (const [, name, node] of call.bindings) {
      if (name === app.stepOf.get(node)?.name) continue;
      if (!cachedNames.has(node)) cachedNames.set(node, new Set());
      cachedNames.get(node).add(`${name} in ${call.function}`);
    }
  return cachedNames;
}

function drawStep() {
  const step = app.step(),
    shape = app.shape(step),
    data = app.data(step),
    axes = axesOf(step),
    operands = operandsOf(step);
  const twin = twinStep(step),
    node = app.engine.nodes[step.node],
    call = app.program.calls[node.call];
  const aliases = [...(otherNames().get(step.node) || [])].slice(0, 3);
  const go = (by, label, key) =>
    h(
      "button",
      {
        class: "move",
        title: `${label} (${key})`,
        "aria-label": label,
        disabled: !app.steps[nextNumber(by)],
        onclick: () => app.select(nextNumber(by)),
      },
      by < 0 ? "←" : "→",
    );
  fill(
    $("step"),
    breadcrumb(step),
    h(
      "div",
      {class: "step-title"},
      h(
        "h1",
        {},
        h("span", {class: `chip ${isGiven(step) ? "given" : step.phase}`}, isGiven(step) ? step.op : step.phase),
        h("span", {class: "step-big"}, step.name),
        h("span", {class: "step-shape"}, shapeText(shape)),
      ),
      h(
        "div",
        {class: "moves"},
        go(-1, "previous step", "←"),
        h("span", {class: "position"}, `${orderNumber() + 1} of ${app.order.length}`),
        go(1, "next step", "→"),
        twin
          ? h(
              "button",
              {
                class: "quiet",
                title: "the step on the other side of the pass (b)",
                id: "twin",
                onclick: () => app.select(twin.step.number),
              },
              twin.text,
            )
          : null,
      ),
    ),
    h(
      "p",
      {class: "where"},
      axes.filter(Boolean).length ? `axes: ${axes.map((a, k) => `${a || "axis"} ${shape[k]}`).join(" · ")}` : "",
      aliases.length ? h("span", {class: "aliases"}, ` — also called ${aliases.join(", ")}`) : null,
    ),
    node.op === "embedded"
      ? h("p", {class: "warning"}, `The page cannot compute ${node.attrs.name}: these values are the recorded ones.`)
      : "",
    h(
      "div",
      {class: "flow"},
      operands.length
        ? h(
            "div",
            {class: "operands"},
            operands.slice(0, 8).map(o =>
              h(
                "figure",
                {},
                h(
                  "a",
                  {
                    href: encodeURI(app.address(o, null)),
                    onclick: event => {
                      event.preventDefault();
                      app.select(o.number, null, {trail: [...app.trail, app.address()]});
                    },
                  },
                  thumbnail(o),
                ),
                h("figcaption", {}, stepLink(o), h("span", {class: "step-shape"}, app.shape(o).join("×") || "1")),
              ),
            ),
            operands.length > 8 ? h("p", {class: "note"}, `and ${operands.length - 8} more`) : null,
          )
        : null,
      operands.length ? h("div", {class: "arrow", "aria-hidden": "true"}, "→") : null,
      bigMap(step, data, shape, axes),
    ),
    step.op === "parameter" ? relatives(step) : "",
    drawSource(),
    call ? derivationOf(call.function) : "",
  );
}

/* What belongs to a parameter: its gradient, what the optimiser remembers of it, and its value after one step. */
function relatives(step) {
  const row = app.program.parameters.find(r => r[1] === step.node),
    pairs = [
      ["gradient of the loss", row[2]],
      ["after one step of the optimiser", row[3] === row[1] ? -1 : row[3]], // not of a frozen parameter
      ...row[4].map(([name, node]) => [`${name} of the optimiser`, node]),
    ];
  return h(
    "div",
    {class: "relatives"},
    pairs
      .filter(([, node]) => node >= 0 && app.stepOf.has(node))
      .map(([what, node]) => {
        const other = app.stepOf.get(node);
        return h(
          "figure",
          {},
          thumbnail(other, null),
          h(
            "figcaption",
            {},
            stepLink(other, app.cell),
            h("span", {class: "step-shape"}, what),
            app.cell === null ? null : h("b", {}, fmt(app.data(other)[app.cell], 5)),
          ),
        );
      }),
  );
}

/* ← and → follow the order of execution; steps that are given from outside are not in it. */
function buildOrder() {
  app.order = app.steps.filter(s => !isGiven(s)).map(s => s.number);
}
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
