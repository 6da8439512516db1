"""What first users ran into in training and on the command line: one test for each point, named after what now happens."""
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import numpyvit
from numpyvit.cli import main as cli
from numpyvit.errors import UserError
from numpyvit.files import atomic
from numpyvit.runs.classifier import Classifier
from numpyvit.runs.folder import RunFolder
from numpyvit.training import loop
from numpyvit.training.recipe import recipe_for
from numpyvit.training.trainer import Trainer
from test_cli import ENV, MODEL, images, one_line, train
from test_training import assert_same_run, stop_at
from tiny import FAMILIES, FaultyOs, recipe, small_shapes

assert images                                                                # the fixture of test_cli


@pytest.fixture
def data(monkeypatch):
    return small_shapes(monkeypatch)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A finished run on a folder of images."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    train(images, path, "--steps", "6")
    return path


def python(code, *argv, **options):
    """A process of its own. → CompletedProcess"""
    return subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True,
                          **{"env": ENV, **options})


# --- 5, 6: where the program runs

def test_5_without_a_folder_that_can_be_written_kernels_are_compiled_all_the_same(tmp_path):
    """Numba finds no place for its cache, as in a read-only installation without a home that can be written."""
    code = ("import tempfile\nreal = tempfile.TemporaryFile\n"
            "def refuse(*a, dir='', **k):\n"
            "    if dir.startswith(tempfile.gettempdir()): return real(*a, dir=dir, **k)\n"
            "    raise PermissionError(13, 'Permission denied')\n"
            "tempfile.TemporaryFile = refuse\n"
            "import numba.core.caching as c; c.UserWideCacheLocator.from_function = classmethod(lambda *a: None)\n"
            "import numpy as np, numpyvit.functional as F\n"
            "print(F.layer_norm_forward.__module__, F.layer_norm_forward(np.ones((1, 2)), np.ones(2), np.ones(2))[0].shape)")
    env = {name: value for name, value in ENV.items() if name != "NUMBA_CACHE_DIR"} | {"TMPDIR": str(tmp_path)}
    done = python(code, env=env)
    assert done.returncode == 0 and done.stdout == "numpyvit.kernels.layer_norm (1, 2)\n", done.stderr
    assert not list(tmp_path.iterdir())                                      # the temporary cache is gone

    done = python(code.replace("import numpy as np", "tempfile.mkdtemp = refuse\nimport numpy as np"), env=env)
    assert "NUMBA_CACHE_DIR" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_import_leaves_the_garbage_collector_as_it_was_and_the_objects_of_numba_aside(enabled):
    done = python(f"import gc\ngc.{'enable' if enabled else 'disable'}()\nimport numpyvit.functional\n"
                  "print(gc.isenabled(), gc.get_freeze_count() > 30_000)")
    assert (done.stdout, done.stderr) == (f"{enabled} True\n", "")


@pytest.mark.parametrize("argv", ["models", "predict RUN IMAGE", "--version"])
def test_6_a_closed_standard_output_is_no_error(argv, finished, images):
    argv = argv.replace("RUN", str(finished)).replace("IMAGE", str(images / "train" / "ring" / "3.png"))
    done = subprocess.run(f"{sys.executable} -m numpyvit {argv} >&-", shell=True, capture_output=True, text=True, env=ENV)
    assert done.returncode == 0 and done.stderr == ""


def test_6_a_closed_standard_error_is_no_error_either(tmp_path):
    done = subprocess.run(f"{sys.executable} -m numpyvit evaluate /nonexistent 2>&-", shell=True, env=ENV)
    assert done.returncode == 2


# --- 8, 9

