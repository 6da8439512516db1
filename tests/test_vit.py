"""ViT: the whole model against torch, its names and counts, and what training adds at random."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as TF

import cases
import numpyvit
from numpyvit import functional as F
from numpyvit import gradcheck
from numpyvit.flat import LOGITS_ALONE, Pass
from numpyvit.models.vit import ViTConfig
from numpyvit.module import Parameter
from torch_models import twin_of

SMALL = dict(img_size=(15, 10), patch_size=5, in_chans=2, num_classes=7, embed_dim=24, depth=2, num_heads=3, mlp_ratio=1.5)


def random_model(seed=0, dtype="float64", **fields):
    """A ViT with no parameter at its initial value: zeros and ones hide mistakes."""
    model = numpyvit.create_model("vit", dtype=dtype, **SMALL | fields)
    rng = np.random.default_rng(seed)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.3, p.shape)
    H, W = np.broadcast_to(model.config.img_size, 2)
    return model, rng, lambda B: rng.standard_normal((B, model.config.in_chans, H, W))


def compare_with_torch(model, images, targets, label_smoothing):
    """{what: relative error} of logits, loss, dimages and every parameter's gradient."""
    twin = twin_of(model)
    torch_images = torch.from_numpy(np.array(images)).requires_grad_()
    torch_logits = twin(torch_images)
    torch_loss = TF.cross_entropy(torch_logits, torch.from_numpy(targets), label_smoothing=label_smoothing)
    torch_loss.backward()

    model.zero_grad()
    logits, cache = model.forward(images)
    loss, c_loss = F.cross_entropy_forward(logits, targets, label_smoothing)
    dimages = model.backward(F.cross_entropy_backward(1.0, c_loss), cache)
    grads = {name: p.grad.numpy() for name, p in twin.named_parameters()}
    largest = max(np.linalg.norm(g) for g in grads.values())
    errors = {"logits": cases.error(logits, torch_logits.detach().numpy()), "loss": cases.error(loss, torch_loss.item()),
              "images": cases.error(dimages, torch_images.grad.numpy(), 1e-5 * largest)}
    for name, p in model.named_parameters():         # gradients that are 0 but for rounding: compared with the largest
        errors[name] = cases.error(p.grad, grads.pop(name), 1e-5 * largest)
    assert not grads
    return errors


@pytest.mark.parametrize("global_pool", ["token", "avg", "gap"])
@pytest.mark.parametrize("norm_order", ["pre", "post"])
@pytest.mark.parametrize("pos_embed", ["learn", "sincos2d", "sinusoidal", "rotary", "sincos2d+rotary", "none"])
@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "quick_gelu", "relu"])
@pytest.mark.parametrize("qkv_bias", [True, False], ids=["bias", "no bias"])
def test_every_gradient_is_torchs(global_pool, norm_order, pos_embed, act, qkv_bias, figures):
    model, rng, images = random_model(global_pool=global_pool, norm_order=norm_order, pos_embed=pos_embed, act=act,
                                      qkv_bias=qkv_bias, representation_size=0 if qkv_bias else 10)
    errors = compare_with_torch(model, images(3), rng.integers(0, 7, 3), 0.1)
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


@given(data=st.data())
def test_any_geometry_is_torchs(data, figures):
    pick = lambda *options: data.draw(st.sampled_from(options))              # noqa: E731
    P, nh = pick(1, 2, 3, 5), pick(1, 2, 3)
    fields = dict(img_size=(P * pick(1, 2, 3), P * pick(1, 3, 5)), patch_size=P, in_chans=pick(1, 3), num_classes=pick(2, 5, 11),
                  embed_dim=nh * pick(4, 8, 12), num_heads=nh, depth=pick(1, 2, 3), mlp_ratio=pick(0.5, 2.0, 4.0),
                  qkv_bias=pick(True, False), global_pool=pick("token", "avg", "gap"), norm_order=pick("pre", "post"),
                  representation_size=pick(0, 6), pos_embed=pick("learn", "rotary", "none"), act=pick("gelu", "quick_gelu"), norm_eps=pick(1e-6, 1e-5))
    model, rng, images = random_model(data.draw(st.integers(0, 999)), **fields)
    B = pick(1, 2, 3)
    soft = rng.random((B, fields["num_classes"]))
    targets = pick(rng.integers(0, fields["num_classes"], B), soft / soft.sum(axis=1, keepdims=True))
    images = cases.laid_out(images(B), pick(*cases.LAYOUTS))
    errors = compare_with_torch(model, images, targets, pick(0.0, 0.2))
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


