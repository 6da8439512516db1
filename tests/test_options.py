"""Options that contradict each other or have no effect are refused with one line, and a run is repeated as it was."""
import dataclasses
import html
import json
import shlex
import shutil
import sys

import numpy as np
import pytest

import numpyvit
from numpyvit.cli import main as cli
from numpyvit.data import Dataset, ImageSet
from numpyvit.runs.folder import RunFolder
from numpyvit.runs.recipe import Recipe
from numpyvit.training.describe import how_it_trains
from numpyvit.training.recipe import recipe_for
from test_cli import edit, images
from tiny import FAMILIES

assert images                                                                # the fixture of test_cli

FIELDS = ["--model", "vit", *(f"--set={field}={value}" for field, value in FAMILIES["vit"].items()), "--set=pos_embed=sincos2d"]
LENGTH = ["--steps", "2", "--batch-size", "16", "--threads", "1"]


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A finished run on the folder of images."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train("--data", f"folder:{images}", "--out", path, *LENGTH, *FIELDS) == 0
    return path


@pytest.fixture(scope="module")
def extended(run, tmp_path_factory):
    """A run that began with smaller images and was extended by three steps."""
    path, patch = tmp_path_factory.mktemp("runs") / "extended", pytest.MonkeyPatch()
    with patch.context():
        patch.setattr(sys, "argv", ["numpyvit", "train", "--small-size", "8", "--out", "so on"])
        assert train("--config", run, "--out", path, "--small-size", "8", "--threads", "1") == 0
    assert train("--resume", path, "--steps", "3", "--threads", "1") == 0
    return path


@pytest.fixture(scope="module")
def gray(tmp_path_factory):
    """The folder of a run on arrays, which has the name of their data set."""
    path = tmp_path_factory.mktemp("fit") / "gray"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, 16, 16), dtype=np.uint8)
    data = Dataset("gray", ("a", "b"), ImageSet(pixels, np.arange(64) % 2), ImageSet(pixels[:8], np.arange(8) % 2), "none")
    model = numpyvit.create_model("vit", **FAMILIES["vit"], in_chans=1, num_classes=2)
    numpyvit.fit(model, data, out=str(path), steps=2, batch_size=8, threads=1)
    return path


def train(*argv):
    return cli.main(["train", *map(str, argv)])


def recipe_of(path):
    return RunFolder(path).read_config().recipe


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


# --- runs again

def test_an_extended_run_is_not_repeated_as_one_run(extended, tmp_path, capsys):
    line = refused(capsys, "train", "--config", extended, "--out", tmp_path / "again")
    assert "was trained in parts" in line and "from step 2 to step 5" in line
    assert "began with: numpyvit train --small-size 8 --out 'so on'," in line
    assert "--resume NEW_RUN --steps 3" in line and f"numpyvit train --config {extended} --steps 5" in line
    assert not (tmp_path / "again").exists()
    assert train("--config", extended, "--out", tmp_path / "one", "--steps", "5", "--threads", "1") == 0
    config = RunFolder(tmp_path / "one").read_config()
    assert (config.plan.start, config.plan.steps, config.recipe.small_size) == (0, 5, 0)


def test_the_two_commands_repeat_an_extended_run(run, extended, tmp_path):
    again = tmp_path / "again"
    assert train("--config", run, "--out", again, "--small-size", "8", "--threads", "1") == 0
    assert train("--resume", again, "--steps", "3", "--threads", "1") == 0
    assert (again / "weights.safetensors").read_bytes() == (extended / "weights.safetensors").read_bytes()


def test_the_report_of_an_extended_run_promises_nothing_false(extended, run, tmp_path):
    pytest.importorskip("matplotlib")
    run = shutil.copytree(run, tmp_path / "a run")
    for path, extra in ((extended, True), (run, False)):
        assert cli.main(["report", str(path), "-o", str(tmp_path / "r.html"), "--threads", "1"]) == 0
        page = (tmp_path / "r.html").read_text()
        assert (f"--config {shlex.quote(str(run / 'config.json'))}" in html.unescape(page)) == (not extra)
        assert ("The same run again" in page) == (not extra) and ("was trained in parts" in page) == extra


