"""CvT: the whole model against torch, the class token's way round the convolutions, batch statistics, folding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cases
import numpyvit
from numpyvit import functional as F
from numpyvit import gradcheck
from numpyvit.flat import EVALUATION, Pass
from numpyvit.inspection import flops
from numpyvit.layers import DepthwiseBatchNorm, merge_heads
from numpyvit.models.cvt import CvTConfig, fold_batch_norm, split_class
from numpyvit.models.fold import ForInference
from numpyvit.training.lanes import Lanes
from torch_models import twin_of

torch.set_num_threads(1)
SMALL = dict(img_size=(13, 10), in_chans=2, num_classes=5, embed_dims=(6, 15), depths=(1, 2), num_heads=(2, 3), patch_sizes=(3, 3),
             patch_strides=(2, 1), patch_paddings=(1, 1), mlp_ratio=1.5)
VARIANTS = {
    "small": {}, "three stages": dict(embed_dims=(6, 9, 10), depths=(1, 1, 2), num_heads=(1, 3, 2), patch_sizes=(7, 3, 2),
                                      patch_strides=(3, 1, 2), patch_paddings=(2, 1, 0), img_size=(26, 23)),
    "one stage, kernel 5, stride 3": dict(embed_dims=(8,), depths=(2,), num_heads=(4,), patch_sizes=(4,), patch_strides=(1,),
                                          patch_paddings=(0,), qkv_kernel=5, kv_stride=3),
    "kernel 1, stride 1, no bias": dict(qkv_kernel=1, kv_stride=1, qkv_bias=False, act="gelu"),
    "even maps": dict(img_size=16), "one token": dict(img_size=3, patch_strides=(2, 2)),
}


def random_model(seed=0, dtype="float64", **fields):
    """A CvT with no parameter and no running statistic at its initial value."""
    model = numpyvit.create_model("cvt", dtype=dtype, **fields)
    rng = np.random.default_rng(seed)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.3, p.shape)
    for name, buffer in model.named_buffers():
        if buffer.dtype.kind == "f":
            buffer += rng.random(buffer.shape)
    return model, rng


def images_of(model, rng, B):
    H, W = np.broadcast_to(model.config.img_size, 2)
    return rng.normal(size=(B, model.config.in_chans, H, W))


# --- the whole model against torch


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("method", ["dw_bn", "avg", "linear"])
@pytest.mark.parametrize("cls_token", [True, False], ids=["token", "mean"])
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("B", [1, 3])
def test_every_gradient_is_torchs(fields, method, cls_token, train, B, figures):
    model, rng = random_model(**{**SMALL, **fields, "qkv_method": method, "cls_token": cls_token})
    if train and B == 1 and method == "dw_bn" and max(model.config.maps[-1]) <= model.config.kv_stride:
        pytest.skip("one value a channel: an error, see below")
    errors = cases.model_errors(model, images_of(model, rng, B), rng.normal(size=(B, 5)), train)
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


@given(data=st.data())
def test_any_geometry_is_torchs(data, figures):
    stages, pick = data.draw(st.integers(1, 3)), lambda options: data.draw(st.sampled_from(options))
    heads = tuple(pick([1, 2, 3]) for _ in range(stages))
    fields = dict(img_size=(pick(range(5, 18)), pick(range(5, 18))), in_chans=pick([1, 3]), num_classes=4, num_heads=heads,
                  embed_dims=tuple(nh * pick([2, 3, 5]) for nh in heads), depths=tuple(pick([1, 2]) for _ in heads),
                  patch_sizes=tuple(pick([2, 3, 5]) for _ in heads), patch_strides=tuple(pick([1, 2]) for _ in heads),
                  patch_paddings=tuple(pick([1, 2]) for _ in heads), qkv_kernel=pick([3, 1, 5]), kv_stride=pick([2, 1, 3]),
                  qkv_method=pick(["dw_bn", "avg", "linear"]), cls_token=pick([True, False]), mlp_ratio=pick([1.0, 2.5]))
    try:
        CvTConfig(**fields)
    except ValueError as error:
        assert "empty map" in str(error)
        return
    model, rng = random_model(data.draw(st.integers(0, 999)), **fields)
    images = cases.laid_out(images_of(model, rng, 2), pick(cases.LAYOUTS))
    errors = cases.model_errors(model, images, rng.normal(size=(2, 4)), train=pick([True, False]))
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


def test_running_statistics_after_three_steps_are_torchs():
    model, rng = random_model(**SMALL)
    twin = twin_of(model, train=True)
    for B in (3, 1, 4):
        images = images_of(model, rng, B)
        model.update_buffers([model.batch_statistics(model.forward(images, train=True)[1])])
        twin(torch.from_numpy(images))
    state, reference = model.state_dict(), twin.state_dict()
    names = [name for name, _ in model.named_buffers()]
    assert len(names) == 3 * 3 * 3                                           # blocks, q k v, buffers
    for name in names:
        assert cases.error(state[name], reference[name].numpy()) <= 1e-12, name
        assert not name.endswith("tracked") or state[name] == 3
    images = images_of(model, rng, 2)
    before = {name: value.copy() for name, value in model.named_buffers()}
    assert cases.error(model.forward(images)[0], twin.eval()(torch.from_numpy(images)).detach().numpy()) <= 1e-10
    assert all(np.array_equal(before[name], value) for name, value in model.named_buffers())  # evaluation reads, and no more


def test_gradients_with_dropout_by_differences():
    for cls_token in (True, False):
        model, rng = random_model(**SMALL, cls_token=cls_token, drop_rate=0.2, attn_drop_rate=0.3, drop_path_rate=(0.2, 0.4))
        report = gradcheck.check_model(model, images_of(model, rng, 3), train=True, rng=np.arange(3, dtype=np.uint64))
        assert report, str(report)


# --- what the architecture promises


@pytest.mark.parametrize("train", [True, False])
def test_the_class_token_passes_no_convolution_and_no_batch_norm(train):
    model, rng = random_model(**SMALL)
    attn, (H, W) = model.stage1.blocks[0].attn, model.config.maps[1]
    x = rng.normal(size=(2, 1 + H * W, 15))
    other = x.copy()
    other[:, 0] += 1
    outputs = []
    for tokens in (x, other):
        down = Pass(statistics={}) if train else EVALUATION
        outputs.append([attn.project(tokens, conv, linear, down)[0] for conv, linear in (
            (attn.conv_proj_q, attn.proj_q), (attn.conv_proj_k, attn.proj_k), (attn.conv_proj_v, attn.proj_v))])
    for here, there, linear in zip(*outputs, (attn.proj_q, attn.proj_k, attn.proj_v), strict=True):
        assert np.array_equal(here[:, :, 1:], there[:, :, 1:])               # every position of q, k and v
        expected = x[:, :1] @ linear.weight.data.T + linear.bias.data        # the token itself: the Linear, and nothing else
        assert cases.error(merge_heads(here[:, :, :1]), expected) <= 1e-12
        assert np.abs(here[:, :, 0] - there[:, :, 0]).max() > 0.1


def test_the_class_token_changes_no_statistic_of_the_block_it_enters():
    model, rng = random_model(**SMALL)
    images = images_of(model, rng, 2)
    before = model.batch_statistics(model.forward(images, train=True)[1])
    model.stage1.cls_token.data += rng.normal(size=(1, 1, 15))               # the same for all channels would vanish in the norm
    after = model.batch_statistics(model.forward(images, train=True)[1])
    same = [np.array_equal(before[name], after[name]) for name in before]
    assert list(before) == list(after) and same == 6 * [True] + 3 * [False]          # q, k, v of stage 0's block, of stage 1's first; the second has attended to it


def test_a_dropped_branch_leaves_the_residual_untouched():
    model, rng = random_model(**SMALL, drop_path_rate=0.5)
    block, (H, W) = model.stage1.blocks[1], model.config.maps[1]
    assert block.drop_path1.rate == block.drop_path2.rate == 0.5
    x, seeds = rng.normal(size=(64, 1 + H * W, 15)), np.arange(64, dtype=np.uint64)
    y, cache = block.forward(x, Pass(seeds, {}))
    untouched = (y == x).all(axis=(1, 2))
    both = [(factor == 0).ravel() for factor in (block.drop_path1.forward(np.ones((64, 1)), Pass(seeds))[0],
                                                 block.drop_path2.forward(np.ones((64, 1)), Pass(seeds))[0])]
    assert 5 < untouched.sum() < 30 and np.array_equal(untouched, both[0] & both[1])
    dy = rng.normal(size=y.shape)
    dx = block.backward(dy, cache)
    assert not np.array_equal(dx[untouched], dy[untouched])                  # batch norm still carries gradient between images
    model, _ = random_model(**SMALL, drop_path_rate=0.5, qkv_method="linear")
    block = model.stage1.blocks[1]
    y, cache = block.forward(x, Pass(seeds))
    untouched = (y == x).all(axis=(1, 2))
    assert 5 < untouched.sum() < 30 and np.array_equal(block.backward(dy, cache)[untouched], dy[untouched])


@pytest.mark.parametrize("rate, expected", [(0.3, [[0, 0.3], [0, 0.15, 0.3]]), ((0.0, 0.1), [[0, 0], [0, 0.05, 0.1]])])
def test_drop_path_rises_within_every_stage(rate, expected):
    model = numpyvit.create_model("cvt", **{**SMALL, "depths": (2, 3), "drop_path_rate": rate})
    for stage, rates in zip(model.stages(), expected, strict=True):
        np.testing.assert_allclose([block.drop_path1.rate for block in stage.blocks], rates)
        np.testing.assert_allclose([block.drop_path2.rate for block in stage.blocks], rates)


@pytest.mark.parametrize("cls_token", [True, False])
def test_a_batch_of_one(cls_token):
    model, rng = random_model(**SMALL, cls_token=cls_token)
    images = images_of(model, rng, 3)
    logits, _ = model.forward(images)
    one, cache = model.forward(images[:1])
    assert one.shape == (1, 5) and cases.error(one, logits[:1]) <= 1e-12
    assert model.backward(np.ones((1, 5)), cache).shape == (1, 2, 13, 10)


def test_attention_maps():
    model, rng = random_model(**SMALL)
    _, cache = model.forward(images_of(model, rng, 2))
    maps = model.attention_maps(cache)
    assert [m.shape for m in maps] == [(2, 2, 35, 12), (2, 3, 36, 13), (2, 3, 36, 13)]      # the class token: a query and a key
    for m in maps:
        np.testing.assert_allclose(m.sum(axis=-1), 1, rtol=1e-12)
    assert model.stage1.blocks[0].attn.scale == 15**-0.5                     # the whole width, not a head's


@pytest.mark.parametrize("name, parameters, buffers", [
    ("cvt_13", 19_997_480, 25_767), ("cvt_21", 31_622_696, 41_919), ("cvt_w24", 277_196_392, 134_472),
    ("cvt_nano_32", 659_978, None), ("cvt_tiny_32", 3_221_322, None)])
def test_counts(name, parameters, buffers):
    assert numpyvit.count_parameters(name) == parameters
    if buffers:
        model = type(numpyvit.create_model("cvt", **SMALL))(numpyvit.models.PRESETS[name][1], materialise=False)
        assert sum(buffer.size for _, buffer in model.named_buffers()) == buffers


def test_counts_with_10_classes():
    assert numpyvit.count_parameters("cvt_13", num_classes=10) == 19_616_330


@pytest.mark.parametrize("method", ["dw_bn", "avg", "linear"])
def test_flops(method):
    """Against the products of a forward pass, counted from the shapes of its parameters and attention maps."""
    model, rng = random_model(**SMALL, qkv_method=method)
    config, (stage0, stage1) = model.config, model.config.maps
    maps = [m.shape for m in model.attention_maps(model.forward(images_of(model, rng, 1))[1])]
    want = 0
    for (_, _, N, S), C, (H, W) in zip(maps, (6, 15, 15), (stage0, stage1, stage1), strict=True):
        kv = S - (N - H * W)
        want += 2 * N * S * C + 2 * (N + S) * C * C + 2 * N * C * int(1.5 * C) + (9 * (H * W + 2 * kv) * C if method == "dw_bn" else 0)
    want += 35 * 9 * 2 * 6 + 35 * 9 * 6 * 15 + 15 * 5                        # the embeddings, the head
    assert flops.forward_flops("cvt", config) == 2 * want
    assert flops.forward_flops("cvt", CvTConfig()) == 2 * 4_566_089_216      # the paper: 4.5 GFLOPs, a multiply-add counting one


def test_maps():
    assert CvTConfig().maps == ((56, 56), (28, 28), (14, 14))
    assert CvTConfig(img_size=32).maps == ((8, 8), (4, 4), (2, 2))
    assert numpyvit.create_model("cvt_nano_32").config.maps == ((16, 16), (8, 8))


def test_names_shapes_and_initial_values_are_the_official_ones():
    model = numpyvit.create_model("cvt", **{**SMALL, "embed_dims": (60, 90)})
    state = model.state_dict()
    shapes = {name: value.shape for name, value in state.items()}
    for name, shape in {
            "stage0.patch_embed.proj.weight": (60, 2, 3, 3), "stage0.patch_embed.proj.bias": (60,),
            "stage1.patch_embed.norm.weight": (90,), "stage1.cls_token": (1, 1, 90), "stage1.blocks.1.norm2.bias": (90,),
            "stage0.blocks.0.attn.conv_proj_q.conv.weight": (60, 1, 3, 3), "stage0.blocks.0.attn.conv_proj_k.bn.weight": (60,),
            "stage1.blocks.1.attn.conv_proj_v.bn.running_var": (90,),
            "stage1.blocks.0.attn.conv_proj_v.bn.num_batches_tracked": (), "stage1.blocks.0.attn.proj_k.weight": (90, 90),
            "stage0.blocks.0.attn.proj.bias": (60,), "stage0.blocks.0.mlp.fc1.weight": (90, 60), "norm.weight": (90,),
            "head.weight": (5, 90), "head.bias": (5,)}.items():
        assert shapes[name] == shape
    assert "stage0.cls_token" not in shapes and "stage0.blocks.0.attn.conv_proj_q.conv.bias" not in shapes
    assert state["stage0.blocks.0.attn.conv_proj_q.bn.num_batches_tracked"].dtype == np.int64
    for name, bound in {"stage0.patch_embed.proj.weight": 18**-0.5, "stage0.patch_embed.proj.bias": 18**-0.5,
                        "stage1.blocks.0.attn.conv_proj_k.conv.weight": 1 / 3, "head.bias": 90**-0.5}.items():
        assert 0.4 * bound < np.abs(state[name]).max() <= bound, name        # torch's default, the head's bias included
    assert abs(state["stage1.blocks.0.mlp.fc1.weight"].std() / 0.02 - 1) < 0.05
    assert (state["stage1.blocks.0.mlp.fc1.bias"] == 0).all() and np.abs(state["stage1.cls_token"]).max() < 0.2
    decayed = {name for name, p in model.named_parameters() if p.decay}
    assert decayed == {name for name, p in model.named_parameters() if len(p.shape) in (2, 4)}  # depthwise kernels too; no norm


# --- batch statistics: whole batches, replicas, lanes


def test_forward_leaves_the_buffers_to_update_buffers():
    model, rng = random_model(**SMALL)
    images = images_of(model, rng, 3)
    replica, before = model.replica(), model.state_dict()
    expected, cache = model.forward(images, train=True)
    logits, of_replica = replica.forward(images, train=True)
    assert np.array_equal(logits, expected)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert model.batch_statistics(model.forward(images)[1]) == {}            # evaluation measures nothing
    measured, again = model.batch_statistics(cache), replica.batch_statistics(of_replica)
    assert sorted(measured) == sorted(name for name, module in model.modules() if type(module).__name__ == "BatchNorm")
    assert all(np.array_equal(a, b) for name in measured for a, b in zip(measured[name], again[name], strict=True))
    model.update_buffers([measured])
    for name, (mean, var) in measured.items():
        running = {key: before[f"{name}.{key}"] for key in ("running_mean", "running_var")}
        after = model.state_dict()
        assert cases.error(after[f"{name}.running_mean"], 0.9 * running["running_mean"] + 0.1 * mean) <= 1e-12
        assert cases.error(after[f"{name}.running_var"], 0.9 * running["running_var"] + 0.1 * var) <= 1e-12
    assert all(mine is theirs for (_, mine), (_, theirs) in zip(model.named_buffers(), replica.named_buffers()))


def lanes_step(threads, shards, micro_batch, steps=2):
    """The buffers and the gradient after some steps of lanes on nine images."""
    model, rng = random_model(**SMALL)
    images, labels = images_of(model, rng, 9), rng.integers(0, 5, 9)
    with Lanes(model, threads=threads, shards=shards, micro_batch=micro_batch) as lanes:
        for _ in range(steps):
            lanes.gradient(9, lambda lo, hi: (images[lo:hi], labels[lo:hi], None))
    return model, images


def test_buffers_do_not_depend_on_the_number_of_threads():
    model, _ = lanes_step(1, 3, 2)
    for threads in (2, 3, 5):
        other, _ = lanes_step(threads, 3, 2)
        assert np.array_equal(model.flat_grad, other.flat_grad)
        for (name, mine), (_, theirs) in zip(model.named_buffers(), other.named_buffers()):
            assert np.array_equal(mine, theirs), name
    assert model.stage1.blocks[1].attn.conv_proj_k.bn.num_batches_tracked == 2 * 6          # micro-batches of 2 and 1, a shard


def test_lanes_average_the_micro_batches_in_order_and_one_micro_batch_is_the_whole_batch():
    model, images = lanes_step(2, 3, 2, steps=1)
    expected, _ = random_model(**SMALL)
    for lo, hi in ((0, 2), (2, 3), (3, 5), (5, 6), (6, 8), (8, 9)):
        expected.update_buffers([expected.batch_statistics(expected.forward(images[lo:hi], train=True)[1])])
    whole, _ = lanes_step(2, 1, 9, steps=1)
    of_batch, _ = random_model(**SMALL)
    of_batch.update_buffers([of_batch.batch_statistics(of_batch.forward(images, train=True)[1])])
    for mine, theirs in ((model, expected), (whole, of_batch)):
        for (name, a), (_, b) in zip(mine.named_buffers(), theirs.named_buffers()):
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("kv_stride, img_size", [(2, 3), (3, (5, 6)), (1, 2)])
def test_one_value_a_channel_is_an_error(kv_stride, img_size):
    fields = {**SMALL, "patch_strides": (2, 2), "kv_stride": kv_stride, "img_size": img_size}
    model = numpyvit.create_model("cvt", **fields)
    images = np.zeros((1, 2, *np.broadcast_to(img_size, 2)), np.float32)
    with pytest.raises(ValueError, match=r"^images: .*batch of 1,.* stage [01].*kv_stride"):
        model.forward(images, train=True)
    assert (model.stage0.blocks[0].attn.conv_proj_q.bn.num_batches_tracked == 0).all()
    model.forward(images)
    model.forward(np.concatenate([images, images]), train=True)
    numpyvit.create_model("cvt", **fields, qkv_method="avg").forward(images, train=True)


# --- the kernels' special cases, all of them


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
@pytest.mark.parametrize("kernel", [3, (3, 2), 5])
@pytest.mark.parametrize("H, W", [(5, 6), (6, 5), (3, 9), (1, 4), (2, 2)])
def test_convolutions_at_every_stride_and_padding(stride, padding, kernel, H, W):
    kh, kw = np.broadcast_to(kernel, 2)
    if min(H + 2 * padding - kh, W + 2 * padding - kw) < 0:
        return
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=(2, H, W, 5)), rng.normal(size=5)
    for name, weight in (("conv2d", rng.normal(size=(5, 5, kh, kw))), ("depthwise_conv", rng.normal(size=(5, 1, kh, kw)))):
        case = next(case for case in cases.CASES if case.name == name)
        arrays, others = dict(x=x, weight=weight, bias=bias), dict(stride=stride, padding=padding)
        want_y, want, dy = cases.torch_gradients(case, arrays, others, lambda shape: rng.normal(size=shape))
        y, cache = getattr(F, f"{name}_forward")(**arrays, **others)
        for got, expected in zip([y, *getattr(F, f"{name}_backward")(dy, cache)], [want_y, *want], strict=True):
            assert cases.error(got, expected, 1e-3) <= 1e-12


# --- folding


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("fields", [SMALL, dict(SMALL, cls_token=False, kv_stride=3), dict(SMALL, qkv_kernel=5)],
                         ids=["token", "mean", "kernel 5"])
def test_folding_keeps_the_logits(dtype, tolerance, fields):
    model, rng = random_model(dtype=dtype, **fields)
    images, before = images_of(model, rng, 3), model.state_dict()
    expected, _ = model.forward(images)
    folded = fold_batch_norm(model)
    logits, cache = folded.forward(images)
    assert logits.dtype == expected.dtype and np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert not [*folded.named_buffers()] and not [name for name, _ in folded.named_parameters() if ".bn." in name]
    assert folded.num_parameters() == model.num_parameters() - 3 * (6 + 15 + 15)             # weight and bias become a bias
    dlogits = rng.normal(size=logits.shape)
    assert cases.error(folded.backward(dlogits, cache), model.backward(dlogits, model.forward(images)[1])) <= 10 * tolerance


def test_a_folded_copy_is_made_once_for_the_same_numbers():
    """A change of one weight or of one running statistic makes a new one; what needs no folding is the model itself."""
    model, rng = random_model(**SMALL)
    images, inference = images_of(model, rng, 3), ForInference(model)
    name, buffer = next(model.named_buffers())
    for change in (lambda: None, lambda: model.flat.__setitem__(3, 0.5), lambda: buffer.__setitem__(1, 2.5), inference.forget):
        old = inference.made
        change()
        folded = inference.get()
        assert folded is not old and folded is inference.get()
        np.testing.assert_array_equal(folded.forward(images)[0], fold_batch_norm(model).forward(images)[0])
    plain = numpyvit.create_model("vit_pico_patch4_32")
    inference = ForInference(plain)
    assert inference.get() is plain and inference.get() is plain and not inference.numbers


def test_evaluation_between_steps_sees_the_new_weights(rng=np.random.default_rng(0)):
    model, _ = random_model(**SMALL, dtype="float64")
    images = images_of(model, rng, 4)
    with Lanes(model, threads=1, micro_batch=2) as lanes:
        for _ in range(2):
            logits = lanes.logits(4, lambda lo, hi: images[lo:hi])
            np.testing.assert_allclose(logits, model.forward(images)[0], rtol=1e-10)
            assert lanes.inference.made is not None
            lanes.gradient(4, lambda lo, hi: (images[lo:hi], np.zeros(hi - lo, int), None))
            assert lanes.inference.made is None
            model.flat -= 0.1 * model.flat_grad


def test_folding_what_has_no_batch_norm():
    model, rng = random_model(**SMALL, qkv_method="avg")
    images = images_of(model, rng, 2)
    assert np.array_equal(fold_batch_norm(model).forward(images)[0], model.forward(images)[0])
    assert fold_batch_norm(model) is model and not model.folded and model.state_dict()


def test_a_folded_model_does_not_train():
    model, rng = random_model(**SMALL)
    with pytest.raises(ValueError, match="train: .*folded"):
        fold_batch_norm(model).forward(images_of(model, rng, 2), train=True)


# --- bad input


@pytest.mark.parametrize("fields, message", [
    (dict(depths=(1, 2)), "^depths: .*3"), (dict(num_heads=(1, 3)), "^num_heads: .*3"),
    (dict(patch_sizes=(7, 3, 3, 3)), "^patch_sizes: "), (dict(patch_paddings=()), "^patch_paddings: "),
    (dict(embed_dims=64), "^embed_dims: "), (dict(embed_dims=(), depths=(), num_heads=()), "^embed_dims: "),
    (dict(num_heads=(1, 3, 5)), "^num_heads: .*stage 2.*384.*5"), (dict(depths=(1, 0, 10)), "^depths: .*stage 1"),
    (dict(patch_strides=(4, 0, 2)), "^patch_strides: .*stage 1"), (dict(patch_paddings=(2, 1, -1)), "^patch_paddings: .*stage 2"),
    (dict(patch_sizes=(7, 3.5, 3)), "^patch_sizes: .*stage 1"), (dict(patch_paddings=(2, "1", 1)), "^patch_paddings: .*stage 1"),
    (dict(img_size=16, patch_paddings=(0, 0, 0)), "^patch_strides: .*stage 2.*empty"),
    (dict(img_size=(224, 2), patch_paddings=(0, 1, 1)), "^patch_strides: .*stage 0.*empty.*224×2"),
    (dict(qkv_kernel=2), "^qkv_kernel: .*odd"), (dict(q_stride=2), "^q_stride: "), (dict(kv_stride=0), "^kv_stride: "),
    (dict(qkv_method="conv"), "^qkv_method: .*dw_bn"), (dict(drop_path_rate=(0.1, 0.2)), "^drop_path_rate: .*3"),
    (dict(drop_path_rate=(0, 0, 1.0)), "^drop_path_rate: "), (dict(cls_token="token"), "^cls_token: "),
    (dict(mlp_ratio=0), "^mlp_ratio: "), (dict(act="swish"), "^act: "), (dict(img_size=0), "^img_size: "),
])
def test_bad_config(fields, message):
    with pytest.raises(ValueError, match=message):
        CvTConfig(**fields)


def test_bad_images_and_gradients():
    model, rng = random_model(**SMALL)
    for shape in ((1, 2, 10, 13), (1, 3, 13, 10), (0, 2, 13, 10), (2, 13, 10)):
        with pytest.raises(ValueError, match="^images: "):
            model.forward(np.zeros(shape))
    _, cache = model.forward(images_of(model, rng, 2))
    with pytest.raises(ValueError, match="^dlogits: "):
        model.backward(np.zeros((1, 5)), cache)


def test_bad_state_changes_nothing():
    model, _ = random_model(**SMALL)
    before, state = model.state_dict(), model.state_dict()
    state["stage0.blocks.0.attn.conv_proj_q.bn.running_mean"] = np.zeros(7)
    with pytest.raises(ValueError, match="running_mean"):
        model.load_state_dict(state)
    del state["stage0.blocks.0.attn.conv_proj_q.bn.running_mean"]
    with pytest.raises(ValueError, match="running_mean is missing"):
        model.load_state_dict(state)
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
