"""numpyvit.gradcheck passes what is right, and names the gradient and the entry of what is wrong."""
import contextlib
import inspect
import io
import math

import numpy as np
import pytest

import numpyvit
from numpyvit import differences, gradcheck
from numpyvit import functional as F
from numpyvit.inspection.gradients import TINY
from numpyvit.ops import attention, gelu, layer_norm, linear, relative_position, softmax

r = np.random.default_rng(5).standard_normal


def test_the_differences_are_accurate():
    """Derivatives to twelve digits, one-sided ones to eight."""
    for f, exact in [(np.exp, 1.0), (np.sin, 1.0), (lambda t: 1 / (1 + np.exp(-3 * t)), 0.75)]:
        got, doubt = differences.derivative(lambda t: np.array([f(t)]), np.ones(1), 0.05, 1e-13)
        assert abs(got - exact) <= 1e-12 and doubt <= 1e-11
        for side in (-1, 1):
            got, doubt = differences.derivative(lambda t: np.array([f(t)]), np.ones(1), 0.05, 1e-13, side)
            assert abs(got - exact) <= 1e-8 and doubt <= 1e-7


def test_the_docstring_says_what_is_printed():
    code, printed = gradcheck.__doc__.split("\nprints\n")
    code, printed = inspect.cleandoc(code.split("\n\n", 1)[1]), inspect.cleandoc(printed.split("How. ")[0])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    got, want = ([line.split() for line in text.strip().splitlines()] for text in (out.getvalue(), printed))
    got_dx, want_dx = ([line for line in lines if line[0] == "dx"] for lines in (got, want))
    assert [line[:3] + line[5:] for line in got_dx] == [line[:3] + line[5:] for line in want_dx]
    assert [line[0] for line in got] == [line[0] for line in want] and got[1][-1] == "ok"


# --- wrong backward functions: the gradient and what is wrong with it, by name


def no_mean(dy, cache):
    """layer norm without the path through the mean"""
    x, weight, mean, rstd = cache
    norm = (x - mean) * rstd
    dnorm = dy * weight
    dx = rstd * (dnorm - norm * (dnorm * norm).mean(axis=-1, keepdims=True))
    return dx, (dy * norm).sum(axis=(0, 1)), dy.sum(axis=(0, 1))


def no_scale(dy, cache):
    """attention whose dk lacks 1/√hd"""
    dq, dk, dv, dbias = attention.attention_backward(dy, cache)
    return dq, dk * math.sqrt(7), dv, dbias


def last_pair_only(dbias, cache):
    """the look-up's adjoint by assignment: every offset keeps one of its pairs"""
    index, shape = cache
    dtable = np.zeros(shape)
    dtable[index] = dbias.transpose(1, 2, 0)
    return dtable


def jacobian_diagonal(dy, cache):
    """softmax by the diagonal of its Jacobian alone"""
    (y,) = cache
    return dy * y * (1 - y)


def no_batch_sum(dy, cache):
    """linear whose dbias forgets all tokens but the first image's"""
    dx, dweight, _ = linear.linear_backward(dy, cache)
    return dx, dweight, dy[0].sum(axis=0)


def swapped(dy, cache):
    """dweight and dbias of a layer norm exchanged"""
    dx, dweight, dbias = layer_norm.layer_norm_backward(dy, cache)
    return dx, dbias, dweight


def tanh_slope(dy, cache):
    """the exact GELU with the derivative of its tanh approximation: wrong by no more than 1e-3"""
    return gelu.gelu_tanh_backward(dy, cache)


def one_entry(dy, cache):
    """a single wrong entry of 273, by one part in a thousand"""
    dx, dweight, dbias = linear.linear_backward(dy, cache)
    dweight[4, 7] *= 1.001
    return dx, dweight, dbias


WRONG = [
    (layer_norm.layer_norm_forward, no_mean, (r((2, 5, 21)), r(21), r(21)), "dx"),
    (attention.attention_forward, no_scale, (r((2, 3, 5, 7)), r((2, 3, 9, 7)), r((2, 3, 9, 7)), r((3, 5, 9))), "dk"),
    (lambda table: relative_position.relative_position_bias_forward(table, relative_position.relative_position_index(3)),
     last_pair_only, (r((25, 3)),), "dtable"),
    (softmax.softmax_forward, jacobian_diagonal, (r((2, 5, 21)),), "dx"),
    (linear.linear_forward, no_batch_sum, (r((2, 5, 21)), r((13, 21)), r(13)), "dbias"),
    (layer_norm.layer_norm_forward, swapped, (r((2, 5, 21)), r(21), r(21)), "dweight dbias"),
    (gelu.gelu_forward, tanh_slope, (r((2, 5, 21)),), "dx"),
    (linear.linear_forward, one_entry, (r((2, 5, 21)), r((13, 21)), r(13)), "dweight"),
]


