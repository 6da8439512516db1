"use strict";
/* A tour of some twelve stops, with this image's own numbers. */

const tour = {at: -1, stops: []};

function buildTour() {
  const {about, named, parameters} = app.program,
    blocks = attentionBlocks(),
    step = node => app.stepOf.get(node),
    stops = [];
  const find = (test, from = "forward") => app.steps.find(s => s.phase === from && test(s));
  const add = (title, target, text, more = {}) => {
    if (target) stops.push({title, target, text, ...more});
  };
  const loss = () => app.engine.get(named.loss)[0],
    largest = data => data.reduce((best, x, k) => (Math.abs(x) > Math.abs(data[best]) ? k : best), 0);
  const first = blocks[0],
    last = blocks[blocks.length - 1],
    g = first && geometryOf(first.module);
  const of = (block, op, name, way = "forward") =>
    block &&
    app.steps.find(s => s.module === block.module && s.phase === way && s.op.startsWith(op) && s.name === name);

  add(
    "The image",
    step(named.pixels),
    () =>
      `${about.image}: ${shapeText(app.engine.shape(named.pixels))} numbers from 0 to 255. The model says ` +
      `“${about.classes[about.predicted]}”. Every number on this page was computed here, again, from these ` +
      `pixels and ${count(about.parameters)} weights.`,
    {mode: "paint"},
  );
  const embed = app.steps.find(s => /patch_embed_forward|conv2d_forward/.test(s.op) && s.name === "y");
  add(
    about.family === "CvT" ? "Overlapping patches become tokens" : "Patches become tokens",
    embed,
    () =>
      `A convolution looks at ${about.family === "CvT" ? "overlapping windows" : "patches that do not overlap"} ` +
      `and turns each into ${app.shape(embed).at(-1)} channels. Click a cell of the map: the panel shows the ` +
      `products of pixels and weights that add up to it.`,
    {mode: "patches", cell: () => largest(app.data(embed))},
  );
  if (about.family === "ViT")
    add(
      "Where a patch stands",
      find(s => s.name === "x" && /embed/.test(s.op) && operandsOf(s).some(o => /pos/.test(o.name))),
      () =>
        "Attention does not know where a patch is. So a table with one row a position is added to the tokens: " +
        "without it, a shuffled image would give the same answer.",
      {mode: "patches"},
    );
  add(
    "Layer norm",
    find(s => s.op === "layer_norm_forward" && s.name === "y"),
    () =>
      "Each token is shifted and scaled so that its channels have mean 0 and variance 1, then multiplied by a " +
      "learned weight. The lit line is the definition that ran.",
  );
  add(
    "Queries meet keys",
    of(first, "attention_forward", "scores"),
    () =>
      `One number for every pair of a query and a key: their dot product over ` +
      `${Math.round((about.config.embed_dim || about.config.embed_dims[0]) / first.shape[1])} channels, ` +
      `scaled. This block has ${first.shape[1]} heads and ${first.shape[3]} keys a query.`,
    {mode: "attention", cell: s => largest(app.data(s).map(x => (Number.isFinite(x) ? x : 0)))},
  );
  add(
    "Where a query looks",
    first?.step,
    () =>
      "Softmax turns each row of scores into shares that add up to one. On the image: the yellow tokens are " +
      "what the red token looks at. Point at other tokens.",
    {mode: "attention"},
  );
  if (g?.window) {
    const shifted = blocks.find(b => geometryOf(b.module).window.shift);
    add(
      "Windows, and why they shift",
      shifted?.step,
      () =>
        `Tokens attend only inside windows of ${g.window.M} × ${g.window.M}. Every second block moves the ` +
        `windows by ${geometryOf(shifted.module).window.shift}, so that neighbours on both sides of a border ` +
        `meet. Press “roll the map” under the image: tokens that came round the edge share a window with ` +
        `strangers, and the mask keeps them apart (hatched).`,
      {mode: "attention", block: shifted, query: [geometryOf(shifted?.module ?? first.module).H - 1, 1]},
    );
  }
  if (about.family === "CvT")
    add(
      "Fewer keys than queries",
      of(first, "attention_forward", "k") || first?.step,
      () =>
        `Keys and values come from a convolution with stride ${about.config.kv_stride}: ${g.H * g.W} queries ` +
        `meet ${g.keys.H * g.keys.W} keys. The dots on the image are the places of the keys.`,
      {mode: "attention"},
    );
  add(
    "Values are mixed",
    of(first, "attention_forward", "y"),
    () => "Each query takes the mean of the values, weighted by its shares. The terms in the panel are share × value.",
    {cell: s => largest(app.data(s))},
  );
  add(
    "Logits",
    step(named.logits),
    () => `After ${blocks.length} blocks, one number a class. The largest is “${about.classes[about.predicted]}”.`,
    {cell: s => about.predicted},
  );
  add(
    "The loss",
    step(named.loss),
    () =>
      `The cross-entropy of “${about.classes[about.label]}”` +
      (about.label_given ? "" : ", the prediction itself, as no label was given") +
      `: ${fmt(loss(), 5)}. Here the pass turns round.`,
    {cell: () => 0},
  );
  add(
    "The first gradient",
    step(named.dlogits),
    () =>
      "Backward starts here: probability minus target. What the model gave too much to is pushed down, the " +
      "asked class is pulled up.",
    {cell: () => about.label},
  );
  add(
    "Back through softmax",
    of(last, "softmax_backward", "dscores", "backward") || of(last, "attention_backward", "dscores", "backward"),
    () =>
      "The gradient of the scores: each share times the gradient, less the row’s mean. Forward is on the left, " +
      "backward on the right, line against line.",
  );
  const row = parameters.find(r => /attn\.(qkv|proj_q)\.weight$/.test(r[0])) || parameters[0];
  add(
    "A weight’s gradient",
    step(row[2]),
    () =>
      "Every token adds one product to it. Click a factor and go on clicking: from this number you come to the loss.",
    {cell: s => largest(app.data(s))},
  );
  add(
    "Is it true?",
    step(row[1]),
    () =>
      "Drag this weight in the panel: the loss follows the curve, and the tangent with the gradient’s slope " +
      "touches it.",
    {cell: () => largest(app.engine.get(row[2]))},
  );
  add(
    "Where the gradient lands",
    step(named.dpixels),
    () => "At the end, every pixel knows how it would change the loss. That was the whole pass.",
    {mode: "gradient"},
  );
  tour.stops = stops;
}