def test_8_one_thread_is_the_callers_own(data, tmp_path, monkeypatch):
    """So that a breakpoint in ops/ fires: forward, backward and the optimiser run in the main thread."""
    seen = set()
    forward, step = numpyvit.models.vit.ViT.forward, loop.Trainer.update
    monkeypatch.setattr(numpyvit.models.vit.ViT, "forward",
                        lambda *args, **kwargs: seen.add(threading.current_thread()) or forward(*args, **kwargs))
    monkeypatch.setattr(Trainer, "update", lambda *args: seen.add(threading.current_thread()) or step(*args))
    loop.train(recipe(steps=1), tmp_path / "r", threads=1)
    assert seen == {threading.current_thread()}


def test_9_a_finished_run_without_checkpoints_is_scored_by_its_weights(finished, images, tmp_path, capsys):
    assert cli.main(["evaluate", str(finished)]) == 0
    expected = capsys.readouterr().out
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    assert cli.main(["evaluate", str(run)]) == 0
    assert capsys.readouterr().out == expected.replace(str(finished), str(run))
    assert cli.main(["train", "--resume", str(run)]) == 0 and "finished" in capsys.readouterr().out
    (run / "weights.safetensors").unlink()
    line = one_line(capsys, "evaluate", run)                                 # resume says that the run is finished
    assert f"weights.safetensors and checkpoints are gone; numpyvit train --config {run / 'config.json'} repeats it" in line


# --- 11, 12, 13

def test_11_naming_the_default_model_changes_nothing():
    for data in ("cifar10", "shapes", "auto", "folder:x"):
        unnamed = recipe_for("vit", data=data)
        assert recipe_for("vit", data=data, model=unnamed.model) == unnamed


LATE = {"batch_size: expected at most the": ["--batch-size", "1000"], "val": ["--val", "1000"],
        "padding: expected less than the image's 16 pixels": ["--padding", "16"], "num_classes": ["--set", "num_classes=7"],
        "mixup": ["--mixup", "1e9"], "padding: ": ["--mixup", "0.2", "--padding", "99"]}


@pytest.mark.parametrize("said", LATE)
def test_12_a_refused_option_leaves_no_folder(said, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = one_line(capsys, "train", "--data", f"folder:{images}", "--steps", "1", "--batch-size", "8", *MODEL, *LATE[said])
    assert f"numpyvit: {said}" in line
    assert not list(tmp_path.iterdir())


def test_13_metrics_that_were_cut_are_mended_at_the_start(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 3)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), tmp_path / "r")
    run, said = RunFolder(tmp_path / "r"), []
    metrics = Path(run.file("metrics.jsonl"))
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    monkeypatch.setattr("numpyvit.training.progress.Progress.say", lambda self, text: said.append(text))
    loop.resume(tmp_path / "r")
    assert any("lines are missing" in text for text in said)
    assert [entry["step"] for entry in run.read_metrics() if entry["kind"] == "train"] == [1, 2, *range(5, 13)]


def test_13_metrics_that_cannot_be_read_are_told_before_the_first_step(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 3)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), tmp_path / "r")
    metrics = tmp_path / "r" / "metrics.jsonl"
    metrics.write_bytes(b"{x" + metrics.read_bytes()[2:])
    monkeypatch.setattr(Trainer, "update", lambda *args: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match="metrics.jsonl: line 1 is not a JSON object; mend or delete"):
        loop.resume(tmp_path / "r")


def test_13_an_edited_config_is_told(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 3)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), tmp_path / "r")
    path, said = tmp_path / "r" / "config.json", []
    config = json.loads(path.read_text())
    config["recipe"]["lr"], config["plan"]["steps"] = 0.01, 6
    path.write_text(json.dumps(config))
    monkeypatch.setattr("numpyvit.training.progress.Progress.say", lambda self, text: said.append(text))
    loop.resume(tmp_path / "r")
    steps, lr = sorted((text for text in said if "config.json was changed" in text), key=len)
    assert "steps was 12 and is now 6" in steps and "lr was 0.0015 and is now 0.01" in lr


