"use strict";
/* Switches: a head or a token of attention is off. A switch sets some cells of some steps to a number; everything that
   depends on them is computed again from the definitions, and what flows back through those cells is lost.

   head   The head's output y is 0, and so is the gradient dy that comes back to it.
   token  Its score as a key is −∞ for every query of every head, as a mask would have it: softmax gives it 0 and shares
          the rest. A ViT whose token is off in every block leaves it out of the mean over the tokens, too. */

const switches = {
  heads: new Map(), // module → Set of numbers of heads
  tokens: new Map(), // module → Set of keys: of the sequence, or of the map (Swin)
  everywhere: false, // whether the button means every block of the stage
  message: "",
};

const isOff = (block, head) => switches.heads.get(block.module)?.has(head) ?? false;
const isTokenOff = (block, key) => switches.tokens.get(block.module)?.has(key) ?? false;

/* Put a member into a set of a map of sets, or take it out. */
function put(map, module, member, on) {
  const set = map.get(module) ?? new Set();
  if (on) set.add(member);
  else set.delete(member);
  if (set.size) map.set(module, set);
  else map.delete(module);
}

/* The blocks whose tokens are those of a block: of its stage, or all blocks of a ViT. */
function stageOf(block) {
  const stage = b => b.module.match(/^(layers\.|stage)\d+/)?.[0] ?? "";
  return attentionBlocks().filter(b => stage(b) === stage(block));
}

/* The number of the key of a token of the map, [row, column]; of the class token if it is null. */
function keyOf(g, token) {
  if (token === null) return 0;
  if (g.window) return token[0] * g.W + token[1];
  const [row, column] = token.map(n => Math.floor(n / g.keys.stride));
  return g.keys.prefix + Math.min(row, g.keys.H - 1) * g.keys.W + Math.min(column, g.keys.W - 1);
}

/* What a key is, in words. */
function keyName(g, key) {
  if (key < g.keys.prefix) return "the class token";
  const [width, n] = g.window ? [g.W, key] : [g.keys.W, key - g.keys.prefix];
  return `${g.keys.stride > 1 ? "the key" : "the token"} at row ${Math.floor(n / width)}, column ${n % width}`;
}

/* The last step of a name that a call of a module's function bound, and null if there is none. */
function boundNode(module, name, what) {
  const call = app.program.calls.find(c => c.module === module && c.function === name);
  return call?.bindings.findLast(b => b[1] === what)?.[2] ?? null;
}

/* The cells of a block's scores that belong to some keys. */
function cellsOfKeys(block, keys) {
  const [first, nh, N, S] = block.shape,
    g = geometryOf(block.module),
    cells = [];
  for (const key of keys) {
    const [window, place] = g.window ? windowOf(g, Math.floor(key / g.W), key % g.W) : [0, key];
    for (let b = window; b < first; b += g.window ? g.window.rows * g.window.columns : 1)
      for (let row = 0; row < nh * N; row++) cells.push((b * nh * N + row) * S + place);
  }
  return cells;
}

/* Whether a query of a block would have nothing to look at without these keys. */
function blindsSome(block, keys) {
  const S = block.shape[3],
    scores = app.engine.get(boundNode(block.module, "attention_forward", "scores")),
    off = new Set(cellsOfKeys(block, keys)),
    rows = new Set([...off].map(flat => Math.floor(flat / S)));
  return [...rows].some(row => {
    for (let flat = row * S; flat < (row + 1) * S; flat++) if (scores[flat] > -Infinity && !off.has(flat)) return false;
    return true;
  });
}

/* All cells that the switches set: node → Map of cell → number. */
function cellsOfSwitches() {
  const edits = new Map();
  const set = (node, cells, value, what) => {
    if (node === null || !cells.length) return;
    const edit = edits.get(node) ?? new Map();
    for (const flat of cells) edit.set(flat, value);
    edit.what = what;
    edits.set(node, edit);
  };
  for (const block of attentionBlocks()) {
    const [first, nh] = block.shape,
      heads = [...(switches.heads.get(block.module) ?? [])],
      tokens = [...(switches.tokens.get(block.module) ?? [])];
    for (const [name, what] of heads.length
      ? [
          ["attention_forward", "y"],
          ["attention_backward", "dy"],
        ]
      : []) {
      const node = boundNode(block.module, name, what),
        n = sizeOf(app.engine.shape(node).slice(2)),
        cells = [];
      for (let b = 0; b < first; b++)
        for (const k of heads) for (let i = 0; i < n; i++) cells.push((b * nh + k) * n + i);
      set(node, cells, 0, "head");
    }
    set(boundNode(block.module, "attention_forward", "scores"), cellsOfKeys(block, tokens), -Infinity, "token");
  }
  for (const node of meanOfTokens()) {
    const [B, N, C] = app.engine.shape(node);
    for (const key of goneTokens())
      for (let b = 0; b < B; b++)
        set(
          node,
          Array.from({length: C}, (_, c) => (b * N + key) * C + c),
          0,
          "token",
        );
  }
  return edits;
}

/* A ViT's tokens that are off in every block. */
function goneTokens() {
  const blocks = attentionBlocks();
  return [...(switches.tokens.get(blocks[0]?.module) ?? [])].filter(key => blocks.every(b => isTokenOff(b, key)));
}

