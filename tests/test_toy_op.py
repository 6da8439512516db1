"""A new op needs one file in ops/, one line in functional.py and one row in numpyvit/cases/ (a kernel: one file, one line).

Shown on a copy of the repository, to which a toy op and a toy kernel are added in these places only: the rules hold, and
gradcheck, the gradient test, the kernel test and the benchmark see the op, right or wrong.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numpyvit
from rules import RULES, read_house

ROOT = Path(numpyvit.__file__).parents[1]
OF_THE_TOY = ["tests/test_ops.py", "tests/test_kernels.py", "tests/test_gradients.py", "-k", "toy or every_op"]

OP = '''"""A toy: squares, weighed."""


def toy_forward(x, weight):
    """y = x² ⊙ weight

    x (..., C)   weight (C,)   →   y (..., C)
    """
    return x * x * weight, (x, weight)


def toy_backward(dy, cache):
    """dx = 2 · x ⊙ weight ⊙ dy,   dweight = Σ dy ⊙ x²"""
    x, weight = cache
    dweight = (dy * x * x).sum(axis=tuple(range(dy.ndim - 1)))
    return 2 * x * weight * dy, dweight
'''
ROW = '''

def toy_inputs(d):
    """x (B, C), weight (C,)"""
    B, C = d.size("B", 1, 5), d.size("C", 1, 21)
    return dict(x=d.array(B, C), weight=d.array(C)), {}


def torch_toy(torch, x, weight):
    """the same, by torch"""
    return x.square() * weight


CASES += (Case("toy", toy_inputs, torch_toy, each("x", 2, 5), dict(B=16, C=64)),)
'''


def change(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the repository in which the toy op has its places."""
    root = tmp_path_factory.mktemp("house")
    for name in ("numpyvit", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "numpyvit/ops/toy.py").write_text(OP)
    (root / "numpyvit/kernels/toy.py").write_text(OP)
    change(root / "numpyvit/functional.py", "from .ops.linear import", "from .ops.toy import toy_backward, toy_forward\n"
           "from .ops.linear import")
    change(root / "numpyvit/functional.py", "if not REFERENCE:", "if not REFERENCE:\n"
           "    from .kernels.toy import toy_backward, toy_forward\n\nif not REFERENCE:")
    with open(root / "numpyvit/cases/pointwise.py", "a") as rows:
        rows.write(ROW)
    return root


def run(house, *command):
    done = subprocess.run([sys.executable, *command], cwd=house, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(house), "NUMPYVIT_REFERENCE": ""})
    return done.returncode, done.stdout + done.stderr


def results_of(house, *tests):
    """{test: "PASSED" or "FAILED"}, and what pytest printed."""
    _, out = run(house, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", *tests)
    words = [line.split() for line in out.splitlines() if "::" in line]
    results = {line[0].partition("::")[2]: line[1] for line in words if line[1] in ("PASSED", "FAILED")}
    assert results, out
    return results, out


def test_everything_sees_a_new_op(house):
    results, out = results_of(house, *OF_THE_TOY)
    assert {"test_against_autograd[toy]", "test_float32_stays_float32[toy]", "test_float64[toy]", "test_float32[toy]",
            "test_ops[toy]", "test_every_op_has_a_case"} <= results.keys()
    assert set(results.values()) == {"PASSED"}, out
    broken = [rule.__name__ for rule in RULES if rule(read_house(house / "numpyvit")).keys() - rule(read_house()).keys()]
    assert not broken
    status, out = run(house, "-m", "numpyvit", "gradcheck", "toy")
    assert status == 0 and out.count("ok") == 2 and "kernel" in out
    status, out = run(house, "tests/bench", "ops", "--ops", "toy", "--rounds", "1", "--milliseconds", "0.1",
                      "--json", "b.json")
    assert status == 0, out
    assert {who for point in json.loads((house / "b.json").read_text())["points"] for who in point["ms"]} == {
        "kernel", "definition", "torch"}


def test_everything_sees_that_it_is_wrong(house):
    change(house / "numpyvit/kernels/toy.py", "return 2 * x", "return x")
    results, out = results_of(house, *OF_THE_TOY)
    assert {name for name, result in results.items() if result == "FAILED"} == {
        "test_float64[toy]", "test_float32[toy]", "test_ops[toy]"}, out
    assert "ours = 0.5 × exact everywhere" in out


def test_a_forgotten_row_is_noticed(house):
    change(house / "numpyvit/cases/pointwise.py", "CASES += ", "FORGOTTEN = ")
    results, _ = results_of(house, "tests/test_ops.py::test_every_op_has_a_case")
    assert results["test_every_op_has_a_case"] == "FAILED"