def test_13_an_untouched_config_is_not_mentioned(data, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("numpyvit.training.progress.Progress.say", lambda self, text: said.append(text))
    loop.train(recipe(model_fields={**recipe().model_fields, "img_size": (16, 16)}), tmp_path / "a")
    stop_at(monkeypatch, 3)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(model_fields={**recipe().model_fields, "img_size": (16, 16)}), tmp_path / "b")
    loop.resume(tmp_path / "b")
    assert not any("changed" in text for text in said)
    assert_same_run(tmp_path / "a", tmp_path / "b")


# --- 14, 18

@pytest.mark.parametrize("argv", ["models", "gradcheck layer_norm", "summary vit_pico_patch4_32", "evaluate RUN"])
def test_14_an_ascii_terminal_gets_whole_tables(argv, finished):
    argv = [str(finished) if word == "RUN" else word for word in argv.split()]
    for columns in ("20", "200"):
        env = {**ENV, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": columns}
        done = subprocess.run([sys.executable, "-m", "numpyvit", *argv], capture_output=True, env=env)
        assert done.returncode == 0 and done.stderr == b"" and done.stdout.isascii()
        assert all(word in done.stdout.decode() for word in {"models": ["vit_tiny_patch16_224", "224x224"],
                   "gradcheck": ["layer_norm"], "summary": ["blocks.3", "multiply-adds"], "evaluate": ["ring", "%"]}[argv[0]])


MEANT = {"trian": "train", "evaluat RUN": "evaluate", "train --optimizer sdg": "sgd", "train --sed 3": "--seed",
         "train --batchsize=3": "--batch-size", "train --data cifar11": "cifar10", "train --schedule cosin": "cosine"}


@pytest.mark.parametrize("argv", MEANT)
def test_18_did_you_mean(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert f"did you mean {MEANT[argv]}?" in one_line(capsys, *argv.split())


WORDS = {"train --data own": "folder:own", "train --data folder:own --data-dir x": "--data-dir",
         "train --set depth=1 embed_dim=8": "--set embed_dim=8", "train --seed 99999999999999999999": "seed",
         "train --data folder:own": "own"}


@pytest.mark.parametrize("argv", WORDS)
def test_18_messages_say_what_to_do(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        os.makedirs(f"own/{name}")
    assert WORDS[argv] in one_line(capsys, *argv.split())


def test_18_tuples_as_python_writes_them():
    from numpyvit.cli.options import field_value
    assert field_value("depths=(2, 2)") == field_value("depths=2,2") == ("depths", (2, 2))
    assert field_value("depths=(2,)") == ("depths", (2,))


# --- 15, 16: other images

@pytest.fixture
def pictures(images, tmp_path):
    """A folder of five kinds of files, one of them transparent, one damaged, and a note."""
    from PIL import Image
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    source = Image.open(images / "train" / "ring" / "3.png")
    for name in ("a.png", "b.webp", "more/c.gif", "more/d.bmp"):
        source.save(folder / name)
    source.putalpha(100)
    source.save(folder / "e.png")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "note.txt").write_text("no image")
    return folder


def test_15_one_bad_file_among_many_is_said_and_the_others_are_classified(finished, pictures, capsys):
    assert cli.main(["predict", str(finished), str(pictures)]) == 2
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(pictures / name) for name in
                                                                  ("a.png", "b.webp", "e.png", "more/c.gif", "more/d.bmp")]
    assert len(err.splitlines()) == 2 and f"{pictures / 'bad.jpg'}: " in err and "e.png: " in err and "transparency is dropped" in err


def test_15_json_and_csv(finished, pictures, capsys):
    files = [str(pictures / "a.png"), str(pictures / "more")]
    assert cli.main(["predict", str(finished), *files, "--json", "--top", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 and rows[0]["file"] == files[0] and len(rows[0]["classes"]) == 2
    assert cli.main(["predict", str(finished), *files, "--csv"]) == 0
    table = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["file", "disc", "ring", "square"] and len(table) == 4
    assert abs(sum(map(float, table[1][1:])) - 1) < 1e-5
    best = rows[0]["classes"][0]
    assert float(table[1][table[0].index(best["name"])]) == pytest.approx(best["probability"], abs=1e-6)


def test_15_a_folder_without_images_is_one_line(finished, tmp_path, capsys):
    assert "found none" in one_line(capsys, "predict", finished, tmp_path)


def test_16_any_labelled_folder_can_be_scored(finished, images, tmp_path, capsys):
    """More images than before, and fewer classes; a class that the run does not know is told."""
    other = tmp_path / "other"
    shutil.copytree(images / "train" / "ring", other / "ring")
    shutil.copytree(images / "train" / "disc", other / "disc")
    shutil.copy(other / "ring" / "0.png", other / "ring" / "copy.png")
    assert cli.main(["evaluate", str(finished), str(other)]) == 0
    out = capsys.readouterr().out
    assert "on 49 images of" in out and "need not be those of the run" in out and "square        -" in out
    (other / "ring").rename(other / "wheel")
    assert "wheel" in one_line(capsys, "evaluate", finished, other)


def test_22_the_first_five(capsys):
    import numpy as np

    from numpyvit.runs.classifier import top_accuracy
    logits = np.arange(20.0).reshape(2, 10)
    assert [top_accuracy(logits, np.array([9, 4]), count) for count in (1, 5, 6)] == [0.5, 0.5, 1.0]


# --- 22, 23: what users of other libraries expect

def test_22_a_config_repeats_a_run(finished, images, tmp_path):
    assert cli.main(["train", "--config", str(finished / "config.json"), "--out", str(tmp_path / "again")]) == 0
    assert_same_run(finished, tmp_path / "again")
    assert cli.main(["train", "--config", str(finished), "--out", str(tmp_path / "other"), "--steps", "2", "--lr", "0.1"]) == 0
    recipe = RunFolder(tmp_path / "other").read_config().recipe
    assert (recipe.steps, recipe.lr, recipe.batch_size) == (2, 0.1, 16)


def test_22_a_finished_run_is_extended_with_a_schedule_of_its_own(data, tmp_path, monkeypatch, capsys):
    loop.train(recipe(steps=6), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    loop.resume(tmp_path / "a", steps=8)
    assert "extended from step 6, where a new linear schedule begins" in " ".join(capsys.readouterr().out.split())
    metrics = [entry for entry in RunFolder(tmp_path / "a").read_metrics() if entry["kind"] == "train"]
    assert [entry["step"] for entry in metrics] == list(range(1, 15))
    rates = [entry["lr"] for entry in metrics]
    assert rates[5] == pytest.approx(1.5e-3 / 5) and rates[6] == 1.5e-3 and rates[-1] == pytest.approx(1.5e-3 / 7)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["steps"] == 14
    stop_at(monkeypatch, 3)                                                  # the same bits after an interruption
    with pytest.raises(loop.Interrupted):
        loop.resume(tmp_path / "b", steps=8)
    loop.resume(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    loop.resume(tmp_path / "c", minutes=0.03)
    assert RunFolder(tmp_path / "c").read_config().plan.start == 6


def test_22_an_unfinished_run_is_not_extended(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 3)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), tmp_path / "r")
    with pytest.raises(ValueError, match="--steps extends a finished run"):
        loop.resume(tmp_path / "r", steps=3)


def scores(monkeypatch, accuracies):
    """Validation accuracies that are what the test wants; the test images get theirs from the model."""
    evaluate = Trainer.evaluate

    def scored(self, images, labels, *args):
        loss, accuracy = evaluate(self, images, labels, *args)
        return loss, accuracies[len(self.watched.accuracies)] if images is self.val_images else accuracy
    monkeypatch.setattr(Trainer, "evaluate", scored)


def test_22_patience_ends_a_run_early_and_the_best_weights_are_kept(data, tmp_path, monkeypatch):
    import numpy as np

    from numpyvit.files.safetensors import read_tensors
    monkeypatch.setattr("numpyvit.training.plan.evaluation_interval", lambda *args: 2)
    scores(monkeypatch, [0.1, 0.5, 0.2, 0.5, 0.3, 0.9])
    loop.train(recipe(steps=4, schedule="constant", warmup=0.0), tmp_path / "four")
    settings = dict(steps=12, patience=3, keep="best", schedule="constant", warmup=0.0)
    loop.train(recipe(**settings), tmp_path / "a")
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["steps"] == 10 and result["weights"] == "best on validation"
    best, _ = read_tensors(tmp_path / "a" / "weights.safetensors")
    four, _ = read_tensors(tmp_path / "four" / "weights.safetensors")
    assert all(np.array_equal(best[name], four[name]) for name in four)
    assert all(np.array_equal(best[n], p.data) for n, p in Classifier(tmp_path / "a").model.named_parameters())
    stop_at(monkeypatch, 2, 7)
    for attempt in (loop.train, loop.resume):
        with pytest.raises(loop.Interrupted):
            attempt(*([recipe(**settings)] if attempt is loop.train else []), tmp_path / "b")
    loop.resume(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_22_the_step_of_the_best_weights_is_that_of_the_weights_that_are_left(data, tmp_path, monkeypatch):
    """The best weights of all are lost before the run is extended; the extension keeps its own best."""
    monkeypatch.setattr("numpyvit.training.plan.evaluation_interval", lambda *args: 2)
    with monkeypatch.context() as patch:
        scores(patch, [0.9, 0.1])
        loop.train(recipe(steps=4, keep="best"), tmp_path / "r")
    assert Classifier(tmp_path / "r").step == 2
    (tmp_path / "r" / "best.safetensors").unlink()
    scores(monkeypatch, [0.3, 0.5, 0.4])
    assert loop.resume(tmp_path / "r", steps=6)["best_step"] == 8
    assert Classifier(tmp_path / "r").step == 8


def test_22_an_extension_counts_its_patience_anew(data, tmp_path, monkeypatch):
    monkeypatch.setattr("numpyvit.training.plan.evaluation_interval", lambda *args: 2)
    monkeypatch.setattr("numpyvit.training.watched.reference_accuracy", lambda *args: 0.25)
    shown = []
    monkeypatch.setattr("numpyvit.training.progress.Progress.evaluated", lambda self, name, value: shown.append(name))
    scores(monkeypatch, [0.5, 0.1, 0.1, 0.1, 0.2, 0.3, 0.3])
    loop.train(recipe(steps=12, patience=2, schedule="constant", warmup=0.0), tmp_path / "r")
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 6
    assert shown.count("reference") == 3
    shown.clear()
    loop.resume(tmp_path / "r", steps=6)
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 12
    assert "val acc" in shown and "reference" not in shown                  # whose curves are of runs in one part


def test_22_an_extension_does_not_count_the_look_at_its_start(data, tmp_path, monkeypatch):
    """The last look before the extension is the best of all, and the looks of the extension become better and better."""
    monkeypatch.setattr("numpyvit.training.plan.evaluation_interval", lambda *args: 2)
    scores(monkeypatch, [0.1, 0.9, 0.2, 0.3, 0.4])
    loop.train(recipe(steps=4, patience=2, schedule="constant", warmup=0.0), tmp_path / "r")
    loop.resume(tmp_path / "r", steps=6)
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 10


def test_22_an_extension_that_cannot_go_on_keeps_the_result(data, tmp_path):
    loop.train(recipe(steps=3), tmp_path / "r")
    result, config = ((tmp_path / "r" / name).read_bytes() for name in ("result.json", "config.json"))
    metrics = tmp_path / "r" / "metrics.jsonl"
    metrics.write_bytes(b"?" + metrics.read_bytes()[1:])
    with pytest.raises(ValueError, match="line 1 is not a JSON object"):
        loop.resume(tmp_path / "r", steps=2)
    assert (tmp_path / "r" / "result.json").read_bytes() == result
    assert (tmp_path / "r" / "config.json").read_bytes() == config


def test_22_an_extension_killed_before_its_first_checkpoint_goes_on_in_silence(data, tmp_path, monkeypatch, capsys):
    loop.train(recipe(steps=3), tmp_path / "r")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loop.resume(tmp_path / "r", steps=2)
    capsys.readouterr()
    loop.resume(tmp_path / "r")
    assert "config.json was changed" not in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 5


def test_22_patience_needs_validation_images(data, tmp_path):
    with pytest.raises(ValueError, match="patience: expected validation images"):
        loop.train(recipe(patience=1, val=0), tmp_path / "r")


def test_23_fit_trains_in_a_few_lines(data, tmp_path, monkeypatch):
    """Without a folder nothing is written; the callback sees every step, and the model has the averaged weights."""
    monkeypatch.chdir(tmp_path)
    settings = {name: getattr(recipe(), name) for name in ("batch_size", "val", "steps", "micro_batch", "mixup", "cutmix",
                                                           "erasing", "cutout", "ema", "clip_norm")}
    model = numpyvit.create_model("vit", num_classes=10, **recipe().model_fields)
    seen = []
    result = numpyvit.fit(model, data, callback=seen.append, **settings)
    assert not list(tmp_path.iterdir())
    assert result["history"] == seen and [entry["step"] for entry in seen if entry["kind"] == "train"] == list(range(1, 13))
    loop.train(recipe(), tmp_path / "r")
    weights = numpyvit.create_model("vit", num_classes=10, **recipe().model_fields)
    numpyvit.load_weights(weights, tmp_path / "r" / "weights.safetensors")
    assert (model.flat == weights.flat).all()                                # the same as the command's
    assert result["test_accuracy"] == json.loads((tmp_path / "r" / "result.json").read_text())["test_accuracy"]


def test_23_a_callback_ends_the_run_and_a_folder_is_resumed(data, tmp_path, monkeypatch):
    import numpy as np
    model = numpyvit.create_model("vit", num_classes=10, **recipe().model_fields)
    model.flat[:] *= np.float32(0.5)                                         # not the weights of any seed
    twin = numpyvit.create_model("vit", num_classes=10, **recipe().model_fields)
    twin.flat[:] = model.flat
    result = numpyvit.fit(model, data, callback=lambda entry: entry["step"] == 3, steps=9, batch_size=32, val=64)
    assert result["steps"] == 3 and "test_accuracy" in result
    numpyvit.fit(twin, data, out=tmp_path / "a", steps=4, batch_size=32, val=64)
    again = numpyvit.create_model("vit", num_classes=10, **recipe().model_fields)
    again.flat[:] = 0.5 * numpyvit.create_model("vit", num_classes=10, **recipe().model_fields).flat
    stop_at(monkeypatch, 1)
    with pytest.raises(loop.Interrupted):
        numpyvit.fit(again, data, out=tmp_path / "b", steps=4, batch_size=32, val=64)
    loop.resume(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_23_what_does_not_fit_is_one_sentence(data):
    model = numpyvit.create_model("vit", num_classes=3, **recipe().model_fields)
    with pytest.raises(ValueError, match="num_classes=10"):
        numpyvit.fit(model, data)
    wide = numpyvit.create_model("vit", num_classes=10, **{**recipe().model_fields, "img_size": 20})
    with pytest.raises(ValueError, match="images of shape"):
        numpyvit.fit(wide, data)
    with pytest.raises(ValueError, match="learning_rate"):
        numpyvit.fit(numpyvit.create_model("vit", num_classes=10, **recipe().model_fields), data, learning_rate=1)


def test_22_runs_are_listed_and_compared(finished, images, tmp_path, capsys):
    folder = tmp_path / "runs"
    shutil.copytree(finished, folder / "a")
    train(images, folder / "b", "--steps", "2", "--lr", "0.01")
    (folder / "c").mkdir()
    (folder / "c" / "config.json").write_text("{}")
    capsys.readouterr()
    assert cli.main(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    accuracy = json.loads((finished / "result.json").read_text())["test_accuracy"]
    assert lines[0].split() == ["run", "model", "data", "steps", "val", "test", "minutes"] and len(lines[1:3]) == 2
    assert lines[1].split()[:4] == [str(folder / "a"), "vit", "folder", "6/6"] and f"{accuracy:.2%}" in lines[1]
    assert any(line.startswith("lr: a ") and line.endswith("b 0.01") for line in lines)
    assert any("c/config.json: format" in line for line in lines)
    assert "found none" in one_line(capsys, "runs", tmp_path / "nowhere")


def test_22_a_report_is_one_page_that_needs_no_network(finished, tmp_path, capsys):
    import re
    assert cli.main(["report", str(finished), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    for heading in ("Curves", "Confusion matrix", "Worst mistakes", "Attention", "Settings"):
        assert f"<h2>{heading}</h2>" in page
    assert f"numpyvit train --config {finished}/config.json" in page and page.count("data:image/png;base64,") >= 4
    assert set(re.findall(r'(?:src|href)="?([^"]{5})', page)) == {"data:"}
    assert not re.search(r"<script|@import|url\(", page)
    test_accuracy = json.loads((finished / "result.json").read_text())["test_accuracy"]
    assert f"<b>{test_accuracy:.2%}</b>" in page
    assert "expected the folder of a run, got weights" in one_line(capsys, "report", finished / "weights.safetensors")
    assert "expected the folder of a run, got nothing" in one_line(capsys, "report", finished / "typo")


# --- the newcomers' hours: what stumbled when the README was followed in a fresh clone

def test_a_file_that_cannot_be_written_is_named_as_the_user_named_it(tmp_path, monkeypatch):
    """And not by the temporary file beside it. A figure that fails to be written leaves nothing."""
    model = numpyvit.create_model("vit", **FAMILIES["vit"])
    with pytest.raises(FileNotFoundError) as caught:
        numpyvit.save_weights(model, tmp_path / "nowhere" / "w.safetensors")
    assert caught.value.filename == str(tmp_path / "nowhere" / "w.safetensors")
    assert cli.message_of(caught.value).endswith(f"there is no folder {tmp_path / 'nowhere'}")
    plots = numpyvit.plots
    monkeypatch.setattr(atomic, "os", FaultyOs(2))                           # the disk is full after the first call
    with pytest.raises(OSError) as caught:
        plots.save(plots.new_figure(1, 1), str(tmp_path / "a.png"))
    assert caught.value.filename == str(tmp_path / "a.png")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_an_empty_file_is_called_empty(finished, tmp_path, capsys):
    (tmp_path / "empty.png").touch()
    line = one_line(capsys, "predict", finished, tmp_path / "empty.png")
    assert line == f"numpyvit: {tmp_path / 'empty.png'}: the file is empty; replace or remove it\n"


def test_one_class_is_none_to_choose_from(images, tmp_path, capsys):
    shutil.copytree(images / "train" / "ring", tmp_path / "one" / "train" / "ring")
    line = one_line(capsys, "train", "--data", f"folder:{tmp_path / 'one'}", "--out", tmp_path / "run")
    assert "expected two classes or more, found only ring" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["folder", "folder:ROOT"])
def test_23_fit_finds_the_files_of_a_data_set_and_its_run_finds_them_again(name, images, tmp_path, capsys):
    model = numpyvit.create_model("vit", num_classes=3, **FAMILIES["vit"])
    where = {"data_dir": images} if name == "folder" else {}
    numpyvit.fit(model, name.replace("ROOT", str(images)), out=tmp_path / "run", steps=1, batch_size=8, threads=1, **where)
    assert RunFolder(tmp_path / "run").read_config().recipe.data_dir == str(images)
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("settings, said", [
    ({"init": "there"}, "init: .* leave out init, and give the model that numpyvit.load_model"),
    ({"recipe": recipe(init="there")}, "init: .* leave out init"),
    ({"dtype": "float64"}, "dtype: .* leave out dtype, and give numpyvit.create_model the dtype"),
    ({"model_fields": {"depth": 7}}, "model_fields: .* leave out model_fields"),
    ({"data": "cifar10"}, "data: .* leave out data"), ({"threads": 0}, "threads: expected a whole number from 1 up, got 0")])
def test_23_fit_refuses_what_would_have_no_effect(data, tmp_path, settings, said):
    model = numpyvit.create_model("vit", num_classes=10, **FAMILIES["vit"])
    with pytest.raises(UserError, match=said):
        numpyvit.fit(model, data, out=tmp_path / "run", steps=1, **settings)
    assert not (tmp_path / "run").exists()


def test_23_fit_says_what_it_takes(data):
    model = numpyvit.create_model("vit", num_classes=10, **FAMILIES["vit"])
    pixels = np.zeros((20, 3, 16, 16), np.uint8), np.arange(20) % 10
    for arguments, said in [((model, pixels), "got a tuple; of arrays it is Dataset"), (("vit", "shapes"), "create_model"),
                            ((model, data, None, None, None, 3), "callback: expected a function")]:
        with pytest.raises(UserError, match=said):
            numpyvit.fit(*arguments)
    images = numpyvit.data.ImageSet(*pixels)
    dataset = numpyvit.data.Dataset("mine", tuple("0123456789"), images, images, "none")        # as the message says
    assert numpyvit.fit(model, dataset, steps=1, batch_size=4, console=Console(quiet=True))["steps"] == 1


def test_19_what_a_notebook_prints_is_short():
    model = numpyvit.create_model("vit", num_classes=np.int64(7), **FAMILIES["vit"])
    result = model.forward(np.zeros((2, 3, 16, 16), np.float32))
    assert "of a batch of 2: what backward needs" in repr(result) and len(repr(result)) < 500
    assert repr(model.head) == "<Linear head: weight (7, 32), bias (7,)>"
    assert repr(model.blocks[1]).startswith("<Block blocks.1: norm1 LayerNorm, attn SelfAttention")
    assert "num_classes=7" in repr(model) and "int64" not in repr(model)


def test_19_what_is_no_array_no_parameter_and_no_file_has_its_sentence():
    model = numpyvit.create_model("vit", num_classes=7, **FAMILIES["vit"])
    with pytest.raises(UserError, match="images: expected an array of normalised pixels, .* got 'photo.jpg'"):
        model("photo.jpg")
    with pytest.raises(UserError, match=r"weight is a parameter: assign its values to .weight.data, .* \(7, 32\)"):
        model.head.weight = np.zeros((7, 32))
    with pytest.raises(UserError, match="vit_tiny_patch4_32 is a preset, not a file of weights"):
        numpyvit.load_model("vit_tiny_patch4_32")


@pytest.mark.parametrize("top", [0, "3", 1.5])
def test_19_predict_refuses_a_number_of_classes_that_is_none(finished, images, top):
    with pytest.raises(UserError, match="top: expected a whole number"):
        numpyvit.load_model(finished).predict(images / "train" / "ring" / "0.png", top=top)


@pytest.mark.parametrize("command", ["train", "summary", "convert"])
def test_18_each_field_takes_a_set_of_its_own(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert "each field takes a --set of its own" in " ".join(capsys.readouterr().out.split())
