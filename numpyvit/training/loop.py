"""Training from a recipe to a scored model: plan the steps, take them, watch, save, and score the test set once."""
import dataclasses
import os
import time

from ..errors import Interrupted
from ..runs.config import build_model
from ..runs.folder import RunFolder
from . import interrupts, plan, prepare, results
from .progress import Progress
from .trainer import Trainer

CHECKPOINT_SECONDS = 60.0                                                    # at least so often …
EPOCH_SECONDS = 15.0                                                         # … or at an epoch's end, after so long


def train(recipe, out=None, threads=None, console=None):
    """Train a new model and return the contents of result.json.

    recipe: a Recipe.   out: folder of the run, a new one in runs/ unless given.
    threads: one a core unless given; they do not change the result.

    Raises UserError (also for a loss that is not finite), OSError (disk full), Interrupted (a checkpoint is written).
    """
    progress = Progress(console)
    prepare.check_recipe(recipe)
    dataset = prepare.load_dataset(recipe, progress)
    model = prepare.new_model(recipe, dataset)
    run = prepare.free_folder(out, f"{recipe.model}-{dataset.name}")
    trainer = Trainer(run, prepare.new_config(recipe, dataset, model), dataset, model, threads, progress)
    run.create()                                                             # only after everything has been checked
    with run.lock():
        run.write_config(trainer.config)
        return run_to_the_end(trainer)


def resume(path, threads=None, data_dir=None, console=None):
    """Continue the run in this folder at the step of its newest checkpoint, bit for bit. Returns as train does.

    data_dir: where the data set is now, if it has moved. Raises as train does.
    """
    progress = Progress(console)
    run = RunFolder(path)
    config = run.read_config()
    with run.lock():
        if os.path.exists(run.file("result.json")):
            progress.say(f"{run.path}: this run is finished; numpyvit evaluate {run.path} scores it")
            return {}
        checkpoint = run.read_checkpoint()
        model = build_model(config, checkpoint)
        dataset = prepare.load_dataset(config.recipe, progress, config.data, data_dir)
        for name, version in prepare.versions().items():
            if config.versions.get(name) != version:
                progress.say(f"{name} was {config.versions.get(name)} and is now {version}: "
                             "the run continues, but its bits may differ")
        run.tidy()
        return run_to_the_end(Trainer(run, config, dataset, model, threads, progress), checkpoint)


def run_to_the_end(trainer, checkpoint=None):
    """From the checkpoint, or from the first step, to result.json."""
    run, progress = trainer.run, trainer.progress
    with trainer.lanes:
        if trainer.config.plan is None:
            speed = plan.measure_speed(trainer) if trainer.recipe.minutes else None
            images = len(trainer.val_labels), len(trainer.dataset.test)
            made = plan.make_plan(trainer.recipe, trainer.steps_per_epoch, *images, speed)
            trainer.config = dataclasses.replace(trainer.config, plan=made)
            run.write_config(trainer.config)
        if checkpoint:
            checkpoint.restore(trainer.model, trainer.optimizer)
            run.position = checkpoint.position
        for sentence in run.rewind():
            progress.say(sentence)
        describe(trainer, resumed=checkpoint is not None)
        progress.start(trainer.config.plan.steps, trainer.steps_per_epoch, trainer.recipe.batch_size,
                       trainer.flops_per_image)
        again = f"numpyvit train --resume {run.path}"
        with progress:
            try:
                with interrupts.Interrupts(progress.end) as signals:
                    take_steps(trainer, signals)
                return results.finish(trainer)
            except KeyboardInterrupt:
                raise Interrupted(f"stopped while scoring the test images; finish with: {again}") from None
            except OSError as error:                                         # a full disk, for one
                error.add_note(f"when that is mended, continue with: {again}")
                raise


def take_steps(trainer, signals):
    """The steps that the plan has left: log each, score validation images and write checkpoints now and then."""
    run, last, position = trainer.run, trainer.config.plan.steps, trainer.run.position
    clock_start = time.monotonic() - position.seconds
    saved_at, save_every = time.monotonic(), CHECKPOINT_SECONDS
    for step in range(position.step, last):
        if step == position.step:
            with trainer.progress.compiling():
                entry = trainer.take_step(step)
        else:
            entry = trainer.take_step(step)
        run.log("metrics.jsonl", entry)
        done = step + 1
        trainer.progress.step(done, entry["loss"], entry["accuracy"], entry["lr"])
        if done % trainer.config.plan.evaluate_every == 0 or done == last:
            watch(trainer, done)
        now = time.monotonic()
        age = now - saved_at
        if (age >= save_every or done == last or signals.asked
                or (age >= EPOCH_SECONDS and done % trainer.steps_per_epoch == 0)):
            run.log("timings.jsonl", {"step": done, "seconds": round(now - clock_start, 3)})
            run.save_checkpoint(trainer.model, trainer.optimizer, done, now - clock_start)
            saved_at = time.monotonic()
            save_every = max(CHECKPOINT_SECONDS, 20 * (saved_at - now))
            trainer.progress.paused()
        if signals.asked:
            raise Interrupted(f"stopped after step {done} of {last}; continue with: numpyvit train --resume {run.path}")


def watch(trainer, step):
    """Score the validation images."""
    if len(trainer.val_labels):
        loss, accuracy = trainer.evaluate(trainer.val_images, trainer.val_labels)
        trainer.run.log("metrics.jsonl", {"kind": "val", "step": step, "loss": loss, "accuracy": accuracy})
        trainer.progress.evaluated("val acc", accuracy)
        trainer.progress.paused()


def describe(trainer, resumed):
    """Say what is trained on what, and how long."""
    config, data, per_epoch = trainer.config, trainer.config.data, trainer.steps_per_epoch
    trainer.progress.say(f"{config.recipe.model}: {config.model.parameters:,} parameters; {data.name}: {data.train:,} "
                         f"training, {data.val:,} validation, {data.test:,} test images; "
                         f"{trainer.lanes.pool.threads} threads")
    start = f"continuing after step {trainer.run.position.step} of " if resumed else ""
    trainer.progress.say(f"{start}{config.plan.steps:,} steps of {config.recipe.batch_size} images, "
                         f"{config.plan.steps / per_epoch:.2f} epochs, in {trainer.run.path}")
