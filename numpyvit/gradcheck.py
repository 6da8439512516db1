"""Is a backward pass the gradient of its forward pass? Checked without torch, by differences of the forward pass alone.

    import numpy as np
    from numpyvit.gradcheck import check

    def normalise_forward(x, weight):                 # y = x / ‖x‖ ⊙ weight, row by row
        norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        return x / norm * weight, (x, norm, weight)

    def normalise_backward(dy, cache):                # wrong: forgets that ‖x‖ depends on x
        x, norm, weight = cache
        return dy * weight / norm, (dy * x / norm).sum(axis=0)

    rng = np.random.default_rng(0)
    print(check(normalise_forward, normalise_backward, rng.standard_normal((5, 7)), rng.standard_normal(7)))

prints

    dx        (5, 7)  error 6.0e-01  WRONG   at [1, 5]: exact 0.258931, ours 0.893536, difference 6.3e-01
    dweight   (7,)    error 6.5e-16  ok

How. For random u and v, ⟨u, J v⟩ = ⟨Jᵀ u, v⟩: the left side is the derivative of ⟨u, forward(x + t v)⟩ at t = 0, the
right side is backward(u) · v. One random direction sees every entry of the gradient at once, so a check costs a few
forward passes whatever the size; then single entries are checked alone, to say which entry is off. The derivative is
Richardson's extrapolation of central differences, repeated until it has settled: good for ten digits and more in
float64 where forward is smooth. A derivative that does not settle, or does not exist, is never called ok. Rounding
hides slopes below about 1e-12 of y's norm over x's: check a function that adds a large constant without it.
"""
import inspect
import math
from dataclasses import dataclass, field

import numpy as np

from .differences import ENTRIES, Gradient, check_gradient
from .module import pair

TOLERANCE = 1e-8            # relative to the gradient's norm; the differences leave 1e-12 of an op, 1e-9 of a model
STREAM = b"directions"      # beside the seed: dy must not be the numbers that default_rng(seed) gave to an array


@dataclass
class Report:
    """The gradients of one pair or model, and what else is wrong with it. A report is True if everything is right."""

    gradients: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    @property
    def ok(self):
        """True if every gradient is right and there is no other problem."""
        return not self.problems and all(g.ok for g in self.gradients)

    @property
    def worst(self):
        """The largest error of all gradients."""
        return max((g.error for g in self.gradients), default=0.0)

    __bool__ = ok.fget

    def __str__(self):
        return "\n".join([*map(str, self.gradients), *self.problems])


def check(forward, backward, *arrays, names=None, tolerance=TOLERANCE, seed=0, **others):
    """Check y, cache = forward(*arrays, **others) against dx, … = backward(dy, cache), one gradient an array.

    arrays: what has a gradient, taken as float64. None stands for an array that is left out; its gradient is None.
            Integers that forward only takes as integers are an index; their gradient is None or left out.
    others: what has no gradient (sizes, rates, labels, masks).
    names:  the names of the arrays among forward's parameters, if they are not its first.
    y may be a tuple of several outputs; backward then receives the tuple of their dy.
    → Report, whose gradients carry the names of forward's parameters
    """
    arrays = [None if a is None else np.asarray(a) for a in arrays]
    names, call, most = by_name(forward, len(arrays), names, others)
    imaginary = [name for name, a in zip(names, arrays) if np.iscomplexobj(a)]
    if imaginary:
        return Report([], [f"{name} is complex, expected real numbers: hand in its real and imaginary part as two "
                           "arrays" for name in imaginary])
    values = [None if a is None else a.astype(np.float64) for a in arrays]
    integers = [name for name, a in zip(names, arrays) if a is not None and a.dtype.kind in "iub"]
    if integers:
        try:
            call([None if a is None else a.copy() for a in values])
        except Exception:                                                    # whatever it is, integers may mend it
            values = [a if name in integers else value for name, a, value in zip(names, arrays, values)]
    return check_pair(call, backward, names, values, tolerance, seed, integers, most)


