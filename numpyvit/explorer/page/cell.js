"use strict";
/* The panel of one number: the line with values put in, its terms with a running sum, links to every operand, and
   where it goes. */

const SIGNS = {add: "+", subtract: "−", multiply: "×", divide: "/", greater: ">", less: "<", power: "^", equal: "="};
const PRECEDENCE = {add: 1, subtract: 1, multiply: 2, divide: 2};

function valueSpan(node, flat, value) {
  const step = app.stepOf.get(node);
  return step ? stepLink(step, flat, fmt(value)) : h("span", {class: "constant"}, fmt(value));
}

/* The formula tree of Derivation.formula as text with links. */
function formulaText(tree, outer = 0) {
  const inner = tree.children;
  const wrap = (level, parts) => (level < outer ? ["(", ...parts, ")"] : parts);
  if (tree.op === "cell") return [valueSpan(tree.node, tree.flat, tree.value)];
  if (tree.op === "const") return [h("span", {class: "constant"}, fmtConstant(tree.value))];
  if (tree.op === "copy") return formulaText(inner[0], outer);
  if (tree.op === "matmul")
    return [
      h("span", {class: "sum"}, `Σ${subscript(tree.count)}`),
      "(",
      ...formulaText(inner[0], 2),
      " × ",
      ...formulaText(inner[1], 2),
      tree.count > 1 ? " + …)" : ")",
    ];
  if (["sum", "mean", "max", "min"].includes(tree.op))
    return [
      h("span", {class: "sum"}, `${tree.op === "sum" ? "Σ" : tree.op}${subscript(tree.count)}`),
      "(",
      ...(inner.length ? formulaText(inner[0], 1) : []),
      tree.count > 1 ? (tree.op === "sum" ? " + …)" : ", …)") : ")",
    ];
  if (tree.op in SIGNS) {
    const level = PRECEDENCE[tree.op] || 0;
    return wrap(level, [
      ...formulaText(inner[0], level),
      ` ${SIGNS[tree.op]} `,
      ...formulaText(inner[1], level + (["subtract", "divide"].includes(tree.op) ? 1 : 0)),
    ]);
  }
  if (tree.op === "negative") return ["−", ...formulaText(inner[0], 3)];
  const names = {
    exp: "exp",
    log: "log",
    sqrt: "√",
    tanh: "tanh",
    erf: "erf",
    absolute: "|·|",
    where: "choose",
    maximum: "max",
    minimum: "min",
  };
  return [`${names[tree.op] || tree.op}(`, ...inner.flatMap((c, k) => [...(k ? [", "] : []), ...formulaText(c)]), ")"];
}

/* The factors of a term: the value of each, a link where it is a step's, and under it the cell's name. */
function factorText(factor, k) {
  const step = factor.node === undefined ? null : app.stepOf.get(factor.node);
  const sign = factor.inverse ? (k ? " / " : "1 / ") : k ? " × " : "";
  if (step && !factor.call) {
    const name = step.name + indexText(factor.flat, app.shape(step));
    return h(
      "span",
      {class: "factor"},
      h("span", {}, sign, stepLink(step, factor.flat, fmt(factor.value))),
      h("small", {}, name),
    );
  }
  const text = factor.call ? `${factor.call}(…) = ${fmt(factor.value)}` : fmtConstant(factor.value);
  const title = factor.count ? "how many numbers the mean is over" : "a part of this line";
  return h("span", {class: "factor"}, h("span", {}, sign, h("span", {class: "constant", title}, text)));
}

/* Cells first, constants after them, divisors last. */
const inOrder = factors =>
  [...factors].sort((a, b) => (a.inverse ? 2 : a.constant ? 1 : 0) - (b.inverse ? 2 : b.constant ? 1 : 0));

const SHOWN = 12;

