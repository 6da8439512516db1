"use strict";
/* Where a number comes from. derive() splits one cell of a node into terms that add up to it; every term is a
   product of factors, and every factor is a cell of a step (a link), a constant, or a function of cells. formula()
   writes the same line with the values put in. */

const LIMIT = 6000; // terms of one cell
const EXTREMES = ["max", "min", "maximum", "minimum"]; // each is equal to one of its operands' cells

class Derivation {
  constructor(engine, isStep) {
    this.engine = engine;
    this.isStep = isStep;
  }

  value(i, flat) {
    return this.engine.get(i)[flat];
  }

  /* Whether a cell is set to a number, because a head or a token is switched off. */
  isSet(i, flat) {
    return this.engine.edits.get(i)?.has(flat) ?? false;
  }

  /* The operand cell that a cell of a view, gather, put, concat or where is a copy of: [node, flat], or null. */
  source(i, flat) {
    const {op, args, attrs, shape} = this.engine.nodes[i];
    if (this.isSet(i, flat)) return null;
    if (op === "gather") return [args[0], this.engine.tables[attrs.table][flat]];
    if (op === "view") {
      const index = unflatten(flat, shape);
      return [args[0], index.reduce((at, n, axis) => at + n * attrs.strides[axis], attrs.offset)];
    }
    if (op === "put") {
      const position = this.inRegion(attrs, flat);
      if (position < 0) return [args[0], flat];
      const strides = broadcastStrides(this.engine.shape(args[1]), attrs.region),
        index = unflatten(position, attrs.region);
      return [args[1], index.reduce((at, n, axis) => at + n * strides[axis], 0)];
    }
    if (op === "concat") {
      const index = unflatten(flat, shape);
      for (const a of args) {
        const own = this.engine.shape(a);
        if (index[attrs.axis] < own[attrs.axis]) return [a, flatten(index, own)];
        index[attrs.axis] -= own[attrs.axis];
      }
    }
    if (op === "where") return this.operand(i, this.operandValue(i, 0, flat) ? 1 : 2, flat);
    if (op === "max" || op === "min") {
      const cells = this.reducedCells(i, flat),
        value = this.value(i, flat);
      return [args[0], cells.find(c => this.value(args[0], c) === value)];
    }
    if (op === "maximum" || op === "minimum") {
      const k = this.operandValue(i, 0, flat) === this.value(i, flat) ? 0 : 1;
      return this.operand(i, k, flat);
    }
    if (op === "positive") return [args[0], flat];
    return null;
  }

  /* Position of a cell in the region that a put writes, or −1. */
  inRegion(attrs, flat) {
    if (attrs.region.includes(0)) return -1;
    if (attrs.table !== undefined) return this.engine.tables[attrs.table].indexOf(flat);
    const axes = attrs.strides
      .map((s, axis) => [s, axis])
      .filter(([s]) => s > 0)
      .sort((a, b) => b[0] - a[0]);
    const index = new Array(attrs.region.length).fill(0);
    let rest = flat - attrs.offset;
    if (rest < 0) return -1;
    for (const [stride, axis] of axes) {
      index[axis] = Math.min(Math.floor(rest / stride), attrs.region[axis] - 1);
      rest -= index[axis] * stride;
    }
    return rest === 0 ? flatten(index, attrs.region) : -1;
  }

  /* The cell of operand k that meets a cell of a broadcasting primitive. */
  operand(i, k, flat) {
    const {args, shape} = this.engine.nodes[i],
      strides = broadcastStrides(this.engine.shape(args[k]), shape);
    return [args[k], unflatten(flat, shape).reduce((at, n, axis) => at + n * strides[axis], 0)];
  }
  operandValue(i, k, flat) {
    return this.value(...this.operand(i, k, flat));
  }

  /* The cells of the operand that a reduction brings together in one cell. */
  reducedCells(i, flat) {
    const {args, attrs} = this.engine.nodes[i],
      shape = this.engine.shape(args[0]);
    const kept = shape.map((n, axis) => (attrs.axes.includes(axis) ? 1 : n));
    const cells = [],
      free = shape.map((n, axis) => (attrs.axes.includes(axis) ? n : 1));
    const corner = unflatten(flat, kept),
      from = corner.reduce((at, n, axis) => at + n * stridesOf(shape)[axis], 0);
    walk(free, [stridesOf(shape)], [from], (n, at, step) => {
      for (let k = 0; k < n; k++) cells.push(at[0] + k * step[0]);
    });
    return cells;
  }

