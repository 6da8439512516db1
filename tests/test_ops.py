"""Every definition in numpyvit/ops against autograd in float64: the output and the gradient of every array."""
import importlib
import inspect
import math
import pkgutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cases
import numpyvit.ops
import torch_models
from numpyvit.cases import pointwise, windows
from numpyvit.ops import erf as erf_module
from numpyvit.ops import positions, random_bits, rotary
from numpyvit.ops.windows import merge_index, shifted_window_mask, window_index

TOLERANCE = 1e-10


def definitions():
    """{name: (NAME_forward, NAME_backward)} of every op, from whichever file of ops/ defines it."""
    modules = [importlib.import_module(f"numpyvit.ops.{m.name}") for m in pkgutil.iter_modules(numpyvit.ops.__path__)]
    return {name.removesuffix("_forward"): (f, getattr(module, name.replace("_forward", "_backward")))
            for module in modules for name, f in inspect.getmembers(module, inspect.isfunction)
            if name.endswith("_forward") and f.__module__ == module.__name__}


DEFINITIONS = definitions()


def test_every_op_has_a_case():
    assert set(DEFINITIONS) == {case.name for case in cases.CASES}


@pytest.mark.parametrize("case", cases.CASES, ids=str)
@given(data=st.data())
def test_against_autograd(case, data, figures):
    forward, backward = DEFINITIONS[case.name]
    arrays, others, d = data.draw(cases.draws(case))
    want_y, want, dy = cases.torch_gradients(case, arrays, others, lambda shape: d.array(*shape))
    for a in [*arrays.values(), *others.values(), dy]:
        if isinstance(a, np.ndarray):
            a.flags.writeable = False                                        # no op may write to an argument
    with np.errstate(all="ignore"):
        y, cache = forward(**arrays, **others)
        again, _ = forward(**arrays, **others)
        got = cases.gradients(backward, dy, cache)
    assert np.array_equal(y, again), "forward twice gives other bits"
    errors = {"y": cases.error(y, want_y)}
    for (name, a), g, w in zip(arrays.items(), got, want, strict=True):
        assert g is None or g.dtype == np.float64
        errors[f"d{name}"] = cases.error(g, w, cases.floor_of(name, arrays, others, dy))
    figures.add(**errors)
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("case", cases.CASES, ids=str)
@given(data=st.data())
def test_float32_stays_float32(case, data):
    forward, backward = DEFINITIONS[case.name]
    arrays, others, d = data.draw(cases.draws(case))
    arrays, others = cases.as_dtype(arrays, np.float32), cases.as_dtype(others, np.float32)
    with np.errstate(all="ignore"):
        y, cache = forward(**arrays, **others)
        got = cases.gradients(backward, cases.as_dtype({"dy": d.array(*y.shape)}, np.float32)["dy"], cache)
    assert y.dtype == np.float32
    assert all(g is None or g.dtype == np.float32 for g in got)


@pytest.mark.parametrize("folder", ["ops", "kernels"])
@pytest.mark.parametrize("kernel", [2, 3, 17])
def test_max_pool_of_equal_cells(folder, kernel):
    """The first of equal cells takes the gradient, as in torch; and a NaN is the largest number."""
    module = importlib.import_module(f"numpyvit.{folder}.max_pool")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 19, 23, 37)).astype(np.float32)
    y, cache = module.max_pool_forward(x, kernel)
    dy = rng.standard_normal(y.shape, np.float32)
    images = torch.from_numpy(x).movedim(-1, 1).requires_grad_()
    want = torch.nn.functional.max_pool2d(images, kernel).movedim(1, -1)
    want.backward(torch.from_numpy(dy))
    assert np.array_equal(y, want.detach().numpy())
    assert np.array_equal(module.max_pool_backward(dy, cache), images.grad.movedim(1, -1).numpy())
    for i in range(kernel * kernel):
        x = rng.standard_normal((1, kernel, kernel, 5), np.float32)
        x[0, i // kernel, i % kernel, 2] = np.nan
        assert np.isnan(module.max_pool_forward(x, kernel)[0]).tolist() == [[[[False, False, True, False, False]]]]


def test_erf():
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-320, -1, 500), [0.0, -0.0, 2.0, -2.0, 6.0, np.inf, -np.inf]])
    want = np.array([math.erf(v) for v in x])
    got = erf_module.erf(x)
    assert np.abs(got - want).max() <= 2e-15
    assert (np.abs(got - want) <= 4 * np.spacing(np.abs(want))).all()        # 4 ulp, subnormals included
    assert np.array_equal(np.signbit(got), np.signbit(want))
    assert np.isnan(erf_module.erf(np.array(np.nan)))