function showTour(at) {
  if (at >= tour.stops.length) at = -1;
  tour.at = at;
  $("tour").hidden = at < 0;
  if (at < 0) return $("tour-button")?.focus();
  const stop = tour.stops[at];
  if (stop.mode) photo.mode = stop.mode;
  photo.follow = !stop.block;
  photo.rolled = 0;
  if (stop.block) photo.block = stop.block;
  if (stop.query) photo.query = stop.query;
  app.select(stop.target.number, stop.cell ? stop.cell(stop.target) : null);
  $("tour").replaceChildren(
    h("h2", {}, stop.title),
    h("p", {}, stop.text()),
    h(
      "footer",
      {},
      h("span", {}, `${at + 1} of ${tour.stops.length}`),
      h("button", {onclick: () => showTour(-1)}, "end"),
      h("button", {disabled: at === 0, onclick: () => showTour(at - 1)}, "back"),
      h("button", {id: "tour-next", onclick: () => showTour(at + 1)}, at + 1 < tour.stops.length ? "next" : "done"),
    ),
  );
  if (narrow()) $(stop.mode ? "photo-panel" : stop.cell ? "cell" : "step").scrollIntoView();
  $("tour-next").focus({preventScroll: true});
  $("live").textContent = `${stop.title}. ${stop.text()}`;
}
