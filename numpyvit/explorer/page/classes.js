"use strict";
/* What a visitor changes at the image: pixels under a brush, and the class that the loss asks for. */

function brushAt([r, c], canvas) {
  const {H, W} = pixelReader(),
    node = app.program.named.pixels,
    C = app.engine.shape(node)[1];
  const colour = [1, 3, 5].map(k => parseInt(photo.colour.slice(k, k + 2), 16)),
    half = photo.brush >> 1,
    data = app.ownLeaf(node);
  for (let y = r - half; y < r - half + photo.brush; y++)
    for (let x = c - half; x < c - half + photo.brush; x++) {
      if (y < 0 || x < 0 || y >= H || x >= W) continue;
      for (let k = 0; k < C; k++)
        data[(k * H + y) * W + x] = C === 1 ? (colour[0] + colour[1] + colour[2]) / 3 : colour[k];
    }
  app.painted = true;
  paintPhoto(canvas);
}

/* The largest of the numbers that a named array has of the first image: the class that the model says now, for logits,
   and the class that the loss asks for now, for target. */
function classNow(name) {
  const data = app.engine.get(app.program.named[name]).slice(0, app.program.about.classes.length);
  return data.indexOf(data.reduce((a, b) => Math.max(a, b)));
}
const predictedNow = () => classNow("logits");
const askedNow = () => classNow("target");
/* Whether the loss asks for the predicted class because the page was made without a label. */
const asksForPrediction = ({label, label_given} = app.program.about) =>
  !label_given && askedNow() === label && askedNow() === predictedNow();

/* The classes: probabilities now and when the page was opened, and which one the loss asks for. */
function classBars(about) {
  const logits = app.engine.get(app.program.named.logits),
    K = about.classes.length;
  const most = Math.max(...logits),
    e = Array.from(logits, x => Math.exp(x - most)),
    total = e.reduce((a, b) => a + b, 0),
    p = e.map(x => x / total);
  app.firstProbabilities ??= p;
  const order = [...p.keys()].sort((a, b) => p[b] - p[a]),
    shown = order.slice(0, 7),
    asked = askedNow();
  if (!shown.includes(asked)) shown.push(asked);
  return h(
    "div",
    {},
    h(
      "div",
      {class: "classes", role: "table", "aria-label": "probabilities of the classes"},
      shown.map(k => [
        h(
          "button",
          {
            class: "quiet" + (k === asked ? " target" : ""),
            style: {"--share": `${100 * p[k]}%`},
            title: `${about.classes[k]}: ` + (k === asked ? "the loss asks for it" : "let the loss ask for it"),
            onclick: () => askFor(k),
          },
          `${about.classes[k]}${k === asked ? " ←" : ""}`,
        ),
        h("b", {title: `at first ${percent(app.firstProbabilities[k])}`}, percent(p[k])),
      ]),
    ),
    h(
      "p",
      {class: "note"},
      K > shown.length ? `The likeliest of ${K} classes. ` : "",
      "← the loss asks for this class; click another to ask for it.",
    ),
  );
}

function askFor(k) {
  const data = app.ownLeaf(app.program.named.target);
  data.fill(0);
  data[k] = 1;
  return app.edited([app.program.named.target]);
}
