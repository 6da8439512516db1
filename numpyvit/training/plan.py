"""The plan of a run: how many steps, and how often the validation images are scored.

A length in minutes becomes a number of steps once, by measuring the speed. The plan is written down and never changes.
"""
import math
import statistics
import time
from typing import NamedTuple

from ..runs.checkpoint import checkpoint_tensors
from ..runs.config import Plan
from .schedule import learning_rate

EVALUATION_SHARE = 0.05                                                      # of the time, for validation images
MARGIN = 0.98                                                                # of the time left is planned with
END_SECONDS = 0.5                                                            # for writing the results


class Speed(NamedTuple):
    """What was measured: seconds a training step, seconds an evaluated image, and the seconds that measuring took."""
    step: float
    image: float
    spent: float


def make_plan(recipe, steps_per_epoch, val, test, speed=None, start=0):
    """The Plan of a recipe.   val, test: numbers of images   speed: needed where the recipe says minutes

    start: the step from which a finished run is extended by the recipe's length
    """
    watching = val / (3 * recipe.batch_size)                                 # steps that one look at val images costs
    if not recipe.minutes:
        steps = recipe.steps or max(round(recipe.epochs * steps_per_epoch), 1)
        return Plan(steps_per_epoch, start + steps, evaluation_interval(watching, steps_per_epoch, steps), start=start)
    seconds = 60 * recipe.minutes - speed.spent - speed.image * (test + val) - END_SECONDS
    steps = max(int(MARGIN * seconds / speed.step), 1)
    look = speed.image * val / evaluation_interval(watching, steps_per_epoch, steps)     # seconds a step
    steps = max(int(MARGIN * seconds / (speed.step + look)), 1)
    interval = evaluation_interval(watching, steps_per_epoch, steps)
    return Plan(steps_per_epoch, start + steps, interval, round(speed.step, 5), start)


def evaluation_interval(watching, steps_per_epoch, steps):
    """Steps between two looks at the validation images: an epoch, or a tenth of a run of less than ten epochs.

    More where looks would take more than EVALUATION_SHARE of the time.   watching: how many steps one look costs.
    """
    return max(math.ceil(watching / EVALUATION_SHARE), min(steps_per_epoch, math.ceil(steps / 10)), 1)


def measure_speed(trainer):
    """The Speed of a Trainer that has taken no step, by steps that are then undone. Compiling is not measured."""
    recipe = trainer.recipe
    tensors = checkpoint_tensors(trainer.model)
    before = {name: array.copy() for name, array in tensors.items()}
    images, labels = trainer.dataset.train.images[:512], trainer.dataset.train.labels[:512]

    parts = [(False, 1.0)] if not recipe.small_size else [(True, recipe.small_share), (False, 1 - recipe.small_share)]
    enough = min(3.0, 0.04 * 60 * recipe.minutes) / len(parts)

    def take_step(number, small):
        lr = learning_rate(recipe.schedule, number, trainer.steps_per_epoch, recipe.lr, recipe.warmup)
        trainer.update(number % trainer.steps_per_epoch, lr, small)

    try:
        with trainer.progress.compiling():
            for small, _ in parts:
                take_step(0, small)
            trainer.evaluate(images[:64], labels[:64])
        started, step, count = time.monotonic(), 0.0, 0
        # The size that the run begins with comes last: one change of size less, and less memory.
        for small, share in reversed(parts):                                 # a step of the run, on average
            begun, times = time.monotonic(), []
            while trainer.world.agree(False, len(times) < 3 or time.monotonic() - begun < enough)[1]:
                count += 1
                first = time.monotonic()
                take_step(count, small)
                times.append(time.monotonic() - first)
            step += share * statistics.median(times)                         # the first ones wait for memory
        middle = time.monotonic()
        trainer.evaluate(images, labels)
        end = time.monotonic()
    finally:                                                                 # also after Ctrl-C
        for name, array in tensors.items():
            array[...] = before[name]
        trainer.optimizer.begin()
    return Speed(step, (end - middle) / len(images), end - started)
