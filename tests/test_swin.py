"""Swin: the windows, the mask and the positions against brute force, the whole model against torch."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cases
import numpyvit
from numpyvit.flat import Pass
from numpyvit.models.swin import SwinConfig
from numpyvit.ops.attention import self_attention_forward
from numpyvit.ops.relative_position import (relative_position_bias_backward, relative_position_bias_forward,
                                            relative_position_index)
from numpyvit.ops.window_attention import window_attention_backward, window_attention_forward
from numpyvit.ops.windows import (gather_tokens_backward, gather_tokens_forward, merge_index, merge_patches_backward,
                                  merge_patches_forward, shifted_window_mask, shifted_windows_backward,
                                  shifted_windows_forward, window_index, windows_of)

torch.set_num_threads(1)
SMALL = dict(in_chans=2, num_classes=5, embed_dim=12, depths=(2, 3), num_heads=(2, 3), window_size=4, patch_size=2, mlp_ratio=1.5)
MAPS = {                                             # H, W, M: maps of every relation to the window
    "multiple": (8, 12, 4), "no multiple": (13, 6, 4), "odd window": (9, 11, 3), "window 7": (16, 14, 7), "one window": (7, 7, 7),
    "flat": (3, 8, 3), "a single token": (1, 1, 1), "even in one axis": (8, 9, 4),
}


def random_model(seed=0, **fields):
    """A float64 Swin with no parameter at its initial value."""
    model = numpyvit.create_model("swin", dtype="float64", **fields)
    rng = np.random.default_rng(seed)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.3, p.shape)
    return model, rng


# --- windows, shift and merging

@pytest.mark.parametrize("H, W, M", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("shifted", [False, True])
def test_one_gather_is_pad_roll_and_partition(H, W, M, shifted):
    shift = M // 2 if shifted else 0
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, H, W, 5))
    y, cache = shifted_windows_forward(x, M, shift)
    index, inverse = window_index(H, W, M, shift)
    gathered, gather_cache = gather_tokens_forward(x.reshape(2, H * W, 5), index, inverse)
    np.testing.assert_array_equal(gathered.reshape(y.shape), y)
    dy = rng.normal(size=y.shape)
    dx = gather_tokens_backward(dy.reshape(gathered.shape), gather_cache)
    np.testing.assert_array_equal(dx.reshape(x.shape), shifted_windows_backward(dy, cache))
    back, _ = gather_tokens_forward(gathered, inverse, index)                # exchanged, it leads back
    np.testing.assert_array_equal(back.reshape(x.shape), x)


def test_windows_and_their_tokens_are_in_row_major_order():
    x = np.arange(24.0).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(shifted_windows_forward(x, 2)[0][:, :, 0],
                                  [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11],
                                   [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]])
    shifted = shifted_windows_forward(x, 2, shift=1)[0][:, :, 0]             # moved up and left by one
    np.testing.assert_array_equal(shifted[0], [7, 8, 13, 14])
    np.testing.assert_array_equal(shifted[-1], [23, 18, 5, 0])               # the four corners of the map


@pytest.mark.parametrize("H, W", [(4, 6), (5, 6), (4, 3), (5, 7), (1, 1), (1, 4)])
def test_merging(H, W):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, H, W, 3))
    y, cache = merge_patches_forward(x)
    padded = np.zeros((2, H + H % 2, W + W % 2, 3))
    padded[:, :H, :W] = x
    for r in range(y.shape[1]):
        for c in range(y.shape[2]):
            here, below, right, diagonal = y[:, r, c].reshape(2, 4, 3).swapaxes(0, 1)
            np.testing.assert_array_equal(here, padded[:, 2 * r, 2 * c])
            np.testing.assert_array_equal(below, padded[:, 2 * r + 1, 2 * c])
            np.testing.assert_array_equal(right, padded[:, 2 * r, 2 * c + 1])
            np.testing.assert_array_equal(diagonal, padded[:, 2 * r + 1, 2 * c + 1])
    dy = rng.normal(size=y.shape)
    dx = merge_patches_backward(dy, cache)
    np.testing.assert_allclose((dx * x).sum(), (dy * y).sum(), rtol=1e-12)   # ⟨Mᵀdy, x⟩ = ⟨dy, Mx⟩
    np.testing.assert_array_equal(merge_patches_backward(y, cache), x)       # a permutation: the inverse
    index, inverse = merge_index(H, W)
    gathered, gather_cache = gather_tokens_forward(x.reshape(2, H * W, 3), index, inverse)
    np.testing.assert_array_equal(gathered.reshape(y.shape), y)
    np.testing.assert_array_equal(gather_tokens_backward(dy.reshape(gathered.shape), gather_cache).reshape(x.shape), dx)


def neighbours(H, W, M, shift, roll_first=False):
    """(nW, M², M²): whether two tokens of a window are as far apart in the map as they are in the window. By brute force."""
    bottom, right = -H % M, -W % M
    place = np.stack(np.mgrid[:H, :W], axis=-1).astype(float)
    place = np.pad(place, ((0, 0 if roll_first else bottom), (0, 0 if roll_first else right), (0, 0)), constant_values=np.nan)
    for axis in (0, 1) if not roll_first else ():                            # the padding has a place in the map, too
        numbers = np.arange(place.shape[axis])
        place[..., axis] = numbers[:, None] if axis == 0 else numbers
    place = np.roll(place, (-shift, -shift), axis=(0, 1))
    if roll_first:
        place = np.pad(place, ((0, bottom), (0, right), (0, 0)), constant_values=np.nan)
    inside = np.stack(np.mgrid[:place.shape[0], :place.shape[1]], axis=-1)
    place, inside = windows_of(place[None], M), windows_of(inside[None], M)
    apart = place[:, :, None] - place[:, None, :], inside[:, :, None] - inside[:, None, :]
    legal = (apart[0] == apart[1]).all(axis=-1)
    real = ~np.isnan(place[..., 0])
    return legal, real[:, :, None] & real[:, None, :]


@pytest.mark.parametrize("side", [8, 13, 14, 16])
@pytest.mark.parametrize("M", [4, 7])
def test_mask_lets_through_neighbours_of_the_map_and_no_others(side, M):
    allowed = shifted_window_mask(side, side, M, M // 2) == 0
    legal, _ = neighbours(side, side, M, M // 2)
    assert (allowed & ~legal).sum() == 0
    assert (~allowed & legal).sum() == 0


@pytest.mark.parametrize("H, W, M", MAPS.values(), ids=MAPS)
def test_mask_on_maps_of_two_different_sides(H, W, M):
    for shift in range(M):
        mask = shifted_window_mask(H, W, M, shift)
        assert mask.dtype == np.float32 and set(np.unique(mask)) <= {0, -np.inf}
        np.testing.assert_array_equal(mask == 0, neighbours(H, W, M, shift)[0])
        assert (np.diagonal(mask, axis1=1, axis2=2) == 0).all()              # no row without a key


@pytest.mark.parametrize("side, M, illegal", [(8, 7, 1600), (16, 7, 2304), (13, 4, 552), (14, 7, 0)])
def test_rolling_before_padding_would_be_caught(side, M, illegal):
    """Otherwise so many pairs of real tokens would attend to each other with an offset that is not theirs in the map."""
    allowed = shifted_window_mask(side, side, M, M // 2) == 0
    legal, real = neighbours(side, side, M, M // 2, roll_first=True)
    assert (allowed & real & ~legal).sum() == illegal


# --- relative positions

def test_relative_position_index():
    np.testing.assert_array_equal(relative_position_index(2), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    for M in (1, 3, 7):
        index = relative_position_index(M)
        np.testing.assert_array_equal(index + index.T, (2 * M - 1)**2 - 1)   # the offset there is minus the offset back
        for i in range(M * M):
            for j in range(M * M):
                down, right = i // M - j // M, i % M - j % M
                assert index[i, j] == (down + M - 1) * (2 * M - 1) + right + M - 1


def test_relative_position_bias_gathers_and_its_backward_adds():
    M, nh = 3, 2
    rng = np.random.default_rng(0)
    table, index = rng.normal(size=((2 * M - 1)**2, nh)), relative_position_index(M)
    bias, cache = relative_position_bias_forward(table, index)
    dbias = rng.normal(size=bias.shape)
    dtable = np.zeros_like(table)
    for i in range(M * M):
        for j in range(M * M):
            np.testing.assert_array_equal(bias[:, i, j], table[index[i, j]])
            dtable[index[i, j]] += dbias[:, i, j]
    np.testing.assert_allclose(relative_position_bias_backward(dbias, cache), dtable, rtol=1e-12, atol=1e-14)


# --- attention in windows

def window_case(H, W, M, shift, seed=0, B=2, nh=3, hd=5):
    rng = np.random.default_rng(seed)
    qkv, qkv_bias = rng.normal(size=(B, H * W, 3 * nh * hd)), rng.normal(size=3 * nh * hd)
    bias = rng.normal(size=(nh, M * M, M * M))
    mask = shifted_window_mask(H, W, M, shift) if shift else None
    return qkv, qkv_bias, bias, *window_index(H, W, M, shift), nh, mask


@pytest.mark.parametrize("H, W, M", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("shifted", [False, True])
def test_window_attention_is_attention_among_neighbours(H, W, M, shifted):
    """Against one global attention over the padded map, in which all but the neighbours are masked."""
    shift = M // 2 if shifted else 0
    qkv, qkv_bias, bias, index, inverse, nh, mask = window_case(H, W, M, shift)
    y, cache = window_attention_forward(qkv, qkv_bias, bias, index, inverse, nh, mask)
    padded_H, padded_W = H + -H % M, W + -W % M
    padded = np.zeros((2, padded_H, padded_W, qkv.shape[-1]))
    padded[:, :H, :W] = qkv.reshape(2, H, W, -1)
    scores = np.full((nh, padded_H * padded_W, padded_H * padded_W), -np.inf)
    for i in range(padded_H * padded_W):
        for j in range(padded_H * padded_W):
            (r, c), (r2, c2) = divmod(i, padded_W), divmod(j, padded_W)
            rolled = [(r - shift) % padded_H, (c - shift) % padded_W, (r2 - shift) % padded_H, (c2 - shift) % padded_W]
            same_window = rolled[0] // M == rolled[2] // M and rolled[1] // M == rolled[3] // M
            if same_window and rolled[0] - rolled[2] == r - r2 and rolled[1] - rolled[3] == c - c2:
                scores[:, i, j] = bias[:, rolled[0] % M * M + rolled[1] % M, rolled[2] % M * M + rolled[3] % M]
    expected, _ = self_attention_forward(padded.reshape(2, -1, qkv.shape[-1]) + qkv_bias, nh, bias=scores)
    expected = expected.reshape(2, padded_H, padded_W, -1)[:, :H, :W].reshape(y.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    probs = cache.attention.attn
    np.testing.assert_allclose(probs.sum(axis=-1), 1, rtol=1e-12)
    if mask is not None:
        assert (probs.reshape(2, len(mask), nh, M * M, M * M).swapaxes(1, 2)[:, :, mask < 0] == 0).all()


def test_a_window_as_large_as_the_map_is_global_attention():
    qkv, qkv_bias, bias, index, inverse, nh, _ = window_case(6, 6, 6, 0)
    y, _ = window_attention_forward(qkv, qkv_bias, bias, index, inverse, nh)
    expected, _ = self_attention_forward(qkv + qkv_bias, nh, bias)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_shift_0_is_plain_window_attention():
    """A shift of 0 masks nothing, and every window is a sequence of its own."""
    assert (shifted_window_mask(8, 12, 4, 0) == 0).all()
    qkv, qkv_bias, bias, index, inverse, nh, _ = window_case(8, 12, 4, 0)
    y, _ = window_attention_forward(qkv, qkv_bias, bias, index, inverse, nh, shifted_window_mask(8, 12, 4, 0))
    y = y.reshape(2, 8, 12, -1)
    for r in range(0, 8, 4):
        for c in range(0, 12, 4):
            window = (qkv + qkv_bias).reshape(2, 8, 12, -1)[:, r:r + 4, c:c + 4].reshape(2, 16, -1)
            expected, _ = self_attention_forward(window, nh, bias)
            np.testing.assert_allclose(y[:, r:r + 4, c:c + 4].reshape(2, 16, -1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("H, W, M, shift", [(8, 8, 4, 2), (5, 6, 4, 2), (4, 4, 4, 0)])
@pytest.mark.parametrize("drop_rate", [0.0, 0.4])
def test_window_attention_backward_by_differences(H, W, M, shift, drop_rate):
    qkv, qkv_bias, bias, index, inverse, nh, mask = window_case(H, W, M, shift)
    seeds = np.arange(2, dtype=np.uint64)
    rng = np.random.default_rng(1)

    def f(qkv, qkv_bias, bias):
        return window_attention_forward(qkv, qkv_bias, bias, index, inverse, nh, mask, drop_rate=drop_rate, seeds=seeds)

    y, cache = f(qkv, qkv_bias, bias)
    dy = rng.normal(size=y.shape)
    gradients = window_attention_backward(dy, cache)
    for i, (x, dx) in enumerate(zip((qkv, qkv_bias, bias), gradients)):
        direction, h = rng.normal(size=x.shape), 1e-5
        above, below = ([a + s * h * direction if k == i else a for k, a in enumerate((qkv, qkv_bias, bias))] for s in (1, -1))
        measured = ((f(*above)[0] - f(*below)[0]) * dy).sum() / (2 * h)
        np.testing.assert_allclose((dx * direction).sum(), measured, rtol=1e-7)


def test_padding_passes_gradient_to_the_bias_of_keys_and_values_only():
    qkv, qkv_bias, bias, index, inverse, nh, mask = window_case(1, 1, 2, 0)  # one token, three of padding
    y, cache = window_attention_forward(qkv, qkv_bias, bias, index, inverse, nh)
    dqkv, dqkv_bias, _ = window_attention_backward(np.ones_like(y), cache)
    dq, dk, dv = (dqkv_bias - dqkv.sum(axis=(0, 1))).reshape(3, -1)          # what came from the padding
    assert (dq == 0).all() and np.abs(dk).min() > 0 and np.abs(dv).min() > 0


# --- the model

SIZES = {
    "a multiple of the window": 32, "no multiple of the window": (20, 28), "odd maps": (18, 26), "odd images": (19, 27),
    "smaller than the window": 6, "smaller in one axis": (6, 22), "one patch": 3, "first stage larger, second smaller": 12,
}


@pytest.mark.parametrize("img_size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("fields", [{}, {"qkv_bias": False, "act": "gelu_tanh"}, {"window_size": 7, "patch_size": 1},
                                    {"depths": (1, 2, 1), "num_heads": (3, 1, 4), "patch_size": 1, "window_size": 3},
                                    {"patch_size": 3, "window_size": 2}],
                         ids=["small", "other options", "window 7", "three stages", "patch 3"])
def test_every_gradient_is_torchs(img_size, fields, figures):
    model, rng = random_model(**{**SMALL, "img_size": img_size, **fields})
    errors = cases.model_errors(model, rng.normal(size=(2, 2, *np.broadcast_to(img_size, 2))), rng.normal(size=(2, 5)), train=True)
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


@given(data=st.data())
def test_any_geometry_is_torchs(data, figures):
    pick = lambda *options: data.draw(st.sampled_from(options))              # noqa: E731
    stages = pick(1, 2, 3)
    heads = tuple(pick(1, 2, 3) for _ in range(stages))
    fields = dict(img_size=(pick(*range(4, 20)), pick(*range(4, 20))), patch_size=pick(1, 2, 3), in_chans=pick(1, 3), num_classes=4,
                  embed_dim=6 * pick(1, 2), depths=tuple(pick(1, 2) for _ in heads), num_heads=heads, window_size=pick(1, 2, 3, 4, 5, 7),
                  mlp_ratio=pick(0.5, 2.0), qkv_bias=pick(True, False), act=pick("gelu", "relu"), norm_eps=pick(1e-5, 1e-6))
    model, rng = random_model(data.draw(st.integers(0, 999)), **fields)
    B, train = pick(1, 2, 3), pick(True, False)
    images = cases.laid_out(rng.normal(size=(B, fields["in_chans"], *fields["img_size"])), pick(*cases.LAYOUTS))
    errors = cases.model_errors(model, images, rng.normal(size=(B, 4)), train)
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


def test_maps_windows_and_shifts_of_the_stages():
    tiny = [(96, 56, 56, 7, 3), (192, 28, 28, 7, 3), (384, 14, 14, 7, 3), (768, 7, 7, 7, 0)]
    assert list(SwinConfig().stages()) == tiny
    cifar = SwinConfig(img_size=(32, 38), patch_size=4, depths=(1, 1, 1), num_heads=(1, 1, 1), window_size=4)
    assert list(cifar.stages()) == [(96, 8, 10, 4, 2), (192, 4, 5, 4, 0), (384, 2, 3, 2, 0)]
    model = numpyvit.create_model("swin", **SMALL, img_size=(12, 40))        # maps 6 × 20 and 3 × 10
    sides = [math.isqrt(len(block.attn.relative_position_bias_table.data)) for layer in model.layers for block in layer.blocks]
    assert sides == [7, 7, 5, 5, 5]                                          # 2M − 1 for windows of 4 and of 3
    assert [block.attn.mask is not None for block in model.layers[0].blocks] == [False, True]


@pytest.mark.parametrize("name, count", [
    ("swin_tiny_patch4_window7_224", 28_288_354), ("swin_small_patch4_window7_224", 49_606_258),
    ("swin_base_patch4_window7_224", 87_768_224), ("swin_large_patch4_window7_224", 196_532_476),
    ("swin_mini_patch2_window4_32", 7_048_612), ("swin_nano_patch2_window4_32", 633_630),
    ("swin_nano_patch4_window4_32", 976_066)])
def test_parameter_counts(name, count):
    assert numpyvit.count_parameters(name) == count


def test_parameter_counts_of_other_windows():
    assert numpyvit.count_parameters("swin_tiny_patch4_window7_224", img_size=384, window_size=12) == 28_338_034
    assert numpyvit.count_parameters("swin_large_patch4_window7_224", img_size=384, window_size=12) == 196_735_516


def test_names_and_shapes_are_timms():
    model = numpyvit.create_model("swin", **SMALL, img_size=32)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    for name, shape in {
            "patch_embed.proj.weight": (12, 2, 2, 2), "patch_embed.norm.bias": (12,),
            "layers.0.blocks.1.attn.relative_position_bias_table": (49, 2), "layers.0.blocks.0.attn.qkv.weight": (36, 12),
            "layers.1.downsample.norm.weight": (48,), "layers.1.downsample.reduction.weight": (24, 48),
            "layers.1.blocks.2.mlp.fc1.weight": (36, 24), "norm.weight": (24,), "head.fc.weight": (5, 24), "head.fc.bias": (5,),
    }.items():
        assert shapes.pop(name) == shape
    assert not [name for name in shapes if "index" in name or "mask" in name or "layers.0.downsample" in name]
    assert "layers.1.downsample.reduction.bias" not in shapes
    decayed = {name.rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.decay}
    assert decayed == {"weight"}
    assert not dict(model.named_parameters())["layers.0.blocks.0.attn.relative_position_bias_table"].decay


@pytest.mark.parametrize("fields, field", [
    (dict(img_size=3), "img_size"), (dict(img_size=(32, 3)), "img_size"), (dict(img_size=0), "img_size"),
    (dict(window_size=0), "window_size"), (dict(window_size=2.5), "window_size"), (dict(window_size=-4), "window_size"),
    (dict(depths=(2, 2)), "num_heads"), (dict(num_heads=(3, 6, 12)), "num_heads"), (dict(depths=(), num_heads=()), "depths"),
    (dict(depths=4), "depths"), (dict(num_heads=3), "num_heads"), (dict(depths=(2, 0, 6, 2)), "depths"),
    (dict(num_heads=(5, 6, 12, 24)), "num_heads"), (dict(num_heads=(3, 6, 12, 23)), "num_heads"),
    (dict(embed_dim=97), "num_heads"), (dict(patch_size=0), "patch_size"), (dict(mlp_ratio=0), "mlp_ratio"),
    (dict(drop_path_rate=1.0), "drop_path_rate"), (dict(attn_drop_rate=-0.1), "attn_drop_rate"), (dict(act="tanh"), "act"),
    (dict(num_classes=0), "num_classes"), (dict(norm_eps=float("nan")), "norm_eps"),
])
def test_bad_config(fields, field):
    with pytest.raises(ValueError, match=rf"^{field}: expected .*, got "):
        SwinConfig(**fields)


def test_bad_images():
    model = numpyvit.create_model("swin", **SMALL, img_size=8)
    with pytest.raises(ValueError, match="images: expected shape"):
        model.forward(np.zeros((1, 2, 8, 9), np.float32))


STOCHASTIC = dict(SMALL, img_size=(14, 18), drop_rate=0.2, attn_drop_rate=0.3, drop_path_rate=0.4)


def test_training_is_a_function_of_the_seeds():
    model, rng = random_model(**STOCHASTIC)
    images = rng.normal(size=(3, 2, 14, 18))
    seeds = np.array([5, 6, 7], np.uint64)
    logits, _ = model.forward(images, train=True, rng=seeds)
    again, _ = model.forward(images, train=True, rng=seeds)
    np.testing.assert_array_equal(logits, again)
    one, _ = model.forward(images[1:2], train=True, rng=seeds[1:2])          # an image's bits do not depend on its batch
    np.testing.assert_allclose(one[0], logits[1], rtol=1e-12)
    other, _ = model.forward(images, train=True, rng=seeds + np.uint64(1))
    assert (np.abs(other - logits).max(axis=1) > 1e-3).all()
    with pytest.raises(ValueError, match="rng"):
        model.forward(images, train=True)
    evaluated, _ = model.forward(images)
    np.testing.assert_array_equal(evaluated, model.forward(images)[0])


def test_windows_of_an_image_drop_different_attention():
    model, rng = random_model(**dict(SMALL, img_size=16, depths=(1,), num_heads=(2,), attn_drop_rate=0.5))
    images = np.tile(rng.normal(size=(1, 2, 8, 8)), (1, 1, 2, 2))            # four windows with the same content
    logits, cache = model.forward(images, train=True, rng=0)
    x = cache.parts.layers[0].blocks[0].norm1[0].reshape(1, 64, -1)          # what the first block's norm was given
    h, _ = model.layers[0].blocks[0].attn.forward(x, Pass(seeds=np.zeros(1, np.uint64)))
    h = shifted_windows_forward(h.reshape(1, 8, 8, -1), 4)[0]
    for other in h[1:]:
        assert np.abs(other - h[0]).max() > 1e-3


def test_gradient_with_dropout_by_differences():
    model, rng = random_model(**STOCHASTIC)
    images, dlogits, seeds = rng.normal(size=(3, 2, 14, 18)), rng.normal(size=(3, 5)), np.arange(3, dtype=np.uint64)
    _, cache = model.forward(images, train=True, rng=seeds)
    dimages = model.backward(dlogits, cache)
    direction, image_direction, h = rng.normal(size=model.flat.shape), rng.normal(size=images.shape), 1e-5
    for _, p in model.named_parameters():                                    # only where there are parameters, not between
        assert np.isfinite(p.grad).all()
    ends = []
    start = model.flat.copy()
    for sign in (1, -1):
        model.flat[...] = start + sign * h * direction
        logits, _ = model.forward(images + sign * h * image_direction, train=True, rng=seeds)
        ends.append((logits * dlogits).sum())
    expected = (model.flat_grad * direction).sum() + (dimages * image_direction).sum()
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), expected, rtol=1e-6)


def test_drop_path_rises_over_the_whole_net():
    model = numpyvit.create_model("swin", **dict(SMALL, img_size=16, drop_path_rate=0.4))
    rates = [block.drop_path1.rate for layer in model.layers for block in layer.blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])


def test_replica_shares_weights_and_tables_but_no_gradient():
    model, rng = random_model(**dict(SMALL, img_size=24))
    twin = model.replica()
    images, dlogits = rng.normal(size=(2, 2, 24, 24)), rng.normal(size=(2, 5))
    logits, cache = twin.forward(images)
    np.testing.assert_array_equal(logits, model.forward(images)[0])
    twin.backward(dlogits, cache)
    assert (model.flat_grad == 0).all() and np.abs(twin.flat_grad).max() > 0
    ours, theirs = model.layers[0].blocks[1].attn, twin.layers[0].blocks[1].attn
    assert ours.qkv.weight.data.base is theirs.qkv.weight.data.base
    assert ours.index is theirs.index and ours.mask is theirs.mask


def test_attention_maps():
    model, rng = random_model(**dict(SMALL, img_size=(20, 28)))              # maps 10 × 14 and 5 × 7, windows of 4
    _, cache = model.forward(rng.normal(size=(2, 2, 20, 28)))
    maps = model.attention_maps(cache)
    assert [m.shape for m in maps] == [(2 * 12, 2, 16, 16)] * 2 + [(2 * 4, 3, 16, 16)] * 3
    for m in maps:
        np.testing.assert_allclose(m.sum(axis=-1), 1, rtol=1e-12)


def test_float32_stays_float32():
    model = numpyvit.create_model("swin", **dict(STOCHASTIC, img_size=(14, 17)))
    images = np.random.default_rng(0).normal(size=(2, 2, 14, 17)).astype(np.float32)
    logits, cache = model.forward(images, train=True, rng=0)
    dimages = model.backward(np.ones_like(logits), cache)
    assert logits.dtype == dimages.dtype == np.float32 and dimages.shape == images.shape
    assert all(m.dtype == np.float32 for m in model.attention_maps(cache))