@pytest.mark.parametrize("forward, backward, arrays, names", WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_wrong_ones_are_named(forward, backward, arrays, names):
    report = gradcheck.check(forward, backward, *arrays)
    assert not report and [g.name for g in report.gradients if not g.ok] == names.split()
    for g in report.gradients:
        if not g.ok:                                                         # the entry it names is wrong as it says
            y, cache = forward(*arrays)
            assert abs(g.exact - g.ours) > 1e-6 * abs(g.exact)
            assert f"at [{', '.join(map(str, g.entry))}]" in str(g) and "WRONG" in str(g)
            i = names.split().index(g.name) if backward is swapped else None
            assert i is None or g.shape == (21,)
    if backward is one_entry:
        assert [g.entry for g in report.gradients if not g.ok] == [(4, 7)]


def test_other_mistakes_are_named():
    def in_place(x, weight):
        x *= 2
        return x * weight, (x, weight)

    def two_of_one(dy, cache):
        return dy * cache[1], (dy * cache[0]).sum(axis=0), None

    def transposed(dy, cache):
        dx, dweight, dbias = linear.linear_backward(dy, cache)
        return dx, dweight.T, dbias

    def forgotten(dy, cache):
        dx, dweight, _ = linear.linear_backward(dy, cache)
        return dx, dweight, None

    def not_a_number(dy, cache):
        dx = softmax.softmax_backward(dy, cache)
        dx[1, 2] = np.nan
        return dx

    x, weight = r((5, 7)), r(7)
    report = gradcheck.check(in_place, lambda dy, cache: (dy * cache[1], (dy * cache[0]).sum(axis=0)), x, weight)
    assert not report and "x was written to" in str(report)
    report = gradcheck.check(lambda x, weight: (x * weight, (x, weight)), two_of_one, x, weight)
    assert not report and "3 gradients for 2 arrays: x, weight" in str(report)
    report = gradcheck.check(linear.linear_forward, transposed, x, r((3, 7)), r(3))
    assert not report and "expected shape (3, 7), got shape (7, 3)" in str(report)
    report = gradcheck.check(linear.linear_forward, forgotten, x, r((3, 7)), r(3))
    assert not report and "dbias" in str(report) and "got None" in str(report)
    report = gradcheck.check(softmax.softmax_forward, not_a_number, x)
    assert not report and report.gradients[0].entry == (1, 2) and "not finite" in str(report)
    noise = np.random.default_rng(0)
    report = gradcheck.check(lambda x: (x * noise.random(), ()), lambda dy, cache: dy, x)
    assert not report and "forward twice gives two results" in str(report)


def test_zero_gradients_are_right():
    """One key: softmax is constant, and so the gradients of q and k are zero."""
    assert gradcheck.check(attention.attention_forward, attention.attention_backward, r((2, 3, 5, 7)), r((2, 3, 1, 7)),
                           r((2, 3, 1, 7)), None)


def tiny(**fields):
    model = numpyvit.create_model("vit", dtype="float64", **TINY["vit"][0][0] | fields)
    rng = np.random.default_rng(0)
    for _, p in model.named_parameters():
        p.data += 0.2 * rng.standard_normal(p.shape)
    return model


def test_a_wrong_model_is_named(monkeypatch):
    model = tiny()
    norm = model.blocks[1].norm2
    state, grad = model.flat.copy(), model.flat_grad.copy()

    def overwrite(dy, cache):
        dx, norm.weight.grad[...], norm.bias.grad[...] = F.layer_norm_backward(dy, cache)
        return dx
    monkeypatch.setattr(norm, "backward", overwrite)
    report = gradcheck.check_model(model)
    assert all(g.ok for g in report.gradients)
    assert [line.split(":")[0] for line in report.problems] == ["blocks.1.norm2.weight", "blocks.1.norm2.bias"]

    def halved(dy, cache):
        dx, dweight, dbias = F.layer_norm_backward(dy, cache)
        norm.weight.grad += dweight / 2
        norm.bias.grad += dbias
        return dx
    monkeypatch.setattr(norm, "backward", halved)
    report = gradcheck.check_model(model)
    assert [g.name for g in report.gradients if not g.ok] == ["blocks.1.norm2.weight"]
    wrong = [g for g in report.gradients if not g.ok][0]
    assert math.isclose(wrong.ours, wrong.exact / 2, rel_tol=1e-6)
    assert np.array_equal(model.flat, state) and np.array_equal(model.flat_grad, grad)


def test_batch_norm_models_keep_their_statistics():
    model = numpyvit.create_model("cvt", dtype="float64", **TINY["cvt"][0][0])
    before = model.state_dict()
    gradcheck.check_model(model, train=True)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())


def test_float32_models_are_refused():
    with pytest.raises(ValueError, match="float64"):
        gradcheck.check_model(numpyvit.create_model("vit", **TINY["vit"][0][0]))


def test_numbers_of_any_size():
    """Squares that overflow or vanish, and 1/x at inputs of twelve magnitudes, are no reason to call a gradient wrong."""
    x = np.random.default_rng(0).standard_normal((5, 7))
    for size in (1e-300, 1e-170, 1e100, 1e200):
        assert gradcheck.check(lambda x: (3 * x, x), lambda dy, c: 3 * dy, x * size).ok
    (wrong,) = gradcheck.check(lambda x: (1e200 * x, x), lambda dy, c: 1.01e200 * dy, x).gradients
    assert wrong.verdict == "WRONG" and gradcheck.check(lambda x: (1e200 * x, x), lambda dy, c: 1e200 * dy, x).ok
    x = np.logspace(-6, 6, 20)
    (right,) = gradcheck.check(lambda x: (1 / x, x), lambda dy, c: -dy / c**2, x).gradients
    (wrong,) = gradcheck.check(lambda x: (1 / x, x), lambda dy, c: -1.01 * dy / c**2, x).gradients
    assert right.verdict in ("ok", "UNSETTLED") and wrong.verdict == "WRONG"
