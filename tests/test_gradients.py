"""numpyvit gradcheck: the command checks every op, kernel and family, presets by name, and pairs of the user's own."""
import io
import subprocess
import sys
import textwrap

import pytest
from rich.console import Console

from numpyvit import functional as F
from numpyvit.cases import CASES
from numpyvit.cli.main import main
from numpyvit.errors import UserError
from numpyvit.inspection import gradients
from numpyvit.ops import softmax
from test_ops import DEFINITIONS

OWN = '''
import numpy as np

def scale_forward(x, weight):
    return x * weight, (x, weight)

def scale_backward(dy, cache):
    x, weight = cache
    return dy * weight, (dy * x).sum(axis=tuple(range(dy.ndim - 1)))

def double_forward(x):
    return x * x, x

def double_backward(dy, x):
    return 4 * x * dy

def pool_forward(x, size=2):
    return x.reshape(4, -1, size).mean(axis=2), size

def pool_backward(dy, size):
    return np.repeat(dy / size, size).reshape(4, -1)

def pool_inputs(rng):
    return {"x": rng.standard_normal((4, 6))}, {"size": 3}

def picky_forward(x, y):
    assert x.shape == (1, 2, 3, 4, 5)

def picky_backward(dy, cache):
    return dy

def three_forward(x):
    return x, x, x

def three_backward(dy, cache):
    return dy

def log_forward(x):
    return np.log(x), x

def log_backward(dy, x):
    return dy / x
'''


def test_the_table_covers_every_op():
    assert {case.name for case in CASES} == set(DEFINITIONS)
    assert gradients.definitions() == DEFINITIONS


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ops(case):
    console = Console(file=io.StringIO())
    assert gradients.run([case.name], console), console.file.getvalue()
    if not F.REFERENCE and gradients.kernel_of(case.name):
        assert "kernel" in console.file.getvalue()


@pytest.mark.parametrize("family", gradients.TINY)
def test_families(family):
    console = Console(file=io.StringIO())
    assert gradients.run([family], console), console.file.getvalue()


def test_the_command_reports_and_exits(monkeypatch, capsys):
    assert main(["gradcheck", "softm*", "relu"]) == 0
    assert "softmax" in capsys.readouterr().out

    def jacobian_diagonal(dy, cache):
        (y,) = cache
        return dy * y * (1 - y)
    wrong = DEFINITIONS | {"softmax": (softmax.softmax_forward, jacobian_diagonal)}
    monkeypatch.setattr(gradients, "definitions", lambda: wrong)
    assert main(["gradcheck", "softmax", "relu"]) == 1
    out = capsys.readouterr().out
    assert "softmax, definition:" in out and "at [" in out
    assert main(["gradcheck", "sofmax"]) == 2
    assert "did you mean softmax" in capsys.readouterr().err


def test_a_narrow_terminal_shows_the_whole_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["gradcheck", "softmax"]) == 0
    assert any(all(word in line for word in ("softmax", "definition", "ok")) for line in capsys.readouterr().out.splitlines())


def own(tmp_path, monkeypatch, text=OWN):
    (tmp_path / "own_ops.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_ops", raising=False)


def test_a_pair_of_ones_own(tmp_path, monkeypatch, capsys):
    own(tmp_path, monkeypatch)
    assert main(["gradcheck", "own_ops:scale", "own_ops:pool"]) == 0
    out = capsys.readouterr().out
    assert "x (2, 5, 7), weight (7,)" in out and "x (4, 6)" in out
    assert main(["gradcheck", "own_ops:double"]) == 1
    assert "ours = 2 × exact everywhere" in capsys.readouterr().out
    assert main(["gradcheck", "own_ops.py:scale"]) == 0
    assert main(["gradcheck", "own_ops:scale_forward"]) == 0


def test_a_pair_that_cannot_be_checked_is_not_called_wrong(tmp_path, monkeypatch, capsys):
    own(tmp_path, monkeypatch)
    assert main(["gradcheck", "own_ops:log"]) == 1                           # the logarithm of negative numbers
    out = capsys.readouterr().out
    assert "UNSETTLED" in out and "forward's y is not finite" in out and "WRONG" not in out
    assert main(["gradcheck", "own_ops:three"]) == 1
    assert "forward returns 3 values, expected two: y, cache" in capsys.readouterr().out


def test_the_help_shows_a_pair_that_runs(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["gradcheck", "--help"])
    epilog = capsys.readouterr().out.split("in cube.py:")[1].split("numpyvit gradcheck cube:cube")[0]
    own(tmp_path, monkeypatch)
    (tmp_path / "cube.py").write_text(textwrap.dedent(epilog.strip("\n")))
    assert main(["gradcheck", "cube:cube"]) == 0 and "cube:cube" in capsys.readouterr().out
    assert main(["gradcheck", "cube"]) == 2
    assert "A pair of your own is cube:NAME, for NAME_forward and NAME_backward in cube.py." in capsys.readouterr().err


@pytest.mark.parametrize("name, said", [
    ("own_ops:triple", "expected triple_forward and triple_backward in own_ops, which has pairs of the names scale, double"),
    ("own_ops:picky", "define picky_inputs(rng)"), ("nowhere:scale", "No module named 'nowhere'"),
    ("nowhere.py:scale", "no such file")])
def test_a_pair_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys, name, said):
    own(tmp_path, monkeypatch)
    assert main(["gradcheck", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_names_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="no op or model is called"):
        gradients.run(["nothing"])


def test_without_torch_and_without_the_tests():
    """An installed package: the table of ops is in it, and nothing of tests/ or torch is imported."""
    code = ("import sys; sys.modules['torch'] = sys.modules['hypothesis'] = sys.modules['pytest'] = None\n"
            "from numpyvit.cli.main import main; status = main(['gradcheck', 'softmax', 'linear', 'layer_norm'])\n"
            "assert 'cases' not in sys.modules; raise SystemExit(status)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