  /* Follow copies until a step (or a number that was computed) is reached. */
  follow(i, flat, first = true) {
    for (;;) {
      if (!first && this.isStep(i)) return [i, flat];
      const next = this.source(i, flat);
      if (!next || EXTREMES.includes(this.engine.nodes[i].op)) return [i, flat];
      [i, flat] = next;
      first = false;
    }
  }

  /* Terms of one cell: [{value, factors}], which add up to it. Empty where the cell is a copy, is given, or is set. */
  terms(i, flat) {
    const [node, at] = this.follow(i, flat);
    if (node !== i && this.isStep(node)) return {copy: {node, flat: at}, terms: []};
    if (this.isSet(node, at)) return {copy: null, terms: [], set: true};
    const {op} = this.engine.nodes[node];
    if (["leaf", "embedded", "const", "full"].includes(op))
      return {copy: node === i ? null : {node, flat: at}, terms: []};
    const terms = this.expand(node, at, 1, [], true).filter(t => t.value !== 0 || t.factors.some(f => !f.constant));
    return {copy: null, terms};
  }

  /* Add terms of scale · product of `factors` · (this cell). */
  expand(i, flat, scale, factors, top = false) {
    if (!top) [i, flat] = this.follow(i, flat, false);
    const {op, args, attrs} = this.engine.nodes[i],
      here = {node: i, flat, value: this.value(i, flat)};
    const single = () => [this.term(scale, [...factors, {...here, constant: op === "const" || op === "full"}])];
    if ((!top && this.isStep(i)) || this.isSet(i, flat)) return single();
    const pick = k => this.operand(i, k, flat),
      sums = (node, at) => this.isSum(node, at);
    if (op === "add") return [...this.expand(...pick(0), scale, factors), ...this.expand(...pick(1), scale, factors)];
    if (op === "subtract")
      return [...this.expand(...pick(0), scale, factors), ...this.expand(...pick(1), -scale, factors)];
    if (op === "negative") return this.expand(args[0], flat, -scale, factors);
    if (op === "multiply") {
      const [a, b] = [pick(0), pick(1)],
        many = [a, b].map(x => sums(...x));
      if (many[1] && !many[0]) return this.expand(...b, scale, [...factors, ...this.factors(...a)]);
      return this.expand(...a, scale, [...factors, ...this.factors(...b)]);
    }
    if (op === "divide") {
      const [node, at] = this.follow(...pick(1), false),
        value = this.value(node, at);
      const below = {node, flat: at, value, inverse: true, constant: this.engine.nodes[node].op === "const"};
      return this.expand(...pick(0), scale, [...factors, below]);
    }
    if (op === "matmul")
      return this.products(i, flat).map(([a, b]) =>
        this.term(scale, [...factors, ...this.factors(...a), ...this.factors(...b)]),
      );
    if (op === "sum" || op === "mean") {
      const cells = this.reducedCells(i, flat);
      const count = op === "mean" ? [{value: cells.length, inverse: true, constant: true, count: true}] : [];
      return this.limited(
        cells.flatMap(c => this.expand(args[0], c, scale, [...factors, ...count])),
        here,
        scale,
        factors,
      );
    }
    if (op === "bincount") {
      const table = this.engine.tables[attrs.table],
        terms = [];
      table.forEach((bin, k) => {
        if (bin === flat) terms.push(...this.expand(args[0], k, scale, factors));
      });
      return terms;
    }
    const equal = EXTREMES.includes(op) && this.source(i, flat);
    if (equal && equal[1] !== undefined) return this.expand(...equal, scale, factors); // undefined: the extreme is NaN
    if (top && (op in UNARY || op === "erf" || op === "power"))
      return [this.term(scale, [...factors, {...here, call: op}])];
    return single();
  }

  limited(terms, here, scale, factors) {
    return terms.length > LIMIT ? [this.term(scale, [...factors, here])] : terms;
  }

