"use strict";
/* Builds the page when everything is computed: header, panels, keyboard, addresses, colours. */

const KEYS = [
  ["← →", "previous, next step"],
  ["Shift ← →", "previous, next op"],
  ["b", "the step on the other side: forward ↔ backward"],
  ["Enter", "choose a cell of the map; arrow keys then move it"],
  ["Backspace", "back along the operands"],
  ["Escape", "let go of the cell, close the tour"],
  ["t", "tour"],
  ["d", "dark or light"],
  ["?", "this help"],
];

function header() {
  const {about} = app.program;
  return h(
    "header",
    {class: "top"},
    h("div", {class: "brand"}, "numpyvit ", h("span", {}, "explorer")),
    h(
      "div",
      {class: "about"},
      h("b", {id: "model-name"}, about.model),
      ` · ${about.family}, ${count(about.parameters)} parameters · `,
      h("b", {id: "image-name"}, about.image),
      ` · predicted `,
      h("b", {id: "predicted"}),
      h("span", {id: "label-text"}),
    ),
    h(
      "div",
      {class: "tools"},
      h("button", {id: "tour-button", onclick: () => showTour(0)}, "Tour"),
      h("button", {onclick: () => $("help").showModal(), title: "keys (?)"}, "Keys"),
      h("button", {onclick: switchTheme, title: "dark or light (d)"}, "Dark / light"),
    ),
  );
}

/* The part of the header that a change can change. */
function drawHeader() {
  const {classes} = app.program.about;
  $("predicted").textContent = classes[predictedNow()];
  $("label-text").textContent = asksForPrediction()
    ? " · no label was given: the loss asks for the prediction"
    : ` · the loss asks for ${classes[askedNow()]}`;
}

function proof() {
  const {check} = app,
    {about} = app.program,
    ok = check.failed.length === 0;
  const embedded = app.steps.filter(s => app.engine.nodes[s.node].op === "embedded").length;
  return h(
    "div",
    {class: "proof", id: "proof", role: "status"},
    h("span", {class: ok ? "ok" : "bad"}, ok ? "✓" : "✗"),
    h(
      "span",
      {},
      h("b", {}, `${count(check.numbers)} numbers`),
      ` in ${count(check.tensors)} arrays were computed again in this page, in float64; `,
      ok
        ? h("span", {}, "the largest difference from NumPy is ", h("b", {}, fmt(check.worst, 2)), ".")
        : h(
            "span",
            {class: "bad"},
            `${check.failed.length} of them do not agree with NumPy, the first is ${check.failed[0]}.`,
          ),
    ),
    about.bits < 24
      ? h(
          "span",
          {},
          `The weight matrices are rounded to steps of at most 1/${2 ** about.bits} of their root mean square, so ` +
            `that the file stays small: that moved a probability by at most ${percent(about.rounding)}.` +
            (about.update_left_out ? " The step of the optimiser has no room in it." : ""),
        )
      : about.update_left_out
        ? h("span", {}, "The step of the optimiser has no room in this file.")
        : null,
    about.state_bits && about.state_bits < 24 ? h("span", {id: "state-bits"}, stateBitsText()) : null,
    embedded ? h("span", {}, `${embedded} arrays are recorded values that the page cannot compute.`) : null,
    app.isChanged
      ? h(
          "span",
          {class: "bad", id: "changed"},
          "You have changed something: the numbers below are those after your change. ",
          h("button", {class: "quiet", onclick: resetAll}, "undo all"),
        )
      : null,
  );
}

function switchTheme() {
  const root = document.documentElement,
    next = root.dataset.theme === "dark" ? "light" : "dark";
  root.dataset.theme = next;
  try {
    localStorage.setItem("numpyvit-theme", next);
  } catch {
    /* a browser that keeps nothing for files */
  }
  app.draw();
}

function chooseTheme() {
  let kept = null;
  try {
    kept = localStorage.getItem("numpyvit-theme");
  } catch {
    /* as above */
  }
  document.documentElement.dataset.theme =
    kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function onKey(event) {
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) ||
    $("help").open
  )
    return;
  const pressed = {
    ArrowLeft: () => (event.shiftKey ? app.select(nextOp(-1)) : step(-1)),
    ArrowRight: () => (event.shiftKey ? app.select(nextOp(1)) : step(1)),
    b: () => {
      const twin = twinStep(app.step());
      if (twin) app.select(twin.step.number);
    },
    t: () => showTour(0),
    d: switchTheme,
    "?": () => $("help").showModal(),
    Backspace: goBack,
    Escape: () => (tour.at >= 0 ? showTour(-1) : app.cell !== null ? app.select(app.at) : null),
    Enter: () => {
      if (event.target.closest("button, a, summary")) return false;
      chooseCell();
    },
  };
  const action = pressed[event.key];
  if (action && action() !== false) event.preventDefault();
}
function step(by) {
  const next = nextNumber(by);
  if (next !== undefined) app.select(next);
}
function chooseCell() {
  if (app.cell === null) {
    const data = app.data(app.step());
    let best = 0;
    data.forEach((x, k) => {
      if (Number.isFinite(x) && Math.abs(x) > Math.abs(data[best] - data[best] === 0 ? data[best] : 0)) best = k;
    });
    app.select(app.at, best);
  }
  $("map")?.focus();
}

function start() {
  chooseTheme();
  app.columns = buildColumns();
  buildOrder();
  const {about, named} = app.program;
  document.title = `${about.image} – ${about.model} – numpyvit explorer`;
  const root = $("app");
  root.replaceChildren(
    header(),
    h("div", {id: "proof-place"}),
    h("nav", {id: "strip", "aria-label": "the whole pass"}),
    h(
      "main",
      {},
      h("nav", {id: "steps", "aria-label": "steps of this module"}),
      h("article", {id: "step"}),
      h(
        "aside",
        {id: "side"},
        h("section", {id: "photo-panel", "aria-label": "the image"}),
        h("section", {id: "cell", "aria-label": "one number"}),
      ),
    ),
    h("div", {id: "tour", hidden: true, role: "dialog", "aria-label": "tour"}),
    h("div", {id: "live", class: "visually-hidden", "aria-live": "polite"}),
    h(
      "dialog",
      {id: "help"},
      h("h2", {}, "Keys"),
      h(
        "table",
        {},
        KEYS.map(([key, what]) =>
          h(
            "tr",
            {},
            h(
              "td",
              {},
              key.split(" ").map(k => [h("kbd", {}, k), " "]),
            ),
            h("td", {}, what),
          ),
        ),
      ),
      h("p", {class: "note"}, "Every step and every number has an address of its own: copy it from the address bar."),
      h("form", {method: "dialog"}, h("button", {}, "close")),
    ),
  );
  const drawProof = () => $("proof-place").replaceChildren(proof());
  app.views = [drawHeader, drawProof, drawStrip, drawSteps, drawStep, drawCell, drawPhoto, drawTour];
  buildTour();
  $("loading").remove();
  root.hidden = false;
  const first = attentionBlocks()[0]?.step.number ?? app.stepOf.get(named.images).number;
  if (!app.goto(location.hash)) {
    app.at = first;
    app.draw();
    history.replaceState(null, "", encodeURI(app.address())); // where the browser's Back leads to
  }
  addEventListener("keydown", onKey);
  addEventListener("popstate", () => {
    const found = app.parse(location.hash);
    if (found && (found.at !== app.at || found.cell !== app.cell)) {
      app.at = found.at;
      app.cell = found.cell;
      app.trail = [];
      app.draw();
    }
  });
}
