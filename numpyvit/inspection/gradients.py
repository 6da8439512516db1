"""numpyvit gradcheck: every op, family, preset or pair of yours against differences of its forward pass, as a table."""
import difflib
import fnmatch
import importlib
import importlib.util
import inspect
import itertools
import pkgutil
import sys
from functools import partial
from pathlib import Path

import numpy as np

from .. import functional as F
from .. import ops
from ..cases import CASES, case_of, examples
from ..differences import VERDICTS
from ..errors import UserError
from ..gradcheck import TOLERANCE, Report, check, check_model
from ..models import FAMILIES, create_model, list_models
from ..module import pair

TINY = {  # a few configurations of each family: (fields, train)
    "vit": [(dict(img_size=(8, 12), patch_size=4, num_classes=5, embed_dim=12, depth=2, num_heads=3), False),
            (dict(img_size=8, patch_size=2, num_classes=5, embed_dim=12, depth=2, num_heads=2, global_pool="avg",
                  norm_order="post", pos_embed="sincos2d", act="gelu_tanh", qkv_bias=False, drop_rate=0.1,
                  attn_drop_rate=0.1, drop_path_rate=0.2), True),
            (dict(img_size=(8, 12), patch_size=4, num_classes=5, embed_dim=16, depth=2, num_heads=2,
                  pos_embed="rotary"), False)],
    "swin": [(dict(img_size=(14, 10), patch_size=2, num_classes=5, embed_dim=6, depths=(2, 2), num_heads=(2, 3),
                   window_size=3, mlp_ratio=2.0), False)],
    "cvt": [(dict(img_size=16, num_classes=5, embed_dims=(6, 10), depths=(1, 2), num_heads=(2, 5), patch_sizes=(3, 3),
                  patch_strides=(2, 2), patch_paddings=(1, 1), mlp_ratio=2.0), train) for train in (False, True)],
}
SHAPES = ((2, 5, 7), (5, 7), (7,), (3, 7), (7, 3), (7, 7), (3,), (5,), ())   # tried for the arrays of a pair of yours


def definitions():
    """{name: (NAME_forward, NAME_backward)} of every op, from whichever file of ops/ defines it."""
    pairs = {}
    for info in pkgutil.iter_modules(ops.__path__):
        module = importlib.import_module(f"{ops.__name__}.{info.name}")
        for name, function in vars(module).items():
            if name.endswith("_forward") and inspect.isfunction(function) and function.__module__ == module.__name__:
                stem = name.removesuffix("_forward")
                pairs[stem] = function, getattr(module, f"{stem}_backward")
    return pairs


def kernel_of(name):
    """(forward, backward) of the kernel that functional.py binds in place of the op's definition, or None."""
    bound = tuple(getattr(F, f"{name}_{way}", None) for way in ("forward", "backward"))
    return None if None in bound or bound == definitions()[name] else bound


def op_checks(name):
    """(version, function that checks it) of an op: its definition, and its kernel if there is one."""
    for version, functions in (("definition", definitions()[name]), ("kernel", kernel_of(name))):
        if functions:
            yield version, partial(check_examples, name, *functions)


def check_examples(name, forward, backward):
    """One report of all examples of the op's row in the table."""
    reports = [check(forward, backward, *arrays.values(), names=arrays, **others)
               for arrays, others in examples(case_of(name))]
    return Report([g for r in reports for g in r.gradients], [p for r in reports for p in r.problems])


def model_checks(name, progress):
    """(version, function that checks it) of a family's tiny configurations, or of one preset as it is."""
    for i, (fields, train) in enumerate(TINY.get(name, [({}, False)])):
        version = f"{f'tiny {i + 1}, ' if name in FAMILIES else ''}{'training' if train else 'evaluation'}"
        yield version, partial(check_configuration, name, fields, train, 3 if name in FAMILIES else 1, progress)


def check_configuration(name, fields, train, batch, progress):
    """check_model of random images and of weights that are not as initialised: zeros and ones hide mistakes."""
    model = create_model(name, dtype="float64", seed=1, **fields)
    rng = np.random.default_rng(0)
    for _, p in model.named_parameters():
        p.data += 0.2 * rng.standard_normal(p.shape)
    images = rng.standard_normal((batch, model.config.in_chans, *pair(model.config.img_size)))
    return check_model(model, images, train, progress=progress)


# --- a pair of yours: MODULE:NAME


def own_pair(name):
    """(forward, backward, inputs or None) of MODULE:NAME, where MODULE is importable from here or a file."""
    module_name, _, stem = name.rpartition(":")
    stem = stem.removesuffix("_forward").removesuffix("_backward")           # both of the pair are checked anyway
    sys.path.insert(0, "")                                                   # a module beside the caller
    try:
        if module_name.endswith(".py"):
            if not Path(module_name).is_file():
                raise UserError(f"{module_name}: no such file")
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{name}: {error}; expected MODULE:NAME, where MODULE can be imported from here or is a "
                        "file") from None
    finally:
        sys.path.remove("")
    functions = [getattr(module, f"{stem}_{way}", None) for way in ("forward", "backward")]
    if None in functions:
        there = [n.removesuffix("_forward") for n in vars(module) if n.endswith("_forward")]
        raise UserError(f"{name}: expected {stem}_forward and {stem}_backward in {module_name}, which has pairs of the "
                        f"names {', '.join(there) or '(none)'}")
    return *functions, getattr(module, f"{stem}_inputs", None)


