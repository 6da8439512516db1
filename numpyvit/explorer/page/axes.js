"use strict";
/* What each axis of an array runs over. */

function axesOf(step) {
  const shape = app.shape(step),
    n = shape.length,
    {config, family, classes} = app.program.about,
    several = shape[0] > app.engine.shape(app.program.named.pixels)[0],
    first = several && family === "Swin" ? "window" : "image";
  if (step.module === "optimizer") return ["parameter"].slice(0, n);
  if (step.module === "loss") return ["image", "class"].slice(0, n);
  if (/^d?logits$/.test(step.name)) return ["image", "class"];
  if (/^d?(images|pixels)$/.test(step.name) && n === 4) return ["image", "colour", "row", "column"];
  if (step.module === "image") return ["colour", "", ""].slice(0, n); // mean and std
  if (step.phase === "update") return updateAxes(step, shape);
  if (step.op === "table" && step.name === "mask" && n === 3) return ["window", "query", "key"];
  if (/^(turn\()?(cos|sin)\)?$/.test(step.name)) return n === 2 ? ["token", "pair"] : ["token", "", "", "pair"];
  if ((isGiven(step) && step.op !== "table") || /\.grad$|^dweight$|^weight$/.test(ownName(step)))
    return parameterAxes(step.name, n);
  if (step.name === "dmatrix") return ["output", "input"]; // a kernel as a matrix
  if (n === 3 && (step.op.startsWith("relative") || (step.op === "attention_backward" && step.name === "dbias")))
    return ["head", "query", "key"];
  if (n === 4 && /attention|softmax|split_heads/.test(step.op)) {
    const scores = /^softmax/.test(step.op) || /^d?(scores|attn|dropped)$/.test(step.name);
    return [first, "head", scores || /^d?y$/.test(ownName(step)) ? "query" : "token", scores ? "key" : "channel"];
  }
  if (n > 4) return manyAxes(step, shape, first);
  const last = /^d?(patches|rows)$/.test(step.name) ? "input" : "channel"; // as of the weight
  if (n === 4) return ["image", "row", "column", last];
  if (n === 3) return [first, inOtherOrder(step, shape) ? "place" : "token", last];
  if (n === 2) {
    const ofHead = step.module.startsWith("head") && shape[1] === (config.num_classes ?? classes.length);
    return [several ? "token" : "image", ofHead && /^d?y/.test(step.name) ? "class" : "channel"];
  }
  return ["channel"].slice(0, n);
}

/* "dy" of "attention_backward(dy)": an argument without a name of its own has the name of its function, too. */
const ownName = step => step.name.match(/\((\w+)\)$/)?.[1] ?? step.name;

/* Whether the tokens of a step of Swin stand in another order than on the map: window by window, or in fours that patch
   merging makes one of. Forward, attention reads windows of 3 · C channels and writes windows of C; backward, it reads
   windows of C and writes windows of 3 · C. */
function inOtherOrder({op, module, name, phase}, shape) {
  const result = op.startsWith("gather_tokens"), // else it is handed to such a call
    forward = phase === "forward";
  if (!result && !name.startsWith("gather_tokens")) return false;
  const proj = app.program.parameters.find(r => r[0] === `${module}.proj.weight`);
  if (!proj) return result === forward; // patch merging
  const wide = shape[2] === 3 * app.engine.shape(proj[1])[0];
  return (result === forward) === wide;
}

/* Of a parameter, its gradient, and what the optimiser remembers of it. */
function parameterAxes(name, n) {
  if (n === 4) return ["output", "input", "row", "column"];
  if (n === 3) return ["image", "token", "channel"];
  if (n === 2) return name.includes("table") ? ["offset", "head"] : ["output", "input"];
  return ["channel"].slice(0, n);
}

/* Of a step of the optimiser: the axes of its parameter. Muon's steps are about matrices with one row an output;
   where these have more rows than columns, orthogonal works on the transposed matrix x, and g = x · xᵀ. */
function updateAxes(step, shape) {
  const n = shape.length,
    rows = app.program.parameters.filter(r => r[0].replace(/\.?[^.]*$/, "") === step.module),
    of = r => app.engine.shape(r[1]),
    size = r => of(r).reduce((a, b) => a * b, 1),
    same = rows.find(r => of(r).join() === shape.join());
  if (!/^(muon_step|orthogonal)$/.test(step.op) || n !== 2) return parameterAxes(same?.[0] ?? "", n);
  if (step.op === "muon_step" || step.name === "direction") return ["output", "input"];
  const fits = r => shape.some(side => side === of(r)[0] || side * of(r)[0] === size(r)),
    matrix = rows.find(r => of(r).length > 1 && fits(r)),
    tall = matrix && of(matrix)[0] ** 2 > size(matrix),
    axes = tall ? ["input", "output"] : ["output", "input"];
  return step.name === "g" ? [axes[0], axes[0]] : axes;
}

/* Of the arrays in between that have more than four axes. */
function manyAxes(step, shape, first) {
  const n = shape.length,
    kernel = ["kernel row", "kernel column", "channel"],
    patch = ["patch row", "patch column"];
  if (step.op === "patches_of" && n === 6) return ["image", "colour", "row", patch[0], "column", patch[1]];
  if (step.op === "images_of" && n === 6) return ["image", "row", "column", "colour", ...patch];
  if (/^(im2col|col2im)$/.test(step.op) && n === 6) return ["image", "row", "column", ...kernel];
  if (step.op === "turn")
    return ["image", "token", shape[2] === 3 ? "q, k, v" : "q, k", "head", ...(n === 6 ? ["half"] : []), "pair"];
  if (step.op === "self_attention_backward" && n === 5) return [first, "head", "q, k, v", "token", "channel"];
  return Array(n).fill("");
}
