"""What the tour and the image of the explorer's page say is true for nets with a stem, of every pooling and of every kind of keys."""
import re

import pytest

import explorer_pages
from chromium import PROGRAM
from explorer_pages import CVT, VIT, page, recording

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")
STEM = dict(stem_widths=(4, 6, 5), stem_strides=(1, 1, 1), stem_pools=(2, 1, 2))
CVT_STEM = dict(CVT, stem_widths=(4, 6), stem_strides=(1, 1), stem_pools=(2, 1), patch_strides=(1, 2))
NETS = {
    "vit": ("vit", VIT),
    "vit_post": ("vit", dict(VIT, norm_order="post", global_pool="avg", pos_embed="sincos2d")),
    "vit_rotary": ("vit", dict(VIT, pos_embed="rotary")),
    "vit_table_and_rotary": ("vit", dict(VIT, pos_embed="sincos2d+rotary")),
    "vit_stem": ("vit", dict(VIT, **STEM, global_pool="avg", pos_embed="sincos2d")),
    "vit_strides": ("vit", dict(VIT, stem_widths=(5,), stem_strides=(4,), global_pool="gap", pos_embed="none")),
    "swin_stem": ("swin", dict(img_size=12, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4,
                               stem_widths=(4, 6), stem_strides=(1, 1), stem_pools=(1, 2))),
    "cvt": ("cvt", CVT),
    "cvt_stem": ("cvt", CVT_STEM),
    "cvt_tiles": ("cvt", dict(CVT, patch_sizes=(2, 2), patch_paddings=(0, 0), cls_token=False)),
    "cvt_one_stage": ("cvt", dict(img_size=10, embed_dims=(6,), depths=(1,), num_heads=(2,), patch_sizes=(3,), patch_strides=(2,), patch_paddings=(1,))),
    "cvt_avg": ("cvt", dict(CVT, qkv_method="avg", img_size=8)),              # a map of 4 × 4, whose last pooling reaches over the edge
    "cvt_linear": ("cvt", dict(CVT, qkv_method="linear")),
    "cvt_stride_1": ("cvt", dict(CVT, kv_stride=1)),
}


