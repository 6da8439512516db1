"""The image of the explorer's page: whose attention it shows, whose token, and what it says of them; the lines and terms of one number."""
import re

import pytest

import explorer_pages
from chromium import PROGRAM
from explorer_pages import page, recording

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")
# maps of 8 × 8 and 4 × 4 tokens, windows of 4: the second block of the first stage shifts its windows
SWIN = dict(img_size=16, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4)
NAMES = ("vit", "vit_post", "vit_rotary", "swin_two", "cvt_eval", "cvt_avg")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(explorer_pages.MODELS, "swin_two", ("swin", SWIN, 1, False))
        return {name: page(recording(name), folder / f"{name}.html") for name in NAMES}


def go(browser, step):
    assert browser.run(f"numpyvit.goto('#' + {step!r})"), step


def hover(browser, flat):
    """The pointer over a cell of the big map; what the image then says."""
    browser.run(f"hoverToken(app.step(), {flat})")
    return browser.run("$('photo-text').textContent")


@pytest.mark.parametrize("name, steps", [
    ("vit", {"patches_of patches": "blocks.0", "norm layer_norm_forward y": "blocks.1", "norm layer_norm_backward dx": "blocks.1", "pos_embed": "blocks.0",
             "cross_entropy_forward shifted": "blocks.1", "logits": "blocks.1", "patch_embed_backward dpatches": "blocks.0", "dpixels": "blocks.0",
             "ViT.embed_backward pos_embed.grad": "blocks.0", "PatchEmbed.backward weight.grad": "blocks.0", "blocks.0.norm1 layer_norm_backward dx": "blocks.0"}),
    ("swin_two", {"patch_embed patches_of patches": "layers.0.blocks.0", "norm layer_norm_forward y": "layers.1.blocks.1", "logits": "layers.1.blocks.1",
                  "layers.1.downsample gather_tokens_forward y": "layers.0.blocks.1", "layers.1.downsample.reduction linear_forward y": "layers.1.blocks.0",
                  "layers.1.downsample.reduction parameter weight": "layers.0.blocks.1", "patch_embed patch_embed_backward dpatches": "layers.0.blocks.0"}),
    ("cvt_eval", {"norm layer_norm_forward y": "stage1.blocks.1", "logits": "stage1.blocks.1", "stem_backward dimages": "stage0.blocks.0",
                  "stage1.patch_embed.norm layer_norm_forward y": "stage1.blocks.0", "stage1.patch_embed.proj col2im dx": "stage0.blocks.0"}),
])
def test_the_image_shows_the_block_that_a_step_is_near(name, steps, browser, pages):
    """Of a step outside the blocks, forward or backward: the block beside the place where forward comes to its module."""
    browser.open(pages[name])
    found = browser.run("app.steps.map(s => [`${s.module} ${s.op} ${s.name}`, blockFor(s).module.replace(/\\.attn$/, '')])")
    for wanted, block in steps.items():
        blocks = {shown for step, shown in found if f" {step}".endswith(f" {wanted}") and (" " in wanted or "norm" not in step)}
        assert blocks == {block}, (wanted, blocks)


def test_a_token_of_another_grid_is_not_shown(browser, pages):
    """The image keeps the block that was chosen; a place on another map means nothing there."""
    browser.open(pages["swin_two"])
    go(browser, "layers.1.blocks.0.norm1/layer_norm_forward/y")
    assert "row 3, column 3" in hover(browser, 15 * 16)                            # token 15 of 4 × 4, 16 channels
    browser.run("""(() => { const select = document.querySelector('#photo-panel select');
                    select.value = '0'; select.dispatchEvent(new Event('change')); })()""")
    said = browser.run("$('photo-text').textContent")
    assert said.startswith("layers.0.blocks.0") and hover(browser, 15 * 16) == said
    go(browser, "layers.0.blocks.0.norm1/layer_norm_forward/y")
    assert "row 7, column 7" in hover(browser, 63 * 8)


def test_a_place_does_not_stay_when_the_map_changes(browser, pages):
    browser.open(pages["cvt_eval"])
    attention = "{}.attn/softmax_forward/y"
    go(browser, attention.format("stage0.blocks.0"))
    browser.run("hoverToken(app.step(), app.data(app.step()).length - 1)")
    assert browser.run("String(photo.hover)") == "4,4"
    go(browser, attention.format("stage1.blocks.0"))
    assert browser.run("photo.hover") is None and re.search(r"looks at the keys \(\d, \d\)", browser.run("$('photo-text').textContent"))


def test_after_the_tour_the_image_follows_the_steps(browser, pages):
    browser.open(pages["swin_two"])
    browser.run("showTour(tour.stops.findIndex(s => s.title.startsWith('Windows')))")
    assert browser.run("photo.follow") is False
    browser.key("Escape")
    go(browser, "layers.1.blocks.0.norm1/layer_norm_forward/y")
    assert browser.run("photo.block.module") == "layers.1.blocks.0.attn"


