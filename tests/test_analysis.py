"""Attention in image coordinates against torch's, for the three families; rollout and distances against hand-made cases."""
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as TF

import numpyvit
import torch_models
from numpyvit.inspection.attention import (BlockAttention, attention_blocks, attention_map, choose, mean_attention_distance, patch_filters,
                               position_similarity, relative_position_bias, rollout, saliency)
from numpyvit.models import model_config
from numpyvit.models.grids import covering, spread_evenly

MODELS = {
    "vit": ("vit", dict(img_size=(8, 12), patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5)),
    "vit avg post": ("vit", dict(img_size=12, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5, global_pool="avg",
                                 norm_order="post", pos_embed="sincos2d")),
    "swin": ("swin", dict(img_size=16, patch_size=2, embed_dim=12, depths=(2, 2), num_heads=(2, 3), window_size=4, num_classes=5)),
    "swin padded": ("swin", dict(img_size=(22, 18), patch_size=2, embed_dim=12, depths=(2, 2), num_heads=(2, 3), window_size=4,
                                 num_classes=5)),
    "cvt": ("cvt", dict(img_size=18, embed_dims=(8, 12), depths=(1, 2), num_heads=(2, 3), patch_sizes=(3, 3), patch_strides=(2, 2),
                        patch_paddings=(1, 1), num_classes=5)),
    "cvt avg": ("cvt", dict(img_size=16, embed_dims=(8,), depths=(2,), num_heads=(2,), patch_sizes=(3,), patch_strides=(2,),
                            patch_paddings=(1,), num_classes=5, qkv_method="avg", cls_token=False)),
    "cvt linear": ("cvt", dict(img_size=16, embed_dims=(8,), depths=(2,), num_heads=(2,), patch_sizes=(3,), patch_strides=(2,),
                               patch_paddings=(1,), num_classes=5, qkv_method="linear")),
}


def make(key, B=2):
    """A model with weights large enough for attention to differ from token to token, and images for it."""
    name, fields = MODELS[key]
    model = numpyvit.create_model(name, seed=1, dtype="float64", **fields)
    rng = np.random.default_rng(0)
    for path, p in model.named_parameters():
        if not path.endswith("bias"):
            p.data[...] = rng.standard_normal(p.shape) * (0.5 if p.data.ndim > 1 else 1)
    size = torch_models.pair(model.config.img_size)
    return model, rng.standard_normal((B, 3, *size))


@pytest.mark.parametrize("key", MODELS)
def test_attention_is_that_of_torch(key, monkeypatch):
    """Torch's scores, caught where its models call scaled_dot_product_attention, and their softmax, row by row."""
    model, images = make(key)
    family, fields = MODELS[key]
    oracle = torch_models.build(family, **dataclasses.asdict(model_config(family, **fields)[1])).double().eval()
    oracle.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in model.state_dict().items()})
    caught, original = [], TF.scaled_dot_product_attention

    def catch(q, k, v, attn_mask=None, scale=None, **_):
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        caught.append(scores.softmax(-1))
        return original(q, k, v, attn_mask=attn_mask, scale=scale)

    monkeypatch.setattr(TF, "scaled_dot_product_attention", catch)
    with torch.no_grad():
        oracle(torch.from_numpy(images))
    _, cache = model.forward(images)
    ours = model.attention_maps(cache)
    assert len(ours) == len(caught)
    for attn, theirs in zip(ours, caught):
        theirs = theirs.numpy().reshape(attn.shape)
        np.testing.assert_allclose(attn, theirs, atol=1e-10)
        np.testing.assert_allclose(attn.sum(axis=-1), 1, atol=1e-12)


@pytest.mark.parametrize("key", MODELS)
def test_rows_sum_to_one_on_the_map(key):
    model, images = make(key)
    for block in attention_blocks(model, images):
        attn, N = block.probs(1), block.class_token + math.prod(block.grid)
        assert attn.shape == (block.num_heads, N, N) and (attn >= 0).all()
        total = attn.sum(axis=-1)
        if key == "swin padded":                                             # the rest went to the padding
            assert (total < 1 + 1e-12).all() and total.min() > 0
        else:
            np.testing.assert_allclose(total, 1, atol=1e-12)


