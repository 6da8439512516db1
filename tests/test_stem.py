"""Models with a convolutional stem: the whole model against torch, its batch statistics, its names, what it refuses."""
import numpy as np
import pytest
import torch

import cases
import numpyvit
from numpyvit.models.cvt import CvTConfig
from numpyvit.models.fold import ForInference
from numpyvit.models.stem import stem_forward
from numpyvit.models.swin import SwinConfig
from numpyvit.models.vit import ViTConfig
from numpyvit.module import EVALUATION
from numpyvit.training.lanes import Lanes
from torch_models import twin_of

STEM = dict(in_chans=2, num_classes=5, mlp_ratio=1.5, stem_widths=(5, 7, 6), stem_strides=(2, 1, 2))
SMALL = {"vit": STEM | dict(img_size=(12, 8), patch_size=4, embed_dim=12, depth=1, num_heads=3),
         "swin": STEM | dict(img_size=(24, 16), patch_size=4, embed_dim=6, depths=(2, 1), num_heads=(2, 3), window_size=3),
         "cvt": STEM | dict(img_size=(24, 16), embed_dims=(6, 10), depths=(1, 1), num_heads=(2, 5), patch_sizes=(3, 3),
                            patch_strides=(1, 2), patch_paddings=(1, 1))}
BATCH_NORMS = {"vit": 3, "swin": 3, "cvt": 3 + 2 * 3}                        # CvT's attention has three more a block
VARIANTS = {"token": {}, "mean": dict(global_pool="avg"),
            "one convolution": dict(stem_widths=(9,), stem_strides=(4,), act="relu"),
            "stride 3, post-norm": dict(img_size=9, patch_size=3, stem_widths=(4, 5), stem_strides=(1, 3), norm_order="post"),
            "max-pooling": dict(stem_strides=(2, 1, 1), stem_pools=(1, 1, 2)),
            "max-pooling at once": dict(img_size=(24, 12), patch_size=12, stem_strides=(2, 1, 1), stem_pools=(3, 2, 1), global_pool="avg"),
            "no stride": dict(img_size=5, patch_size=1, stem_widths=(4, 5), stem_strides=(1, 1), pos_embed="sincos2d")}
VARIANTS = {name: ("vit", fields) for name, fields in VARIANTS.items()} | {
    "swin": ("swin", {}), "swin, max-pooling": ("swin", dict(stem_strides=(1, 2, 1), stem_pools=(2, 1, 1))),
    "cvt": ("cvt", {}), "cvt, max-pooling": ("cvt", dict(stem_strides=(1, 1, 1), stem_pools=(1, 2, 2))),
    "cvt, a stride left over": ("cvt", dict(img_size=(39, 27), stem_pools=(1, 1, 2), cls_token=False))}


def random_model(family="vit", seed=0, dtype="float64", **fields):
    """A model with no parameter and no running statistic at its initial value."""
    model, rng = numpyvit.create_model(family, dtype=dtype, **SMALL[family] | fields), np.random.default_rng(seed)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.3, p.shape)
    for _, buffer in model.named_buffers():
        if buffer.dtype.kind == "f":
            buffer += rng.random(buffer.shape)
    return model, rng


def stem_of(model):
    return model.stem if hasattr(model, "stem") else model.patch_embed.stem


def images_of(model, rng, B):
    H, W = np.broadcast_to(model.config.img_size, 2)
    return rng.normal(size=(B, model.config.in_chans, H, W))


