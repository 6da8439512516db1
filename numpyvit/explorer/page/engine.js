"use strict";
/* The engine: evaluates the recorded program in float64.

   A program is a list of nodes in the order of their computation. Every node has a primitive, operands, attributes
   and a shape; every value is a Float64Array in C order. The primitives are NumPy's, broadcasting included. Nodes
   that have a name (steps) keep their values; the values of the others are dropped after their last use and computed
   again on demand. */

class Engine {
  /* program: program_of() in pack.py.   arrays: {leaves: Map of node → Float64Array, tables: [Int32Array, …]} */
  constructor(program, arrays) {
    this.program = program;
    this.tables = arrays.tables;
    this.nodes = program.nodes.map(([op, args, attrs, shape, call, line]) => ({
      op: program.ops[op],
      args,
      attrs: attrs || {},
      shape: program.shapes[shape],
      call,
      line,
    }));
    const n = this.nodes.length;
    this.kept = new Uint8Array(n);
    for (const step of program.steps) this.kept[step.node] = 1;
    this.values = new Array(n).fill(null);
    this.leaves = arrays.leaves;
    this.edits = new Map(); // node → Map of cell → the number that it is set to: a head or a token is switched off
    this.nodes.forEach((node, i) => {
      if (["leaf", "embedded", "const", "full"].includes(node.op)) {
        this.kept[i] = 1;
        this.values[i] = this.evaluate(i, null);
      }
    });
    this.spare = new Map();
  }

  shape(i) {
    return this.nodes[i].shape;
  }

  /* The values of a node; `read` gives those of its operands. */
  evaluate(i, read) {
    const {op, args, attrs, shape} = this.nodes[i],
      size = sizeOf(shape);
    const tensor = k => ({data: read(args[k]), shape: this.nodes[args[k]].shape});
    switch (op) {
      case "leaf":
      case "embedded":
        return this.leaves.get(i);
      case "const":
        return Float64Array.of(attrs.value);
      case "full":
        return new Float64Array(size).fill(attrs.value);
      case "view":
        return this.view(read(args[0]), attrs, shape);
      case "gather": {
        const x = read(args[0]),
          table = this.tables[attrs.table],
          out = new Float64Array(size);
        for (let k = 0; k < size; k++) out[k] = x[table[k]];
        return out;
      }
      case "put": {
        const out = read(args[0]).slice(),
          value = tensor(1),
          region = attrs.region;
        const from = broadcastStrides(value.shape, region),
          table = attrs.table === undefined ? null : this.tables[attrs.table];
        walk(
          region,
          [table ? stridesOf(region) : attrs.strides, from],
          [table ? 0 : attrs.offset, 0],
          (n, at, step) => {
            for (let k = 0, o = at[0], j = at[1]; k < n; k++, o += step[0], j += step[1])
              out[table ? table[o] : o] = value.data[j];
          },
        );
        return out;
      }
      case "sum":
      case "mean":
      case "max":
      case "min":
        return reduce(op, tensor(0), attrs.axes, size);
      case "matmul":
        return matmul(tensor(0), tensor(1), shape);
      case "concat": {
        const out = new Float64Array(size),
          strides = stridesOf(shape);
        let start = 0;
        args.forEach((_, k) => {
          const t = tensor(k);
          walk(t.shape, [strides, stridesOf(t.shape)], [start * strides[attrs.axis], 0], (n, at, step) => {
            for (let c = 0, o = at[0], j = at[1]; c < n; c++, o += step[0], j += step[1]) out[o] = t.data[j];
          });
          start += t.shape[attrs.axis];
        });
        return out;
      }
      case "where": {
        const [c, a, b] = [0, 1, 2].map(k => broadcast(tensor(k), shape));
        return a.map((x, k) => (c[k] ? x : b[k]));
      }
      case "bincount": {
        const out = new Float64Array(size),
          table = this.tables[attrs.table],
          x = read(args[0]);
        for (let k = 0; k < x.length; k++) out[table[k]] += x[k];
        return out;
      }
      case "erf": {
        const series = this.program.erf;
        return read(args[0]).map(x => errorFunction(x, series));
      }
    }
    if (op in UNARY) return read(args[0]).map(UNARY[op]);
    if (op in BINARY) return binary(op, tensor(0), tensor(1), shape);
    throw new Error(`the engine has no primitive called ${op}`);
  }

