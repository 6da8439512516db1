"""A run or weights as a classifier: which step's weights it has, and whose classes it tells."""
import dataclasses
import json

import numpy as np
import pytest

import numpyvit
from numpyvit.cli import main as cli
from numpyvit.data import Dataset, ImageSet
from numpyvit.errors import UserError
from numpyvit.runs import classifier as scoring
from numpyvit.runs.classifier import Classifier
from numpyvit.runs.folder import RunFolder
from numpyvit.weights.images import Preprocessing

NAMES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that keeps its best weights, and its data set; its rate is so small that every look sees the same accuracy."""
    path, rng = tmp_path_factory.mktemp("best") / "run", np.random.default_rng(0)
    parts = [ImageSet(rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), rng.integers(0, 3, n)) for n in (64, 12)]
    dataset = Dataset("own", NAMES, *parts, "x")
    model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    numpyvit.fit(model, dataset, out=str(path), steps=600, batch_size=2, val=10, keep="best", lr=1e-12, weight_decay=0, threads=1)
    return path, dataset


def test_the_step_is_that_of_the_best_weights(run, tmp_path):
    """Of several looks with the best accuracy the first: a later one replaces nothing."""
    path, _ = run
    looks = [entry for entry in RunFolder(path).read_metrics() if entry["kind"] == "val"]
    assert len(looks) > 1 and len({entry["accuracy"] for entry in looks}) == 1
    assert Classifier(path).step == looks[0]["step"] < 600

    def best(*entries):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return scoring.best_step(RunFolder(tmp_path))

    assert scoring.best_step(RunFolder(tmp_path)) is None and best({"kind": "train", "step": 9, "loss": 1.0, "accuracy": 1.0, "lr": 0.1}) is None
    looks = [{"kind": "val", "step": step, "loss": 1.0, "accuracy": accuracy} for step, accuracy in ((3, 0.1), (6, 0.4), (9, 0.4), (12, 0.2))]
    assert best(*looks, {"kind": "test", "step": 12, "loss": 1.0, "accuracy": 0.9}) == 6


def test_weights_are_scored_on_their_own_classes(run, monkeypatch, capsys):
    """Names in another order are found; of other names the numbers are compared, and that is said before any figure."""
    path, dataset = run
    weights, test = str(path / "weights.safetensors"), dataset.test

    def scored(classes, labels=test.labels):
        there = dataclasses.replace(dataset, classes=classes, test=ImageSet(test.images, labels))
        monkeypatch.setattr(scoring, "load_resized", lambda *_: (there, 8))
        status = cli.main(["evaluate", weights, "--data", "own", "--threads", "1"])
        out, err = capsys.readouterr()
        return status, out, err

    status, own, _ = scored(NAMES)
    assert status == 0 and "by their numbers" not in own
    status, other, _ = scored(("cow", "ant", "bee"), (test.labels + 1) % 3)
    assert status == 0 and other == own                                      # the same images, called the same
    status, out, _ = scored(("ant", "wasp", "ox"))
    sentence, *rest = out.splitlines()
    assert status == 0 and "other names than those of own (class 1: bee, and wasp)" in sentence and "by their numbers" in sentence
    assert [line.split()[0] for line in rest[-3:]] == ["0", "1", "2"]
    assert [line.split()[1:] for line in rest[-3:]] == [line.split()[1:] for line in own.splitlines()[-3:]]
    assert not any(name in line for line in rest for name in (*NAMES, "wasp", "ox"))
    status, out, err = scored(("bee", "wasp", "ox"))
    assert status == 2 and not out and "'bee' is class 1 of the weights and class 0 of the data set" in err and err.count("\n") == 1


def test_the_first_five_are_those_that_predict_names():
    """Equal logits count in the order of their classes, as for predict(), and a row with a NaN is wrong."""
    labels = np.arange(10)
    assert scoring.top_accuracy(np.zeros((10, 10)), labels, 5) == 0.5
    assert scoring.top_accuracy(np.full((10, 10), np.nan), labels, 5) == 0.0
    assert scoring.top_accuracy(np.eye(10), labels, 1) == 1.0
    assert scoring.top_accuracy(np.eye(10) - 2 * np.eye(10), labels, 9) == 0.0


def test_five_channels_from_the_first_step_to_the_last(tmp_path):
    rng = np.random.default_rng(0)
    parts = [ImageSet(rng.integers(0, 256, (n, 5, 8, 8), dtype=np.uint8), rng.integers(0, 3, n)) for n in (24, 12)]
    model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3, in_chans=5)
    numpyvit.fit(model, Dataset("own", NAMES, *parts, "x"), out=str(tmp_path / "run"), steps=2, batch_size=4, val=4, threads=1)
    again = numpyvit.load_model(tmp_path / "run")
    assert again.config.in_chans == 5 and tuple(again.classes) == NAMES and len(again.preprocessing.mean) == 5


def test_names_from_a_file_do_not_command_the_terminal(tmp_path, capsys):
    """Control characters of class names and of sentences are shown as escapes; file names keep bytes that are not UTF-8."""
    model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    model.classes, model.preprocessing = ["\x1b[2J\x1b]0;x\x07", "b\nhost: fake 100%", "c"], Preprocessing((8, 8))
    weights, image = str(tmp_path / "w.safetensors"), tmp_path / "x.png"
    numpyvit.save_weights(model, weights)
    pytest.importorskip("PIL.Image").new("RGB", (8, 8)).save(image)
    assert cli.main(["predict", weights, str(image)]) == 0
    out, _ = capsys.readouterr()
    assert r"\x1b[2J" in out and not any(c in out for c in "\x1b\x07") and "b host: fake 100%" in out
    assert str(UserError("a\x1b[2J\udcff\n b")) == "a\\x1b[2J\udcff b"
