"""What gradcheck says where something is wrong besides a gradient: no pair that is right is called wrong.

A forward that is not finite, kinks, float32 inside forward, a dy that was written to, and each unusual signature have a
sentence of their own. Hints say which mistake a wrong gradient looks like.
"""
import numpy as np
import pytest

from numpyvit import gradcheck
from numpyvit.ops import layer_norm, linear, relu, softmax
from test_gradcheck import no_mean, swapped, tiny

r = np.random.default_rng(5).standard_normal


def masked_softmax(x, mask):
    scores = x + mask
    y = np.exp(scores - scores.max(axis=-1, keepdims=True))
    y = y / y.sum(axis=-1, keepdims=True)
    return y, (y,)


MASK = np.array([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, -np.inf]])
NOT_FINITE = {
    "logarithm of a negative": (lambda x: (np.log(x), x), np.array([2.0, -1.0, 3.0, 4.0]), [1]),
    "overflow in exp": (lambda x: (np.exp(x), x), np.array([[1.0, 2.0], [800.0, 3.0]]), [1, 0]),
    "division by zero": (lambda x: (1 / x, x), np.array([1.0, 2.0, 0.0]), [2]),
    "a row of softmax with every key masked": (lambda x: masked_softmax(x, MASK), r((2, 3)), [1, 0]),
    "one sum that overflows": (lambda x: (np.exp(x).sum(), x), np.array([1.0, 800.0]), []),
}


@pytest.mark.parametrize("what", NOT_FINITE)
@pytest.mark.parametrize("value", [17.0, 0.0])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_forward_that_is_not_finite_is_named_and_never_ok(what, value):
    forward, x, entry = NOT_FINITE[what]
    report = gradcheck.check(forward, lambda dy, cache: np.full(x.shape, value), x)
    assert not report and not any(g.ok for g in report.gradients)
    assert "forward's y is not finite: " in str(report) and f" at {entry}" in str(report)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_input_that_is_not_finite_is_named():
    report = gradcheck.check(softmax.softmax_forward, softmax.softmax_backward, np.array([[1.0, -np.inf, 2.0]]))
    assert not report and "x is not finite: -inf at [0, 1]" in str(report)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_model_whose_logits_are_not_finite_is_not_ok():
    model = tiny()
    model.head.bias.data[2] = np.inf
    report = gradcheck.check_model(model)
    assert not report and not any(g.ok for g in report.gradients)
    assert "forward's y is not finite: inf at [0, 2]" in str(report)


def test_a_derivative_that_does_not_settle_is_never_ok():
    noise = np.random.default_rng(0)

    def rough(x):                                                            # the same at x again, but no slope beside it
        seed = int.from_bytes(x.tobytes()[:8], "little") % 2**32
        return x + 1e-6 * np.random.default_rng(seed).standard_normal(x.shape), x
    x = noise.standard_normal((5, 7))
    report = gradcheck.check(rough, lambda dy, cache: dy, x)
    assert not report and "do not settle" in str(report)
    assert not gradcheck.check(rough, lambda dy, cache: 17 * dy, x)
    report = gradcheck.check(lambda x: (np.sqrt(x), x), lambda dy, x: dy * 17, np.array([0.0, 1.0, 4.0]))
    assert not report and "WRONG" in str(report)                             # by the entries that have a slope
    report = gradcheck.check(lambda x: (np.sqrt(x), x), lambda dy, x: dy * 17, np.zeros(3))
    assert not report and "forward is not finite beside x" in str(report)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_steps_that_leave_the_domain_are_shortened():
    """A value close to where the logarithm ends: right gradients are still right, wrong ones still wrong."""
    x = np.array([1e-4, 2.0, 3.0])
    assert gradcheck.check(lambda x: (np.log(x), x), lambda dy, x: dy / x, x)
    report = gradcheck.check(lambda x: (np.log(x), x), lambda dy, x: 2 * dy / x, x)
    assert not report and "WRONG" in str(report)


