"""One gradient against differences of the forward pass: along a random direction, then entry by entry.

A Gradient has a verdict. "ok" is only said where the differences settle and agree with backward. "KINK": the slopes
to the left and to the right differ, so there is no derivative to compare with. "UNSETTLED": the differences still move,
as they do where forward computes in float32, is noisy or ends. "WRONG": backward differs from a derivative that exists.
"""
import math
from dataclasses import dataclass

import numpy as np

LEVELS = 8                  # steps h, h/4, … h/4⁷
ENTRIES = 32                # entries of a gradient that are checked one by one
VERDICTS = ("ok", "KINK", "UNSETTLED", "WRONG")      # from the best to the worst


@dataclass
class Gradient:
    """What was found out about one gradient: one of VERDICTS, the error relative to its norm, the worst entry."""

    name: str
    shape: tuple
    error: float = 0.0
    verdict: str = "ok"
    entry: tuple | None = None
    exact: float = math.nan
    ours: float = math.nan
    note: str = ""

    @property
    def ok(self):
        """True if the gradient is right; a gradient that could not be checked is not ok."""
        return self.verdict == "ok"

    def __str__(self):
        line = f"{self.name:9} {str(self.shape):7} error {self.error:.1e}  {self.verdict}"
        if self.verdict == "WRONG" and self.entry is not None:
            beside = "" if math.isnan(self.exact) else f", difference {abs(self.exact - self.ours):.1e}"
            exact = "" if math.isnan(self.exact) else f"exact {self.exact:.6g}, "
            line += f"   at {list(self.entry)}: {exact}ours {self.ours:.6g}{beside}"
        return line + (f"   {self.note}" if self.note else "")


@dataclass
class Slope:
    """One derivative, by the differences and by backward, and what follows from the two."""

    verdict: str
    exact: float
    ours: float
    error: float
    note: str = ""

    @property
    def rank(self):
        """The worse, the larger: by verdict, then by error."""
        return VERDICTS.index(self.verdict), self.error