@pytest.mark.parametrize("family, fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("B", [1, 3])
def test_every_gradient_is_torchs(family, fields, train, B, figures):
    model, rng = random_model(family, **fields)
    errors = cases.model_errors(model, images_of(model, rng, B), rng.normal(size=(B, 5)), train)
    figures.add(worst=max(errors.values()))
    assert max(errors.values()) <= 1e-10, errors


@pytest.mark.parametrize("family", SMALL)
def test_running_statistics_after_three_steps_are_torchs(family):
    model, rng = random_model(family)
    twin = twin_of(model, train=True)
    for B in (3, 1, 4):
        images = images_of(model, rng, B)
        model.update_buffers([model.batch_statistics(model.forward(images, train=True)[1])])
        twin(torch.from_numpy(images))
    state, reference = model.state_dict(), twin.state_dict()
    names = [name for name, _ in model.named_buffers()]
    assert len(names) == 3 * BATCH_NORMS[family]                             # of three buffers each
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


@pytest.mark.parametrize("family", SMALL)
def test_inference_folds_the_batch_norms(family):
    """All but those behind max-pooling, where a negative weight would make the largest number the smallest."""
    for pools, left in (((), 0), ((1, 2, 1), 3)):
        model, rng = random_model(family, stem_strides=(2, 1, 1 if pools else 2), stem_pools=pools)
        for layer in stem_of(model):
            layer.bn.weight.data[1] = -0.5
        images = images_of(model, rng, 3)
        folded, expected = model.for_inference(), model.forward(images)[0]
        assert cases.error(folded(images), expected) <= 1e-12
        assert len([*folded.named_buffers()]) == left and len([*model.named_buffers()]) == 3 * BATCH_NORMS[family]
    with pytest.raises(ValueError, match="train: .*folded"):
        folded.forward(images, train=True)


@pytest.mark.parametrize("family, stem, further", [
    ("vit", "patch_embed.stem", {"patch_embed.proj.weight": (12, 6, 1, 1), "patch_embed.proj.bias": (12,)}),
    ("swin", "patch_embed.stem", {"patch_embed.proj.weight": (6, 6, 1, 1), "patch_embed.proj.bias": (6,),
                                  "patch_embed.norm.weight": (6,), "patch_embed.norm.bias": (6,)}),
    ("cvt", "stem", {"stage0.patch_embed.proj.weight": (6, 6, 3, 3), "stage0.patch_embed.proj.bias": (6,),
                     "stage0.patch_embed.norm.weight": (6,), "stage0.patch_embed.norm.bias": (6,)})])
def test_names_and_shapes(family, stem, further):
    """torch's names and layouts: a stem of convolution and batch norm, then the convolution that makes tokens."""
    model, _ = random_model(family)
    prefixes = "patch_embed", "stage0.patch_embed", "stem"
    shapes = {name: value.shape for name, value in model.state_dict().items() if name.startswith(prefixes)}
    expected = dict(further)
    for i, (inputs, width) in enumerate([(2, 5), (5, 7), (7, 6)]):
        expected[f"{stem}.{i}.conv.weight"] = (width, inputs, 3, 3)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{stem}.{i}.bn.{name}"] = (width,)
        expected[f"{stem}.{i}.bn.num_batches_tracked"] = ()
    assert shapes == expected


@pytest.mark.parametrize("family", SMALL)
def test_which_filters_look_at_the_pixels(family):
    """The first convolution's with a stem, those that make tokens without; Muon leaves them to AdamW."""
    plain = dict(stem_widths=(), stem_strides=())
    stem, patches = ("stem.0", "stage0.patch_embed.proj") if family == "cvt" else ("patch_embed.stem.0", "patch_embed.proj")
    for fields, name in ((plain, f"{patches}.weight"), ({}, f"{stem}.conv.weight")):
        model, _ = random_model(family, **fields)
        assert np.shares_memory(model.embed_filters(), dict(model.named_parameters())[name].data)
        assert name.startswith(model.first_and_last) and model.first_and_last[1] == "head."
    assert not any(p.startswith(model.first_and_last) for p, _ in model.named_parameters() if patches in p or "stem.1" in p)


def test_tokens_of_a_cvt_say_which_pixels_they_see():
    """stages()[0].embed is the window of pixels that reach a token through the stem and the first convolution."""
    model, rng = random_model("cvt", img_size=(33, 31), stem_strides=(1, 2, 1), stem_pools=(1, 2, 1), stem_widths=(9, 9, 9))
    kernel, stride, padding = model.stages()[0].embed
    images, (H, W) = images_of(model, rng, 2), model.stages()[0].grid

    def tokens(x):
        return model.stage0.patch_embed.forward(stem_forward(model.stem, x, EVALUATION)[0])[0]

    i, j = H // 2, W // 2
    before, seen = tokens(images)[:, i, j], []
    for row, column in np.ndindex(33, 31):
        changed = images.copy()
        changed[:, :, row, column] += 100                                       # large enough to pass every max-pooling
        if not np.array_equal(tokens(changed)[:, i, j], before):
            seen.append((row, column))
    top, left = i * stride - padding, j * stride - padding
    assert (*np.min(seen, axis=0), *np.max(seen, axis=0)) == (top, left, top + kernel - 1, left + kernel - 1)


@pytest.mark.parametrize("family, fields, message", [
    ("swin", dict(img_size=(24, 18)), "patch_size: expected a divisor of img_size"),
    ("swin", dict(stem_strides=(2, 2, 2)), "stem_strides: expected strides whose product is patch_size 4"),
    ("cvt", dict(stem_pools=(1, 2)), r"stem_pools: expected \(\) or a tuple of one side a convolution, 3 as in stem_widths"),
    ("cvt", dict(stem_pools=(1, 1, 9)), r"patch_strides: expected a map in stage 0, .* 0×0 map of before"),
    *(("vit", *row) for row in [
    (dict(stem_strides=(2, 2)), "stem_strides: expected a tuple of one stride a convolution, 3 as in stem_widths"),
    (dict(stem_strides=(2, 2, 2)), "stem_strides: expected strides whose product is patch_size 4"),
    (dict(stem_widths=(5, 0, 6)), "stem_widths"), (dict(stem_strides=(2, 1, -2)), "stem_strides"),
    (dict(stem_pools=(1, 2)), r"stem_pools: expected \(\) or a tuple of one side a convolution, 3 as in stem_widths"),
    (dict(stem_pools=(1, 2, 1)), r"stem_pools: expected pools that with stem_strides \(2, 1, 2\) multiply to patch_size 4"),
    (dict(stem_pools=(1, 0, 1)), "stem_pools"),
    (dict(stem_widths=(), stem_strides=(4,)), "stem_strides")])])
def test_wrong_stems_are_named(family, fields, message):
    with pytest.raises(ValueError, match=message):
        numpyvit.create_model(family, **SMALL[family] | fields)
    assert ViTConfig().stem_widths == SwinConfig().stem_widths == CvTConfig().stem_widths == ()


@pytest.mark.parametrize("family", SMALL)
def test_a_folded_model_is_its_own_inference_model_and_is_not_saved(family, tmp_path):
    """Folding again changes nothing; a file of it would have names that no model has, so that none is written."""
    model, rng = random_model(family)
    folded, images = model.for_inference(), images_of(model, rng, 2)
    assert folded is not model and folded.for_inference() is folded and ForInference(folded).get() is folded
    assert cases.error(folded.replica()(images), model(images)) <= 1e-12 and folded.replica().for_inference().folded
    for name in ("numpyvit", "microsoft" if family == "cvt" else "timm"):
        with pytest.raises(ValueError, match="weights: .* folded one, .*; save the model that it was made from"):
            numpyvit.save_weights(folded, tmp_path / "a.safetensors", format=name)
    assert not list(tmp_path.iterdir())
    numpyvit.save_weights(model, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(numpyvit.load_model(tmp_path / "a.safetensors")(images), model(images))


@pytest.mark.parametrize("family", [*SMALL, "cvt linear"])
@pytest.mark.parametrize("strides, pools, last", [((2, 2), (), 1), ((1, 1), (2, 2), 1), ((1, 1), (4, 1), 0), ((4, 1), (), 0)])
def test_one_image_is_too_few_where_the_stem_ends_in_one_pixel(family, strides, pools, last):
    """Of a batch norm behind pooling it is the pooled map that counts. Evaluation takes one image, training two."""
    family, _, method = family.partition(" ")
    fields = SMALL[family] | dict(img_size=4, stem_widths=(5, 6), stem_strides=strides, stem_pools=pools)
    model = numpyvit.create_model(family, **fields, **({"qkv_method": method} if method else {}))
    images = np.zeros((2, 2, 4, 4), np.float32)
    with pytest.raises(ValueError, match=f"images: expected 2 or more to train on, .* convolution {last} of the stem"):
        model.forward(images[:1], train=True)
    model.forward(images[:1])
    model.forward(images, train=True)
    if family != "cvt":                                                      # whose attention has batch norms, too
        wide = numpyvit.create_model(family, **{**fields, "img_size": (4, 8)})
        wide.forward(np.zeros((1, 2, 4, 8), np.float32), train=True)


@pytest.mark.parametrize("family, fields", [("vit", dict(embed_dim=12)), ("swin", dict(embed_dim=6)),
                                            ("cvt", dict(embed_dims=(10, 6), num_heads=(2, 2)))])
def test_an_mlp_without_a_channel_is_refused(family, fields):
    C = min(fields.get("embed_dims", [fields.get("embed_dim")]))
    with pytest.raises(ValueError, match=f"^mlp_ratio: expected .* the width {C} a channel, 1/{C} or more, got 0.05"):
        numpyvit.create_model(family, **SMALL[family] | fields | dict(mlp_ratio=0.05))
    numpyvit.create_model(family, **SMALL[family] | fields | dict(mlp_ratio=1 / 5))
