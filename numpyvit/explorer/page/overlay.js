"use strict";
/* What is drawn over the image: grids, windows, masks, the convolution's field, and where a query looks. */

/* Everything that is drawn over the pixels. */
function drawOverlay(svg, text, g) {
  svg.replaceChildren();
  if (!g || photo.mode === "paint") {
    text.textContent = "";
    return;
  }
  const [ph, pw] = g.patch,
    add = (tag, props) => svg.append(h(`svg:${tag}`, props)),
    image = pixelReader(), // the last patches of a map that is padded reach over its edge
    W = Math.min(g.W * pw, image.W),
    H = Math.min(g.H * ph, image.H);
  const rolled = photo.rolled,
    query = photo.hover || asked(g),
    line = Math.max(W, H) / 400;
  if (photo.mode === "attention" && !rolled) {
    const {weights, prefix, padding, masked} = attentionOf(photo.block, g, photo.head, query),
      {keys} = g,
      most = Math.max(...weights) || 1,
      whole = keys.H === Math.ceil(g.H / keys.stride),
      [kh, kw] = whole ? [ph * keys.stride, pw * keys.stride] : [H / keys.H, W / keys.W];
    add("rect", {x: 0, y: 0, width: W, height: H, fill: "#000", "fill-opacity": 0.55});
    weights.forEach((w, k) => {
      if (w > 0)
        add("rect", {
          x: (k % keys.W) * kw,
          y: Math.floor(k / keys.W) * kh,
          width: Math.min(kw, W - (k % keys.W) * kw),
          height: Math.min(kh, H - Math.floor(k / keys.W) * kh),
          fill: "#ffd43b",
          "fill-opacity": 0.9 * (w / most) ** 1.5,
          class: "look",
        });
    });
    masked.forEach(k => hatch(add, (k % g.W) * pw, Math.floor(k / g.W) * ph, pw, ph, line));
    if (keys.stride > 1)
      weights.forEach((_, k) =>
        add("circle", {
          cx: (Math.min((k % keys.W) * keys.stride, g.W - 1) + 0.5) * pw,
          cy: (Math.min(Math.floor(k / keys.W) * keys.stride, g.H - 1) + 0.5) * ph,
          r: Math.min(pw, ph) * 0.16,
          fill: "#fff",
          "fill-opacity": 0.85,
        }),
      );
    const best = [...weights.keys()]
      .filter(k => weights[k] > 0)
      .sort((a, b) => weights[b] - weights[a])
      .slice(0, 3);
    text.textContent =
      `${photo.block.module.replace(/\.attn$/, "")}, ` +
      `${photo.head < 0 ? "mean of the heads" : "head " + photo.head}: ` +
      `${query ? `the token at row ${query[0]}, column ${query[1]}` : "the class token"} looks at ` +
      (keys.stride > 1 ? "the keys " : "") +
      best.map(k => `(${Math.floor(k / keys.W)}, ${k % keys.W}) ${percent(weights[k])}`).join(", ") +
      (prefix ? `, and ${percent(prefix)} at the class token` : "") +
      (padding ? `, and ${percent(padding)} at padding` : "") +
      "." +
      (masked.size
        ? ` Hatched: ${counted(masked.size, "token")} that ${masked.size > 1 ? "are" : "is"} in its window only ` +
          `because the map was rolled; the mask forbids the red token to look at ${masked.size > 1 ? "them" : "it"}.`
        : "") +
      (keys.stride > 1
        ? ` ${g.H * g.W} queries meet ${keys.H * keys.W} keys: a dot marks where a key’s window is centred.`
        : "");
  }
  if (photo.mode === "patches" || photo.mode === "gradient" || rolled) {
    text.textContent =
      photo.mode === "patches"
        ? `${g.H} × ${g.W} tokens, one for every ${fmt(ph)} × ${fmt(pw)} pixels` +
          (g.prefix ? ", and a class token." : ".") +
          (query ? ` Token ${g.prefix + query[0] * g.W + query[1]} is at row ${query[0]}, column ${query[1]}.` : "") +
          (g.field ? ` Its query sees ${g.field} × ${g.field} tokens, through a convolution.` : "") +
          (g.window
            ? ` Windows of ${g.window.M} × ${g.window.M} tokens` +
              (g.window.shift ? `, shifted by ${g.window.shift}; they go on at the opposite edge.` : ".")
            : "")
        : rolled
          ? "The map is moved up and left, so that shifted windows are whole windows again; what leaves at one " +
            "edge comes in at the other."
          : "";
  }
  if (photo.mode !== "gradient" || photo.hover) {
    if (photo.mode === "patches")
      for (let k = 1; k < Math.max(g.H, g.W); k++) {
        if (k < g.H)
          add("line", {
            x1: 0,
            x2: W,
            y1: k * ph,
            y2: k * ph,
            stroke: "#fff",
            "stroke-opacity": 0.6,
            "stroke-width": line,
          });
        if (k < g.W)
          add("line", {
            y1: 0,
            y2: H,
            x1: k * pw,
            x2: k * pw,
            stroke: "#fff",
            "stroke-opacity": 0.6,
            "stroke-width": line,
          });
      }
    if (g.window) drawWindows(add, g, [H, W], rolled, line);
    if (photo.mode === "patches" && g.field && query) {
      const reach = g.field >> 1;
      add("rect", {
        x: (query[1] - reach) * pw,
        y: (query[0] - reach) * ph,
        width: g.field * pw,
        height: g.field * ph,
        fill: "#ffd43b",
        "fill-opacity": 0.25,
        stroke: "#ffd43b",
        "stroke-width": 2 * line,
      });
    }
    if (!rolled) drawSwitchedOff(add, g, line);
    if (query && !rolled)
      add("rect", {
        x: query[1] * pw,
        y: query[0] * ph,
        width: pw,
        height: ph,
        fill: "none",
        stroke: "#ff3b6b",
        "stroke-width": 3 * line,
        id: "query",
      });
  }
}

