"use strict";
/* A tour of some fifteen stops, with this image's own numbers. show: what a stop is about, on the page. */

const tour = {at: -1, stops: []};

const counted = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
const largestOf = data => data.reduce((best, x, k) => (Math.abs(x) > Math.abs(data[best]) ? k : best), 0);

/* The stops from pixels to tokens: the first convolution of a stem, if there is one, and the step that makes tokens. */
function embeddingStops() {
  const {config, family} = app.program.about,
    cvt = family === "CvT",
    convolutions = config.stem_widths.length,
    channels = step => counted(app.shape(step).at(-1), "channel"),
    cell = step => largestOf(app.data(step)),
    click = (what, more = "") =>
      `Click a cell of the map: the panel shows the products of ${what} and weights${more} that add up to it.`;
  const made = (op, module) =>
    app.steps.find(s => s.phase === "forward" && s.name === "y" && s.op === op && s.module === module);
  const embed = cvt
      ? made("conv2d_forward", "stage0.patch_embed.proj")
      : made(convolutions ? "linear_forward" : "patch_embed_forward", "patch_embed"),
    overlap = cvt && config.patch_sizes[0] > config.patch_strides[0],
    patches = overlap ? "windows that overlap" : "patches that do not overlap",
    mode = "patches";
  if (!convolutions)
    return [
      {
        title: overlap ? "Overlapping patches become tokens" : "Patches become tokens",
        target: embed,
        text: () =>
          `A convolution looks at ${patches} and turns each into ${channels(embed)}. ` +
          click("normalised pixels", cvt ? "" : ", and the bias,"),
        mode,
        cell,
        show: "#map",
      },
    ];
  const first = made("conv2d_forward", `${cvt ? "" : "patch_embed."}stem.0.conv`),
    others = convolutions - 1;
  return [
    {
      title: "A stem of convolutions",
      target: first,
      text: () =>
        `A 3 × 3 convolution looks at windows that ${config.stem_strides[0] < 3 ? "overlap" : "do not overlap"} and ` +
        `turns each into ${channels(first)}. ` +
        (others ? `${counted(others, "convolution")} of the same kind ${others > 1 ? "follow" : "follows"}. ` : "") +
        (config.stem_pools.some(n => n > 1) ? "Max-pooling makes the map smaller. " : "") +
        `No cell of this map is a token yet. ${click("normalised pixels")}`,
      cell,
      show: "#map",
    },
    {
      title: "The stem’s map becomes tokens",
      target: embed,
      text: () =>
        (cvt
          ? `Behind the stem, a convolution looks at ${patches} of the stem’s last map and turns each`
          : "The stem’s last map has one cell for each token: a 1 × 1 convolution turns each cell") +
        ` into ${channels(embed)}. ${click("the stem’s numbers")}`,
      mode,
      cell,
      show: "#map",
    },
  ];
}

/* What CvT's keys and values come from, where they are fewer than the queries. */
function fewerKeys(g) {
  const {qkv_method, qkv_kernel, kv_stride} = app.program.about.config,
    windows = `windows of ${qkv_kernel} × ${qkv_kernel} tokens, with stride ${kv_stride}`;
  return (
    (qkv_method === "avg"
      ? `Keys and values are made from means over ${windows}: `
      : `Keys and values come from convolutions over ${windows}: `) +
    `${g.H * g.W} queries meet ${counted(g.keys.H * g.keys.W, "key")}` +
    (g.prefix ? ", and the class token is one more of both. " : ". ") +
    "The dots on the image are the places of the keys."
  );
}

