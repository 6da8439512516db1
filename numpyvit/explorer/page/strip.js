"use strict";
/* The whole pass as a strip: the modules from left to right, forward above, backward below. */

/* The part of the model that a step belongs to: a layer of a block, or a top-level module. */
function columnKey(step) {
  if (!step.module) return step.op.replace(/[._](forward|backward)(_pass)?$/, "");
  const block = step.module.match(/^.*?blocks\.\d+(\.\w+)?/);
  if (block) return block[0];
  const parts = step.module.split(".");
  return /^(layers|stages?\d*)$/.test(parts[0])
    ? parts.slice(0, /^\d+$/.test(parts[1] || "") ? 3 : 2).join(".")
    : parts[0];
}

function buildColumns() {
  const columns = new Map();
  for (const step of app.steps) {
    step.column = columnKey(step);
    if (isGiven(step)) continue;
    if (step.phase === "forward" && !columns.has(step.column))
      columns.set(step.column, {key: step.column, forward: [], backward: [], update: []});
    columns.get(step.column)?.[step.phase].push(step);
  }
  const list = [...columns.values()];
  for (const column of list) {
    const block = column.key.match(/^(.*?blocks\.\d+)(?:\.(\w+))?$/);
    column.group = block ? block[1] : "";
    column.label = block ? block[2] || "+" : column.key.replace(/^.*\./, "");
  }
  return list;
}

const rms = data => {
  let sum = 0;
  for (const x of data) if (x - x === 0) sum += x * x;
  return Math.sqrt(sum / Math.max(1, data.length));
};

/* Of a step; kept until something changes. */
function rmsOf(step) {
  if (!app.sizes.has(step)) app.sizes.set(step, rms(app.data(step)));
  return app.sizes.get(step);
}

/* The strip is built again when values or colours have changed; else only the mark moves. */
function drawStrip() {
  const look = document.documentElement.dataset.theme;
  if (app.strip?.sizes !== app.sizes || app.strip.look !== look) buildStrip();
  app.strip = {sizes: app.sizes, look};
  const {column, phase} = app.step(),
    given = isGiven(app.step());
  for (const cell of $("strip").querySelectorAll(".strip-cell")) {
    if (cell.dataset.column === column && cell.dataset.way === phase && !given)
      cell.setAttribute("aria-current", "step");
    else cell.removeAttribute("aria-current");
  }
  for (const label of $("strip").querySelectorAll(".strip-label")) {
    if (label.dataset.column === column) label.dataset.current = "yes";
    else delete label.dataset.current;
  }
  const box = $("strip").querySelector(".strip-scroll"),
    active = box.querySelector("[aria-current]");
  if (!active || box.scrollWidth <= box.clientWidth) return;
  if (active.offsetLeft < box.scrollLeft || active.offsetLeft + 20 > box.scrollLeft + box.clientWidth)
    box.scrollLeft = active.offsetLeft - box.clientWidth / 2;
}

