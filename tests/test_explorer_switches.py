"""Switches of the explorer's page: a token or a head is off. The page's numbers are NumPy's after the same change."""
import math

import numpy as np
import pytest

from chromium import PROGRAM
from explorer_pages import MEAN, STD, page, recording, subject
from numpyvit import functional as F
from numpyvit.explorer.record import definitions, float64_twin, record
from numpyvit.explorer.update import UpdateStep
from numpyvit.ops import attention, window_attention
from numpyvit.training.optim import Optimizer
from test_explorer_browser import TERMS

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")
NAMES = ("vit", "vit_post", "vit_relu", "swin", "cvt_eval", "cvt_avg")
STAGES = {"vit": [0, 1], "vit_post": [0, 1], "vit_relu": [0, 1], "swin": [0, 1], "cvt_eval": [1, 2], "cvt_avg": [1, 2]}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {name: page(recording(name), folder / f"{name}.html") for name in NAMES}


def whole_pass(name, model):
    """(logits, loss) of the definitions; the gradients are in the model."""
    _, pixels, labels, _ = subject(name)
    images = (pixels / 255.0 - MEAN[:, None, None]) / STD[:, None, None]
    model.zero_grad()
    with definitions():
        logits, cache = model.forward(images)
        loss, loss_cache = F.cross_entropy_forward(logits, labels)
        model.backward(F.cross_entropy_backward(1.0, loss_cache), cache)
    return logits, loss


def same_as(browser, model, logits, loss):
    np.testing.assert_allclose(browser.run("[...app.engine.get(app.program.named.logits)]"), logits.ravel(), rtol=1e-9)
    np.testing.assert_allclose(browser.run("app.engine.get(app.program.named.loss)[0]"), loss, rtol=1e-9)
    for path, p in model.named_parameters():
        found = browser.run(f"[...app.engine.get(app.program.parameters.find(r => r[0] === {path!r})[2])]")
        np.testing.assert_allclose(found, p.grad.ravel(), rtol=1e-9, atol=1e-11, err_msg=path)


