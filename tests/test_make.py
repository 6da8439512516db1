"""make alone prints the targets and starts nothing."""
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_alone_lists_every_target():
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert done.returncode == 0 and [line[0] for line in lines] == phony.split()[1:]
    assert all(len(line) > 2 for line in lines), "every target has a description"
    assert all(len(line) <= 140 for line in done.stdout.splitlines())