@pytest.fixture(scope="module")
def tours(browser, tmp_path_factory):
    """{net: {title: (address of the step, its shape, text, text under the image)}}, each made when it is asked for."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def tour(name):
        if name not in made:
            family, fields = NETS[name]
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(explorer_pages.MODELS, name, (family, fields, 1, False))
                check = browser.open(page(recording(name), folder / f"{name}.html"))
            assert check["failed"] == []
            stops = browser.run("tour.stops.map((s, k) => (showTour(k), [s.title, s.target.id, app.shape(s.target), $('tour').textContent, "
                                "$('photo-text').textContent]))")
            made[name] = {title: rest for title, *rest in stops}
            assert len(made[name]) == len(stops)
        return made[name]
    return tour


@pytest.mark.parametrize("name, module, shape", [("vit_stem", "patch_embed", [1, 4, 12]), ("swin_stem", "patch_embed", [1, 36, 8]),
                                                 ("cvt_stem", "stage0.patch_embed.proj", [1, 5, 5, 6])])
def test_a_stem_has_a_stop_of_its_own(name, module, shape, tours):
    """Its windows overlap and its cells are no tokens; tokens come where the code makes them."""
    stops = tours(name)
    step, _, text, _ = stops["A stem of convolutions"]
    assert step.endswith("stem.0.conv/conv2d_forward/y")
    assert "3 × 3 convolution looks at windows that overlap" in text and "4 channels" in text and "No cell of this map is a token yet" in text
    assert ("2 convolutions of the same kind follow." if name == "vit_stem" else "1 convolution of the same kind follows.") in text
    step, made, text, _ = stops["The stem’s map becomes tokens"]
    assert step.startswith(module + "/") and made == shape and f"{shape[-1]} channels" in text and "pixels" not in text
    assert ("a convolution looks at windows that overlap" if name == "cvt_stem" else "a 1 × 1 convolution turns each cell") in text
    assert not any("do not overlap" in text for _, _, text, _ in stops.values())
    assert list(stops).index("A stem of convolutions") == 1 and list(stops).index("The stem’s map becomes tokens") == 2
    assert "batch norm" in stops["The image"][2]


def test_windows_that_do_not_overlap_are_called_so(tours):
    assert "windows that do not overlap" in tours("vit_strides")["A stem of convolutions"][2]
    for name in ("vit", "cvt_tiles"):
        assert "patches that do not overlap" in tours(name)["Patches become tokens"][2]
    assert "windows that overlap" in tours("cvt")["Overlapping patches become tokens"][2]
    assert not any("stem" in stop[2] for name in ("vit", "vit_post", "cvt", "cvt_tiles") for stop in tours(name).values())


@pytest.mark.parametrize("name", ["vit", "vit_post", "vit_stem"])
def test_positions_order_tokens_not_pixels(name, tours):
    """Behind a stem, a shuffled image gives other tokens: only the order of the tokens is unknown to the blocks."""
    text = tours(name)["Where a token stands"][2]
    assert "the blocks would give the same answer if these tokens came in another order" in text and "image" not in text
    assert "Where a token stands" not in tours("vit_strides")


def test_rotary_positions_have_a_stop(tours):
    step, shape, text, _ = tours("vit_rotary")["Queries and keys turn"]
    assert "blocks.0.attn/" in step and step.endswith("/turned")
    assert shape == [1, 5, 2, 3, 2, 2] and "offset of their places" in text
    assert "Where a token stands" not in tours("vit_rotary") and "Queries and keys turn" not in tours("vit")
    order = list(tours("vit_table_and_rotary"))
    assert order.index("Where a token stands") < order.index("Queries and keys turn") == order.index("Queries meet keys") - 1
    assert "another order" not in tours("vit_table_and_rotary")["Where a token stands"][2]


@pytest.mark.parametrize("name, reads", [("vit", "class token"), ("vit_post", "mean of the tokens"), ("vit_strides", "mean of the tokens"),
                                         ("swin_stem", "mean of the tokens"), ("cvt", "class token"), ("cvt_tiles", "mean of the tokens")])
def test_what_the_logits_are_made_of(name, reads, tours):
    assert f"the {reads} becomes one number a class" in tours(name)["Logits"][2]


def test_the_norm_comes_where_the_net_has_it(tours):
    order = list(tours("vit_post"))
    assert order.index("Layer norm") > order.index("Values are mixed") and "a norm follows each sum" in tours("vit_post")["Layer norm"][2]
    order = list(tours("vit"))
    assert order.index("Layer norm") < order.index("Queries meet keys") and "a norm follows" not in tours("vit")["Layer norm"][2]


@pytest.mark.parametrize("name, said, numbers", [
    ("cvt", "come from convolutions over windows of 3 × 3 tokens, with stride 2", "25 queries meet 9 keys."),
    ("cvt_stem", "come from convolutions over windows of 3 × 3 tokens, with stride 2", "25 queries meet 9 keys."),
    ("cvt_one_stage", "come from convolutions over windows", "25 queries meet 9 keys, and the class token is one more of both."),
    ("cvt_avg", "are made from means over windows of 3 × 3 tokens, with stride 2", "16 queries meet 9 keys.")])
def test_fewer_keys_than_queries(name, said, numbers, tours):
    _, shape, text, photo = tours(name)["Fewer keys than queries"]
    assert said in text and numbers in text
    queries, keys = (int(word) for word in numbers.split() if word.isdecimal())
    more = name == "cvt_one_stage"
    assert shape[-2:] == [queries + more, keys + more]
    assert f"{queries} queries meet {keys} keys: a dot marks where a key’s window is centred." in photo


@pytest.mark.parametrize("name", ["cvt_linear", "cvt_stride_1", "vit", "swin_stem"])
def test_as_many_keys_as_queries(name, tours):
    stops = tours(name)
    assert "Fewer keys than queries" not in stops and not any("dot" in text for *_, text in stops.values())
    if name == "cvt_linear":
        assert not any("stride" in text or "convolution" in photo for _, _, text, photo in stops.values())


@pytest.mark.parametrize("name", NETS)
def test_the_image_has_the_grid_of_the_tokens(name, tours):
    """Behind a stem, too: as many tokens as the first block has queries."""
    stops = tours(name)
    queries = stops["Where a query looks"][1][-2]
    text = next(stop[3] for title, stop in stops.items() if title.endswith(("become tokens", "becomes tokens")))
    H, W = (int(word) for word in text.replace(" tokens", "").split(",")[0].split(" × "))
    if name != "swin_stem":                                                   # whose queries are those of a window
        assert queries == H * W + ("and a class token" in text)
    assert re.search(r"looks at (the keys )?\(", stops["Where a query looks"][3])
