"use strict";
/* The primitives that compute: NumPy's ufuncs, reductions and products on {data: Float64Array, shape}. */

const UNARY = {
  negative: x => -x,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  absolute: Math.abs,
  square: x => x * x,
  reciprocal: x => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  positive: x => x,
};
const BINARY = {
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  divide: (a, b) => a / b,
  maximum: (a, b) => Math.max(a, b),
  minimum: (a, b) => Math.min(a, b),
  power: (a, b) => Math.pow(a, b),
  greater: (a, b) => +(a > b),
  greater_equal: (a, b) => +(a >= b),
  less: (a, b) => +(a < b),
  less_equal: (a, b) => +(a <= b),
  equal: (a, b) => +(a === b),
  not_equal: (a, b) => +(a !== b),
  copysign: (a, b) => (b < 0 || Object.is(b, -0) ? -1 : 1) * Math.abs(a),
};

function binary(op, a, b, shape) {
  const out = new Float64Array(sizeOf(shape)),
    f = BINARY[op],
    x = a.data,
    y = b.data;
  walk(
    shape,
    [stridesOf(shape), broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)],
    [0, 0, 0],
    (n, at, step) => {
      let [o, i, j] = at;
      const di = step[1],
        dj = step[2];
      switch (op) {
        case "add":
          for (let k = 0; k < n; k++, i += di, j += dj) out[o + k] = x[i] + y[j];
          break;
        case "subtract":
          for (let k = 0; k < n; k++, i += di, j += dj) out[o + k] = x[i] - y[j];
          break;
        case "multiply":
          for (let k = 0; k < n; k++, i += di, j += dj) out[o + k] = x[i] * y[j];
          break;
        case "divide":
          for (let k = 0; k < n; k++, i += di, j += dj) out[o + k] = x[i] / y[j];
          break;
        default:
          for (let k = 0; k < n; k++, i += di, j += dj) out[o + k] = f(x[i], y[j]);
      }
    },
  );
  return out;
}

/* Strides with which the result of a reduction is written while the operand is read. */
function reducedStrides(shape, axes) {
  const kept = shape.map((n, axis) => (axes.includes(axis) ? 1 : n)),
    own = stridesOf(kept);
  return own.map((s, axis) => (axes.includes(axis) ? 0 : s));
}

function reduce(op, a, axes, size) {
  const out = new Float64Array(size),
    x = a.data,
    largest = op === "max" ? 1 : op === "min" ? -1 : 0;
  if (largest) out.fill(-largest * Infinity);
  walk(a.shape, [stridesOf(a.shape), reducedStrides(a.shape, axes)], [0, 0], (n, at, step) => {
    let i = at[0],
      o = at[1];
    const di = step[0],
      d = step[1];
    if (largest) {
      for (let k = 0; k < n; k++, i += di, o += d) if (x[i] * largest > out[o] * largest) out[o] = x[i];
    } else if (d === 0) {
      let sum = 0;
      for (let k = 0; k < n; k++, i += di) sum += x[i];
      out[o] += sum;
    } else {
      for (let k = 0; k < n; k++, i += di, o += d) out[o] += x[i];
    }
  });
  if (op === "mean") {
    const n = a.data.length / size;
    for (let k = 0; k < size; k++) out[k] /= n;
  }
  return out;
}

function matmul(a, b, shape) {
  const out = new Float64Array(sizeOf(shape)),
    [m, n] = shape.slice(-2),
    depth = a.shape[a.shape.length - 1];
  const batch = shape.slice(0, -2),
    x = a.data,
    y = b.data;
  const strides = [a, b].map(t =>
    broadcastStrides(t.shape.slice(0, -2), batch).map(s => s * sizeOf(t.shape.slice(-2))),
  );
  walk(batch, [stridesOf(batch).map(s => s * m * n), ...strides], [0, 0, 0], (count, at, step) => {
    for (let c = 0; c < count; c++) {
      const o = at[0] + c * step[0],
        i = at[1] + c * step[1],
        j = at[2] + c * step[2];
      for (let row = 0; row < m; row++) {
        const to = o + row * n,
          from = i + row * depth;
        let k = 0;
        for (; k + 3 < depth; k += 4) {
          const f0 = x[from + k],
            f1 = x[from + k + 1],
            f2 = x[from + k + 2],
            f3 = x[from + k + 3];
          const j0 = j + k * n,
            j1 = j0 + n,
            j2 = j1 + n,
            j3 = j2 + n;
          for (let q = 0; q < n; q++)
            out[to + q] += f0 * y[j0 + q] + f1 * y[j1 + q] + f2 * y[j2 + q] + f3 * y[j3 + q];
        }
        for (; k < depth; k++) {
          const f = x[from + k],
            j0 = j + k * n;
          for (let q = 0; q < n; q++) out[to + q] += f * y[j0 + q];
        }
      }
    }
  });
  return out;
}

/* The error function, by the two Chebyshev series of ops/erf.py, whose coefficients come with the recording. */
function chebyshev(x, c) {
  let c0 = c[c.length - 2],
    c1 = c[c.length - 1];
  for (let i = 3; i <= c.length; i++) [c0, c1] = [c[c.length - i] - c1, c0 + c1 * 2 * x];
  return c0 + c1 * x;
}
function errorFunction(x, series) {
  const a = Math.abs(x);
  if (a < 2) return x * chebyshev((x * x) / 2 - 1, series.small);
  const t = Math.min(a, 6);
  return Math.sign(x) * (1 - (Math.exp(-t * t) / t) * chebyshev(6 / t - 2, series.tail));
}