def test_the_tour_asks_about_a_token_even_after_the_class_token(browser, pages):
    browser.open(pages["vit"])
    browser.run("photo.asClass = true; photo.head = 1; drawPhoto()")
    assert "the class token looks at" in browser.run("$('photo-text').textContent")
    browser.run("showTour(tour.stops.findIndex(s => s.title === 'Where a query looks'))")
    assert "red token" in browser.run("$('tour').textContent") and browser.run("!!document.querySelector('#query')")
    assert "mean of the heads: the token at row" in browser.run("$('photo-text').textContent")


@pytest.mark.parametrize("mode", ["paint", "gradient"])
def test_a_rolled_map_rolls_back_for_a_brush_and_for_the_gradient(mode, browser, pages):
    """Their pixels are those of the image, in its own place."""
    browser.open(pages["swin_two"])
    go(browser, "layers.0.blocks.1.attn/softmax_forward/y")
    browser.run("photo.mode = 'attention'; photo.rolled = 1; drawPhoto()")
    browser.run(f"[...document.querySelectorAll('.photo-tools button')].find(b => b.textContent === {mode!r}).click()")
    assert browser.run("photo.rolled") == 0 and "moved up" not in browser.run("$('photo-text').textContent")


def test_back_leads_to_the_first_view(browser, pages):
    browser.open(pages["vit"])
    first = browser.run("app.step().id")
    assert browser.run("decoded(location.hash)") == f"#{first}"
    go(browser, "norm/layer_norm_forward/y")
    browser.run("history.back()")
    browser.until("app.step().id", first)


def panel(browser, step, flat):
    """The line with values and the terms of a cell."""
    browser.run(f"app.select(app.steps.find(s => s.id.endsWith({step!r})).number, {flat})")
    return [browser.run(f"document.querySelector({part!r}).textContent") for part in ("#cell .formula", "#cell tbody .factors")]


def test_a_function_is_a_term_and_not_a_link_to_itself(browser, pages):
    browser.open(pages["vit"])
    for step in ("blocks.0.attn/softmax_forward/e", "cross_entropy_forward/p"):
        _, term = panel(browser, step, 0)
        assert term.startswith("exp(…) = ") and not browser.run("!!document.querySelector('#cell tbody .factors a')")
    assert browser.run("""app.steps.filter(s => !isGiven(s)).every(s => {
      const {terms} = app.derivation.terms(s.node, 0);
      return terms.every(t => t.factors.every(f => f.node !== s.node || f.call)); })""")


def test_a_maximum_is_written_as_a_sum_is(browser, pages):
    """max₅(…) with the largest cell, which is a link; in the terms, that cell itself."""
    browser.open(pages["vit"])
    line, _ = panel(browser, "cross_entropy_forward/shifted", 0)
    assert re.fullmatch(r"[−\d.]+ − max₅\([−\d.]+, …\) = [−\d.]+", line), line
    largest = browser.run("(() => { const x = [...app.engine.get(app.program.named.logits)]; return x.indexOf(Math.max(...x)); })()")
    links = browser.run("[...document.querySelectorAll('#cell .formula a')].map(a => decoded(a.getAttribute('href')))")
    assert links[1].endswith(f"logits[0,{largest}]")
    cells = browser.run("app.derivation.terms(app.step().node, 0).terms.map(t => t.factors[0].flat)")
    assert sorted(cells) == sorted([0, largest])


@pytest.mark.parametrize("value, text", [(0.999966, "0.999966"), (1, "1"), (3, "3"), (0.25, "0.25"), (-1.00001, "−1.00001"), (1e-9, "1.000e−9")])
def test_a_constant_that_is_not_whole_does_not_look_whole(value, text, browser, pages):
    browser.open(pages["vit"])
    assert browser.run(f"fmtConstant({value})") == text


@pytest.mark.parametrize("name", NAMES)
def test_headings_of_given_steps_have_room(name, browser, pages):
    """Of a parameter of an attention, the name within the attention; in full where the pointer rests."""
    browser.size(1280, 800)
    browser.open(pages[name])
    browser.run("app.select(attentionBlocks()[0].step.number)")
    shown = browser.run("[...document.querySelectorAll('#steps .step-op')].map(e => [e.textContent, e.title, e.scrollWidth <= e.clientWidth])")
    column = browser.run("app.step().column")
    assert any(title.startswith(f"{column}.") for _, title, _ in shown)
    assert all(title in (text, f"{column}.{text}") for text, title, _ in shown)
    assert all(fits for _, title, fits in shown if title.startswith(f"{column}.")), shown
