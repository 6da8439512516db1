"use strict";
/* Elements, numbers as text, and links to steps. */

/* h("p", {class: "note", onclick: f}, "text", element): text is always text, never markup. */
function h(tag, props = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(c => c !== null && c !== undefined && c !== false));
  return element;
}
const $ = id => document.getElementById(id);
const fill = (element, ...children) =>
  element.replaceChildren(
    ...children.flat(Infinity).filter(c => c !== null && c !== undefined && c !== false && c !== ""),
  );

/* Parts of the page are built anew when something changes. → a function that gives the focus to the new twin of the
   element that had it; after a link was followed, to the panel around it, so that Tab goes on there. */
function keepFocus() {
  const all = panel => [...panel.querySelectorAll("button, select, input, [tabindex]")],
    was = document.activeElement,
    panel = was?.closest("#cell, #photo-panel, #step, #steps"),
    place = panel && was !== panel ? all(panel).indexOf(was) : -1;
  return () => {
    if (!panel || was.isConnected) return;
    const twin = (was.id && $(was.id)) || all(panel)[place];
    if (place < 0 || !twin) panel.tabIndex = -1;
    (place < 0 || !twin ? panel : twin).focus({preventScroll: true});
  };
}

/* On a narrow screen, panels lie one below the other: a button that leads to one of them. */
const narrow = () => matchMedia("(max-width: 980px)").matches;
function show(id) {
  const panel = $(id);
  panel.tabIndex = -1;
  panel.scrollIntoView();
  panel.focus({preventScroll: true});
}
const jump = (id, text) => h("button", {class: "jump", onclick: () => show(id)}, text);

/* A number in so many significant digits, with a real minus sign. */
function fmt(x, digits = 4) {
  if (Number.isNaN(x)) return "NaN";
  if (x === Infinity) return "∞";
  if (x === -Infinity) return "−∞";
  if (x === 0) return "0";
  const a = Math.abs(x);
  if (Number.isInteger(x) && a < 1e6) return String(x).replace("-", "−");
  const text =
    a >= 1e-3 && a < 1e5 ? String(Number(x.toPrecision(digits))) : x.toExponential(digits - 1).replace("e+", "e");
  return text.replaceAll("-", "−");
}
/* With enough digits that a constant which is not whole does not look whole: 0.999966, not 1. */
function fmtConstant(x) {
  const text = fmt(x);
  return Number.isInteger(x) || text.includes(".") ? text : fmt(x, 7);
}
const count = n => n.toLocaleString("en-GB");
const percent = p => (100 * p).toFixed(1) + " %";
const shapeText = shape => (shape.length ? shape.join(" × ") : "one number");
const subscript = n => [...String(n)].map(c => "₀₁₂₃₄₅₆₇₈₉"[c] ?? c).join("");

const GIVEN = ["parameter", "buffer", "table", "image", "target", "state"];
const isGiven = step => GIVEN.includes(step.op);

/* The steps that hold attention probabilities: what softmax_forward returned to attention_forward. */
let cachedBlocks = null;
function attentionBlocks() {
  cachedBlocks ??= app.steps
    .filter(s => s.phase === "forward" && s.op === "softmax_forward" && app.shape(s).length === 4 && s.name !== "e")
    .map(s => ({step: s, module: s.module, shape: app.shape(s)}));
  return cachedBlocks;
}

/* The steps that a step's line reads, in order, without repetition. */
function operandsOf(step) {
  const found = [],
    seen = new Set();
  const visit = i => {
    for (const a of app.engine.nodes[i].args) {
      if (seen.has(a)) continue;
      seen.add(a);
      if (app.stepOf.has(a)) found.push(app.stepOf.get(a));
      else visit(a);
    }
  };
  visit(step.node);
  return found;
}

/* The steps whose lines read a step. */
let consumers = null;
function usedBy(step) {
  if (!consumers) {
    consumers = new Map();
    for (const s of app.steps) for (const o of operandsOf(s)) consumers.set(o, [...(consumers.get(o) || []), s]);
  }
  return consumers.get(step) || [];
}

const moduleName = step => step.module || "model";
const labelOf = step => `${isGiven(step) && step.module ? step.module + "." : ""}${step.name}`;
const indexText = (flat, shape) => (shape.length ? `[${unflatten(flat, shape).join(",")}]` : "");

/* A link to a step, or to one of its cells; clicks are remembered for the way back. */
function stepLink(step, flat = null, text = null) {
  const hash = app.address(step, flat);
  return h(
    "a",
    {
      href: encodeURI(hash),
      class: `link ${step.phase}`,
      title: step.id,
      onclick: event => {
        event.preventDefault();
        app.select(step.number, flat, {trail: [...app.trail, app.address()]});
      },
    },
    text ?? labelOf(step) + (flat === null ? "" : indexText(flat, app.shape(step))),
  );
}
