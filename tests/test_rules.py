"""The rules of the design that can be executed, executed: on the source, without running a model."""
import ast
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import cases
import numpyvit
from numpyvit import functional as F

PACKAGE = Path(numpyvit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OPS, KERNELS = sorted((PACKAGE / "ops").glob("*.py")), sorted((PACKAGE / "kernels").glob("*.py"))
NO_PAIRS = {"__init__", "erf", "positions", "random_bits", "optim", "muon"}          # functions and tables; nothing with a backward
TREES = {path: ast.parse(path.read_text()) for path in FILES}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
each_op = pytest.mark.parametrize("path", [p for p in OPS if p.stem not in NO_PAIRS], ids=lambda path: path.stem)
each_kernel = pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)


def functions(path):
    """{name: function} of those that the file itself defines, at its top level."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    names = [node.name for node in TREES[path].body if isinstance(node, ast.FunctionDef)]
    return {name: getattr(module, name) for name in names}


def imports(tree):
    """(level of relative import, top package, node) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, (node.module or "").split(".")[0], node


@each_op
def test_forward_stands_beside_its_backward(path):
    names = [name for name in functions(path) if name.endswith(("_forward", "_backward"))]
    stems = [name.rsplit("_", 1)[0] for name in names]
    assert names, "a file of ops/ without an op: add it to NO_PAIRS if that is meant"
    assert names == [f"{stem}_{way}" for stem in dict.fromkeys(stems) for way in ("forward", "backward")]


@each_op
def test_docstrings_are_shapes_and_formulas(path):
    for name, function in functions(path).items():
        if name.endswith("_forward"):
            assert "→" in function.__doc__, f"{name}: no shape line"
        if name.endswith("_backward"):
            assert "=" in function.__doc__ and "d" in function.__doc__, f"{name}: no formula"


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.stem)
def test_ops_are_numpy_only(path):
    for level, package, node in imports(TREES[path]):
        assert level == 1 or (level == 0 and package in ("numpy", "math")), ast.unparse(node)


@each_kernel
def test_kernels_have_the_signatures_of_their_definitions(path):
    definition = PACKAGE / "ops" / path.name
    defined = functions(definition) if definition.exists() else {}
    for name, function in functions(path).items():
        if name in defined:
            assert inspect.signature(function) == inspect.signature(defined[name]), name


def test_the_table_binds_each_name_to_its_namesake():
    """F.NAME is ops/FILE.NAME or kernels/FILE.NAME, of one FILE."""
    for name, function in vars(F).items():
        if inspect.isfunction(function):
            package, folder, file = function.__module__.split(".")
            assert folder in ("ops", "kernels") and function.__name__ == name
            assert name in functions(PACKAGE / "ops" / f"{file}.py"), f"{name} is not in ops/{file}.py"


def test_the_table_binds_pairs_of_one_kind():
    """F.NAME_forward and F.NAME_backward come from the same file: a cache is only read by who wrote it."""
    names = [name.removesuffix("_forward") for name in vars(F) if name.endswith("_forward")]
    assert names and {f"{name}_backward" for name in names} == {name for name in vars(F) if name.endswith("_backward")}
    for name in names:
        assert getattr(F, f"{name}_forward").__module__ == getattr(F, f"{name}_backward").__module__, name


@each_kernel
def test_compiler_options(path):
    """Serial, and NaN and infinity kept: threads are the lanes' business, and a NaN has to be seen."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.keyword):
            option = node.arg, ast.unparse(node.value)
            assert option not in [("parallel", "True"), ("fastmath", "True")], option
        if isinstance(node, ast.Constant):
            assert node.value not in ("nnan", "ninf", "fast"), node.value


@each_file
def test_imports(path):
    """No torch or SciPy anywhere, no pickle; the optional packages only where they are used."""
    top_level = {id(node) for node in TREES[path].body}
    for level, package, node in imports(TREES[path]):
        if level == 0:
            assert package not in ("torch", "scipy", "pickle", "dill", "joblib", "autograd", "jax"), ast.unparse(node)
            assert not (package in ("matplotlib", "PIL") and id(node) in top_level), ast.unparse(node)


@each_file
def test_no_pickles_are_loaded(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False"


@each_file
def test_length(path):
    limit = {"ops": 150, "kernels": 200, "models": 320}.get(path.parent.name)
    lines = len(path.read_text().splitlines())
    assert limit is None or lines <= limit, f"{lines} lines; a reader holds {limit}"


@pytest.mark.parametrize("path", [p for p in FILES if p.name in ("layers.py", "module.py") or p.parent.name == "models"],
                         ids=lambda path: path.stem)
def test_nothing_is_kept_between_calls(path):
    """No forward or backward, and nothing like them, assigns to self.NAME: layers own parameters, never activations."""
    for method in ast.walk(TREES[path]):
        if isinstance(method, ast.FunctionDef) and any(w in method.name for w in ("forward", "backward", "embed", "classify")):
            for node in ast.walk(method):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                for target in targets:
                    assert not (isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"), ast.unparse(node)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_the_benchmark_can_draw_every_case(case):
    arrays, others = cases.bench_inputs(case)
    assert all(a is None or (a.dtype == np.float32 and a.flags.c_contiguous) for a in arrays.values())
    forward, backward = case.flops(arrays, others)
    assert forward >= 0 and backward >= 0


@each_file
def test_no_clock_that_jumps(path):
    """time.time, datetime.now: set back or forward by whoever sets the clock. Durations come from time.monotonic."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today") and ast.unparse(node) != "time.time", f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("page", ["README.md", "numpyvit/ops/README.md", "examples/README.md"])
def test_links_lead_somewhere(page):
    """Files exist, and so do the headings behind a #; #L of an operation is the line of its backward function."""
    root = PACKAGE.parent
    if not (root / page).exists():
        pytest.skip("installed without the repository's pages")
    for name, target in re.findall(r"\[([^]]*)\]\(([^)\s]+)\)", (root / page).read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (root / page).parent / file if file else root / page
        assert there.exists(), target
        if line := re.fullmatch(r"L(\d+)", anchor):
            assert there.read_text().splitlines()[int(line[1]) - 1].startswith(f"def {name}_backward("), target
        else:
            assert not anchor or anchor in anchors(there.read_text()), target


def anchors(text):
    """The names that GitHub gives to headings: link text only, lower case, letters, digits, hyphens, underscores."""
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip()) for line in text.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
