"""Optimisers and schedules against torch.optim, step by step."""
import numpy as np
import pytest
import torch

import numpyvit
from numpyvit.errors import UserError
from numpyvit.kernels import optim as kernels
from numpyvit.ops import optim as ops
from numpyvit.ops.optim import OPTIMIZERS, Update
from numpyvit.threads import CHUNK, Pool
from numpyvit.data import Augment
from numpyvit.ops.muon import muon_step
from numpyvit.runs.recipe import Recipe
from numpyvit.training.batches import augmentation
from numpyvit.training.optim import Optimizer
from numpyvit.training.recipe import recipe_for
from numpyvit.training.schedule import SCHEDULES, learning_rate
from numpyvit.training.trainer import new_optimizer

SETTINGS = {"adamw": dict(beta1=0.9, beta2=0.98, eps=1e-8), "adam": dict(beta1=0.8, beta2=0.99, eps=1e-6), "sgd": dict(momentum=0.9)}
TORCH = {"adamw": lambda p, s: torch.optim.AdamW(p, betas=(s["beta1"], s["beta2"]), eps=s["eps"]),
         "adam": lambda p, s: torch.optim.Adam(p, betas=(s["beta1"], s["beta2"]), eps=s["eps"]),
         "sgd": lambda p, s: torch.optim.SGD(p, lr=1.0, momentum=s["momentum"])}


def tiny_model(dtype="float64"):
    return numpyvit.create_model("vit", img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=2, num_classes=5, dtype=dtype)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("clip_norm", [0.0, 3.0])
def test_a_hundred_steps_are_torchs(kind, clip_norm):
    model, rng = tiny_model(), np.random.default_rng(1)
    named = list(model.named_parameters())
    twins = [torch.nn.Parameter(torch.tensor(p.data)) for _, p in named]
    groups = [{"params": [t for t, (_, p) in zip(twins, named) if p.decay == decay], "weight_decay": 0.3 if decay else 0.0}
              for decay in (True, False)]
    oracle = TORCH[kind](groups, SETTINGS[kind])
    optimizer = Optimizer(model, kind, weight_decay=0.3, clip_norm=clip_norm, **SETTINGS[kind])
    for step in range(1, 101):
        lr = 1e-2 / step
        for (_, p), twin in zip(named, twins):
            p.grad[...] = rng.standard_normal(p.shape) * rng.choice([1e-3, 1.0])
            twin.grad = torch.tensor(p.grad)
        norm = optimizer.grad_norm()
        assert norm == pytest.approx(np.sqrt((model.flat_grad**2).sum()), rel=1e-14)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(twins, clip_norm)
        for group in oracle.param_groups:
            group["lr"] = lr
        oracle.step()
        optimizer.step(lr, step, norm)
    for (name, p), twin in zip(named, twins):
        np.testing.assert_allclose(p.data, twin.detach().numpy(), rtol=1e-12, atol=1e-13, err_msg=name)


def test_only_weight_matrices_decay():
    model = tiny_model()
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    optimizer = Optimizer(model, weight_decay=0.5)
    optimizer.step(0.1, 1, optimizer.grad_norm())
    for name, p in model.named_parameters():
        matrix = name.endswith("weight") and p.data.ndim > 1
        np.testing.assert_allclose(p.data, before[name] * (0.95 if matrix else 1.0), err_msg=name)
    assert optimizer.groups[0].start == 0 and optimizer.groups[-1].end == max(end for *_, end in model.layout())
    assert all(a.end <= b.start and a.decay != b.decay for a, b in zip(optimizer.groups, optimizer.groups[1:]))


SMALL_CVT = dict(embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 2), patch_sizes=(3, 3), patch_strides=(2, 2), patch_paddings=(1, 1))


