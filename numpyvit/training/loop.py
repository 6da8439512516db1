"""Training from a recipe to a scored model: plan the steps, take them, watch, save, and score the test set once."""
import dataclasses
import itertools
import json
import math
import os
import platform
import sys
import threading
import time
from contextlib import contextmanager, nullcontext

import numpy as np

from .. import __version__
from ..data import Augment, augment_batch, channel_statistics, epoch_order, load, normalise, train_val_split
from ..data.dataset import records_checksum
from ..errors import Interrupted, UserError
from ..inspection.flops import training_flops
from ..models import count_parameters, create_model, model_config
from ..module import pair
from ..ops.cross_entropy import cross_entropy_forward
from ..ops.random_bits import hash_combine
from ..weights import save_weights
from ..files import atomic as files
from ..runs.checkpoint import FORMAT, RunFolder, build_model, checkpoint_tensors
from .interrupts import Interrupts
from .lanes import Lanes, check_blas, default_micro_batch, single_threaded_blas, usable_cores
from .optim import Optimizer, OptimizerConfig
from .progress import Progress, clock
from .recipe import recipe_from_json
from .schedule import learning_rate
from .trouble import NotFinite, first_not_finite

CHECKPOINT_SECONDS = 60.0                                                    # at least so often …
EPOCH_SECONDS = 15.0                                                         # … and at the end of an epoch, if the last is so old
EVALUATION_SHARE = 0.05                                                      # of the time, at most, for watching
LAYERS = 2**48 + 64                                                          # the hash stream of dropout and drop path


def train(recipe, out=None, threads=None, console=None):
    """Train a new model and return what result.json holds. recipe: a Recipe.   out: folder of the run, a new one in runs/
    unless given.   threads: one a core unless given; they do not change the result.

    Raises UserError (also for a loss that is not finite), OSError (disk full), Interrupted (a checkpoint is written).
    """
    progress = Progress(console)
    model_config(recipe.model, **recipe.model_fields)                        # a wrong name is told before data is loaded
    augmentation(recipe)
    dataset = load_dataset(recipe, progress)
    model = new_model(recipe, dataset)
    config = new_config(recipe, dataset, model)
    run = new_folder(out, f"{recipe.model}-{dataset.name}")
    with run.lock():
        run.write_config(config)
        return Trainer(run, config, dataset, model, threads, progress).train()


def resume(path, threads=None, data_dir=None, console=None):
    """Continue the run in this folder at the step of its newest checkpoint, bit for bit. Returns as train does.

    data_dir: where the data set is now, if it has moved. Raises as train does.
    """
    progress = Progress(console)
    run = RunFolder(path)
    config = run.read_config()
    recipe = recipe_from_json(config["recipe"])
    with run.lock():
        if os.path.exists(run.file("result.json")):
            progress.say(f"{run.path}: this run is finished; numpyvit evaluate {run.path} scores it")
            return {}
        checkpoint = run.read_checkpoint()
        model = build_model(config, checkpoint)
        dataset = load_dataset(recipe, progress, config["data"], data_dir)
        for name, version in versions().items():
            if config.get("versions", {}).get(name) != version:
                progress.say(f"{name} was {config.get('versions', {}).get(name)} and is now {version}: "
                             "the run continues, but its bits may differ")
        files.make_folder(run.file("checkpoints"))
        files.remove_temporaries(run.path)
        files.remove_temporaries(run.file("checkpoints"))
        return Trainer(run, config, dataset, model, threads, progress).train(checkpoint)


# --- before the first step

def load_dataset(recipe, progress, recorded=None, data_dir=None):
    """The data set at the model's image size. recorded: config.json's "data", which it then has to be the same as."""
    _, model = model_config(recipe.model, **recipe.model_fields)
    H, W = pair(model.img_size)
    name = recorded["name"] if recorded else recipe.data
    if H != W:
        raise UserError(f"img_size: the data sets have square images, got {H} × {W}")
    dataset = load(name, data_dir or recipe.data_dir, H)
    if recorded and recorded["checksum"] != records_of(dataset):
        raise UserError(f"the data set is not the one this run was started with: its checksum is {records_of(dataset)}, "
                        f"expected {recorded['checksum']}")
    if dataset.notice or (recorded and recorded["notice"]):
        progress.say(dataset.notice or recorded["notice"])
    return dataset


