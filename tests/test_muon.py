"""Muon against torch.optim.Muon, step by step, in float64: the definition, and the kernel, which wide matrices pass otherwise."""
import numpy as np
import pytest
import torch

from numpyvit import functional as F
from numpyvit.kernels import muon as kernel
from numpyvit.ops import muon as definition
from numpyvit.ops.optim import Update


@pytest.fixture
def muon_in_float64(monkeypatch):
    """torch rounds the matrix to bfloat16 before its Newton–Schulz steps; here the same code goes on in float64."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.fixture(params=[definition, kernel], ids=["ops", "kernels"])
def muon(request):
    return request.param


@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (9, 9), (1, 5), (5, 1), (5, 15), (23, 6)])
@pytest.mark.parametrize("momentum, decay, scale, ns_steps", [(0.95, 0.3, 1.0, 5), (0.5, 0.0, 0.3, 3), (0.9, 0.1, 1.0, 1)])
def test_a_hundred_steps_are_torchs(muon, muon_in_float64, shape, momentum, decay, scale, ns_steps):
    rng = np.random.default_rng(1)
    data, m = rng.standard_normal(shape), np.zeros(shape)
    twin = torch.nn.Parameter(torch.tensor(data))
    oracle = torch.optim.Muon([twin], momentum=momentum, weight_decay=decay, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw")
    for step in range(1, 101):
        grad = rng.standard_normal(shape) * rng.choice([1e-3, 1.0])
        oracle.param_groups[0]["lr"] = lr = 0.3 / step
        twin.grad = torch.tensor(grad * scale)
        oracle.step()
        muon.muon_step(data, grad, m, Update(lr, step, decay, scale), momentum, ns_steps)
        theirs = twin.detach().numpy()
        assert np.linalg.norm(data - theirs) <= 1e-10 * np.linalg.norm(theirs)
    np.testing.assert_allclose(m, oracle.state[twin]["momentum_buffer"].numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (24, 24), (10, 90)])
def test_singular_values_come_near_one(muon, shape):
    """U and V are those of the matrix, and singular values from 1 to 100 come between 0.6 and 1.3."""
    rng, rank = np.random.default_rng(2), min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in shape)
    values = np.geomspace(100, 1, rank)
    core = U.T @ muon.orthogonal(U * values @ V.T) @ V
    assert np.abs(core - np.diag(np.diag(core))).max() < 1e-12
    assert np.diag(core).min() > 0.6 and np.diag(core).max() < 1.3


@pytest.mark.parametrize("columns", [8, 25])
def test_float32_stays_float32_and_zero_stays_zero(muon, columns):
    x = np.random.default_rng(3).standard_normal((5, columns)).astype(np.float32)
    assert muon.orthogonal(x).dtype == np.float32 and not muon.orthogonal(np.zeros_like(x)).any()
    data, m = x.copy(), np.zeros_like(x)
    muon.muon_step(data, x, m, Update(0.1, 1, 0.05), 0.95)
    assert data.dtype == m.dtype == np.float32


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
def test_the_kernel_is_bound():
    assert F.muon_step is kernel.muon_step


@pytest.mark.parametrize("shape, wide", [((6, 17), False), ((17, 6), False), ((6, 18), True), ((18, 6), True)])
def test_wide_matrices_go_by_the_smaller_side(monkeypatch, shape, wide):
    """From three times as many columns as rows on, or the other way round, three steps and then two are one product."""
    lengths, segment = [], kernel.segment
    monkeypatch.setattr(kernel, "segment", lambda g, steps: lengths.append(steps) or segment(g, steps))
    x = np.random.default_rng(5).standard_normal(shape)
    np.testing.assert_allclose(kernel.orthogonal(x), definition.orthogonal(x), rtol=0, atol=1e-12)
    assert lengths == ([3, 2] if wide else [])


@pytest.mark.parametrize("shape", [(64, 288), (128, 1152), (768, 256), (256, 256), (256, 512)])
def test_the_kernel_rounds_as_the_definition(shape, figures):
    """Singular values from 1 to 1e-4 in float32: at most 1.5 times the error of the definition, both against float64."""
    rng, rank = np.random.default_rng(6), min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in shape)
    x = (U * np.geomspace(1, 1e-4, rank) @ V.T).astype(np.float32)
    exact = definition.orthogonal(x.astype(np.float64))
    errors = [np.linalg.norm(orthogonal(x) - exact, 2) for orthogonal in (kernel.orthogonal, definition.orthogonal)]
    figures.add(share=errors[0] / errors[1])
    assert errors[0] <= 1.5 * errors[1] <= 1e-4