def test_a_kink_is_not_called_wrong():
    """relu at 0: right to the left and to the right, and no derivative between."""
    x = r((5, 7))
    x[1, 2] = x[3, 0] = 0.0
    report = gradcheck.check(relu.relu_forward, relu.relu_backward, x)
    (dx,) = report.gradients
    assert not report and dx.verdict == "KINK" and dx.entry in [(1, 2), (3, 0)] and "WRONG" not in str(report)
    assert f"one-sided slopes differ at {list(dx.entry)}: " in str(report) and "a kink" in str(report)
    assert gradcheck.check(relu.relu_forward, relu.relu_backward, r((5, 7)))                     # no kink, no complaint


def test_a_tie_of_max_is_a_kink():
    def max_forward(x):
        return x.max(axis=-1), x

    def max_backward(dy, x):
        return dy[..., None] * (np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None])
    x = r((5, 7))
    assert gradcheck.check(max_forward, max_backward, x)
    x[2, 3] = x[2, 5] = 9.0
    report = gradcheck.check(max_forward, max_backward, x)
    assert not report and report.gradients[0].verdict == "KINK" and report.gradients[0].entry in [(2, 3), (2, 5)]


def test_a_wrong_gradient_is_wrong_beside_a_kink():
    x = r((5, 7))
    x[1, 2] = 0.0
    report = gradcheck.check(relu.relu_forward, lambda dy, cache: 17 * relu.relu_backward(dy, cache), x)
    assert report.gradients[0].verdict == "WRONG" and report.gradients[0].entry != (1, 2)


def test_a_backward_that_writes_into_dy():
    def backward(dy, cache):
        dy *= 2
        return dy
    report = gradcheck.check(lambda x: (2 * x, ()), backward, r((5, 7)))
    assert not report and report.gradients[0].ok and "dy was changed in place" in str(report)


def test_float32_inside_forward():
    def hidden(x):
        return np.tanh(x.astype(np.float32)).astype(np.float64), x

    def backward(dy, x):
        return dy * (1 - np.tanh(x) ** 2)
    for seed in range(8):
        report = gradcheck.check(hidden, backward, np.random.default_rng(seed).standard_normal((5, 7)))
        assert not report and report.gradients[0].verdict == "UNSETTLED" and "float32" in str(report)
    report = gradcheck.check(hidden, lambda dy, x: 3 * backward(dy, x), r((5, 7)))
    assert report.gradients[0].verdict == "WRONG"                            # far more than rounding
    report = gradcheck.check(lambda x: (np.tanh(x.astype(np.float32)), x), backward, r((5, 7)))
    assert not report and "forward returns float32 for float64 arrays" in str(report)
    report = gradcheck.check(lambda x: (np.tanh(x), x), lambda dy, x: backward(dy, x).astype(np.float32), r((5, 7)))
    assert not report and "backward returns float32 for float64 arrays" in str(report)


def product(x, weight):
    return [x * weight, [x, weight]]


def test_lists_instead_of_tuples():
    def backward(dy, cache):
        return [dy * cache[1], (dy * cache[0]).sum(axis=0)]
    assert gradcheck.check(product, backward, r((5, 7)), r(7))
    assert gradcheck.check(product, backward, r((5, 7)).tolist(), r(7).tolist())
    report = gradcheck.check(product, lambda dy, cache: [dy * cache[1], 2 * backward(dy, cache)[1]], r((5, 7)), r(7))
    assert [g.ok for g in report.gradients] == [True, False]
    assert gradcheck.check(lambda x: ((x * x).tolist(), x), lambda dy, x: 2 * x * dy, r(7))


def test_several_outputs():
    def forward(x):
        return (np.sin(x), (x * x).sum(axis=1)), x

    def backward(dy, x):
        dsin, dsquares = dy
        return dsin * np.cos(x) + 2 * x * dsquares[:, None]
    assert gradcheck.check(forward, backward, r((5, 7)))
    report = gradcheck.check(forward, lambda dy, x: dy[0] * np.cos(x), r((5, 7)))
    assert not report and report.gradients[0].verdict == "WRONG"
    report = gradcheck.check(lambda x: (x, x, x), backward, r((5, 7)))
    assert not report and "forward returns 3 values, expected two: y, cache; several outputs go in a tuple" in str(report)
    report = gradcheck.check(lambda x: x, backward, r((5, 7)))
    assert not report and "forward returns one ndarray, expected two" in str(report)