def test_windows_are_put_back(rng=np.random.default_rng(0)):
    """Swin, by brute force: token (y, x) of the map, its window after the shift, its place in that window."""
    model, images = make("swin padded")
    _, cache = model.forward(images)
    maps = model.attention_maps(cache)
    for number, (stage, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        block = attention_blocks(model, images)[number]
        _, H, W, M, shift = list(model.config.stages())[stage]
        shift *= j % 2
        Hp, Wp = H + -H % M, W + -W % M
        across = Wp // M
        def place(y, x):
            y, x = (y - shift) % Hp, (x - shift) % Wp
            return y // M * across + x // M, y % M * M + x % M
        dense = block.probs(1)
        for _ in range(200):
            (y, x), (v, u) = rng.integers(0, [H, W], (2, 2))
            (w, i), (w2, j2) = place(y, x), place(v, u)
            want = maps[number][(Hp // M * across) + w][:, i, j2] if w == w2 else 0
            np.testing.assert_array_equal(dense[:, y * W + x, v * W + u], want)


def test_strided_keys_are_spread_over_their_tokens():
    """CvT: a key at (r, c) was made of the 3 × 3 tokens around (2r, 2c), fewer at the border; a token gets the mean of its keys."""
    model, images = make("cvt")
    _, cache = model.forward(images)
    block, native = attention_blocks(model, images)[0], model.attention_maps(cache)[0]
    H, W = block.grid
    Ho, Wo = -(-H // 2), -(-W // 2)
    want, covered = np.zeros((block.num_heads, H * W, H, W)), np.zeros((H, W))
    for r in range(Ho):
        for c in range(Wo):
            cells = [(y, x) for y in range(2 * r - 1, 2 * r + 2) for x in range(2 * c - 1, 2 * c + 2) if 0 <= y < H and 0 <= x < W]
            for y, x in cells:
                want[:, :, y, x] += native[0][:, :, r * Wo + c]
                covered[y, x] += 1
    assert covered.min() == 1 and covered.max() == 4
    want /= covered
    want /= want.sum(axis=(-2, -1), keepdims=True)
    np.testing.assert_allclose(block.probs(0), want.reshape(want.shape[0], H * W, H * W), atol=1e-12)


def test_covering():
    np.testing.assert_allclose(covering(5, 3, 3, 2, 1), [[1, 0, 0], [1/2, 1/2, 0], [0, 1, 0], [0, 1/2, 1/2], [0, 0, 1]])
    np.testing.assert_allclose(covering(3, 2, 2, 2, 0), [[1, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(covering(3, 2, 1, 2, 0), [[1, 0], [0, 0], [0, 1]])     # the cell between two windows


def test_spread_evenly_by_hand():
    """Windows of 3 cells, stride 2, on a row of 5: 1, 2, 3 become 1, 1.5, 2, 2.5, 3 times 6/10, so that the sum stays 6."""
    np.testing.assert_allclose(spread_evenly(np.array([[1.0, 2, 3]]), (1, 5), 3, 2, 1), [[0.6, 0.9, 1.2, 1.5, 1.8]])
    np.testing.assert_array_equal(spread_evenly(np.zeros((2, 1, 3)), (1, 5), 3, 2, 1), np.zeros((2, 1, 5)))


@pytest.mark.parametrize("key", [key for key in MODELS if "cvt" in key or "vit" in key])
def test_even_attention_looks_even(key):
    """All queries 0: every key gets the same weight, and neither the maps nor the rollout show a pattern."""
    model, images = make(key)
    for name, p in model.named_parameters():
        if ".attn.proj_q." in name:
            p.data[...] = 0
        elif ".attn.qkv." in name:
            p.data[:model.config.embed_dim] = 0
    blocks = attention_blocks(model, images)
    for block in blocks:
        here = block.probs(0)[:, :, block.class_token:]
        np.testing.assert_allclose(here, np.broadcast_to(here.mean(), here.shape), rtol=1e-12)
        if not block.class_token:
            np.testing.assert_allclose(attention_map(block) * math.prod(block.grid), 1, rtol=1e-12)
    shares = rollout(blocks)
    np.testing.assert_allclose(shares, 1 / shares[0].size, rtol=1e-12)


def block_of(probs, grid, pitch=4, class_token=0, stage=0, embed=(4, 4, 0), name="b"):
    probs = np.asarray(probs, float)
    return BlockAttention(name, grid, pitch, class_token, stage, embed, len(probs), 1, lambda b: probs)


def test_distance_by_hand():
    """Two tokens, 4 pixels apart: 1/4 of the first's attention and all of the second's goes to the other."""
    block = block_of([[[3/4, 1/4], [1, 0]], [[1, 0], [0, 1]]], (1, 2))
    np.testing.assert_allclose(mean_attention_distance([block])["b"], [(1 + 4) / 2, 0])
    # with a class token, whose row and column do not count: 1/2 of what the first patch gives to patches goes across
    block = block_of([[[0.2, 0.4, 0.4], [0.6, 0.2, 0.2], [0.5, 0, 0.5]]], (2, 1), pitch=16, class_token=1)
    np.testing.assert_allclose(mean_attention_distance([block])["b"], [8 / 2])


def test_rollout_by_hand():
    """Two blocks of three tokens, the first of them the class token: row 0 of (½ + ½A₂)(½ + ½A₁), class column dropped."""
    A1, A2 = np.array([[0.2, 0.5, 0.3], [0, 1, 0], [0.5, 0, 0.5]]), np.array([[0.4, 0, 0.6], [1, 0, 0], [0, 0.5, 0.5]])
    blocks = [block_of([A1], (1, 2), class_token=1), block_of([A2, A2], (1, 2), class_token=1)]
    # (0.7, 0, 0.3) · [[0.6, 0.25, 0.15], [0, 1, 0], [0.25, 0, 0.75]] = (0.495, 0.175, 0.33)
    np.testing.assert_allclose(rollout(blocks), [[[0.175 / 0.505, 0.33 / 0.505]]])
    np.testing.assert_allclose(rollout(blocks, residual=1.0 - 1e-12).sum(), 1)


def test_rollout_through_stages_by_hand():
    """No class token; one merged token of a 2 × 2 map: whatever the second stage does, each of the four gets a quarter."""
    blocks = [block_of([np.eye(4)], (2, 2), stage=0), block_of([[[1.0]]], (1, 1), stage=1, embed=(2, 2, 0))]
    np.testing.assert_allclose(rollout(blocks), np.full((1, 2, 2), 1 / 4))


@pytest.mark.parametrize("key", MODELS)
def test_rollout_sums_to_one(key):
    model, images = make(key)
    blocks = attention_blocks(model, images)
    shares = rollout(blocks)
    assert shares.shape == (2, *blocks[0].grid) and (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), 1)


def test_attention_map():
    model, images = make("vit")
    blocks = attention_blocks(model, images)
    block = choose(blocks, 1)
    attn = block.probs(0)
    np.testing.assert_array_equal(attention_map(block, head=2), attn[2, 0, 1:].reshape(2, 3))
    np.testing.assert_array_equal(attention_map(block, query=(7, 4)), attn.mean(axis=0)[1 + 3 + 1, 1:].reshape(2, 3))
    model, images = make("vit avg post")
    block = choose(attention_blocks(model, images), "blocks.0")
    np.testing.assert_allclose(attention_map(block), block.probs(0).mean(axis=(0, 1)).reshape(3, 3))


@pytest.mark.parametrize("name, fields, side, pitch", [
    ("cvt", dict(img_size=30, embed_dims=(8,), depths=(1,), num_heads=(2,), patch_sizes=(7,), patch_strides=(4,), patch_paddings=(2,)), 7, 4),
    ("swin", dict(img_size=28, patch_size=4, embed_dim=8, depths=(1, 1, 1), num_heads=(2, 2, 2), window_size=7), 2, 16)])
def test_queries_are_pixels_of_the_image(name, fields, side, pitch):
    """Of the image, not of its grid: a convolution leaves pixels behind its last token, padding makes tokens of none."""
    model = numpyvit.create_model(name, num_classes=3, **fields)
    n = fields["img_size"]
    block = attention_blocks(model, np.random.default_rng(0).standard_normal((1, 3, n, n)))[-1]
    assert block.grid == (side, side) and block.pitch == pitch and block.image == (n, n)
    of_last = block.probs(0).mean(axis=0)[-1, block.class_token:].reshape(side, side)
    np.testing.assert_array_equal(attention_map(block, query=(n - 1, n - 1)), of_last)
    np.testing.assert_array_equal(attention_map(block, query=((side - 1) * pitch, n - 1)), of_last)
    for query in ((n, 0), (0, n), (0, -1)):
        with pytest.raises(ValueError, match=f"the image has {n} pixels, 0 to {n - 1}"):
            attention_map(block, query=query)


@pytest.mark.parametrize("key", MODELS)
def test_saliency_is_the_largest_slope(key):
    model, images = make(key)
    model.flat_grad[...] = 7
    classes = np.array([3, 1])
    values = saliency(model, images, classes)
    assert values.shape == images[:, 0].shape and (model.flat_grad == 7).all()
    y, x = np.unravel_index(values[1].argmax(), values[1].shape)
    slopes = []
    for channel in range(3):
        step = np.zeros_like(images)
        step[1, channel, y, x] = 1e-6
        difference = model.forward(images + step)[0] - model.forward(images - step)[0]
        slopes.append(abs(difference[1, 1]) / 2e-6)
    assert values[1, y, x] == pytest.approx(max(slopes), rel=1e-4)
    predicted = model.forward(images)[0].argmax(axis=1)
    np.testing.assert_array_equal(saliency(model, images), saliency(model, images, predicted))


def test_weights():
    vit, _ = make("vit")
    similarity = position_similarity(vit)
    assert similarity.shape == (2, 3, 2, 3)
    a, b = vit.pos_embed.data[0, 1 + 1], vit.pos_embed.data[0, 1 + 5]
    assert similarity[0, 1, 1, 2] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    np.testing.assert_allclose(position_similarity(make("vit avg post")[0])[1, 1, 1, 1], 1)
    for key in ("vit", "swin", "cvt"):
        components, share = patch_filters(make(key)[0], count=5)
        n, C, P, _ = components.shape
        flat = components.reshape(n, -1)
        np.testing.assert_allclose(flat @ flat.T, np.eye(n), atol=1e-10)
        assert n == 5 and C == 3 and 0 < share.sum() <= 1 + 1e-9 and (np.diff(share) <= 0).all()
    swin, _ = make("swin")
    tables = relative_position_bias(swin)
    assert list(tables) == ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0", "layers.1.blocks.1"]
    attn = swin.layers[0].blocks[1].attn                                     # query 0 is at (0, 0), key 6 at (1, 2)
    want = attn.relative_position_bias_table.data[attn.relative_position_index[0, 6]]
    np.testing.assert_array_equal(tables["layers.0.blocks.1"][:, -1 + 3, -2 + 3], want)


@pytest.mark.parametrize("call, message", [
    (lambda m, b, x: choose(b, 7), "block 7: this model has 2, 0 to 1, by name blocks.0 to blocks.1"),
    (lambda m, b, x: choose(b, "blocks.2"), "by name blocks.0 to blocks.1"),
    (lambda m, b, x: attention_map(b[0], head=3), "head 3: blocks.0 has 3, 0 to 2"),
    (lambda m, b, x: attention_map(b[0], head=-1), "head -1"),
    (lambda m, b, x: attention_map(b[0], image=2), "image 2: there are 2, 0 to 1"),
    (lambda m, b, x: attention_map(b[0], query=(8, 0)), "query y 8: the image has 8 pixels, 0 to 7"),
    (lambda m, b, x: relative_position_bias(m), "ViT has no relative position biases: it knows positions from a table"),
    (lambda m, b, x: position_similarity(make("swin")[0]), "Swin has no position table: it knows positions from relative"),
    (lambda m, b, x: position_similarity(make("cvt")[0]), "CvT has no position table"),
    (lambda m, b, x: saliency(m, x, [1, 5]), "expected 2 numbers from 0 to 4, got"),
    (lambda m, b, x: attention_blocks(m, x[:, :, :4]), "images: expected shape"),
])
def test_bad_input(call, message):
    model, images = make("vit")
    with pytest.raises(ValueError, match=message):
        call(model, attention_blocks(model, images), images)


@pytest.mark.parametrize("key", ["vit", "swin padded", "cvt"])
def test_figures(key, tmp_path):
    """Each is drawn and saved; what it looks like is for the eye."""
    pytest.importorskip("matplotlib")
    from numpyvit import plots
    model, images = make(key)
    blocks = attention_blocks(model, images)
    image = np.random.default_rng(0).integers(0, 256, images.shape[1:], dtype=np.uint8)
    figures = [plots.plot_attention(image, blocks), plots.plot_attention(image, blocks, blocks[0], query=(5, 5), index=1),
               plots.plot_attention(image, blocks, blocks[-1], head=1), plots.plot_rollout(image, rollout(blocks)[0]),
               plots.plot_distances(mean_attention_distance(blocks)), plots.plot_patch_filters(*patch_filters(model)),
               plots.plot_saliency(image, saliency(model, images)[0])]
    figures += [plots.plot_position_similarity(position_similarity(model))] if key == "vit" else []
    figures += [plots.plot_relative_position_bias(relative_position_bias(model), "layers.1.blocks.1")] if key != "vit" and "swin" in key else []
    for i, figure in enumerate(figures):
        plots.save(figure, tmp_path / "new" / f"{i}.png")
        assert (tmp_path / "new" / f"{i}.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="ends in .png"):
        plots.save(figures[0], tmp_path / "x.bmp")
    if "swin" in key:
        with pytest.raises(ValueError, match="this model has layers.0.blocks.0"):
            plots.plot_relative_position_bias(relative_position_bias(model), "blocks.9")


def test_figures_without_matplotlib(monkeypatch):
    import builtins
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    from numpyvit import plots
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        plots.new_figure(1, 1)