def check_gradient(name, x, dx, u, y, at, rng, tolerance, entries, settle, same_shape):
    """Gradient: dx against the derivatives of ⟨u, at(x)⟩, along one random direction and then along single entries.

    entries: how many; where the direction is wrong, as many as it takes to find a wrong one, up to 16 · ENTRIES.
    settle: how far below tolerance the estimates of a derivative have to agree before no further step is tried.
    same_shape: {name: gradient} of other arrays, for the hint that two gradients are exchanged
    """
    if dx is None or np.shape(dx) != x.shape or np.iscomplexobj(dx):
        return Gradient(name, x.shape, math.inf, "WRONG", note=misshapen(x.shape, dx))
    dx = np.asarray(dx, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Gradient(name, x.shape, math.inf, "UNSETTLED", note="not checked: forward is not finite")
    if not np.isfinite(dx).all():
        entry = tuple(np.argwhere(~np.isfinite(dx))[0].tolist())
        return Gradient(name, x.shape, math.inf, "WRONG", entry, ours=dx[entry], note="not finite")
    size = norm_of(x) / math.sqrt(max(x.size, 1)) or 1.0
    # below this norm a gradient counts as zero: rounding is all there is (a key's bias, a softmax over one key)
    floor = 1e-4 * norm_of(u) * norm_of(y) / max(size, 1.0)

    def along(v, step, norm, true=0.0):
        return slope(lambda t: at(x + t * v), u, float((dx * v).sum()), step, tolerance, max(norm, floor), settle,
                     1e-3 * true + tolerance * floor)
    first = rng.standard_normal(x.shape)
    worst = direction = along(first, 0.05 * size, norm_of(dx))
    result = Gradient(name, x.shape, direction.error, direction.verdict)
    true = abs(direction.exact) if math.isfinite(direction.exact) else 0.0
    steepest = float(np.abs(dx).max(initial=0.0))
    order = np.concatenate([np.argsort(-np.abs(dx).ravel())[:ENTRIES // 4], rng.permutation(x.size)])
    for count, i in enumerate(order):
        found = direction.verdict == "ok" or worst.verdict == "WRONG" and result.entry is not None
        if count >= entries and (found or count >= 16 * ENTRIES):
            break
        entry = tuple(int(k) for k in np.unravel_index(i, x.shape))
        v = np.zeros_like(x)
        v[entry] = 1
        own = abs(float(x[entry]))
        one = along(v, 0.05 * max(size, own), steepest, true)
        if one.verdict == "WRONG" and 0 < own < size:                        # 1/x at a small x: the steps were too long
            closer = along(v, 0.05 * own, steepest, true)
            one = closer if closer.verdict == "ok" else one
        if one.verdict != "ok" and (result.entry is None or one.rank > worst.rank):
            worst, result.entry, result.exact, result.ours = one, entry, one.exact, one.ours
    result.verdict = max(direction.verdict, worst.verdict, key=VERDICTS.index)
    place = f"at {list(result.entry)}" if result.entry is not None else "along a random direction"
    result.note = worst.note.format(place=place)
    if result.verdict == "WRONG" and direction.verdict == "WRONG":
        second = rng.standard_normal(x.shape)
        measured = [(first, direction.exact), (second, along(second, 0.05 * size, norm_of(dx)).exact)]
        result.note = hint(dx, measured, same_shape) or result.note
    return result


def norm_of(x):
    """The root of the sum of squares, which may themselves overflow: of the entries divided by the largest of them."""
    largest = float(np.abs(x).max(initial=0.0))
    return largest * float(np.linalg.norm(x / largest)) if largest else 0.0


def slope(f, u, ours, h, tolerance, scale, settle, small):
    """Slope of ⟨u, f(t)⟩ at 0 beside backward's value of it, ours. scale: the size that tolerance is relative to.

    small: differences that still move by no more than this are settled. It comes from the gradient that differences
    found, while scale comes from backward: beside a huge scale, every difference would look settled.
    """
    exact, doubt = derivative(f, u, h, settle * tolerance * scale)
    allowed = tolerance * max(scale, abs(exact))
    error = abs(exact - ours) / max(scale, abs(exact), 1e-300) if math.isfinite(exact) else math.inf
    settled = doubt <= allowed                                               # False for NaN
    if settled and abs(exact - ours) <= max(allowed, 3 * doubt):
        return Slope("ok", exact, ours, error)
    again, _ = derivative(f, u, 0.7 * h, settle * allowed)                   # noise may settle once, by chance
    doubt = max(doubt, abs(again - exact))
    settled = settled and abs(again - exact) <= max(allowed, 0.1 * abs(exact - ours))
    settled = settled and doubt <= max(small, 1e-3 * abs(exact))
    near_left, near_right, noise = close_up(f, u, h)
    stepped = moves_in_steps(f, h)
    if noise <= 0.1 * abs(exact - ours) and not stepped:                     # far from exact: the steps were too long
        settled = settled and abs((near_left + near_right) / 2 - exact) <= 0.5 * abs(exact - ours)
    rounded = stepped and abs(exact - ours) <= 1e-3 * max(scale, abs(exact))                     # as float32 would be
    (left, left_doubt), (right, right_doubt) = (derivative(f, u, h, settle * allowed, side) for side in (-1, 1))
    smooth = noise <= 0.1 * abs(right - left) and abs(near_right - near_left) < 0.5 * abs(right - left)
    if abs(right - left) > 10 * (left_doubt + right_doubt) + 100 * allowed and not smooth:
        note = f"one-sided slopes differ {{place}}: {left:.6g} and {right:.6g}, ours {ours:.6g}: a kink"
        return Slope("KINK", exact, ours, error, note)
    if settled and not rounded:
        return Slope("WRONG", exact, ours, error)
    if math.isnan(exact):
        note = "forward is not finite beside x {place}, however small the step"
    elif stepped:
        note = "a change of x by 1e-10 does not reach y {place}: forward computes in float32, or rounds"
    else:
        note = f"the differences of forward do not settle {{place}}: they still move by {doubt:.1e}"
    return Slope("UNSETTLED", exact, ours, error, note)


def close_up(f, u, h):
    """Slopes of ⟨u, f(t)⟩ to the left and to the right over a step of h/4¹⁰, and how large rounding makes them."""
    step = h / 4**10
    with np.errstate(all="ignore"):
        before, here, after = (f(t) * u for t in (-step, 0.0, step))
        noise = 8 * np.finfo(np.float64).eps * float(np.abs(here).sum()) / step
        return float((here - before).sum()) / step, float((after - here).sum()) / step, noise


def moves_in_steps(f, h):
    """Whether entries of f that change over a step h stay the same, to the bit, over a step of 1e-9 h."""
    base = f(0.0)
    return 10 * (f(1e-9 * h) != base).sum() < (f(h) != base).sum()


def derivative(f, u, h, accuracy, side=0):
    """d/dt ⟨u, f(t)⟩ at 0 and how far its estimates still move: Ridders' table of differences with steps h, h/4, …

    side: 0 for central differences, −1 or 1 for the slope to the left or to the right. The error of a central
    difference is a series in h², of a one-sided one a series in h; each column of the table removes one term. Rounding
    grows as 1/h, so the entry that differs least from its two parents is taken. Stops once that is below accuracy.
    Steps that lead to where f is not finite are too long and do not count; without any other step the result is NaN.
    """
    factor, older, best, doubt, levels = 4.0 if side else 16.0, [], math.nan, math.inf, 0
    for _ in range(3 * LEVELS):
        with np.errstate(all="ignore"):
            ahead, behind = f(h if side >= 0 else 0.0), f(-h if side <= 0 else 0.0)
            row = [float(((ahead - behind) * u).sum()) / (h if side else 2 * h)]
        if not math.isfinite(row[0]):
            older, h = [], h / 4
            continue
        for k, parent in enumerate(older):
            row.append(row[k] + (row[k] - parent) / (factor ** (k + 1) - 1))
            moved = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - parent))
            if moved < doubt:
                best, doubt = row[k + 1], moved
        levels += 1
        if doubt <= accuracy or levels == LEVELS:
            break
        older, h = row, h / 4
    return best, doubt


def misshapen(shape, dx):
    """The sentence for a gradient that is no real array of x's shape."""
    got = "None" if dx is None else "complex numbers" if np.iscomplexobj(dx) else f"shape {np.shape(dx)}"
    note = f"expected shape {shape}, got {got}"
    if dx is not None and np.shape(dx) != shape and np.shape(dx) == shape[::-1]:
        return note + ": looks transposed"
    if dx is not None and 0 < len(shape) < np.ndim(dx) and np.shape(dx)[-len(shape):] == shape:
        return note + ": a sum over the leading axes is missing"
    return note


def hint(dx, measured, same_shape):
    """A sentence that says how a wrong gradient differs from the right one in every entry, or "".

    measured: [(direction, exact derivative along it)] of two random directions, which see every entry at once
    """
    def fits(candidate):
        return all(abs(float((candidate * v).sum()) - exact) <= 1e-6 * abs(exact) for v, exact in measured)
    if any(exact == 0 or not math.isfinite(exact) for _, exact in measured):
        return ""
    if not dx.any():
        return "ours = 0 everywhere"
    ratios = [float((dx * v).sum()) / exact for v, exact in measured]
    if abs(ratios[0] - ratios[1]) <= 1e-6 * abs(ratios[0]):
        return f"ours = {ratios[0]:.6g} × exact everywhere"
    if dx.ndim >= 2 and dx.shape[-1] == dx.shape[-2] and fits(dx.swapaxes(-1, -2)):
        return "looks transposed: the last two axes are exchanged"
    for name, gradient in same_shape.items():
        if gradient is not None and fits(np.asarray(gradient)):
            return f"{name} would be right here: are the two exchanged?"
    return ""
