"use strict";
/* The page as a whole: what is selected, the address of it, and window.numpyvit for scripts. */

/* A part of an address as text. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // somebody typed it
  }
}

const app = {
  program: null,
  engine: null,
  derivation: null,
  steps: [],
  stepOf: new Map(),
  byId: new Map(),
  check: null,
  at: 0, // number of the step that is shown
  cell: null, // flat position of the cell that is shown, or null
  trail: [], // addresses that led here by clicks on operands
  views: [], // functions that draw a part of the page
  sizes: new Map(), // root mean squares of steps
  changed: new Set(), // nodes whose values a visitor has changed
  get isChanged() {
    return this.changed.size + this.engine.edits.size > 0;
  },

  step() {
    return this.steps[this.at];
  },
  shape(step) {
    return this.engine.shape(step.node);
  },
  data(step) {
    return this.engine.get(step.node);
  },

  address(step = this.step(), cell = this.cell) {
    return `#${step.id}${cell === null ? "" : `[${unflatten(cell, this.shape(step)).join(",")}]`}`;
  },

  /* "#id" or "#id[0,2,5,9]" → {at, cell}, or null. */
  parse(hash) {
    const [, id, index] = decoded(hash.replace(/^#/, "")).match(/^(.*?)(?:\[([\d, ]*)\])?$/);
    const step = this.byId.get(id);
    if (!step) return null;
    const shape = this.shape(step);
    if (index === undefined) return {at: step.number, cell: null};
    const numbers = index.trim() === "" ? [] : index.split(",").map(Number);
    if (numbers.length !== shape.length || numbers.some((n, axis) => !(Number.isInteger(n) && n < shape[axis])))
      return {at: step.number, cell: null};
    return {at: step.number, cell: flatten(numbers, shape)};
  },

  goto(hash) {
    const found = this.parse(hash);
    if (!found) return false;
    this.select(found.at, found.cell);
    return true;
  },

  select(at, cell = null, {trail = []} = {}) {
    this.at = at;
    this.cell = cell !== null && cell < this.data(this.step()).length ? cell : null;
    this.trail = trail;
    const address = this.address();
    if (decoded(location.hash) !== address) history.pushState(null, "", encodeURI(address));
    this.draw();
  },

  draw() {
    const restore = keepFocus();
    for (const view of this.views) view();
    restore();
  },

  /* Values have changed: bring what depends on these nodes up to date, and draw. */
  async edited(nodes) {
    await this.engine.update(nodes);
    this.sizes = new Map();
    this.draw();
  },
};

async function boot() {
  const [program, bytes] = await Promise.all([inflate(bytesOf("program")), inflate(bytesOf("arrays"))]);
  app.program = JSON.parse(new TextDecoder().decode(program));
  const arrays = unpackArrays(app.program.arrays, bytes);
  app.engine = new Engine(app.program, arrays);
  app.steps = app.program.steps;
  app.steps.forEach((step, number) => {
    step.number = number;
    app.stepOf.set(step.node, step);
    app.byId.set(step.id, step);
  });
  app.derivation = new Derivation(app.engine, node => app.stepOf.has(node));
  const breathe = () => new Promise(go => setTimeout(go));
  await app.engine.run(async share => {
    document.getElementById("progress").value = share;
    await breathe();
  });
  app.check = compare(app.engine, app.steps, arrays.damaged);
  if (typeof start === "function") start();
  return app.check;
}

window.numpyvit = {
  ready: boot(),
  get check() {
    return app.check;
  },
  get steps() {
    return app.steps.map(({id, phase, module, op, name, node}) => ({
      id,
      phase,
      module,
      op,
      name,
      shape: app.engine.shape(node),
    }));
  },
  read(id) {
    return app.engine.get(app.byId.get(id).node).slice();
  },
  derive(id, index) {
    const step = app.byId.get(id),
      shape = app.shape(step);
    const flat = Array.isArray(index) ? flatten(index, shape) : index,
      found = app.derivation.terms(step.node, flat);
    return {
      sum: app.data(step)[flat],
      terms: found.terms.map(t => t.value),
      factors: found.terms.map(t =>
        t.factors.map(f => ({
          id: app.stepOf.get(f.node)?.id ?? null,
          flat: f.flat ?? null,
          value: f.value,
          inverse: !!f.inverse,
        })),
      ),
      set: !!found.set, // switched off: neither terms nor a copy
      copy: found.copy ? {id: app.stepOf.get(found.copy.node)?.id ?? null, flat: found.copy.flat} : null,
    };
  },
  goto(hash) {
    return app.goto(hash);
  },
  /* The loss if one cell of a step that is given from outside (a weight, a pixel) were larger by `delta`. */
  lossWith(id, flat, delta) {
    const {node} = app.byId.get(id),
      values = app.engine.get(node).slice();
    values[flat] += delta;
    return app.engine.suppose(node, values, app.program.named.loss)[0];
  },
};