def test_a_backward_that_takes_the_gradients_one_by_one():
    report = gradcheck.check(lambda x: ((np.sin(x), np.cos(x)), x), lambda dsin, dcos, x: dsin * np.cos(x) - dcos * np.sin(x), r(7))
    assert not report and "backward is called with two arguments, backward(dy, cache), and dy is the tuple" in str(report)
    report = gradcheck.check(lambda x: (x, ()), lambda dy: dy, r(7))
    assert not report and str(report) == "backward is called with two arguments, backward(dy, cache)"


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_arrays_of_the_same_generator_do_not_hide_a_transposition(seed):
    """With dy = x the gradient of the weight would be xᵀx, which is symmetric."""
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((4, 5)), rng.standard_normal((5, 5))

    def backward(dy, cache):
        x, weight = cache
        return dy @ weight.T, (x.T @ dy).T
    report = gradcheck.check(lambda x, weight: (x @ weight, (x, weight)), backward, x, weight, seed=seed)
    assert report.gradients[0].ok and report.gradients[1].verdict == "WRONG" and "looks transposed" in str(report)


def test_a_gradient_of_nan_has_no_exact_value_beside_it():
    report = gradcheck.check(lambda x: (np.sin(x), x), lambda dy, x: dy * np.nan, r(7))
    assert not report and "WRONG   at [0]: ours nan   not finite" in str(report) and "exact nan" not in str(report)


def test_an_output_of_integers_has_no_derivative():
    def forward(x):
        return (x.max(axis=1), x.argmax(axis=1)), x

    def backward(dy, x):
        return dy[0][:, None] * (np.arange(7) == x.argmax(axis=1)[:, None])
    assert gradcheck.check(forward, backward, r((5, 7)))


def test_nothing_to_check_is_not_ok():
    report = gradcheck.check(lambda x: (x.argmax(axis=1), x), lambda dy, x: 17 * x, r((5, 7)))
    assert not report and "forward returns no number that has a derivative" in str(report)
    report = gradcheck.check(lambda x: (x[:0], x), lambda dy, x: 17 * x, r((5, 7)))
    assert not report and "forward returns no number that has a derivative" in str(report)
    report = gradcheck.check(lambda index: (np.arange(9.0)[index], ()), lambda dy, cache: None, np.array([1, 4]))
    assert not report and "no gradient was checked" in str(report)


def test_positional_only_arguments():
    def forward(x, weight, /, power, *, shift=0.0):
        return x**power * weight + shift, (x, weight, power)

    def backward(dy, cache):
        x, weight, power = cache
        return dy * power * x ** (power - 1) * weight, (dy * x**power).sum(axis=0)
    report = gradcheck.check(forward, backward, r((5, 7)), r(7), power=2, shift=3.0)
    assert report and [g.name for g in report.gradients] == ["dx", "dweight"]
    assert gradcheck.check(lambda *tensors: (tensors[0] + tensors[1], ()), lambda dy, cache: (dy, dy), r(7), r(7))


def test_index_arguments():
    table, index = r((11, 3)), np.array([[1, 4, 4], [10, 0, 1]])

    def forward(table, index):
        return table[index], (table.shape, index)

    def backward(dy, cache):
        dtable = np.zeros(cache[0])
        np.add.at(dtable, cache[1], dy)
        return dtable, None
    report = gradcheck.check(forward, backward, table, index)
    assert report and [g.name for g in report.gradients] == ["dtable"]
    assert gradcheck.check(forward, lambda dy, cache: backward(dy, cache)[0], table, index)      # its None left out
    assert gradcheck.check(lambda x: (x * x, x), lambda dy, x: 2 * x * dy, np.arange(1, 5))      # integers with a gradient
    report = gradcheck.check(lambda x: (x * x, x), lambda dy, x: 3 * x * dy, np.arange(1, 5))
    assert not report and report.gradients[0].verdict == "WRONG"


def test_complex_input():
    report = gradcheck.check(lambda z: (z * z, z), lambda dy, z: 2 * z * dy, r(7) + 1j * r(7))
    assert not report and "z is complex, expected real numbers" in str(report)


