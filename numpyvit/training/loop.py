"""Training from a recipe to a scored model: plan the steps, take them, watch, save, and score the test set once."""
import os
import shlex
import time
from contextlib import ExitStack, contextmanager, nullcontext

from ..errors import Interrupted
from ..runs import curves
from ..runs.config import build_model
from ..runs.folder import FollowedRun, RunFolder
from . import describe, interrupts, plan, prepare, ranks, results
from .progress import Progress
from .start import start_from
from .trainer import Trainer, share_weights

CHECKPOINT_SECONDS = 60.0                                                    # at least so often …
EPOCH_SECONDS = 15.0                                                         # … or at an epoch's end, after so long


def train(recipe, out=None, threads=None, console=None):
    """Train a new model and return the contents of result.json.

    recipe: a Recipe.   out: folder of the run, a new one in runs/ unless given.
    threads: one a core unless given; they do not change the result.

    Raises UserError (also for a loss that is not finite), OSError (disk full), Interrupted (a checkpoint is written).
    """
    prepare.check_recipe(recipe)

    def begin(world, progress, threads, held):
        dataset = prepare.load_dataset(recipe, progress)
        model = prepare.new_model(recipe, dataset, world)
        if recipe.init:
            for sentence in start_from(recipe.init, model, dataset.classes):
                progress.say(sentence)
        run = prepare.free_folder(out, f"{recipe.model}-{dataset.name}")
        config = prepare.new_config(recipe, dataset, model)
        dataset = prepare.aside(dataset)
        trainer = Trainer(run, config, dataset, model, threads, progress, world)
        run.create(numbered=out is None)                                     # only after everything has been checked
        held.enter_context(run.lock())
        run.write_config(trainer.config)
        return trainer, None

    return run_together(begin, threads, recipe.data_dir, console)


def resume(path, threads=None, data_dir=None, console=None, **length):
    """Continue the run in this folder at the step of its newest checkpoint, bit for bit. Returns as train does.

    data_dir: where the data set is now, if it has moved. Raises as train does.
    length: minutes, epochs or steps by which a finished run is extended, with a schedule of its own.
    """
    def begin(world, progress, threads, held):
        run = RunFolder(path)
        config = run.read_config()
        held.enter_context(run.lock())
        checkpoint, finished = run.read_checkpoint(), os.path.exists(run.file("result.json"))
        if finished and checkpoint and config.plan and checkpoint.position.step <= config.plan.start:
            run.open_again()                                                 # killed while the run was being extended
            finished = False
        if finished and not length:
            if not os.path.exists(run.file("curves.png")):
                progress.say(curves.draw_curves(run))
            quoted = shlex.quote(run.path)
            progress.say(f"{run.path}: this run is finished; numpyvit evaluate {quoted} scores it, and --resume "
                         f"{quoted} --minutes 10 extends it")
            return None
        if not checkpoint and not finished:
            progress.say("the run has no checkpoint, so it begins again with its first step")
        for sentence in checkpoint.changes(config) if checkpoint else []:
            progress.say(sentence)
        if length:
            run.check_metrics()                                              # before the result of the run is forgotten
            config = prepare.extended(config, run.path, checkpoint if finished else None, length)
            progress.say(f"the run is extended from step {checkpoint.position.step}, where a new "
                         f"{config.recipe.schedule} schedule begins")
        model = build_model(config, checkpoint)
        dataset = prepare.load_dataset(config.recipe, progress, config.data, data_dir)
        if config.recipe.init and not checkpoint:                            # stopped before the first checkpoint
            for sentence in start_from(config.recipe.init, model, dataset.classes):
                progress.say(sentence)
        for name, version in prepare.versions().items():
            if config.versions.get(name) != version:
                progress.say(f"{name} was {config.versions.get(name)} and is now {version}: "
                             "the run continues, but its bits may differ")
        run.tidy()
        dataset = prepare.aside(dataset)
        return Trainer(run, config, dataset, model, threads, progress, world), checkpoint

    return run_together(begin, threads, data_dir, console)


def run_together(begin, threads, data_dir, console):
    """Train on all ranks of the world, which is mostly this process alone. → what result.json holds

    begin(world, progress, threads, held): called on rank 0 → (Trainer, Checkpoint or None), or None for nothing to do;
    contexts that it enters on the stack held are left when the run ends.
    """
    world = ranks.world()
    progress = Progress(console, quiet=world.rank > 0)
    threads = world.default_threads() if threads is None else threads
    with ExitStack() as held:
        def begin_here():
            begun = begin(world, progress, threads, held)
            return begun, begun and begun[0].config

        begun, config = world.begin(begin_here)
        if config is None:
            return {}
        model = begun[0].model if begun else build_model(config)
        share_weights(world, model)
        trainer, checkpoint = begun or (follow(world, config, model, data_dir, threads, progress), None)
        for sentence in world.differences(lambda: prepare.versions() | prepare.kernels()):
            progress.say(sentence)
        return run_to_the_end(trainer, checkpoint)