/* A token of a block with shifted windows that the mask keeps apart from others, as near to the bottom as there is. */
function nearTheEdge(block) {
  const g = geometryOf(block.module);
  for (let row = g.H - 1; row >= 0; row--)
    for (const column of [1, 0, g.W - 1]) {
      if (attentionOf(block, g, -1, [row, column]).masked.size) return [row, column];
    }
  return null;
}

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
    largest = step => largestOf(app.data(step));
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
      `“${about.classes[predictedNow()]}”. Every number on this page was computed here, again, from these ` +
      `pixels and ${count(about.parameters)} weights` +
      (app.steps.some(s => s.op === "buffer") ? ", with the running statistics of batch norm." : "."),
    {mode: "paint"},
  );
  for (const {title, target, text, ...more} of embeddingStops()) add(title, target, text, more);
  const turned =
    first && find(s => s.module === first.module && /^(rotary|turn)/.test(s.op) && s.name === "turned");
  if (about.family === "ViT")
    add(
      "Where a token stands",
      find(s => s.name === "x" && /embed/.test(s.op) && operandsOf(s).some(o => /pos/.test(o.name))),
      () =>
        turned
          ? "A table with one row for each position is added to the tokens, so that each of them says where it is."
          : "Attention does not know where a token is. So a table with one row for each position is added to the " +
            "tokens: without it, the blocks would give the same answer if these tokens came in another order.",
      {mode: "patches"},
    );
  const norm = find(s => s.op === "layer_norm_forward" && s.name === "y"),
    scores = of(first, "attention_forward", "scores"),
    normLast = norm && scores && norm.number > scores.number; // norm_order "post"
  const addNorm = () =>
    add(
      "Layer norm",
      norm,
      () =>
        (normLast ? "In this net, a norm follows each sum with the residual path. " : "") +
        "Each token is shifted and scaled so that its channels have mean 0 and variance 1, then multiplied by a " +
        "learned weight, and a learned bias is added. The highlighted line of code is the one that ran.",
    );
  if (!normLast) addNorm();
  add(
    "Queries and keys turn",
    turned,
    () =>
      "Each pair of channels of a query and of a key is turned by an angle that grows with the token’s place: half " +
      "of the pairs with the column, half with the row. The score of two tokens then depends on the offset of " +
      "their places, not on the places themselves.",
    {mode: "patches"},
  );
  add(
    "Queries meet keys",
    scores,
    () =>
      `One number for every pair of a query and a key: their dot product over ` +
      `${Math.round((about.config.embed_dim || about.config.embed_dims[0]) / first.shape[1])} channels, ` +
      `scaled. This block has ${counted(first.shape[1], "head")} and ${counted(first.shape[3], "key")} for each query.`,
    {mode: "attention", show: "#map", cell: s => largestOf(app.data(s).map(x => (Number.isFinite(x) ? x : 0)))},
  );
  add(
    "Where a query looks",
    first?.step,
    () =>
      "Softmax turns each row of scores into shares that add up to one. On the image: the yellow places are " +
      "what the red token looks at. Point at other tokens.",
    {mode: "attention"},
  );
  if (g?.window) {
    const shifted = blocks.find(b => geometryOf(b.module).window.shift),
      query = shifted && nearTheEdge(shifted);
    add(
      "Windows, and why they shift",
      shifted?.step,
      () =>
        `Tokens attend only inside windows of ${g.window.M} × ${g.window.M}. Every second block moves the ` +
        `windows by ${geometryOf(shifted.module).window.shift}, so that neighbours on both sides of a border ` +
        "meet. " +
        (query
          ? "Then tokens from opposite edges of the map are in one window: the mask forbids the red token to look " +
            "at the hatched ones. "
          : "") +
        "Press “roll the map” under the image: it moves until the shifted windows are whole.",
      {mode: "attention", block: shifted, query: query ?? [0, 0]},
    );
  }
  if (g && g.keys.H * g.keys.W < g.H * g.W)
    add("Fewer keys than queries", first.step, () => fewerKeys(g), {mode: "attention"});
  add(
    "Values are mixed",
    of(first, "attention_forward", "y"),
    () => "Each query takes the mean of the values, weighted by its shares. The terms in the panel are share × value.",
    {cell: largest},
  );
  if (normLast) addNorm();
  const asksClass = about.config.cls_token || about.config.global_pool === "token";
  add(
    "Logits",
    step(named.logits),
    () =>
      `After ${counted(blocks.length, "block")}, ${asksClass ? "the class token" : "the mean of the tokens"} becomes ` +
      `one number a class. The largest is “${about.classes[predictedNow()]}”.`,
    {cell: predictedNow, show: "#map"},
  );
  add(
    "The loss",
    step(named.loss),
    () =>
      `The cross-entropy of “${about.classes[askedNow()]}”` +
      (asksForPrediction() ? ", the prediction itself, as no label was given" : "") +
      `: ${fmt(loss(), 5)}. Here the pass turns round.`,
    {cell: () => 0},
  );
  add(
    "The first gradient",
    step(named.dlogits),
    () =>
      "Backward starts here: probability minus target. A step against this gradient makes the logit of the class " +
      "that the loss asks for larger and the other logits smaller.",
    {cell: askedNow},
  );
  add(
    "Back through softmax",
    of(last, "softmax_backward", "dscores", "backward") || of(last, "attention_backward", "dscores", "backward"),
    () =>
      "The gradient of a score: take the gradient of its share, subtract the row’s mean of these gradients, weighted " +
      "by the shares, and multiply by the share. The code of forward stands first, that of backward beside or below " +
      "it.",
  );
  const row = parameters.find(r => /attn\.(qkv|proj_q)\.weight$/.test(r[0])) || parameters[0];
  add(
    "A weight’s gradient",
    step(row[2]),
    () =>
      "Every token adds one product to this weight’s gradient. Click a factor, then a factor of that number, and so " +
      "on, until you reach the loss.",
    {cell: largest},
  );
  add(
    "Is it true?",
    step(row[1]),
    () =>
      "Drag this weight in the panel: the loss follows the curve, and the tangent with the gradient’s slope " +
      "touches it.",
    {cell: () => largestOf(app.engine.get(row[2])), show: ".whatif"},
  );
  add(
    "Where the gradient lands",
    step(named.dpixels),
    () => "At the end, every pixel knows how it would change the loss. That was the whole pass.",
    {mode: "gradient"},
  );
  tour.stops = stops;
}