function drawCell() {
  const step = app.step(),
    panel = $("cell");
  if (app.cell === null) {
    fill(
      panel,
      h("h2", {}, "One number"),
      h(
        "p",
        {class: "note"},
        "Choose a cell of the picture: this panel then shows the terms that add up to it, and every operand is " +
          "a link. From a weight’s gradient you can click to the loss, from a logit to pixels.",
      ),
      shapeSummary(step),
    );
    return;
  }
  const shape = app.shape(step),
    flat = app.cell,
    value = app.data(step)[flat],
    {terms, copy, set} = app.derivation.terms(step.node, flat);
  const head = h(
    "div",
    {class: "cell-head"},
    h("code", {id: "cell-name"}, step.name + indexText(flat, shape)),
    h("span", {class: "equals"}, "="),
    h("b", {id: "cell-value", "data-value": String(value)}, fmt(value, 6)),
  );
  const trail = app.trail.length
    ? h(
        "nav",
        {class: "trail", "aria-label": "the way here"},
        h("button", {class: "quiet", onclick: goBack}, "← back"),
        app.trail.slice(-3).map(a =>
          h(
            "a",
            {
              href: encodeURI(a),
              onclick: event => {
                event.preventDefault();
                goBackTo(a);
              },
            },
            a.slice(1).split("/").pop(),
          ),
        ),
      )
    : null;
  const parts = [
    h("h2", {}, "One number"),
    jump("step", "the picture ↑"),
    trail,
    head,
    h("p", {class: "meaning"}, meaning(step, flat, axesOf(step))),
  ];
  if (isGiven(step)) parts.push(h("p", {class: "note"}, givenText(step)));
  else {
    parts.push(
      h(
        "div",
        {class: "formula", "aria-label": "the line with its values"},
        formulaText(app.derivation.formula(step.node, flat)),
        " = ",
        h("b", {}, fmt(value)),
      ),
    );
    if (copy)
      parts.push(
        h(
          "p",
          {class: "note"},
          "It is a copy of ",
          app.stepOf.has(copy.node) ? stepLink(app.stepOf.get(copy.node), copy.flat) : fmt(value),
          ".",
        ),
      );
    else if (!terms.length)
      parts.push(
        h(
          "p",
          {class: "note"},
          set
            ? `It is set to ${fmt(value)}: a ${app.engine.edits.get(step.node)?.what} is switched off.`
            : app.engine.nodes[step.node].op === "full" || value === 0
              ? "It is zero: nothing was added here."
              : "",
        ),
      );
    else parts.push(termTable(terms, value));
  }
  if (typeof whatIfCell === "function") parts.push(whatIfCell(step, flat));
  parts.push(usesList(step));
  fill(panel, ...parts.filter(Boolean));
  $("live").textContent = `${step.name} ${indexText(flat, shape)} is ${fmt(value, 6)}, ${terms.length} terms`;
}

function termsText(n, zeros) {
  const text = n === 1 ? "one term" : `${count(n)} terms, the largest first`;
  return zeros ? `${text}, and ${count(zeros)} that ${zeros === 1 ? "is" : "are"} zero` : text;
}

function termTable(terms, value) {
  const some = terms.filter(t => t.value !== 0),
    zeros = some.length ? terms.length - some.length : 0,
    sorted = (some.length ? some : terms).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)),
    most = Math.abs(sorted[0].value) || 1;
  const body = h("tbody", {});
  let sum = 0,
    shown = 0;
  const more = () => {
    const next = sorted.slice(shown, shown ? sorted.length : SHOWN);
    for (const t of next) {
      sum += t.value;
      const sign = t.sign < 0 ? "−" : "";
      body.append(
        h(
          "tr",
          {},
          h("td", {class: "factors"}, sign, inOrder(t.factors).map(factorText)),
          h(
            "td",
            {class: "number term", "data-value": String(t.value)},
            fmt(t.value),
            h(
              "span",
              {class: "bar"},
              h("i", {class: t.value < 0 ? "minus" : "plus", style: {width: `${(50 * Math.abs(t.value)) / most}%`}}),
            ),
          ),
          h("td", {class: "number running"}, fmt(sum)),
        ),
      );
    }
    shown += next.length;
    rest.hidden = shown >= sorted.length;
    rest.textContent = `show the other ${count(sorted.length - shown)} terms, which add ${fmt(value - sum)}`;
  };
  const rest = h("button", {class: "quiet", onclick: () => more()});
  more();
  return h(
    "div",
    {class: "terms"},
    h(
      "table",
      {},
      h("caption", {}, termsText(sorted.length, zeros)),
      h("thead", {}, h("tr", {}, h("th", {}, "factors"), h("th", {}, "term"), h("th", {}, "sum so far"))),
      body,
    ),
    rest,
  );
}

function usesList(step) {
  const uses = usedBy(step);
  return uses.length
    ? h(
        "div",
        {class: "uses"},
        h("h3", {}, "read by"),
        h(
          "ul",
          {},
          uses
            .slice(0, 8)
            .map(s => h("li", {}, stepLink(s), h("span", {class: "step-shape"}, ` ${moduleName(s)}, ${s.op}`))),
        ),
        uses.length > 8 ? h("p", {class: "note"}, `and ${uses.length - 8} more`) : null,
      )
    : null;
}

function shapeSummary(step) {
  const data = app.data(step);
  let low = Infinity,
    high = -Infinity,
    sum = 0,
    n = 0;
  for (const x of data)
    if (x - x === 0) {
      n++;
      sum += x;
      if (x < low) low = x;
      if (x > high) high = x;
    }
  return h(
    "dl",
    {class: "summary"},
    [
      ["numbers", count(data.length)],
      ["smallest", fmt(low)],
      ["mean", fmt(sum / n)],
      ["largest", fmt(high)],
      ["root mean square", fmt(rms(data))],
      n < data.length ? ["−∞ (masked)", count(data.length - n)] : null,
    ]
      .filter(Boolean)
      .map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]),
  );
}

function goBack() {
  const last = app.trail[app.trail.length - 1];
  if (last) goBackTo(last);
}
function goBackTo(address) {
  const found = app.parse(address);
  if (found) app.select(found.at, found.cell, {trail: app.trail.slice(0, app.trail.indexOf(address))});
}
