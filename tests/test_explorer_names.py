"""What the explorer's page calls things: axes, the gradient of an array, the optimiser's steps, windows and padding."""
import math

import numpy as np
import pytest

import explorer_pages
from chromium import PROGRAM
from explorer_pages import MEAN, STD, page, recording, subject
from numpyvit.explorer.record import record
from numpyvit.training.optim import hidden_matrices
from test_explorer import an_update

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")
# windows of 3 × 3 on a map of 8 × 8: padded; the image of 31 × 31 is padded to 32 × 32
PADDED = ("swin", dict(img_size=31, patch_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=3), 1, False)
NAMES = ("vit", "vit_post", "vit_rotary", "vit_square", "swin", "swin_padded", "cvt_eval", "cvt_avg")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(explorer_pages.MODELS, "swin_padded", PADDED)
        square = dict(explorer_pages.VIT, embed_dim=12, num_heads=3, global_pool="avg", pos_embed="none")      # 4 tokens, heads of 4 channels
        patch.setitem(explorer_pages.MODELS, "vit_square", ("vit", square, 1, False))
        return {name: page(recording(name), folder / f"{name}.html") for name in NAMES}


@pytest.fixture(scope="module")
def updated(tmp_path_factory):
    """Muon with frozen parameters, clipping, and another learning rate for what it leaves to AdamW."""
    model, pixels, labels, _ = subject("vit")
    update = an_update(model, "muon", clip_norm=0.01, lr_rest=0.25, freeze="blocks.0.norm1.*,patch_embed.proj.weight")
    r = record(model, pixels, labels, MEAN, STD, optimizer=update)
    return r, page(r, tmp_path_factory.mktemp("pages") / "muon.html", state_bits=16)


def axes(browser, module, op, name):
    """Of the first such step."""
    return browser.run(f"axesOf(app.steps.find(s => s.module === {module!r} && s.op === {op!r} && s.name === {name!r})).join(' ')")


AXES = {
    "vit": [("loss", "target", "target", "image class"), ("image", "table", "mean", "colour  "), ("image", "image", "pixels", "image colour row column"),
            ("blocks.0.attn", "self_attention_forward", "k", "image head token channel"), ("blocks.0.attn", "attention_forward", "scores", "image head query key"),
            ("blocks.0.attn.qkv", "parameter", "weight", "output input"), ("patch_embed", "patches_of", "x", "image colour row patch row column patch column"),
            ("head", "linear_forward", "y", "image class")],
    "vit_square": [("blocks.0.attn", "attention_forward", "y", "image head query channel"), ("blocks.0.attn", "softmax_forward", "y", "image head query key"),
                   ("blocks.0.attn", "self_attention_backward", "dy", "image head query channel"),
                   ("blocks.0.attn", "attention_backward", "dv", "image head token channel")],
    "vit_rotary": [("blocks.0.attn", "table", "cos", "token pair"), ("blocks.0.attn", "table", "sin", "token pair"),
                   ("blocks.0.attn", "turn", "turned", "image token q, k head half pair")],
    "swin": [("layers.0.blocks.1.attn", "table", "mask", "window query key"), ("layers.0.blocks.0.attn", "attention_backward", "dbias", "head query key"),
             ("layers.0.blocks.0.attn", "parameter", "relative_position_bias_table", "offset head"),
             ("layers.0.blocks.0.attn", "self_attention_forward", "q", "window head token channel")],
    "cvt_eval": [("stage0.blocks.0.attn", "split_heads", name, "image head token channel") for name in "qkv"]
    + [("stage1.blocks.0.attn", "attention_forward", "y", "image head query channel"), ("stage1.patch_embed.proj", "conv2d_backward", "dmatrix", "output input")],
}


@pytest.mark.parametrize("name", AXES)
def test_axes_are_called_what_they_run_over(name, browser, pages):
    browser.open(pages[name])
    for module, op, step, expected in AXES[name]:
        assert axes(browser, module, op, step) == expected, (module, op, step)
    assert browser.run("app.steps.every(s => axesOf(s).length === app.shape(s).length)")