@pytest.mark.parametrize("rates", [dict(drop_rate=0.2), dict(attn_drop_rate=0.2), dict(drop_path_rate=0.4),
                                   dict(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2)], ids=lambda r: "+".join(r))
@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_gradients_in_training_by_differences(rates, norm_order):
    model, rng, images = random_model(norm_order=norm_order, **rates)
    report = gradcheck.check_model(model, images(3), train=True, rng=5)
    assert report, str(report)


# --- names, counts, initial values


@pytest.mark.parametrize("name, count", [
    ("vit_tiny_patch16_224", 5_717_416), ("vit_small_patch16_224", 22_050_664), ("vit_base_patch16_224", 86_567_656),
    ("vit_large_patch16_224", 304_326_632), ("vit_base_patch32_224", 88_224_232), ("vit_huge_patch14_224", 632_045_800)])
def test_parameter_counts(name, count):
    assert numpyvit.count_parameters(name) == count


def test_names_and_shapes_are_timms():
    model, _, _ = random_model(depth=1)
    C, E = 24, 36
    block = {"norm1.weight": (C,), "norm1.bias": (C,), "attn.qkv.weight": (3 * C, C), "attn.qkv.bias": (3 * C,),
             "attn.proj.weight": (C, C), "attn.proj.bias": (C,), "norm2.weight": (C,), "norm2.bias": (C,),
             "mlp.fc1.weight": (E, C), "mlp.fc1.bias": (E,), "mlp.fc2.weight": (C, E), "mlp.fc2.bias": (C,)}
    expected = {"cls_token": (1, 1, C), "pos_embed": (1, 7, C), "patch_embed.proj.weight": (C, 2, 5, 5),
                "patch_embed.proj.bias": (C,), **{f"blocks.0.{name}": shape for name, shape in block.items()},
                "norm.weight": (C,), "norm.bias": (C,), "head.weight": (7, C), "head.bias": (7,)}
    assert {name: p.shape for name, p in model.named_parameters()} == expected
    names = [name for name, _ in random_model(depth=1, global_pool="avg")[0].named_parameters()]
    assert "fc_norm.weight" in names and "norm.weight" not in names and "cls_token" not in names