@pytest.mark.parametrize("factor", [2.0, -1.0, 0.5, 0.0])
def test_hint_of_a_factor(factor):
    report = gradcheck.check(layer_norm.layer_norm_forward, lambda dy, cache: tuple(
        factor * g for g in layer_norm.layer_norm_backward(dy, cache)), r((2, 5, 21)), r(21), r(21))
    said = f"ours = {factor:g} × exact everywhere" if factor else "ours = 0 everywhere"
    assert not report and all(said in g.note for g in report.gradients)


def test_hint_of_a_transposition():
    def transposed(dy, cache):
        dx, dweight, dbias = linear.linear_backward(dy, cache)
        return dx, dweight.T, dbias
    report = gradcheck.check(linear.linear_forward, transposed, r((5, 7)), r((7, 7)), r(7))
    assert "looks transposed" in report.gradients[1].note and report.gradients[0].ok
    report = gradcheck.check(linear.linear_forward, transposed, r((5, 7)), r((3, 7)), r(3))
    assert "expected shape (3, 7), got shape (7, 3): looks transposed" in str(report)


def test_hint_of_a_missing_sum_and_of_an_exchange():
    report = gradcheck.check(linear.linear_forward, lambda dy, cache: (*linear.linear_backward(dy, cache)[:2], dy),
                             r((5, 7)), r((3, 7)), r(3))
    assert "expected shape (3,), got shape (5, 3): a sum over the leading axes is missing" in str(report)
    report = gradcheck.check(layer_norm.layer_norm_forward, swapped, r((2, 5, 21)), r(21), r(21))
    assert "dbias would be right here" in report.gradients[1].note
    assert "dweight would be right here" in report.gradients[2].note


def test_no_hint_where_nothing_fits():
    report = gradcheck.check(layer_norm.layer_norm_forward, no_mean, r((2, 5, 21)), r(21), r(21))
    assert not report.gradients[0].ok and report.gradients[0].note == ""


def test_a_gradient_larger_than_all_steps_is_not_called_wrong():
    for forward, backward, x in (
            (lambda x: (1 / x, x), lambda dy, x: -dy / x**2, np.array([1e-6, 1.0, 2.0])),
            (lambda x: (np.sin(1e5 * x), x), lambda dy, x: dy * 1e5 * np.cos(1e5 * x),
             np.random.default_rng(0).standard_normal(60))):
        gradient, = gradcheck.check(forward, backward, x).gradients
        assert gradient.verdict == "UNSETTLED" and "do not settle" in gradient.note


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_steep_place_at_the_end_of_the_domain_is_no_kink():
    x = np.array([1 - 1e-6, 0.1, 0.2])
    gradient, = gradcheck.check(lambda x: (np.arccos(x), x), lambda dy, x: -dy / np.sqrt(1 - x * x), x).gradients
    assert gradient.verdict == "UNSETTLED"


def test_a_backward_that_is_far_too_large_is_wrong():
    x = np.random.default_rng(0).standard_normal(60)
    gradient, = gradcheck.check(lambda x: (np.sin(x), x), lambda dy, x: 1e12 * dy * np.cos(x), x).gradients
    assert gradient.verdict == "WRONG" and gradient.note == "ours = 1e+12 × exact everywhere"


def test_a_backward_that_writes_to_x_or_y_is_named():
    def relu_backward(dy, cache):
        x, = cache
        x[x < 0] = 0
        return dy * (x > 0)

    def exp_forward(x):
        y = np.exp(x)
        return y, y

    def exp_backward(dy, y):
        y *= dy
        return y
    x = np.random.default_rng(0).standard_normal(20)
    report = gradcheck.check(lambda x: (np.maximum(x, 0), (x,)), relu_backward, x)
    assert not report and report.problems == ["x was written to by backward"]
    report = gradcheck.check(exp_forward, exp_backward, x)
    assert not report and report.problems == ["forward's y was changed by backward: its caller may need y"]


@pytest.mark.parametrize("y, kinds", [(lambda x: (np.sin(x), None), "ndarray, None"), (lambda x: None, "None"),
                                      (lambda x: "sin", "str")])
def test_an_output_that_is_no_array_of_numbers_is_named(y, kinds):
    report = gradcheck.check(lambda x: (y(x), x), lambda dy, x: dy * np.cos(x), np.ones(3))
    assert not report and f"forward's y is {kinds}, expected arrays of numbers" in str(report)
