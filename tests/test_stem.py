"""ViT with a convolutional stem: the whole model against torch, its batch statistics, its names, what it refuses."""
import numpy as np
import pytest
import torch

import cases
import numpyvit
from numpyvit.models.vit import ViTConfig
from numpyvit.training.lanes import Lanes
from torch_models import twin_of

SMALL = dict(img_size=(12, 8), patch_size=4, in_chans=2, num_classes=5, embed_dim=12, depth=1, num_heads=3, mlp_ratio=1.5,
             stem_widths=(5, 7, 6), stem_strides=(2, 1, 2))
VARIANTS = {"token": {}, "mean": dict(global_pool="avg"), "one convolution": dict(stem_widths=(9,), stem_strides=(4,), act="relu"),
            "stride 3, post-norm": dict(img_size=9, patch_size=3, stem_widths=(4, 5), stem_strides=(1, 3), norm_order="post"),
            "max-pooling": dict(stem_strides=(2, 1, 1), stem_pools=(1, 1, 2)),
            "max-pooling at once": dict(img_size=(24, 12), patch_size=12, stem_strides=(2, 1, 1), stem_pools=(3, 2, 1), global_pool="avg"),
            "no stride": dict(img_size=5, patch_size=1, stem_widths=(4, 5), stem_strides=(1, 1), pos_embed="sincos2d")}


def random_model(seed=0, dtype="float64", **fields):
    """A ViT with no parameter and no running statistic at its initial value."""
    model, rng = numpyvit.create_model("vit", dtype=dtype, **SMALL | fields), np.random.default_rng(seed)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.3, p.shape)
    for _, buffer in model.named_buffers():
        if buffer.dtype.kind == "f":
            buffer += rng.random(buffer.shape)
    return model, rng


def images_of(model, rng, B):
    H, W = np.broadcast_to(model.config.img_size, 2)
    return rng.normal(size=(B, model.config.in_chans, H, W))


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("B", [1, 3])
def test_every_gradient_is_torchs(fields, train, B, figures):
    model, rng = random_model(**fields)
    errors = cases.model_errors(model, images_of(model, rng, B), rng.normal(size=(B, 5)), train)
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


def test_running_statistics_after_three_steps_are_torchs():
    model, rng = random_model()
    twin = twin_of(model, train=True)
    for B in (3, 1, 4):
        images = images_of(model, rng, B)
        model.update_buffers([model.batch_statistics(model.forward(images, train=True)[1])])
        twin(torch.from_numpy(images))
    state, reference = model.state_dict(), twin.state_dict()
    names = [name for name, _ in model.named_buffers()]
    assert len(names) == 3 * 3                                               # three batch norms of three buffers
    for name in names:
        assert cases.error(state[name], reference[name].numpy()) <= 1e-12, name
        assert not name.endswith("tracked") or state[name] == 3


def test_lanes_average_the_statistics_of_the_micro_batches_in_order():
    """One, two and three threads: the same statistics and gradients, those of plain forwards one after another."""
    results = []
    for threads in (1, 2, 3):
        model, rng = random_model(dtype="float32")
        images, labels = images_of(model, rng, 10).astype(np.float32), rng.integers(0, 5, 10)
        with Lanes(model, threads, shards=2, micro_batch=3) as lanes:
            lanes.gradient(10, lambda lo, hi: (images[lo:hi], labels[lo:hi], None))
        results.append({**model.state_dict(), "gradient": model.flat_grad.copy()})
    alone, _ = random_model(dtype="float32")
    for rows in ([0, 1, 2], [3, 4], [5, 6, 7], [8, 9]):
        alone.update_buffers([alone.batch_statistics(alone.forward(images[rows], train=True)[1])])
    for name, value in alone.state_dict().items():
        assert all(np.array_equal(result[name], value) for result in results), name
    assert all(np.array_equal(result["gradient"], results[0]["gradient"]) for result in results)


def test_inference_folds_the_batch_norms():
    """All but those behind max-pooling, where a negative weight would make the largest number the smallest."""
    for pools, left in (((), 0), ((1, 2, 1), 3)):
        model, rng = random_model(stem_strides=(2, 1, 1 if pools else 2), stem_pools=pools)
        for layer in model.patch_embed.stem:
            layer.bn.weight.data[1] = -0.5
        images = images_of(model, rng, 3)
        folded, expected = model.for_inference(), model.forward(images)[0]
        assert cases.error(folded(images), expected) <= 1e-12
        assert len([*folded.named_buffers()]) == left and len([*model.named_buffers()]) == 9
    with pytest.raises(ValueError, match="train: .*folded"):
        folded.forward(images, train=True)


def test_names_and_shapes():
    """torch's names and layouts: a stem of convolution and batch norm, and the 1×1 convolution where plain patches have theirs."""
    model, _ = random_model()
    shapes = {name: value.shape for name, value in model.state_dict().items() if name.startswith("patch_embed")}
    expected = {"patch_embed.proj.weight": (12, 6, 1, 1), "patch_embed.proj.bias": (12,)}
    for i, (inputs, width) in enumerate([(2, 5), (5, 7), (7, 6)]):
        expected[f"patch_embed.stem.{i}.conv.weight"] = (width, inputs, 3, 3)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"patch_embed.stem.{i}.bn.{name}"] = (width,)
        expected[f"patch_embed.stem.{i}.bn.num_batches_tracked"] = ()
    assert shapes == expected


@pytest.mark.parametrize("fields, message", [
    (dict(stem_strides=(2, 2)), "stem_strides: expected a tuple of one stride a convolution, 3 as in stem_widths"),
    (dict(stem_strides=(2, 2, 2)), "stem_strides: expected strides whose product is patch_size 4"),
    (dict(stem_widths=(5, 0, 6)), "stem_widths"), (dict(stem_strides=(2, 1, -2)), "stem_strides"),
    (dict(stem_pools=(1, 2)), r"stem_pools: expected \(\) or a tuple of one side a convolution, 3 as in stem_widths"),
    (dict(stem_pools=(1, 2, 1)), r"stem_pools: expected pools that with stem_strides \(2, 1, 2\) multiply to patch_size 4"),
    (dict(stem_pools=(1, 0, 1)), "stem_pools"),
    (dict(stem_widths=(), stem_strides=(4,)), "stem_strides")])
def test_wrong_stems_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        numpyvit.create_model("vit", **SMALL | fields)
    assert ViTConfig().stem_widths == ()
