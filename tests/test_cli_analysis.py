"""The commands that look at a model, on a run of each family: the figures are written, mistakes are one line."""
import numpy as np
import pytest

import numpyvit
from numpyvit.cli import main as cli
from numpyvit.cli.inspect import Subject
from numpyvit.data import Dataset, ImageSet, read_image
from numpyvit.runs.classifier import Classifier
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


@pytest.fixture(scope="module")
def rectangle(tmp_path_factory):
    """A run on images of 24 × 48 pixels, and a folder of photos of its classes in other sizes."""
    from PIL import Image
    folder, rng = tmp_path_factory.mktemp("rectangle"), np.random.default_rng(0)
    parts = [ImageSet(rng.integers(0, 256, (n, 3, 24, 48), dtype=np.uint8), rng.integers(0, 2, n)) for n in (32, 8)]
    model = numpyvit.create_model("vit", img_size=(24, 48), patch_size=12, embed_dim=16, depth=2, num_heads=2, num_classes=2)
    numpyvit.fit(model, Dataset("own", ["a", "b"], *parts, "x"), out=str(folder / "run"), steps=1, batch_size=8, val=0, threads=1)
    for name, size in (("a", (60, 40, 3)), ("b", (30, 70, 3)), ("b", (24, 48, 3))):
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / "photos" / name / f"{size[0]}.png")
    return folder


@pytest.mark.parametrize("command", ["attention", "attention --query 23,47", "rollout", "saliency", "distance", "explore"])
def test_figures_of_images_that_are_not_square(rectangle, command, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    name, *options = command.split()
    out = tmp_path / ("page.html" if name == "explore" else "f.png")
    status = cli.main([name, str(rectangle / "run"), str(rectangle / "photos" / "a" / "60.png"), *options, "-o", str(out)])
    assert status == 0 and out.exists(), capsys.readouterr().err


def test_evaluate_scores_the_pixels_that_predict_sees(rectangle, capsys):
    """Of a folder whose images are not square, nor those of the model; a file of weights prepares them as it says."""
    for path in (rectangle / "run", rectangle / "run" / "weights.safetensors"):
        classifier = Classifier(path)
        images, labels, notice = classifier.folder(rectangle / "photos")
        assert images.shape == (3, 3, 24, 48) and labels.tolist() == [0, 1, 1] and notice == ""
        paths = [rectangle / "photos" / name for name in ("a/60.png", "b/24.png", "b/30.png")]
        np.testing.assert_array_equal(classifier.probabilities(images), classifier.predict(paths))
        assert cli.main(["evaluate", str(path), str(rectangle / "photos"), "--threads", "1"]) == 0
        assert "3 images of" in capsys.readouterr().out


def test_a_square_photo_is_prepared_as_in_training(look):
    _, run, image = look
    np.testing.assert_array_equal(Subject(run, [image]).pixels[0], read_image(image, 16))
