"""Muon against torch.optim.Muon, step by step, in float64."""
import numpy as np
import pytest
import torch

from numpyvit.ops.muon import muon_step, orthogonal
from numpyvit.ops.optim import Update


@pytest.fixture
def muon_in_float64(monkeypatch):
    """torch rounds the matrix to bfloat16 before its Newton–Schulz steps; here the same code goes on in float64."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (9, 9), (1, 5), (5, 1)])
@pytest.mark.parametrize("momentum, decay, scale, ns_steps", [(0.95, 0.3, 1.0, 5), (0.5, 0.0, 0.3, 3)])
def test_a_hundred_steps_are_torchs(muon_in_float64, shape, momentum, decay, scale, ns_steps):
    rng = np.random.default_rng(1)
    data, m = rng.standard_normal(shape), np.zeros(shape)
    twin = torch.nn.Parameter(torch.tensor(data))
    oracle = torch.optim.Muon([twin], momentum=momentum, weight_decay=decay, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw")
    for step in range(1, 101):
        grad = rng.standard_normal(shape) * rng.choice([1e-3, 1.0])
        oracle.param_groups[0]["lr"] = lr = 0.3 / step
        twin.grad = torch.tensor(grad * scale)
        oracle.step()
        muon_step(data, grad, m, Update(lr, step, decay, scale), momentum, ns_steps)
        theirs = twin.detach().numpy()
        assert np.linalg.norm(data - theirs) <= 1e-10 * np.linalg.norm(theirs)
    np.testing.assert_allclose(m, oracle.state[twin]["momentum_buffer"].numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (24, 24)])
def test_singular_values_come_near_one(shape):
    """U and V are those of the matrix, and singular values from 1 to 100 come between 0.6 and 1.3."""
    rng, rank = np.random.default_rng(2), min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in shape)
    values = np.geomspace(100, 1, rank)
    core = U.T @ orthogonal(U * values @ V.T) @ V
    assert np.abs(core - np.diag(np.diag(core))).max() < 1e-12
    assert np.diag(core).min() > 0.6 and np.diag(core).max() < 1.3


def test_float32_stays_float32_and_zero_stays_zero():
    x = np.random.default_rng(3).standard_normal((5, 8)).astype(np.float32)
    assert orthogonal(x).dtype == np.float32 and not orthogonal(np.zeros_like(x)).any()
    data, m = x.copy(), np.zeros_like(x)
    muon_step(data, x, m, Update(0.1, 1, 0.05), 0.95)
    assert data.dtype == m.dtype == np.float32
