"""The wheel, built from this checkout: it holds every file, and the README's commands run with it in an empty folder."""
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from test_readme import ROOT, blocks

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
NUMPYVIT = "bin/numpyvit" if os.name != "nt" else "bin/numpyvit.exe"


def call(*argv, **options):
    """A process that has to succeed. → its standard output"""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the sources, built without the network; the checkout itself is not written to."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "numpyvit", source / "numpyvit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    call(*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory):
    """An empty folder in which only the wheel is on the path, in front of the checkout. → folder, installation, environment"""
    target = tmp_path_factory.mktemp("installed")
    call(*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel)
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMPYVIT")}
    return tmp_path_factory.mktemp("empty"), target, {**env, "PYTHONPATH": str(target)}


@pytest.fixture(scope="module")
def run(home):
    """A short run on the built-in data set, trained in the empty folder by the wheel's own command."""
    folder, target, env = home
    out = call(target / NUMPYVIT, "train", "--data", "shapes", "--steps", "2", cwd=folder, env=env)
    before_the_first_step = out.partition("step 1/2")[0]
    assert before_the_first_step.count("Compiling the kernels") == out.count("Compiling the kernels") == 1, out
    (run,) = (folder / "runs").iterdir()
    return run


def test_24_the_wheel_holds_every_file_of_the_package(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("numpyvit/")}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "numpyvit").rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}
    assert held == files
    assert {"numpyvit/py.typed", "numpyvit/weights/imagenet.txt", "numpyvit/explorer/page/page.html"} <= held


def test_24_the_wheel_describes_itself(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    assert "Description-Content-Type: text/markdown" in metadata and "# numpyvit" in metadata
    assert "License-Expression: MIT" in metadata and "Requires-Dist: numba" in metadata


def test_24_the_readmes_commands_run_in_an_empty_folder(home, run):
    """Those that need neither a download nor weights of others, in the README's order."""
    from PIL import Image
    folder, target, env = home
    Image.new("RGB", (48, 40), (200, 30, 30)).save(folder / "photo.jpg")
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    commands = [line.replace("runs/NAME", f"runs/{run.name}").replace('"', "").split()[1:] for line in lines
                if line.startswith("numpyvit ") and not line.startswith("numpyvit train")]
    assert {argv[0] for argv in commands} >= {"evaluate", "predict", "models", "summary", "attention", "gradcheck", "explore"}
    for argv in commands:
        assert call(target / NUMPYVIT, *argv, cwd=folder, env=env).strip(), argv
    page = (folder / "explorer.html").read_text()
    assert len(page) > 10**5 and not re.search(r'(src|href)="(?!data:|#)', page), "the page stands alone"
    assert (folder / "a.png").stat().st_size > 10**4


def test_24_the_readmes_python_runs_in_an_empty_folder(home):
    folder, target, env = home
    (code,) = [block for block in blocks("python") if "import numpyvit" in block]
    ask = "\nfrom numpyvit.weights.build import imagenet_classes\nprint(numpyvit.__file__, len(imagenet_classes()))\n"
    last = call(sys.executable, "-c", code + ask, cwd=folder, env=env).splitlines()[-1]
    assert last == f"{target / 'numpyvit' / '__init__.py'} 1000"
