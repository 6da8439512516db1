"use strict";
/* Arrays in C order: shapes, strides, and one loop that walks over several of them at once. */

const sizeOf = shape => shape.reduce((product, n) => product * n, 1);

function stridesOf(shape) {
  const strides = new Array(shape.length);
  for (let axis = shape.length - 1, step = 1; axis >= 0; axis--) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

/* Flat position of an index, and back. */
const flatten = (index, shape) => index.reduce((flat, i, axis) => flat * shape[axis] + i, 0);
function unflatten(flat, shape) {
  const index = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return index;
}

/* Strides with which an operand of `shape` is read for a result of `result`: 0 along every axis that is broadcast. */
function broadcastStrides(shape, result) {
  const own = stridesOf(shape),
    lead = result.length - shape.length;
  return result.map((_, axis) => (axis < lead || shape[axis - lead] === 1 ? 0 : own[axis - lead]));
}

/* Walk over all cells of `shape` with several sets of strides: inner(n, starts, steps) is called once a run of the
   innermost axis. Neighbouring axes that can be walked as one are merged first. */
function walk(shape, allStrides, offsets, inner) {
  const dims = [],
    strides = allStrides.map(() => []);
  shape.forEach((n, axis) => {
    if (n === 1) return;
    const last = dims.length - 1;
    if (last >= 0 && allStrides.every((s, k) => strides[k][last] === s[axis] * n)) {
      dims[last] *= n;
      allStrides.forEach((s, k) => {
        strides[k][last] = s[axis];
      });
    } else {
      dims.push(n);
      allStrides.forEach((s, k) => strides[k].push(s[axis]));
    }
  });
  if (shape.includes(0)) return;
  if (!dims.length) {
    dims.push(1);
    strides.forEach(s => s.push(0));
  }
  const depth = dims.length - 1,
    n = dims[depth],
    steps = strides.map(s => s[depth]);
  const at = offsets.slice(),
    count = new Array(depth).fill(0);
  for (;;) {
    inner(n, at, steps);
    let axis = depth - 1;
    for (; axis >= 0; axis--) {
      if (++count[axis] < dims[axis]) {
        for (let k = 0; k < at.length; k++) at[k] += strides[k][axis];
        break;
      }
      for (let k = 0; k < at.length; k++) at[k] -= strides[k][axis] * (dims[axis] - 1);
      count[axis] = 0;
    }
    if (axis < 0) return;
  }
}

function broadcast(t, shape) {
  const out = new Float64Array(sizeOf(shape));
  walk(shape, [stridesOf(shape), broadcastStrides(t.shape, shape)], [0, 0], (n, at, step) => {
    for (let k = 0, j = at[1]; k < n; k++, j += step[1]) out[at[0] + k] = t.data[j];
  });
  return out;
}
