"""The explorer's page in headless Chromium: every number against NumPy, every sum of terms, every link, and mutants that must be noticed."""
import numpy as np
import pytest

from chromium import PROGRAM, Browser
from explorer_pages import MODELS, page, read_all, recording

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def recordings():
    return {name: recording(name) for name in MODELS}


@pytest.fixture(scope="module")
def pages(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {name: page(r, folder / f"{name}.html") for name, r in recordings.items()}


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@each_model
def test_every_cell_is_numpys(name, browser, pages, recordings):
    check = browser.open(pages[name])
    r = recordings[name]
    assert check["failed"] == [] and check["worst"] < 1e-9
    steps = read_all(browser)
    assert check["tensors"] == len(steps) and check["numbers"] == sum(x.size for _, x in steps)
    node_of = browser.run("Object.fromEntries(app.steps.map(s => [s.id, s.node]))")
    for step, x in steps:
        np.testing.assert_allclose(x, np.asarray(r.tape.value(node_of[step["id"]]), float), rtol=1e-9, atol=1e-12, err_msg=step["id"])


TERMS = """(() => {
  const bad = [];
  let cells = 0, terms = 0;
  for (const s of numpyvit.steps) {
    const x = numpyvit.read(s.id), every = Math.max(1, Math.floor(x.length / CELLS));
    for (let flat = 0; flat < x.length; flat += every) {
      const d = numpyvit.derive(s.id, flat);
      cells++;
      const given = ["parameter", "buffer", "table", "image", "target", "state"].includes(s.op);
      if (!Object.is(d.sum, x[flat])) bad.push(`${s.id} ${flat}: the sum is not the cell`);
      if (d.copy && d.copy.id !== null && numpyvit.read(d.copy.id)[d.copy.flat] !== d.sum && d.sum === d.sum) bad.push(`${s.id} ${flat}: no copy`);
      if (!d.terms.length) {
        if (!d.copy && !given && d.sum !== 0) bad.push(`${s.id} ${flat}: neither terms nor a copy`);
        continue;
      }
      terms += d.terms.length;
      const sum = d.terms.reduce((a, b) => a + b, 0), spread = d.terms.reduce((a, b) => a + Math.abs(b), 0);
      if (Number.isFinite(d.sum) && !(Math.abs(sum - d.sum) <= 1e-9 * (spread + 1e-12))) bad.push(`${s.id} ${flat}: ${sum} is not ${d.sum}`);
      d.factors.forEach((factors, k) => {
        const product = factors.reduce((p, f) => f.inverse ? p / f.value : p * f.value, 1);
        if (Number.isFinite(d.terms[k]) && !(Math.abs(Math.abs(product) - Math.abs(d.terms[k])) <= 1e-9 * Math.abs(product) + 1e-300))
          bad.push(`${s.id} ${flat}: factors of term ${k}`);
        for (const f of factors) if (f.id !== null && numpyvit.read(f.id)[f.flat] !== f.value) bad.push(`${s.id} ${flat}: link to ${f.id}`);
      });
    }
  }
  return {bad: bad.slice(0, 5), cells, terms};
})()"""


@each_model
def test_terms_add_up_and_links_hold(name, browser, pages):
    browser.open(pages[name])
    browser.run("""(() => { const read = numpyvit.read, kept = new Map();
                    numpyvit.read = id => { if (!kept.has(id)) kept.set(id, read(id)); return kept.get(id); }; })()""")
    found = browser.run(TERMS.replace("CELLS", "40"))
    assert found["bad"] == [] and found["cells"] > 4000 and found["terms"] > 10000, found


FORMULAS = """(() => {
  const two = {add: (a, b) => a + b, subtract: (a, b) => a - b, multiply: (a, b) => a * b, divide: (a, b) => a / b, maximum: Math.max,
    minimum: Math.min, power: Math.pow, greater: (a, b) => +(a > b), equal: (a, b) => +(a === b), copy: a => a, negative: a => -a,
    exp: Math.exp, log: Math.log, sqrt: Math.sqrt, tanh: Math.tanh, absolute: Math.abs, where: (c, a, b) => c ? a : b};
  const bad = [];
  let lines = 0, checked = 0;
  const close = (a, b) => Object.is(a, b) || a === b || Math.abs(a - b) <= 1e-9 * (Math.abs(a) + Math.abs(b)) + 1e-14;
  const visit = (t, where) => {
    t.children.forEach(c => visit(c, where));
    if (t.op === "cell" && app.engine.get(t.node)[t.flat] !== t.value && t.value === t.value) bad.push(`${where}: a cell of ${t.node}`);
    if (t.op in two && Number.isFinite(t.value)) {
      checked++;
      if (!close(two[t.op](...t.children.map(c => c.value)), t.value)) bad.push(`${where}: ${t.op}`);
    }
  };
  for (const s of app.steps) {
    const x = app.data(s), every = Math.max(1, Math.floor(x.length / 25));
    for (let flat = 0; flat < x.length; flat += every, lines++) {
      const tree = app.derivation.formula(s.node, flat);
      if (!Object.is(tree.value, x[flat])) bad.push(`${s.id} ${flat}: ${tree.value} is not ${x[flat]}`);
      visit(tree, `${s.id} ${flat}`);
      formulaText(tree);
    }
  }
  return {bad: bad.slice(0, 5), lines, checked};
})()"""


@each_model
def test_lines_with_values_put_in_are_true(name, browser, pages):
    """The line of a cell is a tree: every leaf is the number of its cell, every + − × / and function of them is what it says."""
    browser.open(pages[name])
    found = browser.run(FORMULAS)
    assert found["bad"] == [] and found["lines"] > 3000 and found["checked"] > 2000, found


@pytest.mark.parametrize("name", [name for name in MODELS if "relu" not in name])         # a kink has no slope
def test_gradients_are_the_slopes_of_the_loss(name, browser, pages):
    """Central differences of the page's own loss, at random weights, pixels and positions. Where max-pooling changes its mind within
    a step, the slope has a kink there: a smaller step stays on one side of it."""
    rng = np.random.default_rng([*name.encode()])
    browser.open(pages[name])
    rows = browser.run("app.program.parameters.map(([n, p, g]) => [n, app.stepOf.get(p).id, app.stepOf.get(g).id, numpyvit.read(app.stepOf.get(p).id).length])")
    picks = [(*rows[rng.integers(len(rows))][1:],) for _ in range(50)]
    for weight, gradient, size in picks:
        flat = int(rng.integers(size))
        slopes, grad, scale = browser.run(f"""(() => {{
          const at = h => (numpyvit.lossWith({weight!r}, {flat}, h) - numpyvit.lossWith({weight!r}, {flat}, -h)) / (2 * h);
          const g = numpyvit.read({gradient!r});
          return [[1e-3, 1e-4, 1e-5].map(h => (4 * at(h / 2) - at(h)) / 3), g[{flat}], Math.max(...g.map(Math.abs))]; }})()""")
        slopes = slopes if "stem" in name else slopes[:1]
        assert min(abs(slope - grad) for slope in slopes) <= 1e-6 * abs(grad) + 1e-7 * scale + 1e-11, (weight, flat, slopes, grad)


def test_no_request_and_a_quiet_console(pages):
    with Browser() as browser:
        for path in pages.values():
            browser.open(path)
        assert browser.run("fetch('https://example.org/').then(() => 'went out', () => 'refused')") == "refused"
        outside = [url for url in browser.requests if not url.startswith("file:") or not url.endswith(".html")]
        assert outside == []
        assert all("Content Security Policy" in line or "example.org" in line for line in browser.console), browser.console


MUTANTS = {
    "swapped operands": ("program", lambda p: swap(p, "subtract")),
    "a transposed map": ("program", lambda p: transpose(p)),
    "a dropped edge": ("program", lambda p: p["nodes"].__setitem__(*other_operand(p))),
    "one changed bit": ("arrays", None),
    "division for a product": ("script", ("out[o + k] = x[i] * y[j];", "out[o + k] = x[i] / y[j];")),
    "a product without its last factor": ("script", ("for (; k < depth; k++) {", "for (; k < depth - 1; k++) {")),
    "a wrong stride": ("script", ("k < n; k++, j += d) out[o + k] = x[j];", "k < n; k++, j += d) out[o + k] = x[at[1]];")),
    "the mean without its count": ("script", ("if (op === \"mean\") {", "if (op === \"means\") {")),
    "erf's tail": ("program", lambda p: p["erf"].__setitem__("small", [*p["erf"]["small"][:-9], *[0.0] * 9])),
    "a wrong attribute": ("program", lambda p: next(n for n in p["nodes"] if n[2] and n[2].get("axes") == [3])[2].__setitem__("axes", [2])),
}


def swap(program, op):
    index = program["ops"].index(op)
    node = [n for n in program["nodes"] if n[0] == index][-1]
    node[1].reverse()


def transpose(program):
    node = next(n for n in program["nodes"] if n[2] and n[2].get("kind") == "transpose" and len(program["shapes"][n[3]]) == 4)
    shape, strides = program["shapes"][n_shape(node)], node[2]["strides"]
    assert len(shape) == len(strides)
    strides[1], strides[3] = strides[3], strides[1]


def n_shape(node):
    return node[3]


def other_operand(program):
    index = program["ops"].index("add")
    where, node = [(i, n) for i, n in enumerate(program["nodes"]) if n[0] == index][-1]
    return where, [node[0], [node[1][0], node[1][0]], *node[2:]]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_noticed(mutant, browser, recordings, tmp_path, monkeypatch):
    from numpyvit.explorer import document
    kind, change = MUTANTS[mutant]
    if kind == "program":
        whole = document.program_of

        def program_of(*args):
            import json
            program = json.loads(json.dumps(whole(*args)))
            change(program)
            return program
        monkeypatch.setattr(document, "program_of", program_of)
    elif kind == "arrays":
        whole_arrays = document.arrays_of

        def arrays_of(r):
            rows, blob = whole_arrays(r)
            blob = bytearray(blob)
            blob[len(blob) // 3] ^= 1
            return rows, bytes(blob)
        monkeypatch.setattr(document, "arrays_of", arrays_of)
    else:
        part = document.part
        before, after = change
        assert sum(part(name).count(before) for name in document.SCRIPTS) == 1
        monkeypatch.setattr(document, "part", lambda name: part(name).replace(before, after))
    path = page(recordings["vit"], tmp_path / "mutant.html")
    try:
        check = browser.open(path)
        assert check["failed"], "nothing failed"
    except RuntimeError:
        pass                                                                 # an exception is noticed, too