def by_name(forward, count, names, others):
    """The arrays' names, a function that calls forward with their values, and how many arrays forward takes at most."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):                                          # some compiled functions have no signature
        parameters = []
    listed = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_position = {p.name for p in parameters if p.kind is p.POSITIONAL_ONLY}
    if names is None and count > len(listed):                                # def forward(*tensors), or no signature
        names = [*listed, *(f"array{i}" for i in range(len(listed) + 1, count + 1))]
        return names, lambda values: forward(*values, **others), count
    names = list(names or listed)[:count]

    def call(values):
        given = dict(zip(names, values, strict=True)) | others
        first = [given.pop(name) for name in listed if name in by_position and name in given]
        return forward(*first, **given)
    return names, call, len(listed)


def check_pair(call, backward, names, arrays, tolerance, seed, integers=(), most=0, entries=ENTRIES, settle=0.01,
               progress=None):
    """Report of y, cache = call(arrays) and backward, whose gradients have the names of the arrays.

    integers: names of arrays whose gradient may be missing   most: so many gradients if those without an array are None
    entries, settle: as in check_gradient   progress: called with the name of each array before it is checked
    """
    def copies():
        return [None if a is None else a.copy() for a in arrays]
    report, rng, handed_in = Report(), np.random.default_rng([seed, *STREAM]), copies()
    result = call(handed_in)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        got = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"one {type(result).__name__}"
        report.problems.append(f"forward returns {got}, expected two: y, cache; several outputs go in a tuple, "
                               "(y1, y2), cache, and backward then receives the tuple (dy1, dy2)")
        return report
    y, cache = result
    several = isinstance(y, tuple) or isinstance(y, list) and any(np.ndim(part) for part in y)
    outputs = [np.asarray(part) for part in (y if several else [y])]
    if any(part.dtype.kind not in "fiubc" for part in outputs):
        kinds = ", ".join("None" if part is None else type(part).__name__ for part in (y if several else [y]))
        report.problems.append(f"forward's y is {kinds}, expected arrays of numbers: the rest goes in the cache")
        return report
    again, _ = call(copies())
    report.problems += [f"{name} was written to" for name, before, after in zip(names, arrays, handed_in)
                        if before is not None and not np.array_equal(before, after, equal_nan=True)]
    for name, a in zip(names, arrays):
        report.problems += [] if a is None else [f"{name} {sentence}" for sentence in not_finite(a)]
    for output in outputs:
        report.problems += [f"forward's y {sentence}" for sentence in not_finite(output)]
        if output.dtype.kind == "c" or output.dtype in (np.float32, np.float16):
            report.problems.append(f"forward returns {output.dtype} for float64 arrays")
    if not np.array_equal(flat(y), flat(again), equal_nan=True):
        report.problems.append("forward twice gives two results: hand in its seeds or rates, so that it is a function")
    if all(output.dtype.kind in "iub" or not output.size for output in outputs):
        report.problems.append("forward returns no number that has a derivative: only integers, or nothing at all")
    parts = [np.array(rng.standard_normal(a.shape)) * (a.dtype.kind not in "iub") for a in outputs]     # 0 of integers
    dys = [part.copy() for part in parts]
    if not accepts_two(backward):
        report.problems.append("backward is called with two arguments, backward(dy, cache)"
                               + (", and dy is the tuple of the gradients of all outputs" if several else ""))
        return report
    kept, base = [None if a is None else a.copy() for a in handed_in], flat(y)
    result = backward(tuple(dys) if several else dys[0], cache)
    if any(not np.array_equal(part, dy) for part, dy in zip(parts, dys)):
        report.problems.append("dy was changed in place: backward has to leave dy as it is, its caller may need it")
    of_arrays = isinstance(result, tuple) or isinstance(result, list) and all(g is None or np.ndim(g) for g in result)
    grads = gradients_of(list(result) if of_arrays else [result], names, integers, most)
    report.problems += [f"backward returns {g.dtype} for float64 arrays"
                        for g in grads[:1] if getattr(g, "dtype", None) in (np.float32, np.float16)]
    if len(grads) != len(names):
        report.problems.append(f"backward returns {len(grads)} gradients for {len(names)} arrays: {', '.join(names)}")
        return report
    report.problems += [f"{name} was written to by backward" for name, before, after in zip(names, kept, handed_in)
                        if before is not None and not np.array_equal(before, after, equal_nan=True)]
    if not np.array_equal(base, flat(y), equal_nan=True):
        report.problems.append("forward's y was changed by backward: its caller may need y")
    u = flat(tuple(parts))
    for i, (name, x, dx) in enumerate(zip(names, arrays, grads)):
        if progress:
            progress(name)
        if x is None or name in integers and (dx is None or x.dtype.kind in "iub"):
            if dx is not None and np.any(dx):
                note = "expected None, as its array" if x is None else "expected None: an index has no gradient"
                report.gradients.append(Gradient(f"d{name}", np.shape(dx), math.inf, "WRONG", note=note))
            continue

        def at(value):
            return flat(call([value if k == i else a for k, a in enumerate(copies())])[0])
        same_shape = {f"d{other}": g for other, g in zip(names, grads) if other != name and np.shape(g) == np.shape(dx)}
        report.gradients.append(check_gradient(f"d{name}", x, dx, u, base, at, rng, tolerance, entries, settle,
                                               same_shape))
    if not report.gradients:
        report.problems.append("no gradient was checked: hand in at least one array of floating-point numbers")
    return report


def accepts_two(function):
    """Whether the function can be called with two arguments by position, as far as its signature tells."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:                                                       # some compiled functions have no signature
        pass
    return True


