"use strict";
/* The image: its patches, where a query looks, where the gradient lands, and a brush. */

const photo = {
  mode: "attention",
  block: null,
  head: -1,
  query: null,
  hover: null,
  colour: "#ffffff",
  brush: 2,
  rolled: 0,
  follow: true,
  asClass: false, // the class token is asked about, not photo.query
};

/* The image's pixels as they are now, 0 to 255, [r, g, b] at a row and a column. */
function pixelReader() {
  const node = app.program.named.pixels,
    [, C, H, W] = app.engine.shape(node),
    data = app.engine.get(node);
  return {H, W, at: (r, c) => [0, 1, 2].map(k => data[((C === 1 ? 0 : k) * H + r) * W + c])};
}
function paintPhoto(canvas, rollRows = 0, rollColumns = 0) {
  const {H, W, at} = pixelReader(),
    image = new ImageData(W, H);
  canvas.width = W;
  canvas.height = H;
  for (let r = 0, k = 0; r < H; r++)
    for (let c = 0; c < W; c++, k += 4) image.data.set([...at((r + rollRows) % H, (c + rollColumns) % W), 255], k);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
/* The gradient of the loss for every pixel, summed over the colours. */
function paintPixelGradient(canvas) {
  const node = app.program.named.dpixels,
    [, C, H, W] = app.engine.shape(node),
    data = app.engine.get(node),
    sums = new Float64Array(H * W);
  for (let k = 0; k < C; k++) for (let i = 0; i < H * W; i++) sums[i] += data[k * H * W + i];
  paint(canvas, sums, H, W, (r, c) => r * W + c, scaleOf(sums, false));
}

const MODES = [
  ["attention", "attention"],
  ["patches", "tokens"],
  ["gradient", "gradient"],
  ["paint", "paint"],
];

function drawPhoto() {
  const blocks = attentionBlocks(),
    own = blockFor(app.step());
  photo.hover = null; // it was a place on the map that was drawn before
  if (photo.follow && own) photo.block = own;
  photo.block ??= blocks[0] ?? null;
  if (photo.block && photo.head >= photo.block.shape[1]) photo.head = -1;
  const g = photo.block && geometryOf(photo.block.module),
    {H, W} = pixelReader();
  if (!g?.window?.shift) photo.rolled = 0;
  if (g && (!photo.query || photo.query[0] >= g.H || photo.query[1] >= g.W)) photo.query = [g.H >> 1, g.W >> 1];
  const canvas = h("canvas", {}),
    overlay = h("svg:svg", {viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true"});
  const roll = photo.rolled && g?.window ? g.window.shift * photo.rolled : 0;
  if (photo.mode === "gradient") paintPixelGradient(canvas);
  else paintPhoto(canvas, Math.round(roll * (g?.patch[0] ?? 0)), Math.round(roll * (g?.patch[1] ?? 0)));
  const stage = h(
    "div",
    {
      class: "photo-stage" + (photo.mode === "paint" ? " painting" : ""),
      id: "photo",
      role: "group",
      tabindex: 0,
      "aria-label": `the image ${app.program.about.image}, ${H} × ${W} pixels; arrow keys choose a token`,
      style: {"aspect-ratio": `${W} / ${H}`},
    },
    canvas,
    overlay,
  );
  const text = h("p", {class: "photo-text", id: "photo-text"});
  const pixelAt = event => {
    const box = stage.getBoundingClientRect(),
      clamp = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
    return [clamp((event.clientY - box.top) / box.height, H), clamp((event.clientX - box.left) / box.width, W)];
  };
  const tokenAt = ([r, c]) =>
    g && [Math.min(g.H - 1, Math.floor(r / g.patch[0])), Math.min(g.W - 1, Math.floor(c / g.patch[1]))];
  const refresh = () => drawOverlay(overlay, text, g);
  stage.addEventListener("pointermove", event => {
    const p = pixelAt(event);
    if (photo.mode === "paint") {
      if (event.buttons) brushAt(p, canvas);
      return;
    }
    if (photo.rolled) return;
    photo.hover = tokenAt(p);
    refresh();
  });
  stage.addEventListener("pointerleave", () => {
    photo.hover = null;
    refresh();
  });
  stage.addEventListener("pointerdown", event => {
    const p = pixelAt(event);
    if (photo.mode === "paint") {
      stage.setPointerCapture(event.pointerId);
      brushAt(p, canvas);
    } else if (g && !photo.rolled) {
      chooseQuery(tokenAt(p));
    }
  });
  stage.addEventListener("pointerup", () => {
    if (photo.mode === "paint" && app.painted) {
      app.painted = false;
      app.edited([app.program.named.pixels]);
    }
  });
  stage.addEventListener("keydown", event => {
    const by = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!by || event.shiftKey || !g || photo.rolled) return;
    event.preventDefault();
    event.stopPropagation();
    const size = [g.H, g.W];
    chooseQuery(photo.query.map((n, axis) => Math.max(0, Math.min(size[axis] - 1, n + by[axis]))));
    $("live").textContent = $("photo-text").textContent;
  });
  const about = app.program.about,
    restore = keepFocus();
  fill(
    $("photo-panel"),
    h("h2", {}, "The image"),
    h(
      "div",
      {class: "photo-tools", role: "group", "aria-label": "what the image shows"},
      MODES.map(([mode, name]) =>
        h(
          "button",
          {
            "aria-pressed": String(photo.mode === mode),
            onclick: () => {
              photo.mode = mode;
              if (mode === "paint" || mode === "gradient") photo.rolled = 0;
              drawPhoto();
            },
          },
          name,
        ),
      ),
    ),
    h("div", {class: "photo-body"}, h("div", {}, stage), classBars(about)),
    controls(g, blocks),
    text,
  );
  refresh();
  restore();
}

/* Ask about another token, [row, column]. */
function chooseQuery(token) {
  photo.query = token;
  photo.asClass = false;
  switches.message = "";
  drawPhoto();
}

/* The row of controls under the image. */
function controls(g, blocks) {
  if (photo.mode === "paint")
    return h(
      "div",
      {class: "photo-row swatches"},
      h("input", {
        type: "color",
        value: photo.colour,
        "aria-label": "colour of the brush",
        onchange: e => {
          photo.colour = e.target.value;
        },
      }),
      h(
        "label",
        {},
        "brush ",
        h(
          "select",
          {
            onchange: e => {
              photo.brush = Number(e.target.value);
            },
          },
          [1, 2, 4, 8].map(n => h("option", {value: n, selected: n === photo.brush}, `${n} × ${n}`)),
        ),
      ),
      "Draw on the image; everything is computed again.",
      app.isChanged ? h("button", {class: "quiet", onclick: resetAll}, "undo all") : null,
    );
  if (photo.mode === "gradient" || !g)
    return h(
      "div",
      {class: "photo-row"},
      photo.mode === "gradient" ? "Red: a brighter pixel raises the loss. Blue: it lowers the loss." : "",
    );
  const block = photo.block;
  return [
    h(
      "div",
      {class: "photo-row"},
      h(
        "label",
        {},
        "block ",
        h(
          "select",
          {
            "aria-label": "block",
            onchange: e => {
              photo.follow = false;
              photo.rolled = 0;
              photo.block = blocks[Number(e.target.value)];
              photo.query = null;
              drawPhoto();
            },
          },
          blocks.map((b, k) => h("option", {value: k, selected: b === block}, blockName(b))),
        ),
      ),
      g.window?.shift
        ? h(
            "button",
            {class: "quiet", "aria-pressed": String(!!photo.rolled), onclick: () => animateRoll(g)},
            photo.rolled ? "roll back" : "roll the map",
          )
        : null,
    ),
    photo.mode === "attention" ? attentionControls(block, g) : null,
  ];
}

function animateRoll(g) {
  const target = photo.rolled ? 0 : 1,
    start = performance.now(),
    from = photo.rolled;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    photo.rolled = target;
    return drawPhoto();
  }
  const frame = now => {
    const t = Math.min(1, (now - start) / 700);
    photo.rolled = from + (target - from) * t;
    drawPhoto();
    if (t < 1) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

/* The token that the pointer is over in the big map. */
function hoverToken(step, flat) {
  const stage = $("photo");
  if (!stage || !photo.block || photo.mode === "paint") return;
  const [g, shown] = [blockFor(step), photo.block].map(b => geometryOf(b.module)),
    sameGrid = g && shown && g.H === shown.H && g.W === shown.W,
    token = sameGrid && flat !== null && flat >= 0 ? tokenOfCell(step, flat) : null;
  if (String(token) === String(photo.hover)) return;
  photo.hover = token;
  drawOverlay(stage.querySelector("svg"), $("photo-text"), shown);
}
