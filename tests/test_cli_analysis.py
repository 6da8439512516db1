"""The commands that look at a model, on a run of each family: the figures are written, mistakes are one line."""
import pytest

from numpyvit.cli import main as cli
from tiny import FAMILIES, image_folder


@pytest.fixture(scope="module", params=FAMILIES)
def look(request, tmp_path_factory):
    """family, run, image"""
    folder = tmp_path_factory.mktemp(request.param)
    images, run = image_folder(folder / "images"), folder / "run"
    fields = [f"--set={k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in FAMILIES[request.param].items()]
    assert cli.main(["train", "--data", f"folder:{images}", "--out", str(run), "--batch-size", "16", "--val", "6", "--steps", "2",
                     "--model", request.param, *fields]) == 0
    return request.param, str(run), str(next(images.rglob("*.png")))


@pytest.mark.parametrize("command", ["attention", "attention --block 0", "attention --block -1 --head 1 --query 3,12", "attention --head 0",
                                     "rollout", "saliency", "distance", "filters", "positions", "bias"])
def test_figures(look, command, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    family, run, image = look
    name, *options = command.split()
    images = [image] * {"distance": 2, "filters": 0, "positions": 0, "bias": 0}.get(name, 1)
    status = cli.main([name, run, *images, *options, "-o", str(tmp_path / "f.png")])
    out, err = capsys.readouterr()
    if name == "positions" and family != "vit" or name == "bias" and family != "swin":
        assert status == 2 and err.count("\n") == 1 and ("no position table" in err or "no relative position biases" in err)
    else:
        assert status == 0 and (tmp_path / "f.png").exists() and "f.png" in out, err


@pytest.mark.parametrize("options, message", [
    (["--block", "7"], "this model has 2, 0 to 1"), (["--block", "0", "--head", "5"], "head 5:"), (["--query", "16,0"], "has 16 pixels"),
    (["-o", "x.bmp"], ".png, .svg or .pdf")])
def test_mistakes_are_one_line(look, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, run, image = look
    assert cli.main(["attention", run, image, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert cli.main(["attention", run, __file__]) == 2                       # an image that is none
    assert "got another kind of file" in capsys.readouterr().err


def test_a_figure_that_cannot_be_written_is_refused_before_the_run_is_read(tmp_path, capsys):
    for command in (["attention", str(tmp_path / "none"), "x.png"], ["filters", str(tmp_path / "none")]):
        assert cli.main([*command, "-o", "x.bmp"]) == 2
        assert ".png, .svg or .pdf" in capsys.readouterr().err


def test_summary(capsys):
    assert cli.main(["summary", "swin_nano_patch2_window4_32", "--set", "depths=1,1"]) == 0
    out = capsys.readouterr().out
    assert "layers.1.blocks.0" in out and "layers.1.blocks.1" not in out
    assert cli.main(["summary", "vit_tiny_patch4_33"]) == 2 and "did you mean" in capsys.readouterr().err
