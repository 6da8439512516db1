"use strict";
/* The image: its patches, where a query looks, where the gradient lands, and a brush. */

const photo = {mode: "attention", block: null, head: -1, query: null, hover: null, colour: "#ffffff", brush: 2, rolled: 0, follow: true, off: new Map()};

/* The image's pixels as they are now, 0 to 255, [r, g, b] at a row and a column. */
function pixelReader() {
  const node = app.program.named.pixels, [, C, H, W] = app.engine.shape(node), data = app.engine.get(node);
  return {H, W, at: (r, c) => [0, 1, 2].map(k => data[((C === 1 ? 0 : k) * H + r) * W + c])};
}
function paintPhoto(canvas, rollRows = 0, rollColumns = 0) {
  const {H, W, at} = pixelReader(), image = new ImageData(W, H);
  canvas.width = W;
  canvas.height = H;
  for (let r = 0, k = 0; r < H; r++) for (let c = 0; c < W; c++, k += 4) image.data.set([...at((r + rollRows) % H, (c + rollColumns) % W), 255], k);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
/* The gradient of the loss for every pixel: the length over the colours, or the colours' sum where it is signed. */
function paintPixelGradient(canvas) {
  const node = app.program.named.dpixels, [, C, H, W] = app.engine.shape(node), data = app.engine.get(node), sums = new Float64Array(H * W);
  for (let k = 0; k < C; k++) for (let i = 0; i < H * W; i++) sums[i] += data[k * H * W + i];
  paint(canvas, sums, H, W, (r, c) => r * W + c, scaleOf(sums, false));
}

const MODES = [["attention", "attention"], ["patches", "tokens"], ["gradient", "gradient"], ["paint", "paint"]];

function drawPhoto() {
  const blocks = attentionBlocks(), own = blockFor(app.step());
  if (photo.follow && own) photo.block = own;
  photo.block ??= blocks[0] ?? null;
  const g = photo.block && geometryOf(photo.block.module), {H, W} = pixelReader();
  if (g && (!photo.query || photo.query[0] >= g.H || photo.query[1] >= g.W)) photo.query = [g.H >> 1, g.W >> 1];
  const canvas = h("canvas", {}), overlay = h("svg:svg", {viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true"});
  const roll = photo.rolled && g?.window ? g.window.shift * photo.rolled : 0;
  if (photo.mode === "gradient") paintPixelGradient(canvas);
  else paintPhoto(canvas, Math.round(roll * (g?.patch[0] ?? 0)), Math.round(roll * (g?.patch[1] ?? 0)));
  const stage = h("div", {class: "photo-stage", id: "photo", role: "img", "aria-label": `the image ${app.program.about.image}, ${H} × ${W} pixels`, style: {"aspect-ratio": `${W} / ${H}`}}, canvas, overlay);
  const text = h("p", {class: "photo-text", id: "photo-text"});
  const pixelAt = event => {
    const box = stage.getBoundingClientRect(), clamp = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
    return [clamp((event.clientY - box.top) / box.height, H), clamp((event.clientX - box.left) / box.width, W)];
  };
  const tokenAt = ([r, c]) => g && [Math.min(g.H - 1, Math.floor(r / g.patch[0])), Math.min(g.W - 1, Math.floor(c / g.patch[1]))];
  const refresh = () => drawOverlay(overlay, text, g);
  stage.addEventListener("pointermove", event => {
    const p = pixelAt(event);
    if (photo.mode === "paint") { if (event.buttons) brushAt(p, canvas); return; }
    if (photo.rolled) return;
    photo.hover = tokenAt(p);
    refresh();
  });
  stage.addEventListener("pointerleave", () => { photo.hover = null; refresh(); });
  stage.addEventListener("pointerdown", event => {
    const p = pixelAt(event);
    if (photo.mode === "paint") { stage.setPointerCapture(event.pointerId); brushAt(p, canvas); }
    else if (g && !photo.rolled) { photo.query = tokenAt(p); refresh(); }
  });
  stage.addEventListener("pointerup", () => { if (photo.mode === "paint" && app.painted) { app.painted = false; app.edited([app.program.named.pixels]); } });
  const about = app.program.about;
  $("photo-panel").replaceChildren(h("h2", {}, "The image"),
    h("div", {class: "photo-tools", role: "group", "aria-label": "what the image shows"}, MODES.map(([mode, name]) => h("button", {"aria-pressed": String(photo.mode === mode), onclick: () => { photo.mode = mode; drawPhoto(); }}, name))),
    stage, controls(g, blocks), text, classBars(about));
  refresh();
}

/* The row of controls under the image. */
function controls(g, blocks) {
  if (photo.mode === "paint") return h("div", {class: "photo-row swatches"}, h("input", {type: "color", value: photo.colour, "aria-label": "colour of the brush", onchange: e => { photo.colour = e.target.value; }}),
    h("label", {}, "brush ", h("select", {onchange: e => { photo.brush = Number(e.target.value); }}, [1, 2, 4, 8].map(n => h("option", {value: n, selected: n === photo.brush}, `${n} × ${n}`)))), "Draw on the image; everything is computed again.",
    app.changed.size ? h("button", {class: "quiet", onclick: resetAll}, "undo all") : null);
  if (photo.mode === "gradient" || !g) return h("div", {class: "photo-row"}, photo.mode === "gradient" ? "Red: a brighter pixel raises the loss. Blue: it lowers the loss." : "");
  const block = photo.block, name = b => b.module.replace(/\.attn$/, "");
  return [h("div", {class: "photo-row"}, h("label", {}, "block ", h("select", {"aria-label": "block", onchange: e => { photo.follow = false; photo.rolled = 0; photo.block = blocks[Number(e.target.value)]; photo.query = null; drawPhoto(); }}, blocks.map((b, k) => h("option", {value: k, selected: b === block}, name(b))))),
      g.window?.shift ? h("button", {class: "quiet", "aria-pressed": String(!!photo.rolled), onclick: () => animateRoll(g)}, photo.rolled ? "roll back" : "roll the map") : null),
    photo.mode === "attention" ? h("div", {class: "photo-row"}, h("span", {}, "head"), h("span", {class: "heads"}, h("button", {"aria-pressed": String(photo.head < 0), onclick: () => { photo.head = -1; drawPhoto(); }}, "mean"),
      [...Array(block.shape[1]).keys()].map(n => h("button", {"aria-pressed": String(photo.head === n), onclick: () => { photo.head = n; drawPhoto(); }}, n))),
      photo.head >= 0 && typeof switchHead === "function" ? h("button", {class: "quiet", "aria-pressed": String(isOff(block, photo.head)), onclick: () => switchHead(block, photo.head)}, isOff(block, photo.head) ? "head is off" : "switch this head off") : null) : null];
}

function animateRoll(g) {
  const target = photo.rolled ? 0 : 1, start = performance.now(), from = photo.rolled;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) { photo.rolled = target; return drawPhoto(); }
  const frame = now => {
    const t = Math.min(1, (now - start) / 700);
    photo.rolled = from + (target - from) * t;
    drawPhoto();
    if (t < 1) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

/* Everything that is drawn over the pixels. */
function drawOverlay(svg, text, g) {
  svg.replaceChildren();
  if (!g || photo.mode === "paint") { text.textContent = ""; return; }
  const [ph, pw] = g.patch, add = (tag, props) => svg.append(h(`svg:${tag}`, props)), W = g.W * pw, H = g.H * ph;
  const rolled = photo.rolled, query = photo.hover || photo.query, line = Math.max(W, H) / 400;
  if (photo.mode === "attention" && !rolled) {
    const {weights, prefix, masked} = attentionOf(photo.block, g, photo.head, query), {keys} = g, most = Math.max(...weights) || 1, kh = H / keys.H, kw = W / keys.W;
    add("rect", {x: 0, y: 0, width: W, height: H, fill: "#000", "fill-opacity": 0.55});
    weights.forEach((w, k) => { if (w > 0) add("rect", {x: (k % keys.W) * kw, y: Math.floor(k / keys.W) * kh, width: kw, height: kh, fill: "#ffd43b", "fill-opacity": 0.9 * (w / most), class: "look"}); });
    masked.forEach(k => hatch(add, (k % g.W) * pw, Math.floor(k / g.W) * ph, pw, ph, line));
    if (keys.stride > 1) weights.forEach((_, k) => add("circle", {cx: (k % keys.W) * kw + pw / 2, cy: Math.floor(k / keys.W) * kh + ph / 2, r: Math.min(pw, ph) * 0.16, fill: "#fff", "fill-opacity": 0.85}));
    const best = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3);
    text.textContent = `${photo.block.module.replace(/\.attn$/, "")}, ${photo.head < 0 ? "mean of the heads" : "head " + photo.head}: the token at row ${query[0]}, column ${query[1]} looks at `
      + best.map(k => `(${Math.floor(k / keys.W)}, ${k % keys.W}) ${percent(weights[k])}`).join(", ") + (prefix ? `, and ${percent(prefix)} at the class token` : "") + "."
      + (masked.size ? ` Hatched: ${masked.size} tokens of its window that came round the edge; the mask forbids them.` : "")
      + (keys.stride > 1 ? ` ${g.H * g.W} queries meet ${keys.H * keys.W} keys: a dot marks where a key’s convolution is centred.` : "");
  }
  if (photo.mode === "patches" || photo.mode === "gradient" || rolled) {
    text.textContent = photo.mode === "patches" ? `${g.H} × ${g.W} tokens${g.prefix ? " and a class token" : ""}, each ${fmt(ph)} × ${fmt(pw)} pixels.` + (query ? ` Token ${g.prefix + query[0] * g.W + query[1]} is at row ${query[0]}, column ${query[1]}.` : "")
      + (g.field ? ` Its query sees ${g.field} × ${g.field} tokens, through a convolution.` : "") + (g.window ? ` Windows of ${g.window.M} × ${g.window.M} tokens${g.window.shift ? `, shifted by ${g.window.shift}: dashed lines are where windows go on at the other edge` : ""}.` : "")
      : rolled ? "The map is moved up and left, so that shifted windows are whole windows again; what leaves at one edge comes in at the other." : "";
  }
  if (photo.mode !== "gradient" || photo.hover) {
    if (photo.mode === "patches") for (let k = 1; k < Math.max(g.H, g.W); k++) {
      if (k < g.H) add("line", {x1: 0, x2: W, y1: k * ph, y2: k * ph, stroke: "#fff", "stroke-opacity": 0.6, "stroke-width": line});
      if (k < g.W) add("line", {y1: 0, y2: H, x1: k * pw, x2: k * pw, stroke: "#fff", "stroke-opacity": 0.6, "stroke-width": line});
    }
    if (g.window) drawWindows(add, g, rolled, line);
    if (photo.mode === "patches" && g.field && query) {
      const reach = g.field >> 1;
      add("rect", {x: (query[1] - reach) * pw, y: (query[0] - reach) * ph, width: g.field * pw, height: g.field * ph, fill: "#ffd43b", "fill-opacity": 0.25, stroke: "#ffd43b", "stroke-width": 2 * line});
    }
    if (query && !rolled) add("rect", {x: query[1] * pw, y: query[0] * ph, width: pw, height: ph, fill: "none", stroke: "#ff3b6b", "stroke-width": 3 * line, id: "query"});
  }
}

function hatch(add, x, y, w, h, line) {
  for (let k = 1; k < 6; k++) {
    const t = k / 3, a = Math.max(0, t - 1), b = Math.min(1, t);
    add("line", {x1: x + a * w, y1: y + b * h, x2: x + b * w, y2: y + a * h, stroke: "#ff8fa8", "stroke-width": line});
  }
}

/* The borders of the windows: solid where a window is whole, dashed where it goes on at the opposite edge. */
function drawWindows(add, g, rolled, line) {
  const {M, shift, rows, columns} = g.window, [ph, pw] = g.patch, offset = shift * (1 - rolled), W = g.W * pw, H = g.H * ph;
  const style = wrapped => ({stroke: "#7ee0ff", "stroke-width": 2.6 * line, ...(wrapped ? {"stroke-dasharray": `${5 * line} ${4 * line}`} : {})});
  for (let k = 0; k <= rows; k++) { const y = (k * M + offset) * ph; if (y > 0 && y < H) add("line", {x1: 0, x2: W, y1: y, y2: y, ...style(false)}); }
  for (let k = 0; k <= columns; k++) { const x = (k * M + offset) * pw; if (x > 0 && x < W) add("line", {y1: 0, y2: H, x1: x, x2: x, ...style(false)}); }
  const edge = style(offset > 0);
  add("rect", {x: 0, y: 0, width: W, height: H, fill: "none", ...edge});
}

/* The token that the pointer is over in the big map. */
function hoverToken(step, flat) {
  const token = flat === null || flat < 0 ? null : tokenOfCell(step, flat);
  if (String(token) === String(photo.hover)) return;
  photo.hover = token;
  const stage = $("photo");
  if (stage && photo.block && photo.mode !== "paint") drawOverlay(stage.querySelector("svg"), $("photo-text"), geometryOf(photo.block.module));
}

function brushAt([r, c], canvas) {
  const {H, W} = pixelReader(), node = app.program.named.pixels, C = app.engine.shape(node)[1];
  const colour = [1, 3, 5].map(k => parseInt(photo.colour.slice(k, k + 2), 16)), half = photo.brush >> 1, data = app.ownLeaf(node);
  for (let y = r - half; y < r - half + photo.brush; y++) for (let x = c - half; x < c - half + photo.brush; x++) {
    if (y < 0 || x < 0 || y >= H || x >= W) continue;
    for (let k = 0; k < C; k++) data[(k * H + y) * W + x] = C === 1 ? (colour[0] + colour[1] + colour[2]) / 3 : colour[k];
  }
  app.painted = true;
  paintPhoto(canvas);
}

/* The classes: probabilities now and when the page was opened, and which one the loss asks for. */
function classBars(about) {
  const logits = app.engine.get(app.program.named.logits), target = app.engine.get(app.program.named.target), K = about.classes.length;
  const most = Math.max(...logits), e = Array.from(logits, x => Math.exp(x - most)), total = e.reduce((a, b) => a + b, 0), p = e.map(x => x / total);
  app.firstProbabilities ??= p;
  const order = [...p.keys()].sort((a, b) => p[b] - p[a]), shown = order.slice(0, 8), asked = target.indexOf(Math.max(...target));
  if (!shown.includes(asked)) shown.push(asked);
  return h("div", {}, h("div", {class: "classes", role: "table", "aria-label": "probabilities of the classes"}, shown.map(k => [
    h("button", {class: "quiet" + (k === asked ? " target" : ""), title: k === asked ? "the loss asks for this class" : "let the loss ask for this class", onclick: () => askFor(k)}, `${about.classes[k]}${k === asked ? " ←" : ""}`),
    h("span", {class: "track"}, h("i", {style: {width: percent(p[k])}})), h("b", {title: `at first ${percent(app.firstProbabilities[k])}`}, percent(p[k]))])),
    h("p", {class: "note"}, K > shown.length ? `The likeliest of ${K} classes. ` : "", "← is the class that the loss asks for; click another class to ask for it."));
}

function askFor(k) {
  const data = app.ownLeaf(app.program.named.target);
  data.fill(0);
  data[k] = 1;
  app.edited([app.program.named.target]);
}
