"""The README's first five minutes: short, its Python runs when pasted, its page of an op and its commands are the real ones."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import numpyvit

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    """The contents of the README's fenced blocks of this language."""
    parts = re.split(r"^```(.*)\n", TEXT, flags=re.M)                        # text, language, block, "", text, language, …
    return [block for kind, block in zip(parts[1::4], parts[2::4]) if kind == language]


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_from_python_runs_when_pasted(tmp_path):
    (code,) = [block for block in blocks("python") if "import numpyvit" in block]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "vit_tiny.safetensors").stat().st_size > 10**6


def test_the_page_of_an_op_is_the_op():
    """The README leaves out some of the docstring; the statements are those of the file."""
    (excerpt,) = [block for block in blocks("python") if "layer_norm_forward" in block]

    def statements(source):
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        return [(f.name, ast.unparse(f.args), [ast.unparse(node) for node in f.body[1:]]) for f in functions]

    assert statements(excerpt) == statements((ROOT / "numpyvit/ops/layer_norm.py").read_text())


@pytest.mark.parametrize("line", sorted({line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()
                                         if line.startswith("numpyvit ")}))
def test_commands_exist(line):
    from numpyvit.cli.main import parser
    assert parser().parse_args([word.strip('"') for word in line.split()[1:]]).run


def test_the_tree_lists_every_file_and_folder():
    (tree,) = blocks("")
    lines = [line for line in tree.splitlines() if line.startswith("  ")]
    listed = {name for line in lines for name in re.findall(r"[a-z]+(?:/|\.py)(?= |$)", line)}
    there = {f"{p.name}/" if p.is_dir() else p.name for p in (ROOT / "numpyvit").iterdir()
             if not p.name.startswith("__") and (p.is_dir() or p.suffix == ".py")}
    assert there - {"errors.py"} <= listed, sorted(there - listed)
    assert listed <= there, sorted(listed - there)


def test_24_the_citation_is_a_citation_file():
    """Of the Citation File Format 1.2.0: what it requires, and the version that this is."""
    (citation,) = blocks("yaml")
    fields = dict(line.split(": ", 1) for line in citation.splitlines())
    assert fields.keys() >= {"cff-version", "message", "title", "authors"} and fields["cff-version"] == "1.2.0"
    assert fields["version"] == numpyvit.__version__ and re.fullmatch(r"\d{4}-\d\d-\d\d", fields["date-released"])
    assert re.fullmatch(r"\[\{name: .+\}\]", fields["authors"]) and "numpyvit" in fields["title"]


def test_24_the_changes_begin_with_this_version():
    changes = re.findall(r"^- \*\*(.+?)\*\*: ", TEXT.split("changes\n", 1)[1], flags=re.M)
    assert changes[0] == numpyvit.__version__ and len(changes) >= 2


def test_what_the_readme_installs_can_be_installed():
    """By its name alone nobody can install a package that no index has."""
    assert not re.findall(r"pip install ['\"]?numpyvit", TEXT)
    assert not re.findall(r"pip install ['\"]?numpyvit", (ROOT / "numpyvit/training/MPI.md").read_text())


def test_commands_in_sentences_exist():
    from numpyvit.cli.main import parser
    lines = re.findall(r"`numpyvit ([^`]*[^`…. ])`", re.sub(r"```.*?```", "", TEXT, flags=re.S).replace("\n", " "))
    lines += [line.split("pdb -m numpyvit ")[1] for line in re.findall(r"`([^`]*pdb -m numpyvit [^`]*)`", TEXT)]
    assert len(lines) >= 8
    for line in lines:
        assert parser().parse_args(line.replace('"', "").split()).run, line