/* What a ViT's mean over its tokens reads, and the gradient that comes back; nothing where a class token answers. */
function meanOfTokens() {
  const mean = app.engine.nodes.find(
    n => n.op === "mean" && n.call >= 0 && app.program.calls[n.call].function === "ViT.pool",
  );
  const back = app.program.calls.find(c => c.function === "ViT.pool_backward"),
    dx = back?.bindings.find(b => b[1] === "dx")?.[2];
  return mean && dx !== undefined ? [mean.args[0], dx] : [];
}

/* Bring the engine's cells up to the switches, and everything that depends on those that have changed. */
async function applySwitches() {
  const before = app.engine.edits,
    now = cellsOfSwitches(),
    same = node =>
      before.get(node)?.size === now.get(node)?.size && [...now.get(node).keys()].every(k => before.get(node).has(k));
  app.engine.edits = now;
  await app.edited([...new Set([...before.keys(), ...now.keys()])].filter(node => !same(node)));
}

async function switchHead(block, head) {
  put(switches.heads, block.module, head, !isOff(block, head));
  await applySwitches();
}

/* Switch a key off or on, in one block or in all blocks of its stage. */
async function switchToken(block, key, everywhere = switches.everywhere) {
  const blocks = everywhere ? stageOf(block) : [block],
    off = !blocks.every(b => isTokenOff(b, key));
  switches.message = "";
  if (off && blocks.some(b => blindsSome(b, [...(switches.tokens.get(b.module) ?? []), key]))) {
    switches.message = "This token stays on: without it, some query would have no key left to look at.";
    return drawPhoto();
  }
  for (const b of blocks) put(switches.tokens, b.module, key, off);
  await applySwitches();
}

/* What the switch of a token does, in words. */
function tokenText(block, g) {
  const {family, config} = app.program.about,
    every = switches.everywhere,
    last = family === "ViT" && every;
  return (
    `Off means: ${every ? everyName(block) : `in ${blockName(block)}`}, no query looks at this token. ` +
    "Its score as a key is −∞ in every head, and softmax divides the attention among the other keys. " +
    (family === "CvT" && config.qkv_method !== "linear"
      ? `A key is made of ${config.qkv_kernel} × ${config.qkv_kernel} tokens; the keys beside it stay. `
      : "") +
    (last && meanOfTokens().length
      ? "It also counts as zero in the mean over the tokens at the end."
      : last
        ? "The class token then answers as if the sequence did not have it."
        : "The token itself goes on along the residual path.")
  );
}
const everyName = block =>
  `in all ${stageOf(block).length} blocks${app.program.about.family === "ViT" ? "" : " of the stage"}`;
const blockName = b => b.module.replace(/\.attn$/, "");

/* The controls under the image: heads, the class token, and the two switches. */
function attentionControls(block, g) {
  const toggle = (pressed, text, onclick, more = {}) =>
    h("button", {"aria-pressed": String(pressed), onclick, ...more}, text);
  const choose = head => () => {
    photo.head = head;
    drawPhoto();
  };
  const key = keyOf(g, asked(g)),
    blocks = switches.everywhere ? stageOf(block) : [block],
    off = blocks.every(b => isTokenOff(b, key));
  return [
    h(
      "div",
      {class: "photo-row"},
      h("span", {}, "head"),
      h(
        "span",
        {class: "heads"},
        toggle(photo.head < 0, "mean", choose(-1)),
        [...Array(block.shape[1]).keys()].map(n =>
          toggle(photo.head === n, isOff(block, n) ? `${n} (off)` : n, choose(n)),
        ),
      ),
      photo.head >= 0
        ? toggle(
            isOff(block, photo.head),
            isOff(block, photo.head) ? "head is off" : "switch this head off",
            () => switchHead(block, photo.head),
            {class: "quiet", id: "switch-head", title: "its output y is set to 0, and so is its gradient dy"},
          )
        : null,
    ),
    h(
      "div",
      {class: "photo-row"},
      h("span", {id: "token-name"}, keyName(g, key)),
      toggle(off, off ? "it is off" : "switch it off", () => switchToken(block, key), {
        class: "quiet",
        id: "switch-token",
      }),
      h(
        "select",
        {
          id: "switch-where",
          "aria-label": "where the token is switched off",
          onchange: e => {
            switches.everywhere = e.target.value === "1";
            drawPhoto();
          },
        },
        [`in ${blockName(block)}`, stageOf(block).length > 1 ? everyName(block) : null]
          .filter(Boolean)
          .map((text, k) => h("option", {value: k, selected: switches.everywhere === (k === 1)}, text)),
      ),
      g.prefix
        ? toggle(
            photo.asClass,
            "class token",
            () => {
              photo.asClass = !photo.asClass;
              drawPhoto();
            },
            {class: "quiet", id: "class-token", title: "where the class token looks"},
          )
        : null,
    ),
    h("p", {class: "note", id: "switch-text"}, switches.message || tokenText(block, g)),
  ];
}

/* The token that is asked about: where the pointer last clicked, or null for the class token. */
const asked = g => (photo.asClass && g.prefix ? null : photo.query);