/* A cross on every token that is switched off in this block. */
function drawSwitchedOff(add, g, line) {
  const [ph, pw] = g.patch,
    n = g.window ? 1 : g.keys.stride,
    width = g.window ? g.W : g.keys.W;
  for (const key of switches.tokens.get(photo.block.module) ?? []) {
    const k = key - g.keys.prefix,
      [y, x] = [Math.floor(k / width) * n * ph, (k % width) * n * pw];
    if (k < 0) continue;
    add("path", {
      d: `M${x},${y}l${n * pw},${n * ph}M${x},${y + n * ph}l${n * pw},${-n * ph}`,
      stroke: "#ff3b6b",
      "stroke-width": 2 * line,
      class: "off",
    });
  }
}

function hatch(add, x, y, w, h, line) {
  for (let k = 1; k < 6; k++) {
    const t = k / 3,
      a = Math.max(0, t - 1),
      b = Math.min(1, t);
    add("line", {
      x1: x + a * w,
      y1: y + b * h,
      x2: x + b * w,
      y2: y + a * h,
      stroke: "#ff8fa8",
      "stroke-width": line,
    });
  }
}

/* The borders of the windows: solid where a window is whole, dashed where it goes on at the opposite edge. */
function drawWindows(add, g, [H, W], rolled, line) {
  const {M, shift, rows, columns} = g.window,
    [ph, pw] = g.patch,
    offset = shift * (1 - rolled);
  const style = wrapped => ({
    stroke: "#7ee0ff",
    "stroke-width": 2.6 * line,
    ...(wrapped ? {"stroke-dasharray": `${5 * line} ${4 * line}`} : {}),
  });
  for (let k = 0; k <= rows; k++) {
    const y = (k * M + offset) * ph;
    if (y > 0 && y < H) add("line", {x1: 0, x2: W, y1: y, y2: y, ...style(false)});
  }
  for (let k = 0; k <= columns; k++) {
    const x = (k * M + offset) * pw;
    if (x > 0 && x < W) add("line", {y1: 0, y2: H, x1: x, x2: x, ...style(false)});
  }
  const edge = style(offset > 0);
  add("rect", {x: 0, y: 0, width: W, height: H, fill: "none", ...edge});
}