def test_random_bits_are_splitmix64():
    for parts in [(0,), (1, 2, 3), (2**64 - 1, 7), (-1, 5)]:
        state = 0
        for part in parts:
            state = pointwise.splitmix(state * 0x9E3779B97F4A7C15 + part)
        assert int(random_bits.hash_combine(*(np.uint64(p) if p > 2**63 else p for p in parts))) == state
    u = random_bits.uniform(random_bits.hash_combine(3, np.arange(100_000)))
    assert 0 <= u.min() and u.max() < 1
    histogram = np.histogram(u, 100, (0, 1))[0]
    assert ((histogram - 1000.0) ** 2 / 1000).sum() < 160                    # χ² of 99 degrees of freedom: p ≈ 1e-4


@given(rate=st.sampled_from([0.1, 0.5, 0.9]), seed=st.integers(0, 2**32))
def test_dropout_drops_what_it_says(rate, seed):
    seeds = random_bits.hash_combine(seed, np.arange(7))
    kept = DEFINITIONS["dropout"][0](np.ones((7, 50, 100)), rate, seeds)[0] != 0
    assert abs(kept.mean() - (1 - rate)) < 6 * math.sqrt(rate * (1 - rate) / kept.size)
    assert len({row.tobytes() for row in kept}) == 7                         # no two images share a mask


@pytest.mark.parametrize("C", [8, 20, 36])
def test_position_tables(C):
    for gh, gw in [(1, 1), (3, 5), (7, 2)]:
        want = torch_models.position_table("sincos2d", gh, gw, C, 0)[0].numpy()
        assert cases.error(positions.sincos2d_table(gh, gw, C), want) <= 1e-14
        want = torch_models.position_table("sinusoidal", gh, gw, C, 1)[0].numpy()
        assert cases.error(positions.sinusoidal_table(gh * gw + 1, C), want) <= 1e-14


