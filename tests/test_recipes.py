"""The tables of recipes: a family and a length choose a net, a net chooses its settings, and help shows both."""
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from numpyvit.cli import main as cli
from numpyvit.cli import options
from numpyvit.data import Dataset, ImageSet
from numpyvit.data.views import VIEWS
from numpyvit.models import FAMILIES, PRESETS, create_model
from numpyvit.ops.optim import OPTIMIZERS
from numpyvit.runs.recipe import Recipe, recipe_from_json
from numpyvit.training import loop, prepare, reference
from numpyvit.training.describe import how_it_trains, small_images_left_out
from numpyvit.training.recipe import LENGTHS, SETTINGS, recipe_for, table
from numpyvit.training.trainer import Trainer
from tiny import recipe, small_shapes


def test_every_row_names_a_preset_of_its_family():
    assert LENGTHS.keys() == FAMILIES.keys()
    for family, rows in LENGTHS.items():
        limits = [limit for limit, *_ in rows]
        assert limits == sorted(limits) and limits[-1] == float("inf")
        assert all(PRESETS[preset][0] == family and preset in SETTINGS for _, preset, _ in rows)
    for preset, settings in SETTINGS.items():
        made = recipe_for(model=preset)
        assert preset in PRESETS and {name: getattr(made, name) for name in settings} == settings


def test_naming_the_default_model_changes_nothing():
    assert recipe_for() == recipe_for(model="vit") == recipe_for(model=Recipe.model) == recipe_for("vit", minutes=30.0)
    assert recipe_for(model="cvt", steps=7) == recipe_for(model="cvt_mini_convpool_32", steps=7)


@pytest.mark.parametrize("family", LENGTHS)
@pytest.mark.parametrize("minutes", [5.0, 30.0, 60.0])
def test_the_length_chooses_the_net(family, minutes):
    made = recipe_for(model=family, minutes=minutes)
    _, preset, more = next(row for row in LENGTHS[family] if minutes <= row[0])
    assert made.model == preset and made == recipe_for(model=preset, minutes=minutes)
    assert all(getattr(made, name) == value for name, value in (SETTINGS[preset] | more).items())
    momentum = SETTINGS[preset].get("momentum", OPTIMIZERS["muon"][0].settings["momentum"])
    assert made.optimizer == "muon" and made.momentum == momentum and made.minutes == minutes


def test_an_hour_has_settings_of_its_own():
    """In minutes alone: a length in steps says nothing of how long the run takes."""
    short, long = recipe_for(minutes=45.0), recipe_for(minutes=45.1)
    assert (short.cutout, long.cutout) == (0, 8)
    assert dataclasses.replace(long, minutes=short.minutes, cutout=0) == short
    assert "; cutout of 8 × 8 pixels; " in how_it_trains(long)
    assert "cutout" not in how_it_trains(short)
    assert ("; random squares of 24 pixels or more of each image, resized to 24 × 24 pixels, in the first 80% of the steps; "
            in how_it_trains(short))
    assert "; 24 × 24 pixels in the first 60% of the steps; " in how_it_trains(recipe_for(small_window=0, small_share=0.6))
    assert recipe_for(minutes=60.0, cutout=0).cutout == 0 and recipe_for(steps=10**6).cutout == 0
    assert recipe_for(model="vit", model_fields={"depth": 1}, minutes=60.0).cutout == 0


def test_what_is_given_wins():
    assert recipe_for(lr=0.5).lr == 0.5 and recipe_for(momentum=0.5).momentum == 0.5
    adamw = recipe_for(optimizer="adamw")                                    # Muon's numbers are not AdamW's
    assert (adamw.lr, adamw.lr_rest, adamw.optimizer) == (Recipe.lr, Recipe.lr_rest, "adamw")
    assert recipe_for(model_fields={"depth": 1}).model == Recipe.model
    assert recipe_for().small_size == 24
    other_net = recipe_for(model_fields={"img_size": 16})
    assert (other_net.small_size, other_net.small_window) == (0, 0)
    by_fields = recipe_for(model="vit", model_fields={"depth": 1})           # a family with fields is the family as they describe it
    assert by_fields.model == "vit" and by_fields.optimizer == Recipe.optimizer


def test_small_images_that_are_left_out_are_named():
    changed = dict(model_fields={"depth": 1})
    assert small_images_left_out(recipe_for(**changed)) == (
        "--set changes vit_mini_convpool_32, so the smaller images of its recipe are left out; --small-size 24 --small-share 0.8 "
        "--small-window 24 would use them")
    for settings in ({}, dict(small_size=0), changed | dict(small_size=16), changed | dict(model="swin_mini_convpool_32"),
                     changed | dict(model="vit")):
        assert small_images_left_out(recipe_for(**settings)) == ""