def test_an_extended_run_whose_weights_are_gone_names_commands_that_run(extended, tmp_path, capsys):
    copy = shutil.copytree(extended, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    (copy / "weights.safetensors").unlink()
    line = refused(capsys, "evaluate", copy)
    assert "checkpoints are gone" in line and "was trained in parts" in line and "repeats it" not in line


def test_a_command_that_does_not_train_is_not_named(extended, tmp_path, capsys):
    copy = shutil.copytree(extended, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"command": "-f kernel.json"}))
    line = refused(capsys, "train", "--config", copy / "config.json")
    assert "kernel.json" not in line and "as this one was and then" in line


@pytest.fixture
def recipes(monkeypatch):
    """The recipes that train would train."""
    from numpyvit.training import loop
    seen = []
    monkeypatch.setattr(loop, "train", lambda recipe, out, threads: seen.append(recipe))
    return seen


def test_set_changes_one_field_of_the_repeated_model(run, recipes):
    own = recipe_of(run).model_fields
    for more in ([], ["--model", "vit"]):
        assert train("--config", run, "--set", "drop_path_rate=0.3", *more) == 0
        assert recipes.pop().model_fields == own | {"drop_path_rate": 0.3}
    assert train("--config", run) == 0 and recipes.pop().model_fields == own
    assert train("--config", run, "--model", "vit_pico_patch4_32", "--set", "depth=1") == 0
    assert recipes.pop().model_fields == {"depth": 1}


def test_another_data_set_is_not_looked_for_where_the_first_one_was(run, images, recipes):
    assert train("--config", run, "--data", "cifar10") == 0 and recipes.pop().data_dir is None
    assert train("--config", run, "--data", "folder") == 0 and recipes.pop().data_dir == str(images)
    assert train("--config", run, "--data", "cifar10", "--data-dir", "there") == 0 and recipes.pop().data_dir == "there"
    assert train("--config", run, "--data", "folder:there") == 0
    assert (recipes[-1].data, recipes[-1].data_dir) == ("folder", "there")


# --- options without an effect

@pytest.mark.parametrize("options, words", [
    ("train --config RUN --fine-tune paper", "--config has them all: leave out"),
    ("train --config RUN --fine-tune paper --init RUN", "--config has them all: leave out"),
    ("train --resume RUN --fine-tune paper", "--fine-tune cannot be changed"),
    ("train --resume RUN --config other", "--config begins a new one: leave out one of the two"),
    ("train --config RUN --data folder:odd --data-dir /nope", "names the folder already: leave out --data-dir"),
    ("train --config RUN --data folder:", "give folder:ROOT, or folder:. for the current directory"),
    ("train --data folder:", "give folder:ROOT, or folder:. for the current directory"),
    ("train --data folder: --data-dir .", "give folder:ROOT, or folder:. for the current directory"),
    ("train --data shapes --small-window 16", "--small-window is about the smaller images that a run can begin with: give --small-size"),
    ("train --data shapes --small-share 0.5", "give --small-size"),
    ("train --config RUN --small-window 16", "give --small-size"),
    ("train --data shapes --lr-rest 0.2", "adamw leaves none: leave out --lr-rest"),
    ("train --config RUN --lr-rest 0.2 --optimizer sgd", "sgd leaves none: leave out --lr-rest"),
    ("evaluate RUN FOLDER --split val", "--split chooses images of a data set, and FOLDER has the images to score"),
    ("evaluate RUN FOLDER --data cifar10", "--data chooses images of a data set"),
    ("evaluate RUN FOLDER --data-dir /nope", "--data-dir chooses images of a data set"),
    ("evaluate RUN/weights.safetensors --data shapes --split val", "leave out --split"),
])
def test_an_option_without_an_effect_is_refused(options, words, run, images, recipes, capsys):
    line = refused(capsys, *options.replace("RUN", str(run)).replace("FOLDER", str(images / "train")).split())
    assert words.replace("FOLDER", str(images / "train")) in line and not recipes