def test_rotary_angles_by_hand():
    """3 columns; a head of 8 channels has 2 pairs that turn with x, at 1 and at 1/10, and 2 with y."""
    angles = rotary.rotary_angles(2, 3, 8)
    np.testing.assert_allclose(angles[5], [2, 0.2, 1, 0.1], rtol=1e-15)
    np.testing.assert_allclose(angles[1], [1, 0.1, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(rotary.rotary_angles(2, 3, 8, temperature=16.0)[5], [2, 0.5, 1, 0.25], rtol=1e-15)
    assert angles.shape == (6, 4)


def test_rotary_scores_depend_on_offsets_alone():
    """One query and one key at all places of a grid: equal offsets give equal scores, others do not."""
    rng, gh, gw, nh, hd = np.random.default_rng(0), 4, 5, 2, 8
    token = rng.standard_normal(3 * nh * hd)
    angles = rotary.rotary_angles(gh, gw, hd)
    qkv = np.tile(token, (1, gh * gw, 1))
    y, _ = rotary.rotary_forward(qkv, np.cos(angles), np.sin(angles))
    q, k, v = y[0].reshape(gh * gw, 3, nh, hd).transpose(1, 2, 0, 3)
    scores = (q @ k.swapaxes(1, 2)).reshape(nh, gh, gw, gh, gw)
    found = {}
    for at in np.ndindex(gh, gw, gh, gw):
        found.setdefault((at[2] - at[0], at[3] - at[1]), []).append(scores[(slice(None), *at)])
    assert len(found) == 7 * 9
    for several in found.values():
        np.testing.assert_allclose(several, np.tile(several[0], (len(several), 1)), atol=1e-12)
    assert len({round(float(several[0][0]), 9) for several in found.values()}) == len(found)
    np.testing.assert_array_equal(v.swapaxes(0, 1).reshape(gh * gw, -1), qkv[0, :, 2 * nh * hd:])


@given(M=st.integers(1, 5), H=st.integers(1, 13), W=st.integers(1, 13), data=st.data())
def test_window_tables(M, H, W, data):
    """The index tables do to tokens what pad, roll and partition do to a map; the mask parts what only the roll joined."""
    shift = data.draw(st.integers(0, M - 1))
    tokens = torch.arange(1, H * W + 1).view(1, H, W, 1)
    want = windows.torch_shifted_windows(torch, tokens, M, shift).flatten() - 1
    index, inverse = window_index(H, W, M, shift)
    assert np.array_equal(index, want) and np.array_equal(index[inverse], np.arange(H * W))
    index, inverse = merge_index(H, W)
    merged = DEFINITIONS["merge_patches"][0](tokens.numpy())[0]
    assert np.array_equal(index, merged.ravel() - 1) and np.array_equal(index[inverse], np.arange(H * W))
    row, column = (torch.arange(n + -n % M) >= n + -n % M - shift for n in (H, W))
    region = windows.torch_shifted_windows(torch, (row[:, None] * 2 + column * 1)[None, :, :, None], M, 0)[..., 0]
    together = (region[:, :, None] == region[:, None, :]).numpy()
    assert np.array_equal(shifted_window_mask(H, W, M, shift), np.where(together, 0, -np.inf))


# --- bad input

def refusals():
    """{name: (op, arguments of which one array has another shape than the others call for)}"""
    a = np.random.default_rng(0).standard_normal
    x, image, qkv, q, angles = a((4, 8)), a((1, 5, 5, 8)), a((4, 17, 48)), a((4, 2, 5, 3)), a((16, 4))
    wrong = {"layer_norm weight": ("layer_norm", (x, np.ones(9), np.zeros(8))),
             "layer_norm bias": ("layer_norm", (x, np.ones(8), np.zeros(7))),
             "linear": ("linear", (x, a((6, 8)), np.ones(4))), "bias_activation": ("bias_activation", (x, np.ones(5))),
             "conv2d": ("conv2d", (image, a((6, 8, 3, 3)), np.ones(5), 1, 1)),
             "depthwise_conv weight": ("depthwise_conv", (image, a((5, 1, 3, 3)), None, 1, 1)),
             "depthwise_conv bias": ("depthwise_conv", (image, a((8, 1, 3, 3)), np.ones(5), 1, 1)),
             "batch_norm": ("batch_norm", (image, np.ones(7), np.ones(8))), "rotary tokens": ("rotary", (qkv, angles, angles)),
             "rotary heads": ("rotary", (a((2, 16, 27)), angles, angles)),
             "rotary sin": ("rotary", (a((2, 16, 48)), angles, a((16, 3)))), "rotary sin for all": ("rotary", (a((2, 16, 48)), angles, a((16, 1)))),
             "dropout seeds": ("dropout", (x, 0.5, np.arange(3, dtype=np.uint64))),
             "mask of bool": ("attention", (q, q, q, None, np.ones((1, 5, 5), bool))),
             "masks": ("attention", (q, q, q, None, np.zeros((3, 5, 5)))), "mask": ("attention", (q, q, q, None, np.zeros((5, 5))))}
    tables, biases = window_index(8, 8, 4), a((2, 16, 16))
    wrong |= {f"window_attention qkv_bias ({n},)": ("window_attention", (a((1, 64, 24)), a(n), biases, *tables, 2)) for n in (12, 48)}
    wrong |= {f"window_attention of {n} tokens": ("window_attention", (a((1, n, 24)), None, biases, *tables, 2)) for n in (16, 80)}
    wrong |= {"window_attention of other windows": ("window_attention", (a((1, 64, 24)), None, a((2, 24, 24)), *tables, 2)),
              "window_attention inverse": ("window_attention", (a((1, 64, 24)), None, biases, tables[0], tables[1][:48], 2)),
              "window_attention index": ("window_attention", (a((1, 64, 24)), None, biases, tables[0] + 1, tables[1], 2))}
    return wrong | {f"bias {shape}": ("attention", (q, q, q, a(shape))) for shape in ((1, 5, 5), (2, 1, 5), (5, 5), (4, 2, 5, 5))}


@pytest.mark.parametrize("name", refusals())
def test_arrays_of_another_shape_are_refused(name):
    """The kernels refuse these in the same words; NumPy has its own for a shape that does not broadcast."""
    op, arguments = refusals()[name]
    with pytest.raises(ValueError, match="expected" if op in ("attention", "rotary") else None):
        DEFINITIONS[op][0](*arguments)