  isSum(i, flat) {
    [i, flat] = this.follow(i, flat, false);
    if (this.isStep(i) || this.isSet(i, flat)) return false;
    const {op, args} = this.engine.nodes[i];
    if (["add", "subtract", "sum", "mean", "matmul", "bincount"].includes(op)) return true;
    if (op === "negative") return this.isSum(args[0], flat);
    if (op === "multiply") return this.isSum(...this.operand(i, 0, flat)) || this.isSum(...this.operand(i, 1, flat));
    if (op === "divide") return this.isSum(...this.operand(i, 0, flat));
    return false;
  }

  /* A cell as a product, as far as it is one. */
  factors(i, flat) {
    [i, flat] = this.follow(i, flat, false);
    const {op} = this.engine.nodes[i];
    if (!this.isStep(i) && !this.isSet(i, flat) && op === "multiply")
      return [...this.factors(...this.operand(i, 0, flat)), ...this.factors(...this.operand(i, 1, flat))];
    return [{node: i, flat, value: this.value(i, flat), constant: op === "const" || op === "full"}];
  }

  /* The pairs of cells that one cell of a matrix product multiplies. */
  products(i, flat) {
    const {args, shape} = this.engine.nodes[i],
      index = unflatten(flat, shape),
      [a, b] = args.map(n => this.engine.shape(n));
    const depth = a[a.length - 1],
      batch = shape.slice(0, -2),
      lead = index.slice(0, -2),
      [row, column] = index.slice(-2);
    const start = s =>
      broadcastStrides(s.slice(0, -2), batch).reduce((at, stride, axis) => at + stride * lead[axis], 0) *
      sizeOf(s.slice(-2));
    const [pa, pb] = [start(a) + row * depth, start(b) + column],
      pairs = [];
    for (let k = 0; k < depth; k++)
      pairs.push([
        [args[0], pa + k],
        [args[1], pb + k * b[b.length - 1]],
      ]);
    return pairs;
  }

  term(scale, factors) {
    const value = factors.reduce((product, f) => (f.inverse ? product / f.value : product * f.value), scale);
    return {value, sign: scale, factors};
  }

  /* The line with values: a tree of {text, value, node, flat, children, op}, steps and constants at its leaves. */
  formula(i, flat, top = true, depth = 0) {
    if (!top) [i, flat] = this.follow(i, flat, false);
    else {
      const [node, at] = this.follow(i, flat);
      if (node !== i && (this.isStep(node) || this.engine.nodes[node].op === "leaf"))
        return {op: "copy", children: [this.leaf(node, at)], value: this.value(i, flat)};
      [i, flat] = [node, at];
    }
    const {op, args, attrs} = this.engine.nodes[i],
      value = this.value(i, flat);
    const given = ["leaf", "const", "full", "embedded"].includes(op) || this.isSet(i, flat);
    if ((!top && this.isStep(i)) || given || depth > 24) return this.leaf(i, flat, top);
    const inner = ([node, at]) => this.formula(node, at, false, depth + 1);
    if (op === "matmul")
      return {op, value, count: this.products(i, flat).length, children: this.products(i, flat)[0].map(inner)};
    if (["sum", "mean", "max", "min"].includes(op)) {
      const cells = this.reducedCells(i, flat),
        shown = op === "max" || op === "min" ? (this.source(i, flat)[1] ?? cells[0]) : cells[0];
      return {op, value, count: cells.length, children: [inner([args[0], shown])]};
    }
    if (op === "bincount") {
      const cells = [...this.engine.tables[attrs.table].keys()].filter(
        k => this.engine.tables[attrs.table][k] === flat,
      );
      return {op: "sum", value, count: cells.length, children: cells.length ? [inner([args[0], cells[0]])] : []};
    }
    return {op, value, children: args.map((_, k) => inner(this.operand(i, k, flat)))};
  }

  leaf(i, flat, top = false) {
    const {op} = this.engine.nodes[i];
    return {
      op: op === "const" || op === "full" || (top && this.isSet(i, flat)) ? "const" : "cell",
      node: i,
      flat,
      value: this.value(i, flat),
      children: [],
    };
  }
}