def gradients_of(result, names, integers, most):
    """backward's results, one an array: None where an integer array's is left out, without those of arrays left out."""
    while len(names) < len(result) <= most and result[-1] is None:
        result.pop()
    if integers and len(result) == len(names) - len(integers):
        rest = iter(result)
        return [None if name in integers else next(rest) for name in names]
    return result


def flat(y):
    """All outputs in one float64 vector."""
    parts = y if isinstance(y, (tuple, list)) else [y]
    return np.concatenate([np.ravel(part).real for part in parts]).astype(np.float64)


def not_finite(values):
    """[a sentence that says where values are NaN or infinite], or []."""
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return []
    entry = tuple(bad[0].tolist())
    return [f"is not finite: {values[entry]} at {list(entry)}, {len(bad)} of {values.size} entries; without a finite "
            "value there is no slope to compare with"]


def check_model(model, images=None, train=False, rng=0, tolerance=TOLERANCE, seed=0, progress=None):
    """Check model.backward: dimages, and the gradient of every parameter. The model's state is left as it was.

    model: of dtype float64   images: (B, C, H, W), or two random ones   train, rng: as in model.forward
    progress: called with the name of each tensor before it is checked   → Report. Raises ValueError for another dtype.
    """
    if model.dtype != np.float64:
        raise ValueError(f"gradcheck needs a model of dtype float64, got {model.dtype}")
    if images is None:
        size = (model.config.in_chans, *pair(model.config.img_size))
        images = np.random.default_rng(seed).standard_normal((2, *size))
    parameters, buffers, overwritten = dict(model.named_parameters()), dict(model.named_buffers()), []
    state = [*(a for p in parameters.values() for a in (p.data, p.grad)), *buffers.values()]
    kept = [(a, a.copy()) for a in state]

    def restore():
        for a, before in kept:
            a[...] = before

    def forward(values):
        restore()                                                            # running statistics too
        for p, value in zip(parameters.values(), values[1:]):
            p.data[...] = value
        return model.forward(values[0], train=train, rng=rng)

    def backward(dlogits, cache):
        model.zero_grad()
        dimages = model.backward(dlogits, cache)
        grads = {name: p.grad.copy() for name, p in parameters.items()}
        model.backward(dlogits, model.forward(images, train=train, rng=rng)[1])
        overwritten.extend(name for name, p in parameters.items()
                           if not np.allclose(p.grad, 2 * grads[name], rtol=1e-9, atol=1e-12, equal_nan=True))
        return dimages, *grads.values()

    try:
        values = [np.asarray(images, dtype=np.float64), *(p.data.copy() for p in parameters.values())]
        report = check_pair(forward, backward, ["images", *parameters], values, tolerance, seed, entries=0, settle=0.3,
                            progress=progress)
    finally:
        restore()
    for gradient in report.gradients[1:]:
        gradient.name = gradient.name.removeprefix("d")                      # a parameter is called by its name
    report.problems += [f"{name}: backward does not add to the gradient that is there" for name in overwritten]
    return report
