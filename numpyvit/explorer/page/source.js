"use strict";
/* The definition's own lines: forward left, backward right, the current line lit, every line that made an array a
   link. */

const KEYWORDS = new Set(
  "def return if else for in is not None and or import from class True False lambda while with as".split(" "),
);

/* A line of Python in coloured pieces. */
function coloured(line) {
  const pieces = [],
    pattern = /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b)|([A-Za-z_]\w*)/g;
  let at = 0;
  for (const m of line.matchAll(pattern)) {
    if (m.index > at) pieces.push(line.slice(at, m.index));
    const kind = m[1] ? "comment" : m[2] ? "string" : m[3] ? "number" : KEYWORDS.has(m[4]) ? "keyword" : null;
    pieces.push(kind ? h("span", {class: `py-${kind}`}, m[0]) : m[0]);
    at = m.index + m[0].length;
  }
  pieces.push(line.slice(at));
  return pieces;
}

/* {file, name, lines: [[number, text]], doc: [text]} of a function, its docstring apart. */
function functionText(fileNumber, name) {
  const file = app.program.files[fileNumber],
    range = file.functions[name];
  if (!range) return null;
  const all = file.text
    .split("\n")
    .slice(range[0] - 1, range[1])
    .map((text, k) => [range[0] + k, text]);
  const indent = all[0][1].match(/^ */)[0].length,
    doc = [],
    lines = [];
  let inside = false,
    seen = false;
  for (const [number, text] of all) {
    const body = text.trim();
    if (!seen && !inside && body.startsWith('"""')) {
      inside = !(body.length > 3 && body.endsWith('"""'));
      seen = !inside;
      doc.push(body.replace(/^"""|"""$/g, ""));
    } else if (inside) {
      if (body.endsWith('"""')) {
        inside = false;
        seen = true;
      }
      doc.push(text.slice(indent + 4).replace(/"""$/, ""));
    } else lines.push([number, text.slice(indent)]);
  }
  return {file, name, lines, doc: doc.join("\n").trim()};
}

/* Steps that the lines of a call made: line → steps. */
function stepsOfCall(call) {
  const number = app.program.calls.indexOf(call),
    byLine = new Map();
  for (const s of app.steps) {
    const node = app.engine.nodes[s.node];
    if (node.call === number && !isGiven(s)) byLine.set(node.line, [...(byLine.get(node.line) || []), s]);
  }
  return byLine;
}

function spanOf(file, line) {
  return file.spans.find(([a, b]) => a <= line && line <= b) || [line, line];
}

function listing(fileNumber, name, call, litLine, way) {
  const text = functionText(fileNumber, name);
  if (!text) return null;
  const byLine = call ? stepsOfCall(call) : new Map(),
    lit = litLine ? spanOf(text.file, litLine) : [0, -1];
  const lines = text.lines
    .filter(([, t], k) => t.trim() || k > 0)
    .map(([number, line]) => {
      const steps = byLine.get(number) || [],
        current = number >= lit[0] && number <= lit[1];
      const target = steps.includes(app.step()) ? app.step() : steps[steps.length - 1];
      return h(
        "div",
        {
          class: "code-line" + (current ? " lit" : "") + (target ? " live" : ""),
          onclick: target ? () => app.select(target.number) : null,
          title: target ? `shows ${[...new Set(steps.map(s => s.name))].join(", ")}` : null,
        },
        h("span", {class: "code-number"}, number),
        h("code", {}, coloured(line)),
      );
    });
  return h(
    "section",
    {class: `source ${way}`},
    h(
      "header",
      {},
      h("span", {class: `chip ${way}`}, way),
      h("b", {}, name),
      h("span", {class: "path"}, `${text.file.path.replace("numpyvit/", "")}:${text.lines[0][0]}`),
    ),
    equation(text.doc),
    h("div", {class: "code", tabindex: 0, role: "group", "aria-label": `source of ${name}`}, lines),
  );
}

/* A docstring: its sentence and its formulas; the rest can be opened. */
function equation(doc) {
  if (!doc) return null;
  const lines = doc.split("\n"),
    rest = lines.slice(1).filter(l => !/^\s{4}/.test(l) && l.trim()),
    formulas = lines
      .slice(1)
      .filter(l => /^\s{4}/.test(l))
      .map(l => l.trim());
  return h(
    "div",
    {class: "doc"},
    h("p", {class: /[=←]/.test(lines[0]) ? "formulas" : null}, lines[0]),
    formulas.length ? h("pre", {class: "formulas"}, formulas.join("\n")) : null,
    rest.length ? h("details", {}, h("summary", {}, "shapes, cache, source"), h("pre", {}, rest.join("\n"))) : null,
  );
}

function drawSource() {
  const step = app.step(),
    node = app.engine.nodes[step.node],
    call = node.call >= 0 ? app.program.calls[node.call] : null;
  if (!call) return h("p", {class: "note"}, isGiven(step) ? givenText(step) : inputText(step));
  const twin = twinCall(call),
    backward = call.phase === "backward";
  const twinFunction = twin
    ? twin.function
    : twinNames(call.function).find(n => app.program.files[call.file].functions[n]);
  const own = listing(call.file, call.function, call, node.line, call.phase);
  if (call.phase === "update") return h("div", {class: "sources single"}, own);
  const other =
    twinFunction && (twin || !/_backward_backward$/.test(twinFunction))
      ? listing(twin ? twin.file : call.file, twinFunction, twin, 0, backward ? "forward" : "backward")
      : null;
  return h("div", {class: "sources" + (other ? "" : " single")}, backward ? [other, own] : [own, other]);
}

function givenText(step) {
  return {
    parameter: isFrozen(step)
      ? "A frozen parameter: the optimiser leaves it as it is."
      : "A parameter: training has set its values.",
    buffer: "A buffer: running statistics of training.",
    table: "A table that the model made when it was built; nothing trains it.",
    image: "The pixels of the image, 0 to 255.",
    state:
      `What the optimiser remembers of this parameter. The step that it takes: ${ruleText(step)}.` +
      (app.program.about.state_bits < 24 ? ` ${stateBitsText()}` : ""),
    target: "The class that the loss asks for, as a row of zeros and a one.",
  }[step.op];
}
const ruleText = step => app.program.parameters.find(r => r[4].some(([, node]) => node === step.node))?.[5];
const isFrozen = step => app.program.parameters.some(r => r[1] === step.node && r[3] === step.node);
const stateBitsText = () =>
  `What the optimiser remembers is rounded to ${app.program.about.state_bits} bits, ` +
  "so the new weights are approximate.";

function inputText(step) {
  const clipping = {
    grad_squares: "The sum of the squares of the gradient, for every parameter that is trained.",
    grad_norm: "grad_norm = √Σ grad_squares: the length of the whole gradient of what is trained.",
    clip_scale: "clip_scale = min(1, clip / (grad_norm + 0.000001)): the optimiser multiplies every gradient with it.",
    "muon_step(data)": "The parameter as a matrix, with one row for each output.",
    "muon_step(grad)": "The gradient of the parameter as a matrix, with one row for each output.",
    "muon_step(m)": "What the optimiser remembers of the parameter as a matrix, with one row for each output.",
  }[step.name];
  if (clipping) return clipping;
  return step.name === "images"
    ? "images = (pixels / 255 − mean) / std"
    : step.name === "dpixels"
      ? "dpixels = dimages / (std · 255): what the loss gains for each grey level more"
      : "";
}

/* The derivation in ops/README.md that belongs to a function, if there is one. */
function derivationOf(name) {
  const text = app.program.derivations[name.replace(/_(forward|backward)$/, "")];
  return text
    ? h(
        "details",
        {class: "derivation"},
        h("summary", {}, "The derivation of the backward formula (numpyvit/ops/README.md)"),
        h("pre", {}, text),
      )
    : null;
}
