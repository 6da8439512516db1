"""The part of a run on smaller images: the same weights in a model of another size, the same bits on any number of threads."""
from types import SimpleNamespace

import numpy as np
import pytest

import numpyvit
from numpyvit.data.draws import draw_windows
from numpyvit.data.resize import resize_windows, shrink
from numpyvit.errors import Interrupted, UserError
from numpyvit.inspection.flops import training_flops
from numpyvit.models import model_config
from numpyvit.training import loop, progress
from numpyvit.training.sizes import at_size
from numpyvit.training.trainer import Trainer
from test_training import assert_same_run, stop_at
from tiny import FAMILIES, recipe, small_shapes

FIELDS = {"vit": FAMILIES["vit"] | dict(pos_embed="sincos2d", global_pool="avg"),
          "rotary": FAMILIES["vit"] | dict(pos_embed="sincos2d+rotary"),
          "stem": FAMILIES["vit"] | dict(pos_embed="sincos2d", stem_widths=(8, 16), stem_strides=(2, 2)),
          "cvt": FAMILIES["cvt"], "cvt_stem": FAMILIES["cvt"] | dict(stem_widths=(8, 8), stem_strides=(1, 1))}


def family_of(name):
    return {"stem": "vit", "rotary": "vit", "cvt_stem": "cvt"}.get(name, name)


@pytest.mark.parametrize("name", FIELDS)
def test_a_model_at_another_size_is_the_same_weights(name):
    """It gives what a model built at that size gives with these weights, and its gradients are the model's own array."""
    model = numpyvit.create_model(family_of(name), dtype="float64", **FIELDS[name])
    small = at_size(model, 8)
    built = numpyvit.create_model(family_of(name), dtype="float64", **FIELDS[name] | dict(img_size=8))
    model.flat += np.random.default_rng(0).normal(size=model.flat.size)      # seen by small: its flat vector is the model's
    for buffer_name, buffer in model.named_buffers():
        if buffer.dtype.kind == "f":
            buffer += 0.5
    built.load_state_dict(model.state_dict())
    images = np.random.default_rng(1).normal(size=(2, 3, 8, 8))
    logits, cache = small.forward(images)
    np.testing.assert_array_equal(logits, built.forward(images)[0])
    small.backward(np.ones_like(logits), cache)
    assert model.flat_grad.any()


@pytest.mark.parametrize("family, table", [("vit", "pos_embed"), ("swin", "relative_position_bias_table")])
def test_tables_for_one_size_are_refused(family, table):
    """A learned position table, and biases of windows that are larger than the smaller map."""
    with pytest.raises(UserError, match=f"small_size: .*{table} has shape"):
        at_size(numpyvit.create_model(family, **FAMILIES[family]), 8)


@pytest.mark.parametrize("name", FIELDS)
def test_threads_and_interruptions_leave_no_trace(name, tmp_path, monkeypatch):
    """Interrupted in the part on small images, at its end and after it."""
    small_shapes(monkeypatch)
    settings = dict(model_fields=FIELDS[name], small_size=8, small_share=0.5, optimizer="muon", small_window=11)
    loop.train(recipe(family_of(name), **settings), tmp_path / "a", threads=1)
    stop_at(monkeypatch, 2, 5, 8)
    with pytest.raises(Interrupted, match="--resume"):
        loop.train(recipe(family_of(name), **settings), tmp_path / "b", threads=2)
    for threads in (3, 1):
        with pytest.raises(Interrupted):
            loop.resume(tmp_path / "b", threads=threads)
    loop.resume(tmp_path / "b", threads=2)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("steps, small_steps", [(12, 6), (5, 3)])
def test_so_much_of_the_run_and_no_more(steps, small_steps, tmp_path, monkeypatch):
    """Of 12 steps the first 6 see 8 × 8 pixels, of 5 the first 3; the others and all evaluations see 16 × 16. Shards' gradients
    of the other size are given back."""
    small_shapes(monkeypatch)
    update, sizes = Trainer.update, []

    def watched(self, step, lr, small=False):
        lanes, other = (self.small_lanes, self.lanes) if small else (self.lanes, self.small_lanes)
        sizes.append(lanes.model.config.img_size)
        images, _, _ = self.batches.loader(step, small)(0, 2)
        assert images.shape[-1] == lanes.model.config.img_size
        outcome = update(self, step, lr, small)
        assert (len(lanes.replicas), len(other.replicas)) == (lanes.shards, 1)
        return outcome

    monkeypatch.setattr(Trainer, "update", watched)
    loop.train(recipe(model_fields=FIELDS["vit"], small_size=8, small_share=0.5, steps=steps), tmp_path / "a")
    assert sizes == small_steps * [8] + (steps - small_steps) * [16]