def follow(world, config, model, data_dir, threads, progress):
    """The Trainer of a rank other than 0, which has rank 0's config and weights, reads the data and writes nothing."""
    dataset = prepare.aside(prepare.load_dataset(config.recipe, progress, config.data, data_dir))
    return Trainer(FollowedRun(), config, dataset, model, threads, progress, world)


def run_to_the_end(trainer, checkpoint=None):
    """From the checkpoint, or from the first step, to result.json."""
    run, progress, world = trainer.run, trainer.progress, trainer.world
    again = f"numpyvit train --resume {shlex.quote(run.path)}"
    with trainer.lanes:
        with progress.compiling():
            world.first_on_node(trainer.compile)
        if trainer.config.plan is None:
            start = checkpoint.position.step if checkpoint else 0
            minutes = trainer.recipe.minutes
            length = f" --minutes {minutes:g}" if start and minutes else ""  # of an extension, which no file knows yet
            with naming_the_way_on(f"stopped before the first step; continue with: {again}{length}"):
                speed = plan.measure_speed(trainer) if minutes else None
            images = len(trainer.val_labels), len(trainer.dataset.test)
            made = world.from_first(
                lambda: plan.make_plan(trainer.recipe, trainer.steps_per_epoch, *images, speed, start))
            trainer.config = trainer.config.with_plan(made)
            run.write_config(trainer.config)
            run.open_again()
        resumed = trainer.restore(checkpoint)
        for sentence in run.rewind():
            progress.say(sentence)
        trainer.watched.restore()
        describe.describe(trainer, resumed)
        progress.start(trainer.config.plan.steps, trainer.steps_per_epoch, trainer.recipe.batch_size, trainer.work)
        with progress, naming_the_way_on(f"stopped while scoring the test images; finish with: {again}"):
            try:
                with interrupts.Interrupts(progress.end, *what_signals_say(trainer, again)) as signals:
                    take_steps(trainer, signals, again)
                if world.agree(signals.asked, False)[0]:                     # during the last checkpoint
                    step, last = run.position.step, trainer.config.plan.steps
                    raise Interrupted(f"stopped after step {step} of {last}; finish with: {again}")
                if trainer.watched.impatient:
                    progress.say(trainer.watched.why_stopped())
                result = results.finish(trainer)
            except OSError as error:                                         # a full disk, for one
                error.add_note(f"when that is mended, continue with: {again}")
                raise
    with naming_the_way_on(f"the run is finished, but its curves are not drawn; {again} draws them"):
        results.draw(trainer)                            # after the lanes: Matplotlib can use the memory they freed
    return result


@contextmanager
def naming_the_way_on(text):
    """Inside, Ctrl-C is an Interrupted with this text."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(text) from None


def what_signals_say(trainer, again):
    """The texts of the first and the second signal; none on other ranks, and none for a run without files."""
    if trainer.world.rank > 0 or not trainer.run.has_files:
        return "", ""
    return ("finishing this step and writing a checkpoint; Ctrl-C again stops at once, without one",
            f"numpyvit: stopped without a checkpoint; continue with: {again}")


def take_steps(trainer, signals, again):
    """The steps that the plan has left: log each, score validation images and write checkpoints now and then.

    again: the command that continues the run, for whoever stops it
    """
    run, last, position = trainer.run, trainer.config.plan.steps, trainer.run.position
    clock_start = time.monotonic() - position.seconds
    saved_at, save_every = time.monotonic(), CHECKPOINT_SECONDS
    for step in range(position.step, last):
        if trainer.stopping:
            break
        with trainer.progress.compiling() if step == position.step else nullcontext():
            entry = trainer.take_step(step)
        trainer.record(entry)
        done = step + 1
        trainer.progress.step(done, entry["loss"], entry["accuracy"], entry["lr"])
        if done % trainer.config.plan.evaluate_every == 0 or done == last:
            trainer.watched.look(done)
        now = time.monotonic()
        age = now - saved_at
        due = age >= save_every or (age >= EPOCH_SECONDS and done % trainer.steps_per_epoch == 0)
        due = due or done == last or trainer.stopping
        asked, due = trainer.world.agree(signals.asked, due)
        if asked or due:
            run.log("timings.jsonl", {"step": done, "seconds": round(now - clock_start, 3)})
            run.save_checkpoint(trainer.model, trainer.optimizer, trainer.config, done, now - clock_start)
            saved_at = time.monotonic()
            save_every = max(CHECKPOINT_SECONDS, 20 * (saved_at - now))
            trainer.progress.paused()
        if asked:
            trainer.world.wait()                                             # for the checkpoint, which rank 0 writes
            raise Interrupted(f"stopped after step {done} of {last}; continue with: {again}")