SLOPES = """(async () => {
  const found = [], pairs = [];
  for (const s of app.steps) {
    const twin = twinStep(s);
    if (!isGiven(s) && s.phase === "forward" && twin?.text === TWINS.gradient && app.data(s).length) pairs.push([s, twin.step]);
  }
  const loss = () => app.engine.get(app.program.named.loss)[0], seen = new Set();
  const fresh = s => seen.size < seen.add(`${s.op} ${s.name}`).size;           // a pair of every name that an op gives
  for (const [s, gradient] of pairs.filter(([s]) => fresh(s))) {
    const g = app.data(gradient), x = app.data(s), same = app.shape(s).join() === app.shape(gradient).join();
    const k = g.reduce((best, v, j) => Math.abs(v) > Math.abs(g[best]) && Number.isFinite(x[j]) ? j : best, 0), expected = g[k], value = x[k];
    const at = async h => {
      app.engine.edits.set(s.node, new Map([[k, value + h]]));
      await app.engine.update([s.node]);
      return loss();
    };
    const slope = (await at(1e-5) - await at(-1e-5)) / 2e-5;
    app.engine.edits.delete(s.node);
    await app.engine.update([s.node]);
    found.push([s.id, gradient.id, same, slope, expected]);
  }
  return [pairs.length, found];
})()"""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_its_gradient_is_the_slope_of_the_loss(name, browser, pages):
    """A number of the step is changed by a little: the loss changes as the cell of "its gradient" says."""
    browser.open(pages[name])
    number, found = browser.run(SLOPES)
    assert number > 20
    for step, gradient, same, slope, expected in found:
        assert same and math.isclose(slope, expected, rel_tol=1e-4, abs_tol=1e-7), (step, gradient, slope, expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_other_side_of_the_pass(name, browser, pages):
    """A gradient is called so where it has the shape of its array; any other button leads to the same module, and says so."""
    browser.open(pages[name])
    rows = browser.run("""app.steps.map(s => [s, twinStep(s)]).filter(([s, t]) => t).map(([s, t]) =>
      [s.id, t.step.id, t.text, app.shape(s).join() === app.shape(t.step).join(), s.module === t.step.module, s.phase, t.step.phase, s.name, t.step.name])""")
    texts = set()
    for step, twin, text, same_shape, same_module, phase, other, *_ in rows:
        texts.add(text)
        assert phase != other and (same_module if "pass of this op" in text else same_shape), (step, twin, text)
    assert texts == {"its gradient ↓", "its parameter ↑", "its forward ↑", "the backward pass of this op ↓", "the forward pass of this op ↑"}
    block = browser.run("attentionBlocks()[0].module")
    for step, expected in ((f"{block}/softmax_forward/y", f"{block}/attention_backward/ddropped"), (f"{block}/attention_forward/y", "dy")):
        browser.run(f"numpyvit.goto('#' + {step!r})")
        assert "its gradient" in browser.run("$('twin').textContent")
        browser.key("b")
        assert browser.run("app.step().id") == expected or expected == "dy" and browser.run("app.step().op !== 'attention_forward'")


def test_steps_of_the_optimiser_are_an_update(browser, updated):
    """They are no backward pass and have no other side; their axes are those of their parameters."""
    r, path = updated
    assert browser.open(path)["failed"] == []
    steps = browser.run("app.steps.filter(s => s.phase === 'update').map(s => [s.op, s.module, s.name, !!twinStep(s), axesOf(s).join(' '), app.shape(s)])")
    assert {op for op, *_ in steps} == {"clipping", "muon_step", "orthogonal", "adamw_step", "adam_update"}
    assert not any(twin for *_, twin, _, _ in steps) and not browser.run("app.steps.some(s => s.phase === 'backward' && /step|orthogonal|adam/.test(s.op))")
    for op, module, name, _, named, shape in steps:
        assert module or op.startswith("adam"), name                          # of the class token, which is the model's own
        if op in ("muon_step", "orthogonal") and len(shape) == 2:
            rows, columns = next(r.tape.nodes[node].shape for path, node in r.gradients.items() if path == f"{module}.weight")
            turned = op == "orthogonal" and rows > columns and name != "direction"
            expected = ["input", "output"] if turned else ["output", "input"]
            assert named.split() == (expected[:1] * 2 if name == "g" else expected), (module, name)
            assert name == "g" or shape == ([columns, rows] if turned else [rows, columns]), (module, name)
    assert axes(browser, "", "adam_update", "m") == "image token channel" and axes(browser, "head", "adam_update", "m") == "output input"
    matrices = [module for _, module, name, *_ in steps if name == "muon_step(m)"]
    assert matrices and all(module.startswith("blocks.") for module in matrices)
    browser.run("app.select(app.steps.find(s => s.name === 'muon_step(m)').number)")
    assert "as a matrix, with one row for each output" in browser.run("$('step').textContent")
    assert browser.run("document.querySelector('#step .chip').textContent") == "update" and not browser.run("!!$('twin')")
    browser.run("app.select(app.steps.find(s => s.op === 'orthogonal').number)")
    assert browser.run("[...document.querySelectorAll('.source .chip')].map(e => e.textContent)") == ["update"]


def test_each_parameter_has_its_own_rule_and_rate(browser, updated):
    r, path = updated
    browser.open(path)
    said = browser.run("app.steps.filter(s => s.op === 'state').map(s => [s.module, s.name, givenText(s)])")
    for module, name, text in said:
        own = ".".join(filter(None, [module, name.rpartition(".")[0]]))
        muon = own in hidden_matrices(r.model)
        assert ("muon, step 7, learning rate 0.01." if muon else "adamw, step 7, learning rate 0.0025.") in text, (module, name)
        assert "rounded to 16 bits, so the new weights are approximate" in text
    assert {text.split(",")[0] for text in r.texts.values()} == {"muon", "adamw", ""}
    assert "rounded to 16 bits" in browser.run("$('state-bits').textContent")


def test_frozen_parameters(browser, updated):
    """The optimiser leaves them as they are; the squares of the gradient are those of the others, under their own names."""
    r, path = updated
    browser.open(path)
    frozen = {name for name, text in r.texts.items() if not text}
    assert frozen == {"blocks.0.norm1.weight", "blocks.0.norm1.bias", "patch_embed.proj.weight"}
    trained = [name for name in r.gradients if name not in frozen]
    squares = browser.run("""(s => [...app.data(s)].map((x, k) => [x, meaning(s, k, axesOf(s))]))(app.stepOf.get(app.program.named.grad_squares))""")
    assert len(squares) == len(trained)
    for name, (value, said) in zip(trained, squares):
        assert said == f"(of {name})" and math.isclose(value, np.square(r.tape.value(r.gradients[name])).sum(), rel_tol=1e-9, abs_tol=1e-20)
    for name in ("grad_squares", "grad_norm"):
        browser.run(f"app.select(app.stepOf.get(app.program.named.{name}).number)")
        assert "trained" in browser.run("$('step').textContent")
    for name, left in (("blocks.0.norm1.weight", True), ("blocks.1.norm1.weight", False)):
        browser.run(f"app.select(app.stepOf.get(app.program.parameters.find(r => r[0] === {name!r})[1]).number, 0)")
        text = browser.run("$('step').textContent + $('cell').textContent")
        assert ("the optimiser leaves it as it is" in text) is left and ("after one step of the optimiser" in text) is not left


def test_tokens_in_the_order_of_windows_have_no_place_on_the_map(browser, tmp_path):
    """What gather_tokens has brought into windows, or into the rows of patch merging, is not called by rows of the map; the rest is."""
    fields = dict(img_size=16, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4)               # no padding
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(explorer_pages.MODELS, "swin_even", ("swin", fields, 1, False))
        r = recording("swin_even")
    browser.open(page(r, tmp_path / "page.html"))
    steps = browser.run("app.steps.filter(s => /gather_tokens/.test(s.op + s.name)).map(s => [s.node, s.op, s.name, axesOf(s)[1], s.module])")
    index = r.model.layers[0].blocks[0].attn.index
    assert (index != np.arange(64)).any()
    seen = set()
    for node, op, name, axis, module in steps:
        x, args = np.asarray(r.tape.value(node)), [np.asarray(r.tape.value(a)) for a in r.tape.nodes[node].args]
        if module == "layers.0.blocks.0.attn" and op.startswith("gather_tokens"):
            in_windows = any(a.shape == x.shape and np.array_equal(a[:, index], x) for a in args)
            assert axis == ("place" if in_windows else "token") and (in_windows or any(np.array_equal(a, x[:, index]) for a in args))
            seen.add((axis, x.shape[2]))
    assert seen == {("place", 24), ("token", 8), ("place", 8), ("token", 24)}                   # there, back; and both of backward
    of = {(op, name.split("(")[0], module.endswith(".attn"), axis) for _, op, name, axis, module in steps}
    assert ("gather_tokens_forward", "y", False, "place") in of and ("PatchMerging.backward", "gather_tokens_backward", False, "place") in of
    assert ("window_attention_forward", "gather_tokens_forward", True, "place") in of


def test_the_map_is_rolled_only_where_windows_shift(browser, pages):
    browser.open(pages["swin"])
    module = browser.run("attentionBlocks().find(b => geometryOf(b.module).window.shift).module")
    rolls = "[...document.querySelectorAll('button')].some(e => /^roll/.test(e.textContent))"
    browser.run(f"numpyvit.goto('#{module}/softmax_forward/y'), photo.rolled = 1, drawPhoto()")
    assert browser.run(rolls) and "moved up and left" in browser.run("$('photo-text').textContent")
    browser.run("numpyvit.goto('#layers.0.blocks.0.attn/softmax_forward/y')")
    assert browser.run("photo.rolled") == 0 and not browser.run(rolls) and "looks at" in browser.run("$('photo-text').textContent")


@pytest.mark.parametrize("name", ["swin", "swin_padded"])
def test_the_tour_shows_the_hatching_that_it_speaks_of(name, browser, pages):
    browser.open(pages[name])
    browser.run("showTour(tour.stops.findIndex(s => /shift/.test(s.title)))")
    text, photo, lines = browser.run("""[$('tour').textContent, $('photo-text').textContent,
      [...document.querySelectorAll('#photo svg line')].filter(l => l.getAttribute('stroke') === '#ff8fa8').length]""")
    assert text.index("hatched") < text.index("Press") and lines
    number = int(photo.split("Hatched: ")[1].split()[0])
    assert lines == 5 * number and "only because the map was rolled; the mask forbids" in photo


def test_padding_has_its_share(browser, pages):
    """A patch has the pixels that the convolution reads, also where the last ones reach over the image's edge."""
    browser.open(pages["swin_padded"])
    for stage, patch in ((0, 4), (1, 8)):
        block = browser.run(f"attentionBlocks().findIndex(b => b.module.startsWith('layers.{stage}.'))")
        g = browser.run(f"geometryOf(attentionBlocks()[{block}].module)")
        assert g["patch"] == [patch, patch] and (g["H"] - 1) * patch < 31 <= g["H"] * patch
        browser.run(f"photo.follow = false, photo.mode = 'attention', photo.head = -1, photo.block = attentionBlocks()[{block}], drawPhoto()")
        for row, column in ((0, 0), (g["H"] - 1, g["W"] - 1)):
            browser.run(f"photo.query = [{row}, {column}], drawPhoto()")
            shares, padding, text = browser.run(f"""(a => [a.weights.reduce((x, y) => x + y, 0), a.padding, $('photo-text').textContent])(
              attentionOf(photo.block, geometryOf(photo.block.module), -1, [{row}, {column}]))""")
            assert math.isclose(shares + padding, 1, rel_tol=1e-9) and (padding > 0) is (f", and {100 * padding:.1f} % at padding" in text)
            assert padding > 0.1 or row == 0
    sides = browser.run("[...document.querySelectorAll('#photo rect')].map(e => Number(e.getAttribute('x')) + Number(e.getAttribute('width')))")
    assert max(sides[:-1]) <= 31
