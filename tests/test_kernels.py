"""Every kernel that functional.py binds, against the definition it replaces and against autograd.

float64: within 1e-10 of both. float32: no further from float64 than twice what the NumPy definition is in float32, so the
tolerance is derived and not guessed; large tiles of a convolution may be twice as far. NaN and infinity are not lost, and
spread within such a tile alone.
"""
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

import cases
from numpyvit import functional as F
from numpyvit.kernels import conv, fast_math, winograd
from numpyvit.ops.windows import window_index
from test_ops import DEFINITIONS, refusals

EPS = float(np.finfo(np.float32).eps)
KERNELS = {case: (getattr(F, f"{case.name}_forward"), getattr(F, f"{case.name}_backward")) for case in cases.CASES
           if hasattr(F, f"{case.name}_forward")
           and (getattr(F, f"{case.name}_forward"), getattr(F, f"{case.name}_backward")) != DEFINITIONS[case.name]}
every_kernel = pytest.mark.parametrize("case", KERNELS, ids=str)


def run(pair, arrays, others, dy):
    """y and the gradients; none of the arguments may have changed."""
    forward, backward = pair
    given_arrays = [a for a in [*arrays.values(), *others.values(), dy] if isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in given_arrays]
    with np.errstate(all="ignore"):
        y, cache = forward(**arrays, **others)
        results = [y, *cases.gradients(backward, dy, cache)]
    assert before == [a.tobytes() for a in given_arrays], "an argument was written to"
    return dict(zip(["y", *(f"d{name}" for name in arrays)], results, strict=True))


@every_kernel
@given(data=st.data())
def test_float64(case, data, figures):
    arrays, others, d = data.draw(cases.draws(case))
    want_y, want, dy = cases.torch_gradients(case, arrays, others, lambda shape: d.array(*shape))
    got, defined = run(KERNELS[case], arrays, others, dy), run(DEFINITIONS[case.name], arrays, others, dy)
    errors = {}
    for (name, g), w in zip(got.items(), [want_y, *want], strict=True):
        assert g is None or g.dtype == np.float64
        floor = cases.floor_of(name[1:], arrays, others, dy) if name != "y" else 0.0
        errors[name] = max(cases.error(g, w, floor), cases.error(g, defined[name], floor))
    figures.add(**errors)
    assert max(errors.values()) <= 1e-10, errors


@pytest.mark.parametrize("case", [case for case in KERNELS if "conv" in case.name], ids=str)
def test_every_geometry(case):
    """Every small map, stride and padding: the multiples of 4 too, which the draws above leave out."""
    rng, depthwise = np.random.default_rng(0), "depthwise" in case.name
    for kernel, H, W, stride, padding in itertools.product((1, 2, 3), (1, 3, 4), range(1, 10), (1, 2, 3), (0, 1, 2)):
        if min(H, W) + 2 * padding < kernel or padding > kernel:
            continue
        arrays = dict(x=rng.normal(size=(2, H, W, 3)), weight=rng.normal(size=(3, 1 if depthwise else 3, kernel, kernel)), bias=None)
        others = dict(stride=stride, padding=padding)
        dy = rng.normal(size=DEFINITIONS[case.name][0](**arrays, **others)[0].shape)
        got, want = run(KERNELS[case], arrays, others, dy), run(DEFINITIONS[case.name], arrays, others, dy)
        assert all(cases.error(got[name], want[name], 1e-10) <= 1e-10 for name in want), (kernel, H, W, stride, padding)


def wide_conv(rng, B, H, W, padding, Cin=32, Cout=33):
    """A 3×3 convolution with stride 1 that is wide enough for winograd.py: the pair's arguments."""
    arrays = dict(x=rng.normal(size=(B, H, W, Cin)), weight=rng.normal(size=(Cout, Cin, 3, 3)), bias=rng.normal(size=Cout))
    return arrays, dict(stride=1, padding=padding), rng.normal(size=(B, H + 2 * padding - 2, W + 2 * padding - 2, Cout))


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("m", [2, 3, 4])
def test_winograd_of_every_geometry(monkeypatch, m):
    """Maps that tiles fill and do not fill, every padding, and batches of several parts; the padding's zeros get no gradient."""
    monkeypatch.setattr(conv, "tile_size", lambda B, Ho, Wo: m)
    rng = np.random.default_rng(0)
    for H, W, padding in itertools.product(range(1, 8), range(1, 8), (0, 1, 2, 3)):
        if min(H, W) + 2 * padding >= 3:
            arrays, others, dy = wide_conv(rng, 150 if (H, W, padding) == (3, 4, 1) else 2, H, W, padding)
            assert F.conv2d_forward(**arrays, **others)[1][0].filters.m == m
            got, want = run((F.conv2d_forward, F.conv2d_backward), arrays, others, dy), run(DEFINITIONS["conv2d"], arrays, others, dy)
            assert all(cases.error(got[name], want[name], 1e-10) <= 1e-10 for name in want), (H, W, padding)


