"use strict";
/* The other side of the pass: the call of the twin function, and the step that is the gradient of a step. */

/* The name of the function on the other side. */
function twinName(name) {
  if (name.endsWith("_forward")) return name.replace(/_forward$/, "_backward");
  if (name.endsWith("_backward")) return name.replace(/_backward$/, "_forward");
  if (name.endsWith(".forward")) return name.replace(/forward$/, "backward");
  if (name.endsWith(".backward")) return name.replace(/backward$/, "forward");
  return `${name}_backward`;
}
const twinNames = name => [twinName(name), name.replace(/_backward$/, "")].filter(n => n !== name);

/* The call on the other side of the pass: the same module, the twin function. Backward is forward read from the bottom:
   the last of several calls of a function is the first on the other side. */
function twinCall(call) {
  if (call.phase === "update") return null;
  const of = (name, phase) =>
    app.program.calls.filter(c => c.module === call.module && c.function === name && c.phase === phase);
  const own = of(call.function, call.phase),
    order = own.indexOf(call);
  for (const name of twinNames(call.function)) {
    const found = of(name, call.phase === "forward" ? "backward" : "forward");
    if (found.length === own.length) return found[found.length - 1 - order];
    if (found.length) return found[Math.min(order, found.length - 1)];
  }
  return null;
}

const TWINS = {
  gradient: "its gradient ↓",
  parameter: "its parameter ↑",
  forward: "its forward ↑",
  backwardPass: "the backward pass of this op ↓",
  forwardPass: "the forward pass of this op ↑",
};

/* {step, text}: the step on the other side of the pass, and what it is; null for a step of the optimiser. */
function twinStep(step) {
  const {named, parameters} = app.program,
    to = (node, text) => ({step: app.stepOf.get(node), text}),
    row = parameters.find(r => r[1] === step.node || r[2] === step.node);
  if (row) return step.node === row[1] ? to(row[2], TWINS.gradient) : to(row[1], TWINS.parameter);
  for (const name of ["pixels", "images", "logits"]) {
    if (step.node === named[name]) return to(named["d" + name], TWINS.gradient);
    if (step.node === named["d" + name]) return to(named[name], TWINS.forward);
  }
  if (isGiven(step) || step.phase === "update") return null;
  const backward = step.phase === "backward",
    node = pairedNode(step, backward);
  if (node !== null) return to(node, backward ? TWINS.forward : TWINS.gradient);
  for (const call of callChain(step).reverse()) {
    if (call.module !== step.module) break;
    const twin = twinCall(call),
      steps = twin ? [...stepsOfCall(twin).values()].flat() : [];
    if (steps.length)
      return backward
        ? {step: steps.at(-1), text: TWINS.forwardPass}
        : {step: steps[0], text: TWINS.backwardPass};
  }
  return null;
}

/* What a call, or the one that called it, names x is paired with what the twin call names dx, if it has the same shape.
   A name that forward gives to several such arrays is paired for the last of them, and a name that backward gives to
   several is not paired: such a gradient goes on changing. */
function pairedNode(step, backward) {
  const shape = app.shape(step).join(),
    nodesOf = (call, name) => [
      ...new Set(call.bindings.filter(b => b[1] === name && app.engine.shape(b[2]).join() === shape).map(b => b[2])),
    ];
  for (const call of callChain(step).reverse()) {
    const twin = twinCall(call);
    if (!twin) continue;
    for (const name of new Set(call.bindings.filter(b => b[2] === step.node).map(b => b[1]))) {
      if (backward && !/^d\w/.test(name)) continue;
      const [x, dx] = backward ? [name.slice(1), name] : [name, "d" + name],
        forwards = nodesOf(backward ? twin : call, x),
        gradients = nodesOf(backward ? call : twin, dx),
        here = backward ? gradients : forwards,
        there = backward ? forwards.at(-1) : gradients[0];
      if (gradients.length === 1 && here.at(-1) === step.node && app.stepOf.has(there)) return there;
    }
  }
  return null;
}