  view(x, attrs, shape) {
    const size = sizeOf(shape),
      own = stridesOf(shape);
    if (shape.every((n, axis) => n === 1 || attrs.strides[axis] === own[axis]))
      return x.subarray(attrs.offset, attrs.offset + size);
    const out = new Float64Array(size);
    walk(shape, [own, attrs.strides], [0, attrs.offset], (n, at, step) => {
      const d = step[1];
      for (let k = 0, o = at[0], j = at[1]; k < n; k++, j += d) out[o + k] = x[j];
    });
    return out;
  }

  fresh(i, read) {
    const edit = this.edits.get(i);
    if (!edit) return this.evaluate(i, read);
    const value = this.evaluate(i, read).slice();
    edit.forEach((x, flat) => {
      value[flat] = x;
    });
    return value;
  }

  /* The values of any node; those that were dropped are computed again. */
  get(i) {
    if (this.values[i]) return this.values[i];
    if (!this.spare.has(i)) {
      if (this.spare.size > 200) this.spare.clear();
      const stack = [i];
      while (stack.length) {
        const top = stack[stack.length - 1];
        const missing = this.nodes[top].args.filter(a => !this.values[a] && !this.spare.has(a));
        if (missing.length) {
          stack.push(...missing);
          continue;
        }
        stack.pop();
        this.spare.set(
          top,
          this.fresh(top, a => this.values[a] || this.spare.get(a)),
        );
      }
    }
    return this.spare.get(i);
  }

  /* Compute the nodes for which `needed` is set, in order; pause() is awaited now and then so that the page stays
     alive. */
  async compute(needed, pause) {
    const read = a => this.values[a] || this.get(a);
    this.spare.clear();
    let started = performance.now();
    const last = new Map();
    this.nodes.forEach((node, i) => {
      if (needed[i]) node.args.forEach(a => last.set(a, i));
    });
    const dropAfter = new Map();
    last.forEach((i, a) => {
      if (!this.kept[a]) dropAfter.set(i, [...(dropAfter.get(i) || []), a]);
    });
    for (let i = 0; i < this.nodes.length; i++) {
      if (!needed[i] || this.nodes[i].op === "const") continue;
      this.values[i] = this.fresh(i, read);
      for (const a of dropAfter.get(i) || []) this.values[a] = null;
      if (pause && performance.now() - started > 40) {
        await pause(i / this.nodes.length);
        started = performance.now();
      }
    }
    this.nodes.forEach((_, i) => {
      if (!this.kept[i]) this.values[i] = null;
    });
    this.spare.clear();
  }

  run(pause) {
    return this.compute(new Uint8Array(this.nodes.length).fill(1), pause);
  }

  /* Which nodes depend on one of these. */
  affected(sources) {
    const hit = new Uint8Array(this.nodes.length);
    for (const i of sources) hit[i] = 1;
    this.nodes.forEach((node, i) => {
      if (!hit[i] && node.args.some(a => hit[a])) hit[i] = 1;
    });
    return hit;
  }

  /* After a change of these nodes (a leaf's values, an edit): bring everything that depends on them up to date. */
  update(sources, pause) {
    return this.compute(this.affected(sources), pause);
  }

  /* Which nodes are needed for one. */
  ancestors(target) {
    const hit = new Uint8Array(this.nodes.length);
    hit[target] = 1;
    for (let i = target; i >= 0; i--)
      if (hit[i])
        this.nodes[i].args.forEach(a => {
          hit[a] = 1;
        });
    return hit;
  }

  /* The values of `target` if the values of one node were others; nothing is changed. */
  suppose(node, values, target) {
    const hit = this.affected([node]),
      wanted = this.ancestors(target),
      now = new Map([[node, values]]);
    const read = a => now.get(a) || this.get(a);
    for (let i = node + 1; i <= target; i++) if (hit[i] && wanted[i]) now.set(i, this.fresh(i, read));
    return now.get(target) || this.get(target);
  }
}
