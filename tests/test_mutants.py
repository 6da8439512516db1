"""The seeded defects stay alive when files move: each applies, compiles, has tests that exist, and is named only once."""
import ast
from pathlib import Path

import pytest

import mutants
from mutation import ROOT, mutants_of
from rules import kernels_are_bound, read_house

ALL = mutants.all_mutants()


def test_there_are_as_many_as_ever():
    """1,941 when they were first counted. A lower number means that files have moved out of their sight."""
    assert len(ALL) > 1941


def test_every_mutant_compiles():
    for mutant in ALL:
        compile(mutant.source, mutant.path, "exec")


@pytest.mark.parametrize("path", sorted({mutant.path for mutant in ALL}))
def test_every_file_has_tests(path):
    tests = mutants.tests_for(path)
    assert tests or any(path.endswith(what.partition(":")[0]) for what in kernels_are_bound(read_house()))
    for test in tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).exists()
        defined = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert not name or name.partition("[")[0] in defined


def test_every_exception_is_of_a_mutant():
    """EQUIVALENT names nothing that has gone."""
    for key in mutants.EQUIVALENT:
        assert any(m.key.startswith(key) for m in ALL), key


def test_a_residual_is_lost_by_rule(monkeypatch, tmp_path):
    (tmp_path / "numpyvit/models").mkdir(parents=True)
    (tmp_path / "numpyvit/models/toy.py").write_text("def forward(x, h):\n    return F.residual(x, h)\n")
    monkeypatch.setattr("mutation.ROOT", Path(tmp_path))
    assert {m.rule: m.after for m in mutants_of("numpyvit/models/toy.py")} == {"residual lost": "x", "branch lost": "h"}