@pytest.mark.parametrize("B, side, m", [(32, 1, 1), (32, 2, 2), (32, 3, 3), (32, 4, 2), (32, 6, 3), (32, 8, 4), (32, 12, 4), (32, 24, 4),
                                        (32, 32, 4), (1, 4, 1), (1, 16, 2), (1, 32, 4), (2, 8, 2), (8, 3, 1)])
def test_winograd_tile_size(B, side, m):
    """Where these maps were measured, the tiles were the fastest or within a tenth; one pixel was not measured."""
    assert winograd.tile_size(B, side, side) == m


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("H, W, channels, kernel, stride, tiled", [
    (3, 3, 32, 3, 1, True), (1, 2, 32, 3, 1, False), (3, 3, 31, 3, 1, False), (4, 4, 32, 3, 2, False), (4, 4, 32, 1, 1, False)])
def test_winograd_where_it_is_faster(H, W, channels, kernel, stride, tiled):
    rng = np.random.default_rng(0)
    arrays = dict(x=rng.normal(size=(32, H, W, channels)), weight=rng.normal(size=(33, channels, kernel, kernel)),
                  bias=rng.normal(size=33))
    others = dict(stride=stride, padding=kernel // 2)
    dy = rng.normal(size=(32, -(-H // stride), -(-W // stride), 33))
    pair = F.conv2d_forward, F.conv2d_backward
    assert isinstance(pair[0](**arrays, **others)[1][0], winograd.WinogradCache) == tiled
    got, want = run(pair, arrays, others, dy), run(DEFINITIONS["conv2d"], arrays, others, dy)
    assert all(cases.error(got[name], want[name], 1e-10) <= 1e-10 for name in want)


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("H, W, padding", [(6, 8, 0), (8, 6, 0), (4, 5, 1), (5, 4, 1)])
def test_winograd_tiles_fit_the_map_of_outputs(H, W, padding):
    """The size of the tiles is chosen for the rows and columns of y; for some more or fewer of them it would be another one."""
    arrays, others, _ = wide_conv(np.random.default_rng(0), 32, H, W, padding)
    assert F.conv2d_forward(**arrays, **others)[1][0].filters.m == winograd.tile_size(32, H + 2 * padding - 2, W + 2 * padding - 2) == 2


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("H, C, m", [(4, 256, 2), (6, 192, 3), (8, 128, 4), (16, 64, 4)])
def test_winograd_in_float32(H, C, m, figures):
    """At the widths of the presets. Tiles of 3×3 and 4×4 outputs may have twice the error that other kernels may have."""
    rng = np.random.default_rng(0)
    arrays, others, dy = wide_conv(rng, 32, H, H, 1, C, C)
    arrays, dy = cases.as_dtype(arrays, np.float32), cases.as_dtype({"dy": dy}, np.float32)
    assert F.conv2d_forward(**arrays, **others)[1][0].filters.m == m
    used = share_of_budget((F.conv2d_forward, F.conv2d_backward), "conv2d", arrays, others, dy, rng)
    figures.add(**used)
    assert max(used.values()) <= (1 if m == 2 else 2), used


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_winograd_spreads_no_nan(monkeypatch, value, m):
    """From any pixel of x or dy, to y and dx: as in the definition; from x to y within its tiles of 3×3 or 4×4, and so back."""
    monkeypatch.setattr(conv, "tile_size", lambda B, Ho, Wo: m)
    for i, j in itertools.product(range(5), range(6)):
        arrays, others, dy = wide_conv(np.random.default_rng(0), 2, 5, 6, 1)
        arrays["x"][0, i, j, 5] = dy[1, i, j, 7] = value
        with np.errstate(all="ignore"):
            got, want = run((F.conv2d_forward, F.conv2d_backward), arrays, others, dy), run(DEFINITIONS["conv2d"], arrays, others, dy)
        lost = {name: ~np.isfinite(got[name]) for name in ("y", "dx")}
        assert all(np.all(lost[name] >= ~np.isfinite(want[name])) for name in lost)
        if m == 2:
            assert all(np.array_equal(lost[name], ~np.isfinite(want[name])) for name in lost)
        starts = list(itertools.product(range(0, 5, m), range(0, 6, m)))     # of the tiles' outputs; pixels begin one before
        near = [(h, w) for h, w in starts if h - 1 <= i <= h + m and w - 1 <= j <= w + m]
        reach = np.zeros((2, 5, 6), bool)
        for h, w in near:
            reach[0, h:h + m, w:w + m] = True
        assert not np.any(lost["y"] > reach[..., None])
        h, w = i // m * m, j // m * m
        reach[...] = False
        reach[1, max(h - 1, 0):h + m + 1, max(w - 1, 0):w + m + 1] = True
        assert not np.any(lost["dx"] > reach[..., None])


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
def test_winograd_keeps_filters():
    """While a weight's memory holds the same bits, whichever view of it is passed, and no longer than the memory lives."""
    flat = np.random.default_rng(0).normal(size=33 * 32 * 9)
    weight = flat.reshape(33, 32, 3, 3)
    kept, key = winograd.filters_of(weight, 4), (weight.__array_interface__["data"][0], weight.shape, weight.dtype)
    assert winograd.filters_of(flat.reshape(33, 32, 3, 3), 4) is kept and winograd.filters_of(weight.copy(), 4) is not kept
    assert winograd.filters_of(weight, 2) is not kept and winograd.filters_of(weight, 2).m == 2
    for value in (0.0, -0.0, np.nan):
        kept, weight[-1, -1, -1, -1] = winograd.filters_of(weight, 4), value
        fresh = winograd.filters_of(weight, 4)
        assert fresh is not kept and fresh is winograd.filters_of(weight, 4)
        np.testing.assert_array_equal(fresh.backward, winograd.transformed(weight, 4))
        np.testing.assert_array_equal(fresh.forward, fresh.backward.swapaxes(1, 2))
        np.testing.assert_array_equal(fresh.numbers, weight)
    assert winograd.FILTERS[key] is fresh
    del weight, flat
    assert key not in winograd.FILTERS
    once = np.ones((33, 32, 3, 3))
    key = once.__array_interface__["data"][0], once.shape, once.dtype
    assert winograd.filters_of(once, 2) is winograd.FILTERS[key]
    del once
    assert key not in winograd.FILTERS


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
def test_batch_norm_of_constant_channels(rng=np.random.default_rng(0)):
    """They become the bias, exactly: the mean is corrected for the rounding of its sum, which 1/√eps would magnify."""
    values, bias = rng.uniform(-1e4, 1e4, (2, 40)).astype(np.float32)
    y, cache = F.batch_norm_forward(np.tile(values, (5000, 1)), np.ones(40, np.float32), bias)
    np.testing.assert_array_equal(y, np.tile(bias, (5000, 1)))
    np.testing.assert_array_equal(cache.mean, values)


@every_kernel
@given(data=st.data())
def test_float32(case, data, figures):
    """No kernel uses more than its budget of error."""
    arrays, others, d = data.draw(cases.draws(case))
    arrays, others = cases.as_dtype(arrays, np.float32), cases.as_dtype(others, np.float32)
    with np.errstate(all="ignore"):
        dy = cases.as_dtype({"dy": d.array(*np.shape(DEFINITIONS[case.name][0](**arrays, **others)[0]))}, np.float32)
    used = share_of_budget(KERNELS[case], case.name, arrays, others, dy, d.rng)
    figures.add(**used)
    assert max(used.values()) <= 1, used


def share_of_budget(kernel, name_of_op, arrays, others, dy, rng):
    """{name: err(kernel) / budget} of y and every gradient, in float32:

    budget = 2 · err(NumPy float32) + what an ulp of every input costs + an ulp of the result

    The second term is the conditioning: with logits of 1e4, or a row that is constant, one ulp moves the result by far more
    than one, and which of two float32 programs comes closer is luck. Where one rounding decides, that of the definition is luck
    too: its error is the worst at these inputs and at three an ulp away.
    """
    definition = DEFINITIONS[name_of_op]
    got = run(kernel, arrays, others, dy["dy"])
    near = [(arrays, dy), *((an_ulp_off(arrays, rng), an_ulp_off(dy, rng)) for _ in range(3))]
    naive = [run(definition, inputs, others, up["dy"]) for inputs, up in near]
    in_float64 = [[cases.as_dtype(part, np.float64) for part in (inputs, others, up)] for inputs, up in near]
    exact, *nearby = exacts = [run(definition, *inputs, up["dy"]) for *inputs, up in in_float64]
    used = {}
    for name, want in exact.items():
        if want is None:
            assert got[name] is None
            continue
        assert got[name].dtype == np.float32 and got[name].shape == want.shape
        distance, ulp = norm(got[name] - want), max(norm(there[name] - want) for there in nearby)
        allowed = max(norm(rounded[name] - there[name]) for rounded, there in zip(naive, exacts))
        floor = cases.floor_of(name[1:], arrays, others, dy["dy"]) if name != "y" else 0.0
        size = max(norm(want), floor)
        budget = 2 * allowed + ulp + EPS * size
        used[name] = distance / budget if budget else 0.0
    return used


def an_ulp_off(inputs, rng):
    """Every number up or down by one float32 ulp."""
    return {name: None if a is None else (a * (1 + EPS * rng.choice([-1, 1], a.shape))).astype(np.float32)
            for name, a in inputs.items()}


def norm(x):
    return float(np.linalg.norm(np.ravel(x)))


@every_kernel
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
def test_nan_and_infinity_as_in_the_definition(case, dtype, data):
    """None is lost, and none gets to where the definition has a number. (Zeros of the padding times infinity may differ.)"""
    arrays, others, d = data.draw(cases.draws(case, degenerate=False))
    arrays, others = cases.as_dtype(arrays, dtype), cases.as_dtype(others, dtype)
    with np.errstate(all="ignore"):
        dy = cases.as_dtype({"dy": d.array(*np.shape(DEFINITIONS[case.name][0](**arrays, **others)[0]))}, dtype)["dy"]
    targets = {name: a for name, a in [*arrays.items(), ("dy", dy)] if a is not None}
    name = data.draw(st.sampled_from(sorted(targets)))
    where = ... if name == "weight" else tuple(d.rng.integers(0, n) for n in targets[name].shape)
    targets[name][where] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    got, want = run(KERNELS[case], arrays, others, dy), run(DEFINITIONS[case.name], arrays, others, dy)
    for name, w in want.items():
        if w is not None:
            spread, lost = ~np.isfinite(got[name]) & np.isfinite(w), np.isfinite(got[name]).all() and not np.isfinite(w).all()
            assert not spread.any() and not lost, name


# --- the polynomials of fast_math, over the whole range of float32


def ulps(got, want, least=0.0):
    """The largest distance, in float32 ulp of want, or of least where want is smaller."""
    spacing = np.spacing(np.maximum(np.abs(want), least).astype(np.float32)).astype(np.float64)
    return float((np.abs(got - want) / spacing).max())


def everywhere(low, high):
    tiny = np.logspace(-45, -3, 2000)                                        # subnormals among them
    return np.concatenate([np.linspace(low, high, 400_001), tiny, -tiny]).astype(np.float32)


SPECIAL = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-39, 1e4, -1e4, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)


@njit(**fast_math.LOOP | {"cache": False})                                   # or a change of fast_math would not be seen
def exp_of(x, y):
    for i in range(len(x)):
        y[i] = fast_math.exp(x[i])


def test_exp():
    """Within 5 ulp over all of float32's range, 0 and inf beyond it."""
    x = everywhere(-87.33, 88.72)
    y = np.empty_like(x)
    exp_of(x, y)
    assert ulps(y, np.exp(x.astype(np.float64))) <= 5
    y = np.empty_like(SPECIAL)
    exp_of(SPECIAL, y)
    assert np.array_equal(y, [1, 1, 1, 1, 1, np.inf, 0, np.inf, 0, np.inf, 0, np.nan], equal_nan=True)


def activation(x, act, pair=(F.bias_activation_forward, F.bias_activation_backward)):
    """act and its derivative of a vector, by the kernel or by the definition."""
    with np.errstate(all="ignore"):
        y, cache = pair[0](x[None], np.zeros_like(x), act)
        return np.stack([y[0], pair[1](np.ones_like(x)[None], cache)[0][0]])


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "quick_gelu", "relu"])
def test_activations(act):
    """Every activation and its derivative within 2 ulp of max(1, |value|), or within twice NumPy's own worst."""
    x = everywhere(-13, 13)
    want = activation(x.astype(np.float64), act, DEFINITIONS["bias_activation"])
    naive = activation(x, act, DEFINITIONS["bias_activation"])
    got = activation(x, act)
    for k in range(2):
        assert ulps(got[k], want[k], 1.0) <= max(2, 2 * ulps(naive[k], want[k], 1.0))
    for dtype in (np.float32, np.float64):
        special = activation(SPECIAL.astype(dtype), act), activation(SPECIAL.astype(dtype), act, DEFINITIONS["bias_activation"])
        np.testing.assert_allclose(*special, rtol=1e-6, atol=1e-6)           # NaN and infinities in the same places


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("name", refusals())
def test_arrays_of_another_shape_are_refused(name):
    """A compiled loop would read memory beyond the array."""
    op, arguments = refusals()[name]
    with pytest.raises(ValueError, match="expected"):
        getattr(F, f"{op}_forward")(*arguments)


CHECKED = "linear", "conv2d", "depthwise_conv", "batch_norm", "max_pool", "window_attention"     # NumPy sees to the others


def backwards():
    """{name: (op, arguments)} of every kernel whose backward loops take a size from the cache."""
    a = np.random.default_rng(0).standard_normal
    rows, image, heads, vector = a((4, 6, 8)), a((4, 8, 8, 8)), [a((4, 4, 6, 4)) for _ in "qkv"], np.ones(8)
    deep, wide, index = a((8, 1, 3, 3)), a((4, 8, 8, 32)), window_index(8, 8, 4)
    return {"linear": ("linear", (rows, a((8, 8)), vector)), "linear without bias": ("linear", (rows, a((8, 8)))),
            "conv2d": ("conv2d", (image, a((8, 8, 3, 3)), vector, 1, 1)),
            "conv2d by tiles": ("conv2d", (wide, a((32, 32, 3, 3)), np.ones(32), 1, 1)),
            "depthwise_conv": ("depthwise_conv", (image, deep, vector, 1, 1)),
            "depthwise_conv, stride 2": ("depthwise_conv", (image, deep, None, 2, 1)),
            "batch_norm": ("batch_norm", (image, vector, vector)),
            "batch_norm, evaluation": ("batch_norm", (image, vector, vector, vector, vector)),
            "layer_norm": ("layer_norm", (rows, vector, vector)), "bias_activation": ("bias_activation", (rows, vector)),
            "max_pool": ("max_pool", (image, 2)), "attention": ("attention", heads), "self_attention": ("self_attention", (a((4, 6, 24)), 2)),
            "window_attention": ("window_attention", (a((4, 64, 24)), np.ones(24), a((2, 16, 16)), *index, 2))}


@pytest.mark.skipif(F.REFERENCE, reason="no kernels are bound")
@pytest.mark.parametrize("name", backwards())
def test_gradients_of_another_shape_are_refused(name):
    """A compiled loop would read, or write, memory beyond the arrays."""
    op, arguments = backwards()[name]
    y, cache = getattr(F, f"{op}_forward")(*arguments)
    for axis in range(y.ndim):
        for dy in (np.repeat(y, 2, axis), np.split(y, 2, axis)[0]):
            with pytest.raises(ValueError, match="expected" if op in CHECKED else None):
                getattr(F, f"{op}_backward")(dy, cache)


@pytest.mark.parametrize("seeds", [[3, 7], [-1, -2**63]])
def test_seeds_of_any_integers_give_the_same_dropout(seeds):
    x = np.ones((2, 50))
    y, _ = F.dropout_forward(x, 0.5, np.array(seeds))
    np.testing.assert_array_equal(y, DEFINITIONS["dropout"][0](x, 0.5, np.array(seeds))[0])
    np.testing.assert_array_equal(y, F.dropout_forward(x, 0.5, np.array(seeds).astype(np.uint64))[0])


BATCHES_OF_NONE = {
    "rotary": ((0, 16, 24), (np.zeros((16, 2)), np.zeros((16, 2)))), "self_attention": ((0, 16, 24), (2,)),
    "window_attention": ((0, 16, 24), (np.zeros(24), np.zeros((2, 4, 4)), *window_index(4, 4, 2), 2)),
    "conv2d": ((0, 6, 6, 32), (np.zeros((32, 32, 3, 3)), np.zeros(32), 1, 1)), "dropout": ((0, 5, 6), (0.5, np.zeros(0, np.uint64)))}


@pytest.mark.parametrize("op", BATCHES_OF_NONE)
def test_a_batch_of_none_is_fine_everywhere(op):
    shape, others = BATCHES_OF_NONE[op]
    for forward, backward in ((getattr(F, f"{op}_forward"), getattr(F, f"{op}_backward")), DEFINITIONS[op]):
        y, cache = forward(np.zeros(shape), *others)
        dx, *rest = cases.gradients(backward, np.zeros_like(y), cache)
        assert y.shape == (*shape[:-1], y.shape[-1]) and dx.shape == shape
        assert all(d is None or not d.any() for d in rest)