@pytest.mark.parametrize("family, fields, rest", [
    ("vit", {}, {"patch_embed.proj.weight", "head.weight"}),
    ("vit", dict(stem_widths=(6, 5), stem_strides=(2, 2)), {"patch_embed.stem.0.conv.weight", "head.weight"}),
    ("swin", dict(depths=(1, 1), num_heads=(1, 2), window_size=2), {"patch_embed.proj.weight", "head.fc.weight"}),
    ("swin", dict(depths=(1, 1), num_heads=(1, 2), window_size=2, stem_widths=(6, 5), stem_strides=(2, 2)),
     {"patch_embed.stem.0.conv.weight", "head.fc.weight"}),
    ("cvt", SMALL_CVT, {"stage0.patch_embed.proj.weight", "head.weight"}),
    ("cvt", dict(SMALL_CVT, stem_widths=(6, 5), stem_strides=(1, 2)), {"stem.0.conv.weight", "head.weight"})])
def test_hidden_matrices_follow_muon_and_everything_else_adamw(family, fields, rest):
    """Every hidden matrix alone, as (rows, columns), by muon_step; everything else by AdamW, with its own share of the learning
    rate. Pixels and logits, vectors, tables and depthwise kernels are everything else. Decay, clipping, average as for all."""
    sizes = dict(embed_dim=12, depth=1, num_heads=2) if family == "vit" else dict(embed_dim=8) if family == "swin" else {}
    sizes |= {} if family == "cvt" else dict(patch_size=4)
    model = numpyvit.create_model(family, img_size=16, num_classes=5, dtype="float64", **sizes | fields)
    optimizer = Optimizer(model, "muon", weight_decay=0.3, clip_norm=1.0, ema_decay=0.9, lr_rest=0.25, momentum=0.8)
    assert list(optimizer.state())[:3] == ["optimizer/m", "optimizer/v", "ema"]
    rows = {name: (p.data.copy(), np.zeros(p.shape), np.zeros(p.shape)) for name, p in model.named_parameters()}
    matrices = {name for name, p in model.named_parameters() if name.endswith("weight") and len(p.shape) > 1 and p.shape[1] > 1} - rest
    average = model.flat.copy()
    for step in (1, 2, 3):
        for _, p in model.named_parameters():
            p.grad[...] = np.random.default_rng(step).standard_normal(p.shape)
        norm = optimizer.grad_norm()
        optimizer.step(1e-2, step, norm)
        for name, p in model.named_parameters():
            update = Update(1e-2, step, 0.3 if p.decay else 0.0, 1 / (norm + 1e-6))
            data, m, v = rows[name]
            if name in matrices:
                flat = (len(data), -1)
                muon_step(data.reshape(flat), p.grad.reshape(flat), m.reshape(flat), update, 0.8)
            else:
                ops.adamw_step(data, p.grad, m, v, update._replace(lr=0.25e-2), 0.9, 0.98, 1e-8)
        ops.average_step(model.flat, average, (1 + step) / (10 + step))
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.data, rows[name][0], rtol=1e-12, atol=1e-15, err_msg=name)
    np.testing.assert_allclose(optimizer.ema, average, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_average_of_weights(kind):
    model = tiny_model()
    optimizer = Optimizer(model, kind, ema_decay=0.9)
    average = model.flat.copy()
    for step in range(1, 20):
        model.flat_grad[...] = np.random.default_rng(step).standard_normal(model.flat.size)
        optimizer.step(1e-2, step, optimizer.grad_norm())
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * model.flat
    np.testing.assert_allclose(optimizer.ema, average, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_are_their_definitions(dtype):
    rng, n = np.random.default_rng(0), 1003
    arrays = [rng.standard_normal(n).astype(dtype), rng.standard_normal(n).astype(dtype),
              rng.standard_normal(n).astype(dtype), rng.random(n).astype(dtype)]
    mine, theirs = [a.copy() for a in arrays], [a.copy() for a in arrays]
    averages = [arrays[0].copy() for _ in range(2)]
    for step in (1, 2, 1000):
        for module, state, average in ((ops, mine, averages[0]), (kernels, theirs, averages[1])):
            module.adamw_step(*state, Update(1e-3, step, 0.05, 0.7), 0.9, 0.98, 1e-8)
            module.average_step(state[0], average, 0.99)
    eps = np.finfo(dtype).eps
    for a, b in zip(mine + averages[:1], theirs + averages[1:]):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=8 * eps, atol=eps)
    for chunk in (64, 1000, 5000):
        sums = np.zeros((2, -(-n // chunk)))
        ops.square_sums(arrays[0], sums[0], chunk)
        kernels.square_sums(arrays[0], sums[1], chunk)
        np.testing.assert_allclose(*sums, rtol=1e-14)


@pytest.mark.parametrize("module", [ops, kernels])
@pytest.mark.parametrize("short", ["grad", "m", "v", "ema"])
def test_vectors_of_another_size_are_refused(module, short):
    """A compiled loop would read memory beyond the vector."""
    vectors = {name: np.zeros(99 if name == short else 100) for name in ("data", "grad", "m", "v")}
    with pytest.raises(ValueError):
        if short == "ema":
            module.average_step(vectors["data"], np.zeros(99), 0.5)
        else:
            module.adamw_step(*vectors.values(), Update(0.1), 0.9, 0.98, 1e-8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_norm_shows_what_is_not_finite(value):
    model = tiny_model("float32")
    optimizer = Optimizer(model)
    model.flat_grad[model.flat.size // 2] = value
    assert not np.isfinite(optimizer.grad_norm())


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_threads_do_not_change_a_step(kind):
    """A vector of several chunks, with ends that fall into groups."""
    states = []
    for threads in (1, 2, 3):
        model = numpyvit.create_model("vit", img_size=16, patch_size=4, embed_dim=96, depth=2, num_heads=2, num_classes=5)
        assert model.flat.size > 3 * CHUNK
        optimizer = Optimizer(model, kind, clip_norm=1.0, ema_decay=0.99)
        with Pool(threads) as pool:
            for step in range(1, 4):
                model.flat_grad[...] = np.random.default_rng(step).standard_normal(model.flat.size)
                norm = optimizer.grad_norm(pool)
                optimizer.step(1e-2, step, norm, pool)
        states.append([model.flat, norm, *optimizer.state().values()])
    for other in states[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(states[0], other))


@pytest.mark.parametrize("name, value, words", [("kind", "lion", "optimizer"), ("beta1", 1.0, "beta1"), ("weight_decay", -1.0, "weight_decay"),
                                                ("eps", float("nan"), "eps"), ("ema_decay", 1.5, "ema_decay"), ("momentum", 0.9, "momentum"),
                                                ("lr_rest", 0.0, "lr_rest")])
def test_wrong_settings_are_named(name, value, words):
    with pytest.raises(UserError, match=words):
        Optimizer(tiny_model(), **{name: value})


def test_defaults_agree():
    """The table of optimisers, a recipe and an Optimizer begin with the same numbers (and so does the augmentation)."""
    optimizer, recipe = Optimizer(tiny_model()), Recipe()
    assert optimizer.settings == OPTIMIZERS["adamw"][0].settings == {n: getattr(recipe, n) for n in optimizer.settings}
    for kind in OPTIMIZERS:
        settings = recipe_for(model="vit_nano_conv_32", optimizer=kind, steps=1)   # whose row has no momentum of its own
        assert Optimizer(tiny_model(), kind).settings == new_optimizer(tiny_model(), settings).settings
    assert Augment() == augmentation(recipe)


# --- schedules

def torch_rates(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("kind, warmup, make", [
    ("linear", 0, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 40)),
    ("cosine", 0, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40)),
    ("constant", 0, lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ("one_cycle", 0.3, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=41, pct_start=0.3)),
    ("one_cycle", 0.25, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=41, pct_start=0.25)),
])
def test_schedules_are_torchs(kind, warmup, make):
    total = 41 if kind == "one_cycle" else 40
    mine = [learning_rate(kind, step, total, 0.3, warmup) for step in range(40)]
    np.testing.assert_allclose(mine, torch_rates(make, 40), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_rates_rise_to_the_peak_and_stay_positive(kind, total, warmup):
    rates = [learning_rate(kind, step, total, 2.0, warmup) for step in range(total)]
    assert all(0 < rate <= 2.0 for rate in rates)
    rise = round(warmup * total)
    if kind != "one_cycle" and rise:
        np.testing.assert_allclose(rates[:rise], 2.0 * np.arange(1, rise + 1) / rise)
    if kind == "linear" and total == 100:
        assert rates[-1] == pytest.approx(2.0 / (total - rise))
