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

    dx        (5, 7)  error 7.7e-01  WRONG   at [0, 6]: exact 0.349764, ours 1.23084, difference 8.8e-01
    dweight   (7,)    error 3.1e-15  ok

How. For random u and v, ⟨u, J v⟩ = ⟨Jᵀ u, v⟩: the left side is the derivative of ⟨u, forward(x + t v)⟩ at t = 0, the right side
backward(u) · v. One random direction sees every entry of the gradient at once, so a check costs a few forward passes whatever
the size; then single entries are checked alone, to say which one is off. The derivative is Richardson's extrapolation of
central differences, repeated until it has settled: good for ten digits and more in float64 where forward is smooth.
"""
import difflib
import fnmatch
import importlib
import inspect
import math
import pkgutil
from dataclasses import dataclass, field

import numpy as np

from . import functional as F
from . import ops

TOLERANCE = 1e-8            # relative to the gradient's norm; the differences leave 1e-12 of an op, 1e-9 of a whole model
LEVELS = 8                  # steps h, h/4, … h/4⁷
ENTRIES = 32                # entries of a gradient that are checked one by one


@dataclass
class Gradient:
    """What was found out about one gradient. error: the worst relative to its norm; entry: where, and what is there."""

    name: str
    shape: tuple
    error: float = 0.0
    ok: bool = True
    entry: tuple | None = None
    exact: float = math.nan
    ours: float = math.nan
    note: str = ""

    def __str__(self):
        line = f"{self.name:9} {str(self.shape):7} error {self.error:.1e}  {'ok' if self.ok else 'WRONG'}"
        if not self.ok and self.entry is not None:
            line += (f"   at [{', '.join(map(str, self.entry))}]: exact {self.exact:.6g}, ours {self.ours:.6g}, "
                     f"difference {abs(self.exact - self.ours):.1e}")
        return line + (f"   {self.note}" if self.note else "")


@dataclass
class Report:
    """The gradients of one pair or model, and what else is wrong with it. True if everything is right."""

    gradients: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    @property
    def ok(self):
        return not self.problems and all(g.ok for g in self.gradients)

    @property
    def worst(self):
        return max((g.error for g in self.gradients), default=0.0)

    __bool__ = ok.fget

    def __str__(self):
        return "\n".join([*map(str, self.gradients), *self.problems])


def check(forward, backward, *arrays, names=None, tolerance=TOLERANCE, seed=0, **others):
    """Check y, cache = forward(*arrays, **others) against dx, … = backward(dy, cache), one gradient an array.

    arrays: what has a gradient, taken as float64; None stands for an array that is left out, whose gradient is None.
    others: what has none (sizes, rates, labels, masks).   names: forward's parameters that the arrays are, if not its first.
    → Report, whose gradients carry the names of forward's parameters
    """
    names = list(names or inspect.signature(forward).parameters)[:len(arrays)]
    rng = np.random.default_rng(seed)
    arrays = [None if a is None else np.array(a, dtype=np.float64) for a in arrays]
    handed_in = [None if a is None else a.copy() for a in arrays]

    def call(values):
        return forward(**dict(zip(names, values, strict=True)), **others)

    y, cache = call(handed_in)
    again, _ = call(handed_in)
    u = rng.standard_normal(np.shape(y))
    result = backward(u, cache)
    result = list(result) if isinstance(result, tuple) else [result]
    report = Report()
    report.problems += [f"{name} was written to" for name, before, after in zip(names, arrays, handed_in)
                        if before is not None and not np.array_equal(before, after, equal_nan=True)]
    report.problems += not_finite("forward's y", y)
    for name, before in zip(names, arrays):
        report.problems += [] if before is None else not_finite(name, before)
    if not np.array_equal(y, again, equal_nan=True):
        report.problems.append("forward twice gives two results: hand in its seeds or rates, so that it is a function")
    if len(result) != len(arrays):
        report.problems.append(f"backward returns {len(result)} gradients for {len(arrays)} arrays: {', '.join(names)}")
        return report
    for i, (name, x, dx) in enumerate(zip(names, arrays, result)):
        def at(value, i=i):
            return call([value if k == i else a for k, a in enumerate(arrays)])[0]
        if x is not None:
            report.gradients.append(check_gradient(f"d{name}", x, dx, u, y, at, rng, tolerance))
        elif dx is not None:
            report.gradients.append(Gradient(f"d{name}", np.shape(dx), math.inf, False, note="expected None, as its array"))
    return report


def not_finite(name, values):
    """[a sentence that says where values are NaN or infinite], or []."""
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return []
    entry = tuple(int(i) for i in bad[0])
    return [f"{name} is not finite: {np.asarray(values)[entry]} at {list(entry)}, {len(bad)} of {np.size(values)} entries; "
            "gradients are not checked where there are no slopes"]


def check_model(model, images=None, train=False, rng=0, tolerance=TOLERANCE, seed=0, progress=None):
    """Check model.backward: dimages, and the gradient of every parameter. A float64 model; its state is left as it was.

    train, rng: as in model.forward.   progress: called with the name of each tensor before it is checked   → Report
    """
    if model.dtype != np.float64:
        raise ValueError("gradcheck needs a model of dtype float64, got " + str(model.dtype))
    random = np.random.default_rng(seed)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    before = {name: buffer.copy() for name, buffer in buffers.items()}
    flat_grad = model.flat_grad.copy()
    if images is None:
        images = random.standard_normal((2, *image_shape(model.config)))

    def logits_of(images):
        logits, cache = model.forward(images, train=train, rng=rng)
        for name, buffer in buffers.items():                                 # a training forward moves running statistics
            buffer[...] = before[name]
        return logits, cache

    try:
        logits, cache = logits_of(images)
        u = random.standard_normal(logits.shape)
        model.zero_grad()
        dimages = model.backward(u, cache)
        grads = {name: p.grad.copy() for name, p in parameters.items()}
        model.backward(u, logits_of(images)[1])
        report = Report(problems=not_finite("the model's logits", logits))
        report.problems += [f"{name}: backward does not add to the gradient that is there" for name, p in parameters.items()
                            if not np.allclose(p.grad, 2 * grads[name], rtol=1e-9, atol=1e-12)]
        check_one = lambda name, x, dx, at: report.gradients.append(         # noqa: E731
            check_gradient(name, x, dx, u, logits, at, random, tolerance, entries=0, settle=0.3))
        if progress:
            progress("images")
        check_one("dimages", images, dimages, lambda value: logits_of(value)[0])
        for name, p in parameters.items():
            if progress:
                progress(name)
            values = p.data.copy()

            def at(value, p=p):
                p.data[...] = value
                return logits_of(images)[0]
            check_one(name, values, grads[name], at)
            p.data[...] = values
    finally:
        model.flat_grad[...] = flat_grad
    return report


def check_gradient(name, x, dx, u, y, at, rng, tolerance, entries=ENTRIES, settle=0.01):
    """Gradient: dx against the derivatives of ⟨u, at(x)⟩, along one random direction and then along single entries.

    entries: how many of them; where the direction is wrong, as many as it takes to find a wrong one, up to 16 · ENTRIES.
    settle: how far below tolerance the estimates of a derivative have to agree before no further step is tried.
    """
    if dx is None or np.shape(dx) != x.shape:
        got = "None" if dx is None else f"shape {np.shape(dx)}"
        return Gradient(name, x.shape, math.inf, False, note=f"expected shape {x.shape}, got {got}")
    dx = np.asarray(dx, dtype=np.float64)
    if not np.isfinite(dx).all():
        entry = tuple(int(i) for i in np.argwhere(~np.isfinite(dx))[0])
        return Gradient(name, x.shape, math.inf, False, entry, ours=dx[entry], note="not finite")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Gradient(name, x.shape, math.inf, False, note="not checked: forward is not finite")
    size = math.sqrt(np.square(x).mean()) if x.size else 0.0
    size = size if size > 0 else 1.0
    # below this norm a gradient counts as zero: rounding is all there is (a key's bias, a softmax over one key)
    floor = 1e-4 * np.linalg.norm(u) * np.linalg.norm(y) / max(size, 1.0)
    result, unsettled = Gradient(name, x.shape), 0.0

    def compare(v, step, norm):
        """exact and ours along v, and whether they agree to within tolerance: not where the differences do not settle"""
        nonlocal unsettled
        exact, doubt = derivative(lambda t: at(x + t * v), u, step, settle * tolerance * max(norm, floor))
        ours = float((dx * v).sum())
        error = abs(exact - ours) / max(norm, abs(exact), floor, 1e-300) if math.isfinite(exact) else math.inf
        allowed = tolerance * max(norm, abs(exact), floor)
        if not doubt <= allowed:
            unsettled = max(unsettled, doubt)
        return exact, ours, error, doubt <= allowed and abs(exact - ours) <= max(allowed, 3 * doubt)

    _, _, result.error, result.ok = compare(rng.standard_normal(x.shape), 0.05 * size, np.linalg.norm(dx))
    order = np.concatenate([np.argsort(-np.abs(dx).ravel())[:ENTRIES // 4], rng.permutation(x.size)])
    largest = float(np.abs(dx).max(initial=0.0))
    furthest = 0.0
    for count, i in enumerate(order):
        if count >= entries and (result.ok or furthest > 0 or count >= 16 * ENTRIES):
            break
        entry = tuple(int(k) for k in np.unravel_index(i, x.shape))
        v = np.zeros_like(x)
        v[entry] = 1
        exact, ours, error, agrees = compare(v, 0.05 * max(size, abs(float(x[entry]))), largest)
        if not agrees and error > furthest:
            result.ok, furthest, result.entry, result.exact, result.ours = False, error, entry, exact, ours
    if unsettled:
        result.note = f"the differences of forward do not settle: they still move by {unsettled:.1e}"
    return result


def derivative(f, u, h, accuracy):
    """d/dt ⟨u, f(t)⟩ at 0 and how far its estimates still move: Ridders' table of central differences, steps h, h/4, …

    The error of a central difference is a series in h²; each column of the table removes one more of its terms. Rounding
    grows as 1/h, so the entry that differs least from its two parents is taken. Stops once that is below accuracy.
    Steps that lead to where f is not finite are too long, and do not count: best is NaN if all of them do.
    """
    older, best, doubt, levels = [], math.nan, math.inf, 0
    for _ in range(3 * LEVELS):
        row = [float(((f(h) - f(-h)) * u).sum()) / (2 * h)]
        if not math.isfinite(row[0]):
            older, h = [], h / 4
            continue
        for k, parent in enumerate(older):
            row.append(row[k] + (row[k] - parent) / (16.0 ** (k + 1) - 1))
            moved = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - parent))
            if moved < doubt:
                best, doubt = row[k + 1], moved
        levels += 1
        if doubt <= accuracy or levels == LEVELS:
            break
        older, h = row, h / 4
    return best, doubt


# --- everything that numpyvit has: numpyvit gradcheck


def definitions():
    """{name: (NAME_forward, NAME_backward)} of every op, from whichever file of ops/ defines it."""
    pairs = {}
    for info in pkgutil.iter_modules(ops.__path__):
        module = importlib.import_module(f"{ops.__name__}.{info.name}")
        for name, function in vars(module).items():
            if name.endswith("_forward") and inspect.isfunction(function) and function.__module__ == module.__name__:
                pairs[name.removesuffix("_forward")] = function, getattr(module, name.replace("_forward", "_backward"))
    return pairs


def examples(rng):
    """(op, arrays, others): what each op is checked on. Sizes differ from each other, weights are not the identity."""
    r = rng.standard_normal
    mask = np.where(rng.random((2, 5, 9)) < 0.6, 0.0, -np.inf)
    mask[:, :, 3] = 0                                                        # a row needs a finite entry
    soft = rng.random((5, 11))
    seeds = rng.integers(0, 2**64, 4, dtype=np.uint64)
    index, inverse = np.array([3, 0, -1, 4, 1, 2]), np.array([1, 4, 5, 0, 3])
    yield "linear", dict(x=r((2, 5, 21)), weight=r((13, 21)), bias=r(13)), {}
    yield "linear", dict(x=r((5, 21)), weight=r((13, 21)), bias=None), {}
    yield "patch_embed", dict(images=r((2, 3, 8, 12)), weight=r((7, 3, 4, 4)), bias=r(7)), {}
    yield "conv2d", dict(x=r((2, 5, 6, 3)), weight=r((7, 3, 3, 3)), bias=r(7)), dict(stride=2, padding=1)
    yield "depthwise_conv", dict(x=r((2, 5, 6, 7)), weight=r((7, 1, 3, 3)), bias=r(7)), dict(stride=2, padding=1)
    yield "avg_pool", dict(x=r((2, 6, 5, 7))), dict(kernel=3, stride=2, padding=1)
    yield "layer_norm", dict(x=r((2, 5, 21)), weight=r(21), bias=r(21)), {}
    for running in ({}, dict(running_mean=r(7), running_var=rng.random(7) + 0.5)):
        yield "batch_norm", dict(x=r((2, 5, 3, 7)), weight=r(7), bias=r(7)), running
    for name in ("gelu", "gelu_tanh", "quick_gelu", "relu"):
        yield name, dict(x=r((2, 5, 21))), {}
        yield "bias_activation", dict(x=r((2, 5, 21)), bias=r(21)), dict(act=name)
    yield "softmax", dict(x=r((2, 5, 21))), {}
    yield "dropout", dict(x=r((4, 5, 7))), dict(rate=0.3, seeds=seeds)
    yield "drop_path", dict(x=r((4, 5, 7))), dict(rate=0.3, seeds=seeds)
    yield "attention", dict(q=r((4, 3, 5, 7)), k=r((4, 3, 9, 7)), v=r((4, 3, 9, 7)), bias=r((3, 5, 9))), dict(mask=mask)
    yield ("self_attention", dict(qkv=r((4, 5, 63)), bias=None), dict(num_heads=3, scale=0.3, drop_rate=0.2, seeds=seeds))
    yield ("window_attention", dict(qkv=r((4, 5, 42)), qkv_bias=r(42), bias=r((2, 3, 3))),
           dict(index=index, inverse=inverse, num_heads=2, mask=mask[:, :3, 1:4]))
    yield "cross_entropy", dict(logits=3 * r((5, 11))), dict(targets=rng.integers(0, 11, 5), label_smoothing=0.1)
    yield "cross_entropy", dict(logits=3 * r((5, 11))), dict(targets=soft / soft.sum(axis=1, keepdims=True))
    yield "gather_tokens", dict(x=r((2, 5, 7))), dict(index=index, inverse=inverse)
    yield "relative_position_bias", dict(table=r((9, 3))), dict(index=rng.integers(0, 9, (4, 4)))
    yield "shifted_windows", dict(x=r((2, 5, 7, 3))), dict(M=3, shift=1)
    yield "merge_patches", dict(x=r((2, 5, 7, 3))), {}


def op_checks(name, rng):
    """(version, function that checks it) of an op: its definition, and the kernel that stands in for it, if one does."""
    pair = definitions()[name]
    bound = tuple(getattr(F, f"{name}_{way}", None) for way in ("forward", "backward"))
    pairs = {"definition": pair} | ({"kernel": bound} if None not in bound and bound != pair else {})
    given = [example[1:] for example in examples(rng) if example[0] == name]
    for version, (forward, backward) in pairs.items():
        yield version, lambda forward=forward, backward=backward: merged(
            check(forward, backward, *arrays.values(), names=arrays, **others) for arrays, others in given)


def merged(reports):
    reports = list(reports)
    return Report([g for r in reports for g in r.gradients], [p for r in reports for p in r.problems])


TINY = {  # a few configurations of each family: (fields, train)
    "vit": [(dict(img_size=(8, 12), patch_size=4, num_classes=5, embed_dim=12, depth=2, num_heads=3), False),
            (dict(img_size=8, patch_size=2, num_classes=5, embed_dim=12, depth=2, num_heads=2, global_pool="avg", norm_order="post",
                  pos_embed="sincos2d", act="gelu_tanh", qkv_bias=False, drop_rate=0.1, attn_drop_rate=0.1,
                  drop_path_rate=0.2), True)],
    "swin": [(dict(img_size=(14, 10), patch_size=2, num_classes=5, embed_dim=6, depths=(2, 2), num_heads=(2, 3), window_size=3,
                   mlp_ratio=2.0), False)],
    "cvt": [(dict(img_size=16, num_classes=5, embed_dims=(6, 10), depths=(1, 2), num_heads=(2, 5), patch_sizes=(3, 3),
                  patch_strides=(2, 2), patch_paddings=(1, 1), mlp_ratio=2.0), train) for train in (False, True)],
}


def model_checks(name, rng, progress):
    """(version, function that checks it) of a family's tiny configurations, or of one preset as it is."""
    from .models import FAMILIES, create_model

    def run(fields, train, batch):
        model = create_model(name, dtype="float64", seed=1, **fields)
        for _, p in model.named_parameters():
            p.data += 0.2 * rng.standard_normal(p.shape)                     # no zeros and ones: they hide mistakes
        images = rng.standard_normal((batch, *image_shape(model.config)))
        return check_model(model, images, train, progress=progress)

    for i, (fields, train) in enumerate(TINY.get(name, [({}, False)])):
        yield f"{f'tiny {i + 1}, ' if name in FAMILIES else ''}{'training' if train else 'evaluation'}", lambda fields=fields, train=train: run(fields, train, 3 if name in FAMILIES else 1)