function buildStrip() {
  const columns = app.columns;
  const norms = way => columns.map(c => (c[way].length ? rmsOf(c[way][c[way].length - 1]) : 0));
  const shade = values => {
    const logs = values.filter(v => v > 0).map(Math.log10),
      low = Math.min(...logs),
      high = Math.max(...logs);
    return values.map(v => (v > 0 ? 0.12 + (0.88 * (Math.log10(v) - low)) / (high - low || 1) : 0));
  };
  const [forward, backward] = [norms("forward"), norms("backward")],
    shades = {forward: shade(forward), backward: shade(backward)};
  const cells = (way, values) =>
    columns.map((c, k) => {
      const target = c[way][0];
      return h("button", {
        class: `strip-cell ${way}`,
        style: {"--shade": shades[way][k].toFixed(3)},
        disabled: !target,
        "data-column": c.key,
        "data-way": way,
        title:
          `${c.key}, ${way}: ${c[way].length} steps` +
          (values[k] ? `, root mean square of the result ${fmt(values[k], 3)}` : ""),
        "aria-label": `${c.key} ${way}`,
        onclick: () => app.select(target.number),
      });
    });
  const groups = [];
  columns.forEach((c, k) => {
    const last = groups[groups.length - 1];
    if (last && last.group === c.group && c.group) last.span++;
    else
      groups.push({
        group: c.group,
        label: c.group.replace(/^(?:layers\.|stage)(\d+)\.blocks\./, "block $1.").replace(/^blocks\./, "block "),
        start: k,
        span: 1,
      });
  });
  const strip = h(
    "div",
    {class: "strip-grid", style: {"--columns": columns.length}},
    groups.map(g =>
      h(
        "div",
        {
          class: "strip-group" + (g.group ? " named" : ""),
          title: g.group,
          style: {"grid-column": `${g.start + 1} / span ${g.span}`},
        },
        g.label,
      ),
    ),
    columns.map(c => h("div", {class: "strip-label", "data-column": c.key}, h("span", {}, c.label))),
    cells("forward", forward),
    cells("backward", backward),
  );
  const named = app.program.named,
    loss = app.engine.get(named.loss)[0];
  const photo = h("canvas", {class: "strip-photo", title: "the image"}),
    gradient = h("canvas", {class: "strip-photo", title: "gradient of the loss for every pixel"});
  paintPhoto(photo);
  paintPixelGradient(gradient);
  $("strip").replaceChildren(
    h(
      "div",
      {class: "strip-end"},
      h(
        "button",
        {class: "bare", onclick: () => app.select(app.stepOf.get(named.pixels).number), "aria-label": "the image"},
        photo,
      ),
      h(
        "button",
        {
          class: "bare",
          onclick: () => app.select(app.stepOf.get(named.dpixels).number),
          "aria-label": "its gradient",
        },
        gradient,
      ),
    ),
    h("div", {class: "strip-scroll"}, strip),
    h(
      "div",
      {class: "strip-end loss"},
      h("div", {class: "strip-way forward"}, "forward →"),
      h(
        "button",
        {class: "strip-loss", onclick: () => app.select(app.stepOf.get(named.loss).number)},
        "loss",
        h("b", {}, fmt(loss, 4)),
      ),
      h("div", {class: "strip-way backward"}, "← backward"),
    ),
  );
}

/* The steps of the module that is shown, in their order; its parameters after them. */
function drawSteps() {
  const here = app.step();
  if ($("steps").querySelector(".step-list")?.dataset.column !== here.column) buildSteps(here);
  const list = $("steps").querySelector(".step-list");
  list.querySelector("[aria-current]")?.removeAttribute("aria-current");
  const active = list.querySelector(`[data-step="${here.number}"]`);
  active.setAttribute("aria-current", "step");
  if (active.offsetTop < list.scrollTop || active.offsetTop > list.scrollTop + list.clientHeight - 30)
    list.scrollTop = active.offsetTop - list.clientHeight / 2;
}

function buildSteps(here) {
  const all = app.steps.filter(s => s.column === here.column);
  const row = s =>
    h(
      "li",
      {},
      h(
        "a",
        {
          href: encodeURI(app.address(s, null)),
          class: "step-row",
          "data-step": s.number,
          onclick: event => {
            event.preventDefault();
            app.select(s.number);
          },
        },
        h("span", {class: "step-name", title: s.name}, s.name),
        h("span", {class: "step-shape"}, app.shape(s).join("×") || "1"),
      ),
    );
  const section = (title, steps, kind) =>
    steps.length
      ? [
          h("h3", {class: kind}, title),
          groupByOp(steps).map(([op, list]) => [
            h("div", {class: "step-op", title: op}, op.replace(`${here.column}.`, "")),
            h("ul", {}, list.map(row)),
          ]),
        ]
      : [];
  const list = h(
    "div",
    {class: "step-list"},
    section(
      "forward",
      all.filter(s => s.phase === "forward" && !isGiven(s)),
      "forward",
    ),
    section(
      "backward",
      all.filter(s => s.phase === "backward"),
      "backward",
    ),
    section(
      "update",
      all.filter(s => s.phase === "update" && !isGiven(s)),
      "update",
    ),
    section("given", all.filter(isGiven), "given"),
  );
  list.dataset.column = here.column;
  $("steps").replaceChildren(h("h2", {}, here.column), list);
}

function groupByOp(steps) {
  const groups = [];
  for (const s of steps) {
    const op = isGiven(s) ? s.module || "model" : s.op,
      last = groups[groups.length - 1];
    if (last && last[0] === op) last[1].push(s);
    else groups.push([op, [s]]);
  }
  return groups;
}