def test_what_an_optimizer_leaves_is_said_where_it_leaves_any(run, tmp_path, monkeypatch):
    muon = recipe_for(lr=0.01, lr_rest=0.5, optimizer="muon")
    assert ", peak learning rate 0.01, 0.005 for what it leaves to AdamW, " in how_it_trains(muon)
    assert "AdamW" not in how_it_trains(dataclasses.replace(muon, optimizer="adamw"))
    assert recipe_for(optimizer="sgd", lr_rest=1.0).lr_rest == Recipe.lr_rest
    old = shutil.copytree(run, tmp_path / "old")                             # a config of before still goes on
    config = json.loads((old / "config.json").read_text())
    config["recipe"]["lr_rest"] = 0.2
    (old / "config.json").write_text(json.dumps(config))
    (old / "result.json").unlink()
    assert train("--resume", old, "--threads", "1") == 0 and (old / "result.json").exists()


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


# --- data sets that no command can load

def test_a_run_of_fit_is_not_taken_for_a_folder_of_images(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(gray.parent)
    for command, advice in ((["train", "--resume", "gray"], "continue in Python: numpyvit.fit(numpyvit.load_model('gray'), …)"),
                            (["evaluate", "gray"], "numpyvit evaluate gray FOLDER scores images of a folder"),
                            (["report", "gray"], "numpyvit evaluate gray FOLDER scores images of a folder"),
                            (["train", "--config", "gray"], "give --data with another one")):
        line = refused(capsys, *command)
        assert line.startswith("numpyvit: gray: the run was trained from Python on a data set named 'gray'"), line
        assert line.endswith(f"; {advice}\n") or advice in line and "--config" in command
        assert "folder:gray" not in line


def without(*names):
    """A change of a run's folder: these files and folders are gone."""
    return lambda run: [shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink() for name in names]


def with_entry(record, **values):
    """A change of a run's folder: config.json has these values in a record."""
    return lambda run: edit(run, lambda config: config[record].update(values))


@pytest.mark.parametrize("change, command, words", [
    (without(), "train --resume RUN", "numpyvit evaluate 'a run' scores it, and --resume 'a run' --minutes 10 extends it"),
    (without(), "train --data shapes --out RUN", "continue it with --resume 'a run', or choose another"),
    (without(), "train --data RUN", "give 'folder:a run'"),
    (without(), "evaluate RUN --data shapes", "numpyvit evaluate 'a run/weights.safetensors' --data shapes"),
    (without("result.json"), "train --resume RUN --steps 1", "--resume 'a run' alone continues"),
    (without("result.json", "checkpoints"), "evaluate RUN", "train on with --resume 'a run'"),
    (without("weights.safetensors", "checkpoints"), "evaluate RUN", "numpyvit train --config 'a run/config.json' repeats it"),
    (with_entry("plan", start=1), "train --config RUN", "numpyvit train --config 'a run' --steps 2"),
    (with_entry("data", name="gray"), "evaluate RUN", "numpyvit evaluate 'a run' FOLDER"),
    (with_entry("data", name="gray"), "report RUN", "numpyvit evaluate 'a run' FOLDER"),
    (with_entry("data", checksum="records-sha256:0"), "evaluate RUN", "numpyvit evaluate 'a run' FOLDER")])
def test_commands_in_messages_can_be_pasted(change, command, words, run, tmp_path, monkeypatch, capsys):
    """The folder has a space in its name."""
    monkeypatch.chdir(tmp_path)
    change(shutil.copytree(run, tmp_path / "a run"))
    capsys.readouterr()
    cli.main([word.replace("RUN", "a run") for word in command.split()])
    assert words in " ".join(" ".join(capsys.readouterr()).split())


# --- what a repeated run keeps, and how runs end

def lanes(path):
    entry = RunFolder(path).read_config().lanes
    return entry.shards, entry.micro_batch


def test_another_batch_is_divided_anew(images, tmp_path, capsys):
    """The lanes of a run are kept where nothing that they were chosen for has changed; runs shows those that were used."""
    small, same, large, given = (tmp_path / name for name in ("small", "same", "large", "given"))
    assert train("--data", f"folder:{images}", "--out", small, "--steps", "1", "--batch-size", "3", "--threads", "1", *FIELDS) == 0
    for path, more in ((same, ()), (large, ("--batch-size", "32")), (given, ("--batch-size", "32", "--shards", "2"))):
        assert train("--config", small, "--out", path, "--threads", "1", *more) == 0
    assert (lanes(small)[0], lanes(same)[0], lanes(large)[0], lanes(given)[0]) == (1, 1, 4, 2)
    assert train("--config", given, "--out", tmp_path / "again", "--threads", "1", "--batch-size", "16") == 0
    assert lanes(tmp_path / "again")[0] == 2                                 # as the user said once
    capsys.readouterr()
    assert cli.main(["runs", str(small), str(same)]) == 0 and "shards" not in capsys.readouterr().out
    assert cli.main(["runs", str(small), str(large)]) == 0 and "shards: small 1, large 4" in capsys.readouterr().out


def test_a_family_stands_for_a_preset_beside_config_too(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("numpyvit.training.loop.train", lambda recipe, *_: seen.append(recipe))
    for more in (("--minutes", "5"), ("--minutes", "5", "--set=depth=1")):
        assert train("--config", run, "--model", "cvt", *more) == 0
    assert [(recipe.model, recipe.model_fields) for recipe in seen] == [("cvt_mini_convpool_32", {}), ("cvt", {"depth": 1})]


@pytest.mark.parametrize("options, words", [
    (("--optimizer", "sgd", "--beta1", "0.3"), "--beta1: sgd has no such setting, its own are momentum"),
    (("--optimizer", "adamw", "--momentum", "0.5"), "--momentum: adamw has no such setting"),
    (("--optimizer", "adamw", "--momentum", "0.9"), "--momentum: adamw has no such setting"),
    (("--optimizer", "sgd", "--beta2", str(Recipe.beta2)), "--beta2: sgd has no such setting"),
    (("--small-size", "8", "--small-share", "0"), "--small-size is about the first part"),
    (("--shards", "8", "--batch-size", "4"), "--shards: expected at most the 4 images of a batch"),
    (("--data", "shapes", "--data-dir", "/nowhere"), "--data-dir: the data set shapes needs no files")])
def test_options_without_an_effect_are_refused(options, words, tmp_path, capsys):
    assert words in refused(capsys, "train", "--data", "shapes", "--steps", "1", "--out", tmp_path / "run", *options)


def test_patience_says_that_it_ended_the_run(images, tmp_path, capsys):
    path = tmp_path / "run"
    assert train("--data", f"folder:{images}", "--out", path, "--steps", "200", "--batch-size", "16", "--threads", "1", "--lr", "1e-12",
                 "--val", "6", "--patience", "2", "--no-test", *FIELDS) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no better validation accuracy in 2 looks than the" in out and "of 200:" in out
    assert json.loads((path / "result.json").read_text())["ended"] == "patience"
    assert cli.main(["runs", str(path)]) == 0 and "/200 patience" in capsys.readouterr().out


def test_a_run_that_took_all_its_steps_was_not_ended_by_patience(images, tmp_path, capsys):
    """Looks at steps 1, 2 and 3 of 3: the last one is the second without a better accuracy."""
    path = tmp_path / "run"
    assert train("--data", f"folder:{images}", "--out", path, "--steps", "3", "--batch-size", "16", "--threads", "1", "--lr", "1e-12",
                 "--val", "1", "--patience", "2", "--no-test", *FIELDS) == 0
    assert [entry["step"] for entry in RunFolder(path).read_metrics() if entry["kind"] == "val"] == [1, 2, 3]
    assert "looks" not in capsys.readouterr().out and "ended" not in json.loads((path / "result.json").read_text())
    assert cli.main(["runs", str(path)]) == 0 and "patience" not in capsys.readouterr().out


def test_curves_that_are_missing_are_drawn(run, tmp_path, capsys):
    """--resume of a finished run draws them: Ctrl-C may have come before they were."""
    pytest.importorskip("matplotlib")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "curves.png").unlink()
    assert train("--resume", copy) == 0
    assert (copy / "curves.png").exists()


@pytest.mark.parametrize("where, words", [("numpyvit.training.results.draw", "its curves are not drawn"),
                                          ("numpyvit.training.plan.measure_speed", "stopped before the first step")])
def test_every_stop_names_the_way_on(where, words, images, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(where, interrupted)
    path = tmp_path / "a run"
    length = ["--minutes", "0.01"] if "speed" in where else ["--steps", "1"]
    assert train("--data", f"folder:{images}", "--out", path, *length, "--batch-size", "16", "--threads", "1", *FIELDS) == 130
    err = capsys.readouterr().err
    assert words in err and f"numpyvit train --resume '{path}'" in err


@pytest.mark.parametrize("where, length, words", [
    ("numpyvit.training.plan.measure_speed", "--minutes 0.01", "stopped before the first step; continue with: AGAIN --minutes 0.01"),
    ("numpyvit.training.results.draw", "--steps 1", "its curves are not drawn; AGAIN draws them")])
def test_every_stop_of_an_extension_names_the_way_on(where, length, words, run, tmp_path, monkeypatch, capsys):
    """And that way leads to the end of the extension, with curves that show it."""
    pytest.importorskip("matplotlib")
    copy = shutil.copytree(run, tmp_path / "copy")
    again, old = f"train --resume {copy}", (copy / "curves.png").read_bytes()
    with monkeypatch.context() as patch:
        def interrupted(*_):
            raise KeyboardInterrupt
        patch.setattr(where, interrupted)
        assert train("--resume", copy, *length.split(), "--threads", "1") == 130
    said = capsys.readouterr().err
    assert said.endswith(words.replace("AGAIN", f"numpyvit {again}") + "\n")
    again = again + " --minutes 0.01" if "--minutes" in said else again
    assert cli.main([*again.split(), "--threads", "1"]) == 0
    assert json.loads((copy / "result.json").read_text())["steps"] > 2 and (copy / "curves.png").read_bytes() != old


@pytest.mark.parametrize("field, words", [("num_heads=4", "its attention has 2 heads, this model's 4"),
                                          ("pos_embed=none", "made with pos_embed sincos2d, this model has none")])
def test_a_run_begins_another_net_as_its_weights_would(run, field, words, tmp_path, capsys):
    """--init RUN compares the configs as --init RUN/weights.safetensors does."""
    said = []
    for number, path in enumerate((run, run / "weights.safetensors")):
        capsys.readouterr()
        train("--init", path, "--set", field, "--data", "shapes", "--steps", "1", "--out", tmp_path / str(number), "--threads", "1", "--no-test")
        said.append(" ".join(" ".join(capsys.readouterr()).split()))
    assert all(words in text for text in said), said


def test_fields_of_weights_can_be_chosen_and_those_of_runs_cannot(run, tmp_path, capsys):
    """timm's names do not tell the number of heads: 64 channels are one head, unless --set says otherwise."""
    image = tmp_path / "x.png"
    pytest.importorskip("PIL.Image").new("RGB", (16, 16), (200, 30, 90)).save(image)
    model = numpyvit.create_model("vit", img_size=16, patch_size=4, embed_dim=64, depth=1, num_heads=4, num_classes=3)
    for _, p in model.named_parameters():
        p.data[...] += np.random.default_rng(0).normal(0, 0.2, p.shape)
    numpyvit.save_weights(model, tmp_path / "w.pth", format="timm")
    said = []
    for more in ([], ["--set", "num_heads=4"]):
        assert cli.main(["predict", str(tmp_path / "w.pth"), str(image), *more]) == 0
        said.append(capsys.readouterr().out.splitlines())
    assert "assumed 1 head" in said[0][0] and "head" not in said[1][0] and said[0][-1] != said[1][-1]
    assert "num_heads cannot be chosen" in refused(capsys, "predict", run, image, "--set", "num_heads=4")
    assert "num_heads cannot be chosen" in refused(capsys, "evaluate", run, "--set", "num_heads=4")