def records_of(dataset):
    """A checksum of the images and labels themselves, however they were stored."""
    known = dataset.checksum.startswith("records-") and dataset.name != "cifar10"
    return dataset.checksum if known else records_checksum(dataset.train, dataset.test)


def new_model(recipe, dataset):
    """The recipe's model, with as many classes and channels as the data set has."""
    needs = {"num_classes": len(dataset.classes), "in_chans": dataset.train.images.shape[1]}
    for field, value in needs.items():
        if recipe.model_fields.get(field, value) != value:
            raise UserError(f"{field}: the data set {dataset.name} has {value}, got {recipe.model_fields[field]}")
    fields = {**recipe.model_fields, **needs}
    vectors = 3 + recipe.shards + bool(recipe.ema)                           # weights, m, v, a gradient a shard, the average
    needed = count_parameters(recipe.model, **fields) * np.dtype(recipe.dtype).itemsize * vectors
    if needed > installed_memory():
        raise UserError(f"{recipe.model}: training it needs at least {needed / 2**30:,.1f} GiB of memory, and this machine has "
                        f"{installed_memory() / 2**30:,.1f}; choose a smaller model")
    return create_model(recipe.model, seed=recipe.seed, dtype=recipe.dtype, **fields)


def installed_memory():
    """Bytes of memory of this machine, infinity where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def new_config(recipe, dataset, model):
    """What config.json holds; the plan is added when it is made."""
    n = len(dataset.train)
    val = min(5000, n // 10) if recipe.val is None else recipe.val
    mean, std = channel_statistics(dataset.train.images)
    return {
        "format": FORMAT,
        "command": " ".join(sys.argv[1:]),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "recipe": dataclasses.asdict(recipe),
        "model": {"family": model_config(recipe.model)[0], "config": dataclasses.asdict(model.config),
                  "parameters": model.num_parameters()},
        "data": {"name": dataset.name, "notice": dataset.notice, "source": dataset.source, "checksum": records_of(dataset),
                 "files": dataset.checksum, "classes": list(dataset.classes), "mean": mean.tolist(), "std": std.tolist(),
                 "train": n - val, "val": val, "test": len(dataset.test)},
        "lanes": {"shards": recipe.shards, "micro_batch": recipe.micro_batch or default_micro_batch(model)},
        "versions": versions(),
        "plan": None,
    }


def versions():
    import numba
    return {"numpyvit": __version__, "python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__,
            "machine": platform.machine()}


def new_folder(out, name):
    """The RunFolder at out, or at the first free runs/NAME-N."""
    if out is not None:
        run = RunFolder(out)
        run.create()
        return run
    for number in itertools.count(1):
        run = RunFolder(os.path.join("runs", f"{name}-{number}"))
        if not os.path.lexists(run.path):
            run.create()
            return run


def augmentation(recipe):
    return Augment(recipe.padding, recipe.flip, recipe.cutout, recipe.erasing, recipe.mixup, recipe.cutmix)


def optimizer_config(recipe):
    return OptimizerConfig(recipe.optimizer, recipe.beta1, recipe.beta2, recipe.eps, recipe.momentum, recipe.weight_decay,
                           recipe.clip_norm, recipe.ema)


class Trainer:
    """One process's work on a run: the model, its optimiser, the lanes, and the data as indices into the data set."""

    def __init__(self, run, config, dataset, model, threads, progress):
        self.run, self.config, self.dataset, self.model, self.progress = run, config, dataset, model, progress
        self.recipe = recipe_from_json(config["recipe"])
        self.optimizer = Optimizer(model, optimizer_config(self.recipe))
        self.augment = augmentation(self.recipe)
        self.mean, self.std = (np.array(config["data"][key]) for key in ("mean", "std"))
        self.train_rows, val_rows = train_val_split(dataset.train, config["data"]["val"], self.recipe.seed)
        self.val_images, self.val_labels = dataset.train.images[val_rows], dataset.train.labels[val_rows]
        B, n = self.recipe.batch_size, len(self.train_rows)
        if B > n:
            raise UserError(f"batch_size: expected at most the {n} training images, got {B}")
        self.steps_per_epoch = n // B
        self.order = (None, None)                                            # (epoch, its order)
        single_threaded_blas()
        check_blas()
        lanes = config["lanes"]
        self.lanes = Lanes(model, min(threads or usable_cores(), lanes["shards"]), lanes["shards"], lanes["micro_batch"],
                           self.recipe.label_smoothing)

    def train(self, checkpoint=None):
        """From the checkpoint, or from the first step, to the end."""
        with self.lanes:
            if self.config["plan"] is None:
                self.config["plan"] = self.make_plan()
                self.run.write_config(self.config)
            if checkpoint:
                checkpoint.restore(self.model, self.optimizer)
                self.run.position = checkpoint.position
            for sentence in self.run.rewind():
                self.progress.say(sentence)
            self.describe(checkpoint)
            self.progress.start(self.config["plan"]["steps"], self.steps_per_epoch, self.recipe.batch_size,
                                training_flops(self.config["model"]["family"], self.model.config))
            again = f"numpyvit train --resume {self.run.path}"
            with self.progress:
                try:
                    with Interrupts(self.progress.end) as interrupts:
                        self.take_steps(interrupts)
                    return self.finish()
                except KeyboardInterrupt:
                    raise Interrupted(f"stopped while scoring the test images; finish with: {again}") from None
                except OSError as error:                                     # a full disk, for one
                    error.add_note(f"when that is mended, continue with: {again}")
                    raise

    def take_steps(self, interrupts):
        run, plan, position = self.run, self.config["plan"], self.run.position
        clock_start = time.monotonic() - position.seconds
        saved_at, save_every = time.monotonic(), CHECKPOINT_SECONDS
        for step in range(position.step, plan["steps"]):
            with compiling_notice(self.progress) if step == position.step else nullcontext():
                entry = self.take_step(step)
            run.log("metrics.jsonl", entry)
            done = step + 1
            self.progress.step(done, entry["loss"], entry["accuracy"], entry["lr"])
            if done % plan["evaluate_every"] == 0 or done == plan["steps"]:
                self.watch(done)
            now = time.monotonic()
            age = now - saved_at
            if (age >= save_every or done == plan["steps"] or interrupts.asked
                    or (age >= EPOCH_SECONDS and done % self.steps_per_epoch == 0)):
                run.log("timings.jsonl", {"step": done, "seconds": round(now - clock_start, 3)})
                run.save_checkpoint(self.model, self.optimizer, done, now - clock_start)
                saved_at = time.monotonic()
                save_every = max(CHECKPOINT_SECONDS, 20 * (saved_at - now))
                self.progress.paused()
            if interrupts.asked:
                raise Interrupted(f"stopped after step {done} of {plan['steps']}; continue with: "
                                  f"numpyvit train --resume {run.path}")

    def take_step(self, step):
        """One update of the weights → its line of metrics.jsonl. Everything random is a function of (seed, epoch, image)."""
        recipe, B = self.recipe, self.recipe.batch_size
        epoch, place = divmod(step, self.steps_per_epoch)
        if self.order[0] != epoch:
            self.order = epoch, self.train_rows[epoch_order(len(self.train_rows), recipe.seed, epoch)]
        rows = self.order[1][place * B:(place + 1) * B]

        def load_rows(lo, hi):
            images, targets = augment_batch(self.dataset.train, rows[lo:hi], recipe.seed, epoch, self.augment, self.mean, self.std,
                                            len(self.dataset.classes), recipe.dtype, self.train_rows)
            return images, targets, hash_combine(recipe.seed, epoch, LAYERS, rows[lo:hi])

        loss, correct = self.lanes.gradient(B, load_rows)
        norm = self.optimizer.grad_norm(self.lanes.each_range)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.not_finite(step, loss, load_rows)
        lr = learning_rate(recipe.schedule, step, self.config["plan"]["steps"], recipe.lr, recipe.warmup)
        self.optimizer.step(lr, step + 1, norm, self.lanes.each_range)
        return {"kind": "train", "step": step + 1, "epoch": epoch, "loss": loss, "accuracy": correct / B, "lr": lr, "grad_norm": norm}

    def not_finite(self, step, loss, load_rows):
        """Raise NotFinite with the step, where it began, the last good checkpoint and what to try."""
        B, micro = self.recipe.batch_size, self.lanes.micro_batch
        places = []
        for lo in range(0, B, micro):
            images, _, seeds = load_rows(lo, min(lo + micro, B))
            places.append(first_not_finite(self.model, images, seeds))
            if places[-1] != "the loss":
                break
        checkpoints = self.run.checkpoints()
        last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
        what = "gradient is not finite" if math.isfinite(loss) else f"loss is {loss}"
        raise NotFinite(f"step {step + 1}: the {what}; the first values that are not finite are in {places[-1]}; {last}; "
                        "try a smaller --lr, a longer --warmup or --clip-norm 1 in a new run")

    # --- watching and scoring

    def evaluate(self, images, labels):
        """Mean loss (without label smoothing) and accuracy of uint8 images, with the weights that count."""
        with self.averaged_weights():
            logits = self.lanes.logits(len(images), lambda lo, hi: normalise(images[lo:hi], self.mean, self.std, self.recipe.dtype))
        loss, _ = cross_entropy_forward(logits.astype(np.float64), labels)
        return float(loss), float((logits.argmax(axis=1) == labels).mean())

    @contextmanager
    def averaged_weights(self):
        """Inside, the model has the running average of its weights, if one is kept."""
        if self.optimizer.ema is None:
            yield
            return
        buffers = dict(self.model.named_buffers())
        pairs = [(self.model.flat, self.optimizer.ema)] + [(buffers[n], a) for n, a in self.optimizer.ema_buffers.items()]
        own = [array.copy() for array, _ in pairs]
        try:
            for array, average in pairs:
                array[...] = average
            yield
        finally:
            for (array, _), mine in zip(pairs, own):
                array[...] = mine

    def watch(self, step):
        """Score the validation images."""
        if len(self.val_labels):
            loss, accuracy = self.evaluate(self.val_images, self.val_labels)
            self.run.log("metrics.jsonl", {"kind": "val", "step": step, "loss": loss, "accuracy": accuracy})
            self.progress.evaluated("val acc", accuracy)
            self.progress.paused()

    def finish(self):
        """Score the test set, once; write result.json, weights.safetensors and curves.png."""
        run, data, recipe = self.run, self.config["data"], self.recipe
        self.progress.say(f"scoring the {data['test']:,} test images, once")
        started = time.monotonic()
        loss, accuracy = self.evaluate(self.dataset.test.images, self.dataset.test.labels)
        seconds = run.position.seconds + time.monotonic() - started
        run.log("metrics.jsonl", {"kind": "test", "step": run.position.step, "loss": loss, "accuracy": accuracy})
        self.progress.evaluated("test acc", accuracy)
        self.progress.end()
        with self.averaged_weights():
            save_weights(self.model, run.file("weights.safetensors"))
        result = {"test_accuracy": accuracy, "test_loss": loss, "weights": "running average" if recipe.ema else "last",
                  "steps": run.position.step, "epochs": run.position.step / self.steps_per_epoch, "seconds": seconds,
                  "data": data["name"], "notice": data["notice"]}
        files.write_atomic(run.file("result.json"), [(json.dumps(result, indent=1) + "\n").encode()])
        self.progress.say(f"test accuracy {accuracy:.2%} on the {data['test']:,} test images of {data['name']}, with the "
                          f"{result['weights']} weights, after {clock(seconds)} of training in {run.path}")
        if data["notice"]:
            self.progress.say(data["notice"])
        from ..runs.curves import draw_curves
        self.progress.say(draw_curves(run))
        return result

    def describe(self, checkpoint):
        plan, data, model = self.config["plan"], self.config["data"], self.config["model"]
        B = self.recipe.batch_size
        self.progress.say(f"{self.recipe.model}: {model['parameters']:,} parameters; {data['name']}: {data['train']:,} training, "
                          f"{data['val']:,} validation, {data['test']:,} test images; {self.lanes.threads} threads")
        start = f"continuing after step {self.run.position.step} of" if checkpoint else ""
        self.progress.say(f"{start} {plan['steps']:,} steps of {B} images, {plan['steps'] / self.steps_per_epoch:.2f} epochs, "
                          f"in {self.run.path}".strip())

    # --- the plan

    def make_plan(self):
        """How many steps, and how often to watch. With minutes: measured now, written down, and never changed again."""
        recipe, per_epoch = self.recipe, self.steps_per_epoch
        watching = len(self.val_labels) / (3 * recipe.batch_size)            # steps' worth of one look at the validation images
        plan = {"steps_per_epoch": per_epoch}
        if recipe.minutes:
            step, image = self.measure()
            seconds = 60 * recipe.minutes - self.measured - image * (len(self.dataset.test) + len(self.val_labels)) - 0.5
            steps = max(int(0.98 * seconds / step), 1)
            look = image * len(self.val_labels) / evaluation_interval(watching, per_epoch, steps)        # seconds a step
            plan |= {"seconds_per_step": round(step, 5), "steps": max(int(0.98 * seconds / (step + look)), 1)}
        else:
            plan["steps"] = recipe.steps or max(round(recipe.epochs * per_epoch), 1)
        return plan | {"evaluate_every": evaluation_interval(watching, per_epoch, plan["steps"])}

    def measure(self):
        """(seconds a step, seconds an evaluated image), by taking steps that are then undone. Compiling comes before."""
        state = {name: array.copy() for name, array in checkpoint_tensors(self.model, self.optimizer).items()}
        self.config["plan"] = {"steps": self.steps_per_epoch}
        images, labels = self.dataset.train.images[:512], self.dataset.train.labels[:512]
        with compiling_notice(self.progress):
            self.take_step(0)
            self.evaluate(images[:64], labels[:64])
        started, count = time.monotonic(), 0
        enough = min(3.0, 0.04 * 60 * self.recipe.minutes)
        while count < 3 or time.monotonic() - started < enough:
            count += 1
            self.take_step(count % self.steps_per_epoch)
        middle = time.monotonic()
        self.evaluate(images, labels)
        end = time.monotonic()
        for name, array in checkpoint_tensors(self.model, self.optimizer).items():
            array[...] = state[name]
        self.config["plan"], self.measured = None, end - started
        return (middle - started) / count, (end - middle) / len(images)


def evaluation_interval(watching, per_epoch, steps):
    """Steps between two looks at the validation images: an epoch, or a tenth of a short run, but never above the share."""
    return max(math.ceil(watching / EVALUATION_SHARE), min(per_epoch, math.ceil(steps / 10)), 1)


@contextmanager
def compiling_notice(progress):
    """Say so if the block is still compiling after a moment: the first time on a machine, Numba does."""
    def look():
        modules = [module for name, module in list(sys.modules.items()) if name.startswith(__package__.split(".")[0] + ".")]
        if any(getattr(getattr(value, "stats", None), "cache_misses", None) for m in modules for value in list(vars(m).values())):
            progress.say("Compiling the kernels, once (about 30 s) …")

    timer = threading.Timer(1.0, look)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
