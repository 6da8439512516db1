"use strict";
/* Where the tokens of a block lie on the image: grids, Swin's windows and their shift, CvT's strided keys. */

const sides = size => (Array.isArray(size) ? size : [size, size]);

/* How many windows CvT's average pooling has along an axis of n tokens: the last one may reach over the edge. */
function pooled(n, {qkv_kernel, kv_stride}) {
  const padding = qkv_kernel >> 1,
    windows = Math.ceil((n + 2 * padding - qkv_kernel) / kv_stride) + 1;
  return (windows - 1) * kv_stride >= n + padding ? windows - 1 : windows;
}

/* {H, W, prefix, patch, keys: {H, W, stride, prefix}, window: {M, shift, rows, columns} or null} of a module of
   attention. */
function geometryOf(module) {
  const {config, family} = app.program.about,
    block = attentionBlocks().find(b => b.module === module || (module && b.module.startsWith(module + ".")));
  if (!block) return null;
  const [height, width] = sides(config.img_size),
    [queries, keys] = block.shape.slice(-2);
  const number = pattern => Number(module.match(pattern)?.[1] ?? 0);
  if (family === "Swin") {
    let [H, W] = [height, width].map(n => Math.ceil(n / config.patch_size)),
      stage = number(/layers\.(\d+)/);
    for (let i = 0; i < stage; i++) [H, W] = [Math.ceil(H / 2), Math.ceil(W / 2)];
    const M = Math.min(H, W, config.window_size),
      whole = Math.min(H, W) <= config.window_size;
    const shift = !whole && number(/blocks\.(\d+)/) % 2 ? Math.floor(config.window_size / 2) : 0,
      rows = Math.ceil(H / M),
      columns = Math.ceil(W / M);
    return {
      H,
      W,
      prefix: 0,
      patch: sides(config.patch_size * 2 ** stage),
      window: {M, shift, rows, columns},
      keys: {H, W, stride: 1, prefix: 0},
    };
  }
  if (family === "CvT") {
    let size = [height, width];
    config.stem_widths.forEach((_, i) => {
      const pool = config.stem_pools[i] ?? 1;
      size = size.map(n => Math.floor((Math.floor((n - 1) / config.stem_strides[i]) + 1) / pool)); // 3×3, padded by 1
    });
    const stage = number(/stage(\d+)/);
    for (let i = 0; i <= stage; i++)
      size = size.map(
        n => Math.floor((n + 2 * config.patch_paddings[i] - config.patch_sizes[i]) / config.patch_strides[i]) + 1,
      );
    const [H, W] = size,
      prefix = queries - H * W,
      stride = config.qkv_method === "linear" ? 1 : config.kv_stride;
    const [kh, kw] = size.map(n => (config.qkv_method === "avg" ? pooled(n, config) : Math.ceil(n / stride))),
      fits = kh * kw === keys - prefix;
    return {
      H,
      W,
      prefix,
      patch: [height / H, width / W],
      window: null,
      field: config.qkv_method === "dw_bn" ? config.qkv_kernel : 0,
      keys: fits ? {H: kh, W: kw, stride, prefix} : {H: 1, W: keys - prefix, stride: 1, prefix},
    };
  }
  const side = Math.round(Math.sqrt(queries)),
    patch = sides(config.patch_size),
    H = Math.floor(height / patch[0]),
    W = Math.floor(width / patch[1]);
  const prefix = queries - H * W;
  return side && prefix >= 0 ? {H, W, prefix, patch, window: null, keys: {H, W, stride: 1, prefix}} : null;
}

/* The window and the place in it of a token of the map; and back, null for padding. */
function windowOf(g, row, column) {
  const {M, shift, rows, columns} = g.window,
    r = (row - shift + rows * M) % (rows * M),
    c = (column - shift + columns * M) % (columns * M);
  return [Math.floor(r / M) * columns + Math.floor(c / M), (r % M) * M + (c % M)];
}
function tokenOfWindow(g, window, place) {
  const {M, shift, rows, columns} = g.window;
  const r = (Math.floor(window / columns) * M + Math.floor(place / M) + shift) % (rows * M),
    c = ((window % columns) * M + (place % M) + shift) % (columns * M);
  return r < g.H && c < g.W ? [r, c] : null;
}

/* What a query of a block looks at: {weights (one a key of the grid), prefix: weight of the class token, padding:
   weight of the padding, masked: Set of keys}. head −1 is the mean of the heads; the query is a row and a column, or
   null for the class token. */
