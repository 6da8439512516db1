"""Every script of examples/ runs as it is; those that train do so with few images and few steps here."""
import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = {path.name.split("_")[0]: path for path in sorted((ROOT / "examples").glob("*.py"))}
SHORT = {                                                                    # arguments, what it prints, what it draws
    "08": (["320"], "epoch 4: loss", []),
    "09": (["--data", "shapes", "--steps", "4", "--sizes", "64", "96"], "multiply-adds", ["09_three_families"]),
    "10": (["20"], "fine-tuned (SGD):", ["10_finetune"]),
    "11": (["--data", "shapes", "--seconds", "4"], "looking at number", ["11_attention_by_block", "11_positions", "11_filters"]),
    "12": ([], "163 of 368 tensors differ", []),
}
thorough = pytest.mark.skipif(not os.environ.get("NUMPYVIT_THOROUGH"), reason="takes minutes: make test-thorough")


def run(number, folder, *arguments):
    """Run a script in a folder, where it may write runs/examples/. → what it prints"""
    done = subprocess.run([sys.executable, SCRIPTS[number], *arguments], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", SHORT)
def test_an_example_that_trains_runs(number, tmp_path):
    pytest.importorskip("matplotlib")
    arguments, words, figures = SHORT[number]
    assert words in run(number, tmp_path, *arguments)
    for name in figures:
        assert (tmp_path / "runs" / "examples" / f"{name}.png").stat().st_size > 5000


@thorough
@pytest.mark.parametrize("number", sorted(SCRIPTS.keys() - SHORT.keys()))
def test_an_example_runs(number, tmp_path):
    pytest.importorskip("matplotlib")
    assert run(number, tmp_path)


def test_the_text_of_example_07_names_its_maps():
    text = SCRIPTS["07"].read_text()
    first, *_, last = ast.literal_eval(re.search(r"^sides = (.+)$", text, re.M)[1])
    assert f"for maps of {first}×{first} to {last}×{last} tokens" in ast.get_docstring(ast.parse(text))


@thorough
def test_20_more_images_never_hurt_in_the_comparison_of_families(tmp_path):
    """Every model has steps enough to learn: its accuracy rises from 64 images to 250 and to 1,000."""
    table = run("09", tmp_path, "--data", "shapes")
    rows = {line.split()[0]: [float(x) for x in re.findall(r"([\d.]+)%", line)] for line in table.splitlines() if line.count("%") == 3}
    assert rows.keys() == {"ViT", "Swin", "CvT"}
    for family, accuracies in rows.items():
        assert sorted(accuracies) == accuracies and accuracies[-1] > accuracies[0] + 20, (family, accuracies)