def test_help_shows_the_table(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = capsys.readouterr().out
    assert all(line.strip() in shown for line in table())
    assert "neither the data set, nor --init, nor the net, nor the optimiser has" in shown
    for rows in LENGTHS.values():
        assert all(preset in shown for _, preset, _ in rows)
    assert options.TTA == tuple(VIEWS)


def test_the_page_shows_the_table():
    page = Path(loop.__file__).with_name("README.md").read_text()
    assert "\n".join(table()) in page


def test_runs_of_before_lack_the_new_settings():
    settings = {name: value for name, value in vars(recipe_for()).items() if name not in ("lr_rest", "test", "small_size", "small_share", "small_window")}
    old = recipe_from_json(settings)
    assert (old.lr_rest, old.test, old.small_size, old.small_window) == (1.0, True, 0, 0)


@pytest.mark.parametrize("train, watched", [(12_000, 1000), (640, 64)])
def test_a_thousand_images_are_watched_or_a_tenth(train, watched):
    images = ImageSet(np.zeros((train, 3, 8, 8), np.uint8), np.arange(train) % 4)
    dataset = Dataset("quarters", tuple("abcd"), images, images, "records-sha256:0")
    fields = dict(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1, num_classes=4)
    config = prepare.new_config(recipe_for(model="vit", model_fields=fields), dataset, create_model("vit", **fields))
    assert (config.data.val, config.data.train) == (watched, train - watched)


def test_both_test_accuracies(tmp_path, monkeypatch, capsys):
    """result.json has the plain figure and the one with the mirror image; evaluate finds both again, and says which it is."""
    small_shapes(monkeypatch)
    result = loop.train(recipe(steps=8, ema=0.0), out=tmp_path / "a")
    for tta, name in (("none", "test_accuracy"), ("mirror", "test_accuracy_mirror")):
        capsys.readouterr()
        assert cli.main(["evaluate", str(tmp_path / "a"), "--tta", tta]) == 0
        said = capsys.readouterr().out
        assert f"accuracy {result[name]:.2%} (" in said and (f"augmentation: {tta}" in said) == (tta != "none")
    plain = loop.train(recipe(steps=2, flip="none"), out=tmp_path / "b")
    assert "test_accuracy" in plain and "test_accuracy_mirror" not in plain   # where a mirror image is another thing


def test_a_tuning_run_leaves_the_test_images_alone(tmp_path, monkeypatch, capsys):
    dataset, seen = small_shapes(monkeypatch), []
    evaluate = Trainer.evaluate
    monkeypatch.setattr(Trainer, "evaluate", lambda self, images, *rest: seen.append(images) or evaluate(self, images, *rest))
    result = loop.train(recipe(steps=3, test=False), out=tmp_path / "a")
    assert seen and not any(np.array_equal(images[:], dataset.test.images) for images in seen)
    assert not any(name.startswith("test") for name in result) and "left alone" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "config.json").read_text())["recipe"]["test"] is False
    loop.train(recipe(steps=3), out=tmp_path / "b")
    assert any(np.array_equal(images[:], dataset.test.images) for images in seen)


def test_the_reference_at_the_same_place(monkeypatch):
    """Between two evaluations in proportion, of the nearest length, and only for the table's own settings and CIFAR-10."""
    curves = {100: ((20, 0.4), (100, 0.8)), 1000: ((100, 0.5), (1000, 0.9))}
    monkeypatch.setattr(reference, "CURVES", {Recipe.model: curves})
    default = recipe_for(steps=100)
    assert reference.reference_accuracy(default, "cifar10", 60, 100) == pytest.approx(0.6)
    assert reference.reference_accuracy(default, "cifar10", 90, 150) == pytest.approx(0.6)
    assert reference.reference_accuracy(recipe_for(minutes=30.0, seed=3), "cifar10", 400, 800) == pytest.approx(0.5 + 0.4 * 4 / 9)
    assert reference.reference_accuracy(default, "cifar10", 10, 100) is None  # before the first evaluation
    assert reference.reference_accuracy(default, "cifar10", 150, 300) is None  # no reference of such a length
    assert reference.reference_accuracy(default, "shapes", 60, 100) is None
    assert reference.reference_accuracy(recipe_for(steps=100, lr=1e-3), "cifar10", 60, 100) is None
    assert reference.reference_accuracy(recipe_for(model="cvt", steps=100), "cifar10", 60, 100) is None


def test_the_reference_of_an_hour(monkeypatch):
    monkeypatch.setattr(reference, "CURVES", {Recipe.model: {100: ((20, 0.4), (100, 0.8))}})
    monkeypatch.setattr(reference, "LONG_CURVES", {Recipe.model: {100: ((20, 0.6), (100, 0.9))}})
    for of_an_hour in (recipe_for(minutes=60.0), recipe_for(steps=100, cutout=8)):
        assert reference.reference_accuracy(of_an_hour, "cifar10", 100, 100) == 0.9
    assert reference.reference_accuracy(recipe_for(steps=100), "cifar10", 100, 100) == 0.8
    assert reference.reference_accuracy(recipe_for(steps=100, cutout=4), "cifar10", 100, 100) is None


def test_curves_are_of_presets_and_rise():
    for preset, curves in (*reference.CURVES.items(), *reference.LONG_CURVES.items()):
        assert preset in SETTINGS
        for steps, points in curves.items():
            assert [step for step, _ in points] == sorted({step for step, _ in points}) and points[-1][0] == steps
            assert all(0.1 < accuracy < 1 for _, accuracy in points) and points[-1][1] > points[0][1]