def image_shape(config):
    size = config.img_size
    return (config.in_chans, *(size if isinstance(size, (tuple, list)) else (size, size)))


def chosen(names):
    """The ops, families and presets that the names (fnmatch patterns) mean; without names, all ops and families."""
    from .models import FAMILIES, list_models
    known = [*dict.fromkeys(example[0] for example in examples(np.random.default_rng(0))), *FAMILIES]
    if not names:
        return known
    known += list_models()
    found = []
    for name in names:
        matches = fnmatch.filter(known, name)
        if not matches:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise ValueError(f"no op or model is called {name!r}{hint}")
        found += matches
    return list(dict.fromkeys(found))


def run(names=(), console=None):
    """Check ops and models by name, print a table of worst errors, then what is wrong in full. → True if nothing is.

    names: ops, families (their tiny configurations), presets, or patterns of them; none means all ops and families.
    console: a rich Console; without one, standard output. Raises ValueError for a name that means nothing.
    """
    from rich.console import Console
    from rich.table import Table
    from threadpoolctl import threadpool_limits
    console = console or Console()
    table = Table("op or model", "version", title=f"backward against differences of forward, tolerance {TOLERANCE:.0e}")
    table.add_column("gradients", justify="right")
    for column in ("worst error", "verdict"):
        table.add_column(column, no_wrap=True)
    failures = []
    rng = np.random.default_rng(0)
    with console.status("checking") as status, threadpool_limits(1):
        for name in chosen(list(names)):
            def progress(tensor, name=name):
                status.update(f"checking {name}: {tensor}")
            is_op = name in definitions()
            for version, check_it in op_checks(name, rng) if is_op else model_checks(name, rng, progress):
                progress("")
                with np.errstate(all="ignore"):
                    report = check_it()
                worst = max(report.gradients, key=lambda g: (not g.ok, g.error), default=Gradient("", ()))
                verdict = "[green]ok[/]" if report else "[bold red]WRONG[/]"
                table.add_row(name, version, str(len(report.gradients)), f"{worst.error:.1e}", verdict)
                if not report:
                    failures.append((f"{name}, {version}", report))
    console.print(table)
    for label, report in failures:
        console.print(f"\n{label}:", style="bold")
        bad = [*(g for g in report.gradients if not g.ok), *report.problems]
        console.print("\n".join(f"  {line}" for line in bad), markup=False, highlight=False, soft_wrap=True)
    return not failures


def main(names=()):
    """run as a command: exit code 0 if every gradient is right, 1 if one is wrong, 2 for a name that means nothing."""
    import sys
    try:
        return 0 if run(names) else 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main(__import__("sys").argv[1:]))