def own_checks(name):
    """(version, function that checks it): on the arrays of NAME_inputs(rng), or on shapes that NAME_forward accepts."""
    forward, backward, inputs = own_pair(name)
    if inputs is not None:
        given = inputs(np.random.default_rng(0)) if inspect.signature(inputs).parameters else inputs()
        with_others = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict)
        arrays, others = given if with_others else (given, {})
        arrays = arrays if isinstance(arrays, (dict, tuple, list)) else [arrays]
        arrays = arrays if isinstance(arrays, dict) else dict(zip(inspect.signature(forward).parameters, arrays))
    else:
        arrays, others = guessed(name, forward, backward), {}
    shapes = ", ".join(f"{key} {np.shape(a)}" for key, a in arrays.items())
    yield shapes, partial(check, forward, backward, *arrays.values(), names=arrays, **others)


def guessed(name, forward, backward):
    """{parameter without a default: random array}, of the first shapes in SHAPES that the pair accepts.

    A weight broadcasts, so that forward accepts more shapes than are meant: backward returns the shape that is meant.
    """
    parameters = inspect.signature(forward).parameters.values()
    names = [p.name for p in parameters
             if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rng, accepted = np.random.default_rng(0), None
    for shapes in itertools.product(SHAPES, repeat=len(names)) if len(names) <= 4 else ():
        arrays = [rng.standard_normal(shape) for shape in shapes]
        try:
            with np.errstate(all="ignore"):
                returned = forward(*(a.copy() for a in arrays))
                accepted = accepted or arrays                                # check says whatever else is wrong
                y, cache = returned
                result = backward(np.ones(np.shape(y)), cache)
        except Exception:                                                    # the pair does not accept these shapes
            continue
        grads = result if isinstance(result, (tuple, list)) else [result]
        if [np.shape(g) for g in grads][:len(names)] == list(shapes):
            return dict(zip(names, arrays))
    if accepted:
        return dict(zip(names, accepted))
    stem = name.rpartition(":")[2]
    raise UserError(f"{name}: no shapes found that {stem}_forward accepts for {', '.join(names)}; define "
                    f"{stem}_inputs(rng) beside it, which returns its arrays by name: "
                    "{\"x\": rng.standard_normal((5, 7)), …}")


# --- the table


def chosen(names):
    """The ops, families, presets and own pairs that names (fnmatch patterns) mean; without names, ops and families."""
    known = [*(case.name for case in CASES), *FAMILIES]
    if not names:
        return known
    known += list_models()
    found = []
    for name in names:
        matches = [name] if ":" in name else fnmatch.filter(known, name)
        if not matches:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(close)}?" if close else "."
            module = name.removesuffix(".py")
            there = Path(f"{module}.py").is_file()
            yours = f"{module}:NAME, for NAME_forward and NAME_backward in {module}.py" if there else "MODULE:NAME"
            raise UserError(f"no op or model is called {name!r}{hint} A pair of your own is {yours}.")
        found += matches
    return list(dict.fromkeys(found))


def checks_of(name, progress):
    """(version, function → Report) of one of chosen's names."""
    if ":" in name:
        return own_checks(name)
    return op_checks(name) if name in definitions() else model_checks(name, progress)


def run(names=(), console=None):
    """Check ops and models by name, print a table of worst errors, then what is wrong in full. → True if nothing is.

    names: ops, families (their tiny configurations), presets, patterns of them, MODULE:NAME; none: ops and families.
    console: a rich Console; without one, standard output. Raises UserError for a name that means nothing.
    """
    from rich.console import Console
    from rich.table import Table
    from threadpoolctl import threadpool_limits
    console = console or Console()
    console.width = max(console.width, 80)                                   # a narrower one squeezes the table
    table = Table(title=f"backward against differences of forward, tolerance {TOLERANCE:.0e}")
    for column in ("op or model", "version", "gradients", "worst error", "verdict"):
        table.add_column(column, no_wrap=True, justify="right" if column == "gradients" else "left")
    failures = []
    with console.status("checking") as status, threadpool_limits(1):
        for name in chosen(list(names)):
            def progress(tensor):
                status.update(f"checking {name}: {tensor}")
            for version, check_it in checks_of(name, progress):
                progress("")
                with np.errstate(all="ignore"):
                    report = check_it()
                worst = max((g.error for g in report.gradients), default=0.0)
                verdict = "[green]ok[/]" if report else f"[bold red]{verdict_of(report)}[/]"
                table.add_row(name, version, str(len(report.gradients)), f"{worst:.1e}", verdict)
                if not report:
                    failures.append((f"{name}, {version}", report))
    console.print(table)
    for label, report in failures:
        console.print(f"\n{label}:", style="bold", markup=False, soft_wrap=True)
        bad = [*(g for g in report.gradients if not g.ok), *report.problems]
        console.print("\n".join(f"  {line}" for line in bad), markup=False, highlight=False, soft_wrap=True)
    return not failures


def verdict_of(report):
    """The worst verdict of a report that is not ok: WRONG where every gradient is right and something else is not."""
    verdicts = {g.verdict for g in report.gradients}
    return max(verdicts - {"ok"}, key=VERDICTS.index, default="WRONG")
