"""Options on the command line: where they may stand, and one line for those that cannot be."""
import pytest

from numpyvit.cli import main as cli
from tiny import FAMILIES, image_folder

FIELDS = ["--model", "vit", *(f"--set={field}={value}" for field, value in FAMILIES["vit"].items()), "--set=pos_embed=sincos2d"]
LENGTH = ["--steps", "2", "--batch-size", "16", "--threads", "1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A finished run on the folder of images."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train("--data", f"folder:{images}", "--out", path, *LENGTH, *FIELDS) == 0
    return path


def train(*argv):
    return cli.main(["train", *map(str, argv)])


def refused(capsys, *argv):
    """A command that ends with status 2 and one line. → the line"""
    capsys.readouterr()
    try:
        status = cli.main([str(word) for word in argv])
    except SystemExit as leaving:                                            # argparse's own
        status = leaving.code
    err = capsys.readouterr().err
    assert status == 2 and err.startswith("numpyvit") and err.count("\n") == 1, err
    return err


# --- options between the other words

def test_options_stand_anywhere(run, images, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    a, b = (str(images / "train" / "ring" / name) for name in ("1.png", "2.png"))
    run, figure = str(run), tmp_path / "d.png"

    def said(*argv):
        capsys.readouterr()
        assert cli.main(list(argv)) == 0
        return capsys.readouterr().out

    folder = str(images / "train")
    assert said("evaluate", run, "--tta", "mirror", folder) == said("evaluate", run, folder, "--tta", "mirror")
    assert said("predict", run, a, "--tta", "mirror", b) == said("predict", run, a, b, "--tta", "mirror")
    assert said("predict", "--top", "1", run, a, "--tta", "mirror", b).count("\n") == 2
    assert said("predict", run, a, "--top", "1", "--", b) == said("predict", run, "--top", "1", "--", a, b)
    assert str(figure) in said("distance", run, a, "-o", str(figure), b) and figure.exists()


@pytest.mark.parametrize("options, words", [
    ("predict run a.png --tat mirror b.png", "numpyvit predict: unrecognized arguments: --tat mirror b.png; did you mean --tta?"),
    ("predict run a.png --top 2 b.png --tat 3", "did you mean --tta?"),
    ("predict --tta mirror", "numpyvit predict: the following arguments are required: RUN, IMAGE; "),
    ("predict run a.png --json b.png --csv", "not allowed with argument --json"),
    ("predict run a.png --top 0 b.png", "expected 1 or more, got 0"),
    ("evaluate run a b c", "numpyvit evaluate: unrecognized arguments: b c; "),
    ("train --set depth=1 depth=2", "each FIELD=VALUE takes a --set of its own: --set depth=2"),
    ("--speed train", "unrecognized arguments: --speed"),
])
def test_unknown_words_are_still_named(options, words, capsys):
    assert words in refused(capsys, *options.split())
