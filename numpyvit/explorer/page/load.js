"use strict";
/* Reads what Python wrote into the page: the program and the arrays. */

function bytesOf(id) {
  const text = document.getElementById(id).textContent.trim();
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text),
    bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const CRC = Uint32Array.from({length: 256}, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
function checksum(bytes) {
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) c = CRC[(c ^ bytes[i]) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

const KINDS = {
  f4: Float32Array,
  f8: Float64Array,
  i1: Int8Array,
  i2: Int16Array,
  i4: Int32Array,
  u1: Uint8Array,
};

/* Rows of arrays_of() in pack.py → {leaves: Map node → Float64Array, tables: [Int32Array], damaged: [node or table]} */
function unpackArrays(rows, bytes) {
  const leaves = new Map(),
    tables = [],
    damaged = [];
  let start = 0;
  for (const row of rows) {
    const Kind = KINDS[row.dtype],
      width = Kind.BYTES_PER_ELEMENT,
      n = row.size,
      raw = new Uint8Array(n * width);
    const planes = bytes.subarray(start, start + n * width);
    if (planes.length !== n * width || checksum(planes) !== row.crc) damaged.push(row.node ?? `table ${row.table}`);
    for (let b = 0; b < width; b++) for (let i = 0; i < n; i++) raw[i * width + b] = planes[b * n + i];
    start += n * width;
    const array = new Kind(raw.buffer);
    if (row.node !== undefined) {
      const {scale = 0, offset = 0} = row;
      leaves.set(
        row.node,
        Float64Array.from(array, x => (x - offset) * 2 ** scale),
      );
    } else tables[row.table] = array;
  }
  return {leaves, tables, damaged};
}

/* Compare the engine's values with what NumPy found when the page was written: every step's count, sum, sum of
   squares, largest magnitude and some cells. → {tensors, numbers, worst, worstStep, failed: [step ids]} worst is
   relative to the largest magnitude of the step, plus 1e-4: some gradients are zero but for rounding. */
const AGREE = 1e-9,
  FLOOR = 1e-4;
function compare(engine, steps, damaged) {
  const check = {tensors: 0, numbers: 0, worst: 0, worstStep: "", failed: []};
  for (const step of steps) {
    const [count, sum, squares, largest, cells, samples] = step.witness,
      x = engine.get(step.node);
    let n = 0,
      s = 0,
      q = 0,
      m = 0,
      spread = 0;
    for (let i = 0; i < x.length; i++) {
      const v = x[i];
      if (v - v !== 0) continue;
      n++;
      s += v;
      q += v * v;
      const a = Math.abs(v);
      spread += a;
      if (a > m) m = a;
    }
    const scale = largest + FLOOR;
    let worst = Math.max(
      Math.abs(m - largest) / scale,
      Math.abs(s - sum) / (spread + FLOOR),
      Math.abs(q - squares) / (squares + FLOOR),
    );
    cells.forEach((c, k) => {
      if (samples[k] === null) {
        if (Number.isFinite(x[c])) worst = Infinity;
      } else worst = Math.max(worst, Math.abs(x[c] - samples[k]) / scale);
    });
    if (n !== count || worst !== worst) worst = Infinity;
    check.tensors++;
    check.numbers += x.length;
    if (worst > check.worst) {
      check.worst = worst;
      check.worstStep = step.id;
    }
    if (!(worst <= AGREE) || damaged.includes(step.node)) check.failed.push(step.id);
  }
  if (damaged.length) {
    check.worst = Infinity;
    check.failed.push(...damaged.map(d => `array ${d}`));
  }
  return check;
}
