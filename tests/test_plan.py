"""The plan of a run: the steps that fit its minutes, computed by hand; and after which steps a checkpoint is written."""
import pytest

from numpyvit.runs.config import Plan
from numpyvit.runs.folder import RunFolder
from numpyvit.training import loop
from numpyvit.training.plan import Speed, make_plan
from tiny import recipe, small_shapes

TWO_MINUTES = dict(minutes=2.0, steps=None)


def test_minutes_are_for_measuring_and_steps_and_looks_and_scores_at_the_end():
    """Of 120 s, measuring took 3, the final scores of 9,000 + 900 images take 9.9 and the files half a second; 106.6 are left.

    A look at 900 images costs 9.375 steps of 3 · 32 images. Looks may take a twentieth of the time, so they are 188 steps
    apart, and 900 ms a look are 4.787 ms a step. Of 106.6 s, 98 % are planned with: 104.468 / (0.1 + 0.004787) = 996.95.
    """
    plan = make_plan(recipe(**TWO_MINUTES), 50, 900, 9000, Speed(step=0.1, image=0.001, spent=3.0))
    assert plan == Plan(steps_per_epoch=50, steps=996, evaluate_every=188, seconds_per_step=0.1)
    seconds = 3.0 + plan.steps * 0.1 + plan.steps / 188 * 0.9 + 9.9 + 0.5
    assert 120 - seconds == pytest.approx(0.02 * 106.6, abs=0.11)            # the margin, but for part of a step


def test_a_run_of_less_than_ten_epochs_is_looked_at_ten_times():
    """115.5 s are left for steps: 226 without looks, which are then 23 steps apart. With looks, 113.19 / 0.504174 = 224.5."""
    plan = make_plan(recipe(**TWO_MINUTES), 1000, 96, 904, Speed(step=0.5, image=0.001, spent=3.0))
    assert plan == Plan(steps_per_epoch=1000, steps=224, evaluate_every=23, seconds_per_step=0.5)


def test_a_run_has_a_step_however_short_its_time_is():
    plan = make_plan(recipe(minutes=0.01, steps=None), 50, 900, 9000, Speed(step=0.1, image=0.001, spent=3.0))
    assert plan.steps == 1


@pytest.mark.parametrize("length, steps", [(TWO_MINUTES, 996), (dict(steps=7), 7), (dict(epochs=2.5, steps=None), 125)])
def test_an_extension_begins_at_the_last_step_and_is_planned_as_a_run_by_itself(length, steps):
    speed = Speed(step=0.1, image=0.001, spent=3.0) if "minutes" in length else None
    plan, whole = (make_plan(recipe(**length), 50, 900, 9000, speed, start) for start in (400, 0))
    assert (whole.start, whole.steps, plan.start, plan.steps) == (0, steps, 400, 400 + steps)
    assert plan.evaluate_every == whole.evaluate_every == 188


@pytest.mark.parametrize("seconds, saved", [(0.0, [6, 12, 15]), (1e6, [15])])
def test_a_checkpoint_is_written_at_the_end_of_an_epoch_if_the_last_is_old(seconds, saved, tmp_path, monkeypatch):
    """An epoch has 6 steps, and the run ends with its step 15. CHECKPOINT_SECONDS is never over."""
    small_shapes(monkeypatch)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e6)
    monkeypatch.setattr(loop, "EPOCH_SECONDS", seconds)
    save, steps = RunFolder.save_checkpoint, []

    def noted(self, model, optimizer, config, step, seconds):
        save(self, model, optimizer, config, step, seconds)
        steps.append(step)
        assert self.checkpoints()[-1].endswith(f"step-{step:08d}.safetensors")

    monkeypatch.setattr(RunFolder, "save_checkpoint", noted)
    loop.train(recipe(steps=15), tmp_path / "run", threads=1)
    assert steps == saved