def test_an_extension_has_no_small_images(tmp_path, monkeypatch):
    """Half of the run's 2 steps see 8 × 8 pixels, and none of the 6 that are added, though half of 8 steps were 4."""
    small_shapes(monkeypatch)
    update, sizes = Trainer.update, []

    def watched(self, step, lr, small=False):
        sizes.append(self.batches.loader(step, small)(0, 2)[0].shape[-1])
        return update(self, step, lr, small)

    monkeypatch.setattr(Trainer, "update", watched)
    loop.train(recipe(model_fields=FIELDS["vit"], small_size=8, small_share=0.5, steps=2), tmp_path / "a")
    loop.resume(tmp_path / "a", steps=6)
    assert sizes == [8] + 7 * [16]


def test_gflops_and_time_left_follow_the_size_of_the_images(tmp_path, monkeypatch):
    """On a clock where a step takes as long as its FLOPs take at 7 GFLOP/s, the line says 7 all along and the true time left."""
    small_shapes(monkeypatch)
    flops = {side: training_flops("vit", model_config("vit", **FIELDS["vit"] | dict(img_size=side, num_classes=10))[1])
             for side in (8, 16)}
    seconds = [32 * flops[8 if step < 6 else 16] / 7e9 for step in range(12)]
    now, rows, step = [0.0], [], progress.Progress.step

    def timed(self, number, *args):
        now[0] += seconds[number - 1]
        step(self, number, *args)
        rows.append((self.row["GFLOP/s"], self.row["left"]))

    monkeypatch.setattr(progress.Progress, "step", timed)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(progress, "clock", lambda seconds: seconds)
    loop.train(recipe(model_fields=FIELDS["vit"], small_size=8, small_share=0.5), tmp_path / "a")
    assert flops[16] > 3 * flops[8] and [gflops for gflops, _ in rows] == 12 * ["7"]
    np.testing.assert_allclose([left for _, left in rows], [sum(seconds[number:]) for number in range(1, 13)], atol=1e-12)


def test_too_large_is_refused(tmp_path, monkeypatch):
    small_shapes(monkeypatch)
    with pytest.raises(UserError, match="small_size: expected at most the 16 pixels"):
        loop.train(recipe(model_fields=FIELDS["vit"], small_size=32), tmp_path / "a")


def test_minutes_measure_both_parts(tmp_path, monkeypatch):
    small_shapes(monkeypatch)
    settings = dict(model_fields=FIELDS["vit"], small_size=8, small_share=0.5, minutes=0.05, steps=None)
    result = loop.train(recipe(**settings), tmp_path / "a")
    assert result["steps"] >= 2 and result["seconds"] < 6


def test_the_first_part_trains_on_the_windows_that_were_drawn(tmp_path, monkeypatch):
    """A smaller image is a window of what a run without smaller images has; the second part has whole images."""
    small_shapes(monkeypatch)
    made, init = [], Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *args, **kwargs: (init(self, *args, **kwargs), made.append(self))[0])
    settings = dict(model_fields=FIELDS["vit"], small_size=8, small_share=0.5, cutmix=0.0, mixup=0.0, steps=1)
    for name, least in (("whole", 0), ("windows", 11)):
        loop.train(recipe(small_window=least, **settings), tmp_path / name)
    plain, cut = (trainer.batches for trainer in made)
    images, targets, seeds = plain.loader(9)(0, 32)
    epoch, place = divmod(9, plain.steps_per_epoch)
    windows = draw_windows(plain.order[1][place * 32:(place + 1) * 32], 0, epoch, 11, 16)
    assert set(windows[:, 2]) == set(range(11, 17))
    for small, expected in ((False, images), (True, resize_windows(images, windows, 8))):
        got, same_targets, same_seeds = cut.loader(9, small)(0, 32)
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(same_targets, targets)
        np.testing.assert_array_equal(same_seeds, seeds)
    np.testing.assert_array_equal(plain.loader(9, True)(0, 32)[0], shrink(images, 8))


def test_windows_that_images_do_not_have_are_refused(tmp_path, monkeypatch):
    small_shapes(monkeypatch)
    with pytest.raises(UserError, match="small_window: expected at most the 16 pixels of the data set's images, got 17"):
        loop.train(recipe(model_fields=FIELDS["vit"], small_size=8, small_window=17), tmp_path / "a")
    assert not (tmp_path / "a").exists()