function attentionOf(block, g, head, query) {
  const data = app.data(block.step),
    [first, nh, N, S] = block.shape,
    {keys} = g,
    weights = new Float64Array(keys.H * keys.W),
    masked = new Set();
  const heads = head < 0 ? [...Array(nh).keys()] : [head];
  let prefix = 0,
    padding = 0,
    row = 0,
    window = 0;
  if (g.window) [window, row] = windowOf(g, ...query);
  else row = query === null ? 0 : g.prefix + query[0] * g.W + query[1];
  for (const h of heads) {
    const start = ((window * nh + h) * N + row) * S;
    for (let k = 0; k < S; k++) {
      const w = data[start + k] / heads.length;
      if (g.window) {
        const token = tokenOfWindow(g, window, k);
        if (!token) {
          padding += w;
          continue;
        }
        weights[token[0] * g.W + token[1]] += w;
        const key = token[0] * g.W + token[1];
        if (data[start + k] === 0 && !isTokenOff(block, key)) masked.add(key);
      } else if (k < keys.prefix) prefix += w;
      else weights[k - keys.prefix] += w;
    }
  }
  return {weights, prefix, padding, masked, window};
}

/* The block whose tokens a step is about: its own, or one beside the place where forward comes to its module. Of these
   two it is the one before, unless the step has tokens as only the one behind has them. */
function blockFor(step) {
  const blocks = attentionBlocks(),
    own = step.module.match(/^.*?blocks\.\d+/)?.[0],
    computed = s => s.phase === "forward" && !isGiven(s),
    sameModule = s => s.module && `${step.module}.`.startsWith(`${s.module}.`),
    twin = s => isGiven(step) || twinNames(step.op).includes(s.op);
  const place = computed(step) ? step : app.steps.find(s => computed(s) && (step.module ? sameModule : twin)(s)),
    before = b => !place || b.step.number < place.number;
  const beside = [blocks.findLast(before), blocks.find(b => !before(b))].filter(Boolean);
  return (
    blocks.find(b => own && b.module.startsWith(own + ".")) ||
    beside.find(b => hasGrid(step, geometryOf(b.module))) ||
    beside[0] ||
    null
  );
}
function hasGrid(step, g) {
  const shape = app.shape(step),
    fits = (axis, k) =>
      axis === "row"
        ? shape[k] === g.H && shape[k + 1] === g.W
        : axis === "token" && [g.H * g.W, g.prefix + g.H * g.W].includes(shape[k]);
  return g && axesOf(step).some(fits);
}

/* "37 (row 4, column 5)" for the n-th token along an axis of a step. */
function tokenName(step, n, axis, index) {
  const block = blockFor(step),
    g = block && geometryOf(block.module);
  if (!g) return String(n);
  const size = app.shape(step)[axesOf(step).indexOf(axis)],
    grid = axis === "key" || /^d?[kv]$/.test(step.name) ? g.keys : g;
  if (g.window) {
    if (axesOf(step)[0] === "window" || size === g.window.M ** 2) {
      const t = tokenOfWindow(g, index[0] % (g.window.rows * g.window.columns), n);
      return t ? `${n} (row ${t[0]}, column ${t[1]})` : `${n} (padding)`;
    }
    return size === g.H * g.W ? `${n} (row ${Math.floor(n / g.W)}, column ${n % g.W})` : String(n);
  }
  if (grid.prefix && n < grid.prefix && size === grid.prefix + grid.H * grid.W) return "of the class";
  const offset = size === grid.prefix + grid.H * grid.W ? grid.prefix : 0;
  return size - offset === grid.H * grid.W
    ? `${n} (row ${Math.floor((n - offset) / grid.W)}, column ${(n - offset) % grid.W})`
    : String(n);
}

/* [row, column] of the token that a cell of a step is about, or null. */
function tokenOfCell(step, flat) {
  const block = blockFor(step),
    g = block && geometryOf(block.module),
    shape = app.shape(step),
    axes = axesOf(step);
  if (!g || isGiven(step)) return null;
  const index = unflatten(flat, shape),
    axis = axes.findIndex(a => a === "token" || a === "query");
  if (axis >= 0) {
    const n = index[axis],
      size = shape[axis];
    if (g.window && axes[0] === "window") return tokenOfWindow(g, index[0] % (g.window.rows * g.window.columns), n);
    const offset = size === g.prefix + g.H * g.W ? g.prefix : 0;
    return size - offset === g.H * g.W && n >= offset ? [Math.floor((n - offset) / g.W), (n - offset) % g.W] : null;
  }
  const [r, c] = [axes.indexOf("row"), axes.indexOf("column")];
  return r >= 0 && shape[r] === g.H && shape[c] === g.W ? [index[r], index[c]] : null;
}
