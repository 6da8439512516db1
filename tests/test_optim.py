"""Optimisers and schedules against torch.optim, step by step."""
import numpy as np
import pytest
import torch

import numpyvit
from numpyvit.errors import UserError
from numpyvit.kernels import optim as kernels
from numpyvit.ops import optim as ops
from numpyvit.training.lanes import CHUNK, Lanes
from numpyvit.training.optim import Optimizer, OptimizerConfig, decay_segments
from numpyvit.training.schedule import SCHEDULES, learning_rate

TORCH = {"adamw": lambda p, c: torch.optim.AdamW(p, betas=(c.beta1, c.beta2), eps=c.eps),
         "adam": lambda p, c: torch.optim.Adam(p, betas=(c.beta1, c.beta2), eps=c.eps),
         "sgd": lambda p, c: torch.optim.SGD(p, lr=1.0, momentum=c.momentum)}


def tiny_model(dtype="float64"):
    return numpyvit.create_model("vit", img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=2, num_classes=5, dtype=dtype)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("clip_norm", [0.0, 3.0])
def test_a_hundred_steps_are_torchs(kind, clip_norm):
    model, rng = tiny_model(), np.random.default_rng(1)
    config = OptimizerConfig(kind, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.3, clip_norm=clip_norm)
    named = list(model.named_parameters())
    twins = [torch.nn.Parameter(torch.tensor(p.data)) for _, p in named]
    groups = [{"params": [t for t, (_, p) in zip(twins, named) if p.decay == decay], "weight_decay": 0.3 if decay else 0.0}
              for decay in (True, False)]
    oracle, optimizer = TORCH[kind](groups, config), Optimizer(model, config)
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
    optimizer = Optimizer(model, OptimizerConfig(weight_decay=0.5))
    optimizer.step(0.1, 1, optimizer.grad_norm())
    for name, p in model.named_parameters():
        matrix = name.endswith("weight") and p.data.ndim > 1
        np.testing.assert_allclose(p.data, before[name] * (0.95 if matrix else 1.0), err_msg=name)
    segments = decay_segments(model, 0.5)
    assert segments[0][0] == 0 and segments[-1][1] == model.flat.size
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in zip(segments, segments[1:]))


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_average_of_weights(kind):
    model = tiny_model()
    optimizer = Optimizer(model, OptimizerConfig(kind, ema_decay=0.9))
    average = model.flat.copy()
    for step in range(1, 20):
        model.flat_grad[...] = np.random.default_rng(step).standard_normal(model.flat.size)
        optimizer.step(1e-2, step, optimizer.grad_norm())
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * model.flat
    np.testing.assert_allclose(optimizer.ema, average, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ema", [False, True])
def test_kernel_is_the_definition(dtype, ema):
    rng, n = np.random.default_rng(0), 1003
    arrays = [rng.standard_normal(n).astype(dtype), rng.standard_normal(n).astype(dtype),
              rng.standard_normal(n).astype(dtype), rng.random(n).astype(dtype)]
    mine, theirs = [a.copy() for a in arrays], [a.copy() for a in arrays]
    averages = [arrays[0].copy() if ema else None for _ in range(2)]
    for step in (1, 2, 1000):
        for fn, state, average in ((ops.adamw_step, mine, averages[0]), (kernels.adamw_step, theirs, averages[1])):
            fn(*state, 1e-3, 0.9, 0.98, 1e-8, 0.05, step, 0.7, average, 0.99)
    eps = np.finfo(dtype).eps
    for a, b in zip(mine + averages[:1] * ema, theirs + averages[1:] * ema):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=8 * eps, atol=eps)
    for chunk in (64, 1000, 5000):
        sums = np.zeros((2, -(-n // chunk)))
        ops.square_sums(arrays[0], sums[0], chunk)
        kernels.square_sums(arrays[0], sums[1], chunk)
        np.testing.assert_allclose(*sums, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_norm_shows_what_is_not_finite(value):
    model = tiny_model("float32")
    optimizer = Optimizer(model, OptimizerConfig())
    model.flat_grad[model.flat.size // 2] = value
    assert not np.isfinite(optimizer.grad_norm())


def test_threads_do_not_change_a_step():
    """A vector of several chunks, with ends that fall into segments."""
    states = []
    for threads in (1, 2, 3):
        model = numpyvit.create_model("vit", img_size=16, patch_size=4, embed_dim=96, depth=2, num_heads=2, num_classes=5)
        assert model.flat.size > 3 * CHUNK
        optimizer = Optimizer(model, OptimizerConfig(clip_norm=1.0, ema_decay=0.99))
        with Lanes(model, threads, 2, 4) as lanes:
            for step in range(1, 4):
                model.flat_grad[...] = np.random.default_rng(step).standard_normal(model.flat.size)
                norm = optimizer.grad_norm(lanes.each_range)
                optimizer.step(1e-2, step, norm, lanes.each_range)
        states.append([model.flat, norm, *optimizer.state().values()])
    for other in states[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(states[0], other))


@pytest.mark.parametrize("field, value", [("kind", "lion"), ("beta1", 1.0), ("weight_decay", -1.0), ("eps", float("nan")),
                                          ("ema_decay", 1.5)])
def test_wrong_settings_are_named(field, value):
    with pytest.raises(UserError, match="optimizer" if field == "kind" else field):
        OptimizerConfig(**{field: value})


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