def mask_key(monkeypatch, key, blocks):
    """The attention of these blocks (numbers, in the order of the calls) gets −inf in its mask for a key."""
    plain, windows, calls = attention.attention_forward, window_attention.window_attention_forward, []

    def masked(q, k, v, bias=None, mask=None, *rest, **more):
        calls.append(mask)
        if len(calls) - 1 in blocks and mask is None:
            mask = np.zeros((1, q.shape[2], k.shape[2]))
            mask[..., key] = -np.inf
        return plain(q, k, v, bias, mask, *rest, **more)

    def in_windows(qkv, qkv_bias, bias, index, inverse, num_heads, mask=None, *rest, **more):
        M2 = bias.shape[-1]
        mask = np.zeros((len(index) // M2, M2, M2)) if mask is None else mask.copy()
        window, place = divmod(int(np.flatnonzero(np.asarray(index) == key)[0]), M2)
        if len(calls) in blocks:
            mask[window, :, place] = -np.inf
        return windows(qkv, qkv_bias, bias, index, inverse, num_heads, mask, *rest, **more)

    monkeypatch.setattr(attention, "attention_forward", masked)
    monkeypatch.setattr(window_attention, "window_attention_forward", in_windows)
    return calls


@pytest.mark.parametrize("everywhere", [False, True], ids=["one block", "all of the stage"])
@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_is_off(name, everywhere, browser, pages, monkeypatch):
    """Its score as a key is −inf: NumPy with that mask gives the same logits, loss and gradients; undo undoes it."""
    browser.open(pages[name])
    before = browser.run("[...app.engine.get(app.program.named.logits)]")
    block, (row, column) = STAGES[name][-1], (1, 0)
    key, swin = browser.run(f"""(async () => {{
      const block = attentionBlocks()[{block}], g = geometryOf(block.module), key = keyOf(g, [{row}, {column}]);
      await switchToken(block, key, {str(everywhere).lower()});
      return [key, !!g.window]; }})()""")
    model, _, _, _ = subject(name)
    twin = float64_twin(model)
    calls = mask_key(monkeypatch, key, STAGES[name] if everywhere else [block])
    if everywhere and name in ("vit_post", "vit_relu") and not twin.cls_token:
        pool, back = twin.pool, twin.pool_backward
        rest = np.ones(twin.tokens)[:, None]
        rest[key] = 0
        monkeypatch.setattr(twin, "pool", lambda x: pool(x * rest))
        monkeypatch.setattr(twin, "pool_backward", lambda *args: back(*args) * rest)
    logits, loss = whole_pass(name, twin)
    assert len(calls) == browser.run("attentionBlocks().length") and swin == (name == "swin")
    same_as(browser, twin, logits, loss)
    assert np.abs(logits.ravel() - before).max() > 1e-6 and browser.run("!!$('changed')")
    browser.run("resetAll()")
    assert browser.run("[...app.engine.get(app.program.named.logits)]") == before
    assert not browser.run("!!$('changed') || switches.tokens.size")


def test_off_in_every_block_is_out_of_the_sequence(browser, pages, monkeypatch):
    """A ViT with a class token answers as if the sequence had never had the token."""
    browser.open(pages["vit"])
    browser.run("switchToken(attentionBlocks()[0], 3, true)")
    model, pixels, _, _ = subject("vit")
    twin, images = float64_twin(model), (pixels / 255.0 - MEAN[:, None, None]) / STD[:, None, None]
    embed = twin.embed
    monkeypatch.setattr(twin, "embed", lambda *args: (lambda x, cache: (np.delete(x, 3, axis=1), cache))(*embed(*args)))
    with definitions():
        logits = twin.forward(images)[0]
    np.testing.assert_allclose(browser.run("[...app.engine.get(app.program.named.logits)]"), logits[0], rtol=1e-9)
    said = browser.run("(switches.everywhere = true, drawPhoto(), $('switch-text').textContent)")
    assert "as if the sequence did not have it" in said


@pytest.mark.parametrize("name", ["vit", "swin", "cvt_eval"])
def test_a_head_that_is_off_is_numpys(name, browser, pages):
    """Without a head: as if the projection behind it had zeros for that head's channels; its own gradients are zero."""
    browser.open(pages[name])
    browser.run("switchHead(attentionBlocks().at(-1), 1)")
    twin = float64_twin(subject(name)[0])
    path, p = [(path, p) for path, p in twin.named_parameters() if path.endswith("attn.proj.weight")][-1]
    hd = p.shape[1] // browser.run("attentionBlocks().at(-1).shape[1]")
    p.data[:, hd:2 * hd] = 0
    logits, loss = whole_pass(name, twin)
    p.grad[:, hd:2 * hd] = 0                                                  # dy ⊗ y, and the page's y is zero
    same_as(browser, twin, logits, loss)


@pytest.mark.parametrize("name", ["vit_post", "swin", "cvt_eval"])
def test_terms_add_up_with_switches(name, browser, pages):
    """Every shown sum of terms still equals its cell; cells that a switch has set have neither terms nor a copy."""
    browser.open(pages[name])
    browser.run("""(async () => { const block = attentionBlocks()[0];
                    await switchToken(block, keyOf(geometryOf(block.module), [1, 1]), true);
                    await switchHead(block, 0); })()""")
    browser.run("""(() => { const read = numpyvit.read, kept = new Map();
                    numpyvit.read = id => { if (!kept.has(id)) kept.set(id, read(id)); return kept.get(id); }; })()""")
    terms = TERMS.replace("CELLS", "30").replace("if (!d.copy && !given", "if (!d.copy && !given && !d.set")
    found = browser.run(terms)
    assert found["bad"] == [] and found["terms"] > 10000, found
    said = browser.run("""(() => { const node = boundNode(attentionBlocks()[0].module, 'attention_forward', 'scores');
      app.select(app.stepOf.get(node).number, [...app.engine.edits.get(node).keys()][0]);
      return $('cell').textContent; })()""")
    assert "It is set to −∞: a token is switched off." in said


def test_the_last_key_stays_on(browser, pages):
    browser.open(pages["cvt_eval"])
    off, keys = browser.run("""(async () => { const block = attentionBlocks().at(-1), keys = block.shape[3];
                               for (let k = 0; k < keys; k++) await switchToken(block, k);
                               return [switches.tokens.get(block.module).size, keys]; })()""")
    assert off == keys - 1 and "no key left" in browser.run("$('switch-text').textContent")
    assert math.isfinite(browser.run("app.engine.get(app.program.named.loss)[0]"))


def press_until(browser, key, found):
    for _ in range(200):
        browser.key(key)
        if browser.run(found):
            return
    raise AssertionError(f"{key} never led to {found}")


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_token_is_switched_by_keyboard_alone(name, browser, pages):
    """Tab to the image, arrows to a token, Tab to the switch, Enter: off; Enter again: on. The address stays."""
    browser.open(pages[name])
    address = browser.run("app.address()")
    press_until(browser, "Tab", "document.activeElement.id === 'photo'")
    browser.run("photo.query = [0, 0]")
    browser.key("ArrowDown")
    browser.key("ArrowRight")
    assert browser.run("document.activeElement.id") == "photo" and browser.run("String(photo.query)") == "1,1"
    assert "row 1, column 1" in browser.run("$('token-name').textContent + $('photo-text').textContent")
    press_until(browser, "Tab", "document.activeElement.id === 'switch-token'")
    seen = """[document.activeElement.id, $('switch-token').getAttribute('aria-pressed'), !!$('changed'),
      document.querySelectorAll('.off').length]"""
    browser.key("Enter")
    browser.until(seen, ["switch-token", "true", True, 1])
    assert browser.run("app.address()") == address
    browser.key("Enter")
    browser.until(seen, ["switch-token", "false", False, 0])


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_the_update_follows_a_change(kind, browser, tmp_path, rng=np.random.default_rng(0)):
    """Clipping's scale and Muon's norms are computed again, too: after a token is off, the new weights are those of a
    step of training/optim.py on the new gradient. A frozen parameter stays as it is and does not count in the norm."""
    model, pixels, labels, _ = subject("vit")
    twin, remembered = float64_twin(model), float64_twin(model)
    optimizer = Optimizer(twin, kind, weight_decay=0.05, clip_norm=0.01, freeze="blocks.0.norm1.*")
    noise = rng.standard_normal(twin.flat.size) * 0.01
    vectors = {name: np.abs(noise.astype(np.float32)) for name in optimizer.vectors}
    r = record(model, pixels, labels, MEAN, STD, optimizer=UpdateStep(optimizer, kind, 0.01, 7, vectors))
    browser.open(page(r, tmp_path / "page.html"))
    before = browser.run("app.engine.get(app.program.named.clip_scale)[0]")
    browser.run("switchToken(attentionBlocks()[0], 2, true)")
    for path, p in twin.named_parameters():
        found = browser.run(f"[...app.engine.get(app.program.parameters.find(r => r[0] === {path!r})[2])]")
        p.grad[...] = np.reshape(found, p.shape)
    for key, vector in vectors.items():
        optimizer.vectors[key][...] = vector
    with definitions():
        optimizer.step(0.01, 7, optimizer.grad_norm())
    for path, p in twin.named_parameters():
        found = browser.run(f"[...app.engine.get(app.program.parameters.find(r => r[0] === {path!r})[3])]")
        np.testing.assert_allclose(found, p.data.ravel(), rtol=1e-9, atol=1e-12, err_msg=path)
    frozen = dict(remembered.named_parameters())["blocks.0.norm1.weight"].data
    np.testing.assert_array_equal(dict(twin.named_parameters())["blocks.0.norm1.weight"].data, frozen)
    now = browser.run("app.engine.get(app.program.named.clip_scale)[0]")
    assert 0 < now < 1 and abs(now - before) > 1e-9
    said = browser.run("""(() => { app.select(app.stepOf.get(app.program.named.grad_squares).number, 3);
                          return $('step').textContent + $('cell').textContent; })()""")
    assert "The sum of the squares" in said and "of patch_embed.proj" in said
