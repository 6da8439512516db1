"""The rules of the design that can be executed, executed: on the source (rules.py), and on the table of functional.py."""
import inspect
import re
from pathlib import Path

import pytest

import cases
import numpyvit
from known_violations import KNOWN
from numpyvit import functional as F
from rules import RULES, read_house

PACKAGE = Path(numpyvit.__file__).parent
HOUSE = read_house(PACKAGE)

PAIR = '''def toy_forward(x, k=2):
    """x (..., C) → y (..., C)"""
    return k * x, k


def toy_backward(dy, k):
    """dx = k · dy"""
    return k * dy
'''
TABLE = "from .ops.toy import toy_forward, toy_backward\nfrom .kernels.toy import toy_forward, toy_backward\n"
GOOD = {"functional.py": TABLE, "ops/toy.py": PAIR, "kernels/toy.py": "from numba import njit\n" + PAIR,
        "layers.py": '"""Layers."""\nimport math\nfrom . import functional as F\nfrom .module import Module\n',
        "module.py": '"""Modules."""\n', "cli/main.py": "from .. import __version__\nfrom ..training.loop import train\n",
        "training/loop.py": 'def train():\n    """Train."""\n    from ..errors import UserError\n    import matplotlib\n'}

# (rule, what is changed in GOOD, what the rule has to name): each shows that its rule can turn red
BROKEN = [
    ("imports_go_down", {"module.py": "from .layers import Linear\nfrom .models import vit\n"}, "module.py imports models"),
    ("imports_go_down", {"ops/toy.py": "def f():\n    from .. import functional\n"}, "ops/toy.py imports functional"),
    ("imports_go_down", {"module.py": "import numpyvit\n"}, "module.py imports numpyvit"),
    ("imports_go_down", {"module.py": "from .. import create_model\n"}, "module.py imports create_model"),
    ("imports_go_down", {"helpers/toy.py": ""}, "helpers/toy.py"),
    ("kernels_are_bound", {"functional.py": "from .ops.toy import toy_forward, toy_backward\n"}, "kernels/toy.py: toy_backward"),
    ("kernels_are_bound", {"kernels/toy.py": PAIR.replace("toy", "other")}, "kernels/toy.py: other_forward"),
    ("files_are_short", {"models/vit.py": 301 * "x = 1\n"}, "models/vit.py"),
    ("files_are_short", {"ops/toy.py": 151 * "x = 1\n"}, "ops/toy.py"),
    ("files_are_short", {"explorer/engine.js": 301 * "x = 1\n"}, "explorer/engine.js"),
    ("lines_are_short", {"module.py": f"x = '{116 * 'x'}'\n"}, "module.py"),
    ("public_things_have_docstrings", {"module.py": "class Module:\n    pass\n"}, "module.py"),
    ("public_things_have_docstrings", {"kernels/toy.py": PAIR + "\n\ndef rows(x):\n    return x\n"}, "kernels/toy.py"),
    ("forward_stands_beside_backward", {"ops/toy.py": PAIR.partition("\n\n\n")[0]}, "ops/toy.py"),
    ("forward_stands_beside_backward", {"ops/toy.py": "def helper(x):\n    return x\n"}, "ops/toy.py"),
    ("op_docstrings_are_shapes_and_formulas", {"ops/toy.py": PAIR.replace("→", "to")}, "ops/toy.py: toy_forward"),
    ("op_docstrings_are_shapes_and_formulas", {"ops/toy.py": PAIR.replace("dx =", "it is")}, "ops/toy.py: toy_backward"),
    ("ops_are_numpy_only", {"ops/toy.py": "def f():\n    from numba import njit\n"}, "ops/toy.py: from numba import njit"),
    ("kernels_have_the_signatures_of_definitions", {"kernels/toy.py": PAIR.replace("k=2", "k=3")}, "kernels/toy.py: toy_forward"),
    ("kernels_have_the_signatures_of_definitions", {"kernels/toy.py": PAIR.replace("(x, k=2)", "(k, x)")},
     "kernels/toy.py: toy_forward"),
    ("no_foreign_packages", {"module.py": "def f():\n    import torch.nn\n"}, "module.py: import torch.nn"),
    ("no_foreign_packages", {"module.py": "from matplotlib import pyplot\n"}, "module.py: from matplotlib import pyplot"),
    ("no_pickles_are_loaded", {"files/npz.py": "np.load(path, allow_pickle=True)\n"}, "files/npz.py"),
    ("kernels_are_serial_and_exact", {"kernels/toy.py": "@njit(parallel=True)\ndef toy(x):\n    pass\n"}, "kernels/toy.py"),
    ("kernels_are_serial_and_exact", {"kernels/toy.py": "FAST = {'nnan'}\n"}, "kernels/toy.py"),
    ("nothing_is_kept_between_calls", {"layers.py": "class L:\n    def forward(self, x):\n        self.x = x\n"},
     "layers.py: forward"),
    ("no_clock_that_jumps", {"training/loop.py": "start = time.time()\n"}, "training/loop.py: time.time"),
    ("one_house_style", {"module.py": "def _helper():\n    pass\n"}, "module.py"),
    ("one_house_style", {"module.py": "from numpyvit.ops import gelu\n"}, "module.py"),
    ("one_house_style", {"module.py": "# ── section ──\n"}, "module.py"),
    ("families_are_asked_in_their_own_files", {"inspection/summary.py": "rows = [] if isinstance(model, Swin) else None\n"},
     "inspection/summary.py"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule):
    found, known = rule(HOUSE), KNOWN.get(rule.__name__, set())
    new = [f"{what}: {why}" for what, why in found.items() if what not in known]
    assert not new, "\n".join([f"{rule.__name__}: {rule.__doc__}", *new])
    mended = known - found.keys()
    assert not mended, f"{sorted(mended)} no longer violates {rule.__name__}: remove it from tests/known_violations.py (python tests/rules.py)"


def test_known_violations_are_of_rules():
    assert KNOWN.keys() <= {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("name, change, named", BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_rule_turns_red(name, change, named):
    (rule,) = [rule for rule in RULES if rule.__name__ == name]
    assert not rule(GOOD), "the example without the change keeps the rule"
    assert named in rule(GOOD | change)


def test_every_rule_has_a_broken_example():
    assert {name for name, _, _ in BROKEN} == {rule.__name__ for rule in RULES}


def test_the_table_binds_each_name_to_its_namesake():
    """F.NAME is ops/FILE.NAME or kernels/FILE.NAME, of one FILE."""
    for name, function in vars(F).items():
        if inspect.isfunction(function):
            package, folder, file = function.__module__.split(".")
            assert folder in ("ops", "kernels") and function.__name__ == name
            assert f"def {name}(" in HOUSE[f"ops/{file}.py"], f"{name} is not in ops/{file}.py"


def test_the_table_binds_pairs_of_one_kind():
    """F.NAME_forward and F.NAME_backward come from the same file: a cache is only read by who wrote it."""
    names = [name.removesuffix("_forward") for name in vars(F) if name.endswith("_forward")]
    assert names and {f"{name}_backward" for name in names} == {name for name in vars(F) if name.endswith("_backward")}
    for name in names:
        assert getattr(F, f"{name}_forward").__module__ == getattr(F, f"{name}_backward").__module__, name


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_the_benchmark_can_draw_every_case(case):
    arrays, others = cases.bench_inputs(case)
    assert all(a is None or (a.dtype == "float32" and a.flags.c_contiguous) for a in arrays.values())
    forward, backward = case.flops(arrays, others)
    assert forward >= 0 and backward >= 0


@pytest.mark.parametrize("page", ["README.md", "tests/README.md", "numpyvit/ops/README.md", "numpyvit/training/README.md",
                                  "examples/README.md"])
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


def test_the_page_of_proofs_names_tests_that_exist():
    here = Path(__file__).parent
    sources = "".join(path.read_text() for path in here.glob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", (here / "README.md").read_text())
    assert names and all(f"def {name}(" in sources for name in names)


def anchors(text):
    """The names that GitHub gives to headings: link text only, lower case, letters, digits, hyphens, underscores."""
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip()) for line in text.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