def test_initial_values():
    model = numpyvit.create_model("vit_tiny_patch4_32", seed=3)
    for name, p in model.named_parameters():
        if "norm" in name:
            assert (p.data == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias") and "patch_embed" not in name:
            assert (p.data == 0).all(), name
        elif name == "cls_token":
            assert 0 < p.data.std() < 2e-6
        elif "patch_embed" in name:
            assert np.abs(p.data).max() <= 48**-0.5
        else:
            assert abs(p.data.std() - 0.02) < 0.002 and abs(p.data.mean()) < 0.001, name
    again, other = (numpyvit.create_model("vit_tiny_patch4_32", seed=seed) for seed in (3, 4))
    assert np.array_equal(model.flat, again.flat) and not np.array_equal(model.flat, other.flat)


# --- training: dropout, drop path


def test_training_is_a_function_of_the_seeds():
    model, _, images = random_model(drop_rate=0.3, attn_drop_rate=0.3, drop_path_rate=0.3)
    x = images(4)

    def logits(rng, rows=slice(None)):
        return model.forward(x[rows], train=True, rng=rng)[0]

    assert np.array_equal(logits(7), logits(7)) and not np.array_equal(logits(7), logits(8))
    seeds = np.arange(4, dtype=np.uint64)
    whole = logits(seeds)
    alone = np.concatenate([logits(seeds[i:i + 1], slice(i, i + 1)) for i in range(4)])
    np.testing.assert_allclose(alone, whole, rtol=1e-12, atol=1e-12)         # an image's bits do not depend on its batch
    assert np.array_equal(logits(np.random.default_rng(1)), logits(np.random.default_rng(1)))
    assert np.array_equal(model.forward(x)[0], model.forward(x, rng=9)[0])   # evaluation: nothing is random
    for bad in (None, np.arange(3, dtype=np.uint64), np.arange(4), "seed"):
        with pytest.raises(ValueError, match="rng"):
            logits(bad)


@pytest.mark.parametrize("fields", [{}, dict(norm_order="post"), dict(qkv_bias=False, depth=1), dict(global_pool="avg"),
                                    dict(global_pool="gap"), dict(representation_size=5), dict(pos_embed="rotary")], ids=str)
def test_a_call_gives_the_logits_of_forward(fields):
    """The last block computes the class token alone, and no cache of a block is kept."""
    model, rng, images_of = random_model(**fields)
    images = images_of(3)
    expected, whole = model.forward(images)
    assert cases.error(model(images), expected) <= 1e-12
    assert all(cache is not None for cache in whole.parts.blocks)
    _, parts = model.forward_pass(images, LOGITS_ALONE)
    assert parts.blocks == [None] * model.config.depth
    last = model.blocks[-1]
    x = rng.standard_normal((3, 7, 24))
    assert cases.error(last.first_token(x), last.forward(x)[0][:, :1]) <= 1e-12


def test_a_dropped_branch_leaves_the_residual_untouched():
    model, rng, _ = random_model(drop_path_rate=0.9, depth=3)
    block = model.blocks[2]
    x = rng.standard_normal((40, 7, 24))
    y, cache = block.forward(x, Pass(seeds=np.arange(40, dtype=np.uint64)))
    kept1, kept2 = (factor[:, 0, 0] > 0 for (factor,) in (cache.drop_path1, cache.drop_path2))
    dropped = ~kept1 & ~kept2
    assert dropped.any() and (kept1 ^ kept2).any()
    assert np.array_equal(y[dropped], x[dropped])
    assert (y[~dropped] != x[~dropped]).any(axis=(1, 2)).all()
    dy = rng.standard_normal(x.shape)
    dx = block.backward(dy, cache)
    assert np.array_equal(dx[dropped], dy[dropped])
    assert {round(float(v), 9) for v in np.unique(cache.drop_path1[0])} <= {0.0, 10.0}      # scaled by 1/keep


def test_drop_path_rises_linearly():
    model, _, _ = random_model(drop_path_rate=0.3, depth=4)
    np.testing.assert_allclose([b.drop_path1.rate for b in model.blocks], [0, 0.1, 0.2, 0.3])
    assert [b.drop_path1.rate for b in model.blocks] == [b.drop_path2.rate for b in model.blocks]


def test_no_two_layers_share_random_bits():
    model, _, images = random_model(drop_rate=0.5, depth=2)
    _, cache = model.forward(images(2), train=True, rng=0)
    masks = [c.attn.proj_drop[0] for c in cache.parts.blocks]                # dropout behind each attention's projection
    assert masks[0].shape == masks[1].shape and not np.array_equal(masks[0], masks[1])


# --- the model keeps nothing, and says what it cannot take


def everything_on(model):
    """{where: value} of all attributes of all modules and parameters; of arrays, the bytes."""
    values = {}
    for path, module in model.modules():
        for name, value in vars(module).items():
            attributes = vars(value) if isinstance(value, Parameter) else {"": value}
            values |= {(path, name, k): v.tobytes() if isinstance(v, np.ndarray) else repr(v) for k, v in attributes.items()}
    return values


def test_forward_and_backward_leave_nothing_on_the_model():
    model, rng, images = random_model(drop_rate=0.1)
    before = everything_on(model)
    logits, cache = model.forward(images(2), train=True, rng=0)
    assert everything_on(model) == before
    model.backward(rng.standard_normal(logits.shape), cache)
    assert everything_on(model) != before                                    # the gradients, and they alone
    model.zero_grad()
    assert everything_on(model) == before


def test_gradients_add_up():
    model, rng, images = random_model()
    logits, cache = model.forward(images(2))
    dlogits = rng.standard_normal(logits.shape)
    first = model.backward(dlogits, cache)
    once = model.flat_grad.copy()
    second = model.backward(dlogits, model.forward(images(2) * 0 + 1)[1])
    assert not np.array_equal(first, second)
    model.zero_grad()
    model.backward(dlogits, cache)
    assert np.array_equal(model.flat_grad, once)
    model.backward(dlogits, cache)
    np.testing.assert_allclose(model.flat_grad, 2 * once, rtol=1e-12, atol=1e-14)


def test_attention_maps():
    model, _, images = random_model(depth=3)
    maps = model.attention_maps(model.forward(images(2))[1])
    assert [m.shape for m in maps] == [(2, 3, 7, 7)] * 3
    np.testing.assert_allclose([m.sum(axis=-1) for m in maps], 1, rtol=1e-12)


def test_float32_stays_float32():
    model, rng, images = random_model(dtype="float32", drop_rate=0.1, drop_path_rate=0.1, pos_embed="sinusoidal")
    logits, cache = model.forward(images(2), train=True, rng=1)
    dimages = model.backward(rng.standard_normal(logits.shape), cache)
    assert logits.dtype == dimages.dtype == np.float32

    def dtypes(value):
        if isinstance(value, (tuple, list)):
            return set().union(*map(dtypes, value))
        return {value.dtype} if isinstance(value, np.ndarray) and value.dtype.kind == "f" else set()
    assert dtypes(cache) == {np.dtype(np.float32)}


@pytest.mark.parametrize("fields, field", [
    (dict(img_size=(15, 11)), "patch_size"), (dict(num_heads=5), "num_heads"), (dict(depth=0), "depth"),
    (dict(embed_dim=-3), "embed_dim"), (dict(drop_rate=1.0), "drop_rate"), (dict(act="swish"), "act"),
    (dict(global_pool="max"), "global_pool"), (dict(norm_order="both"), "norm_order"), (dict(pos_embed="2d"), "pos_embed"),
    (dict(embed_dim=27, pos_embed="sinusoidal"), "embed_dim"), (dict(embed_dim=18, num_heads=2, pos_embed="sincos2d"), "embed_dim"),
    (dict(embed_dim=24, num_heads=4, pos_embed="rotary"), "embed_dim"), (dict(embed_dim=24, num_heads=4, pos_embed="sincos2d+rotary"), "embed_dim")])
def test_bad_config(fields, field):
    with pytest.raises(ValueError, match=field):
        ViTConfig(**SMALL | fields)


def test_bad_images_and_gradients():
    model, _, images = random_model()
    x = images(2)
    for bad in (x[0], x[:, :1], x[..., :5], x[:0], np.zeros(x.shape, np.uint8)):
        with pytest.raises(ValueError, match="images"):
            model.forward(bad)
    logits, cache = model.forward(x)
    with pytest.raises(ValueError, match="dlogits"):
        model.backward(logits[:1], cache)


def test_state_dict_is_all_or_nothing():
    model, _, _ = random_model()
    before, state = model.flat.copy(), model.state_dict()
    for change in (lambda s: s.pop("head.bias"), lambda s: s.update(extra=np.zeros(3)),
                   lambda s: s.update({"head.bias": np.zeros(8)}), lambda s: s.update({"head.bias": np.array(["a"] * 7)})):
        broken = dict(state)
        change(broken)
        broken["cls_token"] = broken["cls_token"] + 1
        with pytest.raises(ValueError, match="extra|head.bias"):
            model.load_state_dict(broken)
        assert np.array_equal(model.flat, before)
    other, _, _ = random_model(seed=9)
    other.load_state_dict(state)
    assert np.array_equal(other.flat, before)
