"""A run, or weights that another library wrote, as a classifier: a model, its classes, and how images are prepared."""
import os
import shlex
from dataclasses import replace

import numpy as np

from ..data import hold_out, load, normalise
from ..data.folder import read_labelled
from ..data.images import read_fitted
from ..data.registry import load_resized
from ..data.views import mean_logits
from ..errors import UserError
from ..models import PRESETS
from ..models.fold import ForInference
from ..module import pair
from ..ops.softmax import softmax_forward
from ..threads import Pool, evaluation_logits
from ..weights import build, load_weights
from ..weights.images import Preprocessing
from ..weights.sources import IN_A_FOLDER, optional_json
from .config import build_model, how_to_repeat_parts, records_of
from .folder import RunFolder

BLOCK = 16                                                                   # images at a time, where no run says so


def is_run(path):
    """Whether path is the folder of a run, and not weights: a file, or a folder with a file of weights and no run."""
    if not os.path.isdir(path):
        return False
    names = os.listdir(path)
    if "checkpoints" in names or not any(name in names for name in IN_A_FOLDER):
        return True
    return "recipe" in optional_json(os.path.join(path, "config.json"))


def load_model(path, dtype=None, **fields):
    """The model of a run, of a file of weights, or of a Hugging Face folder, with its classes: model.predict(image).

    dtype, fields: see numpyvit.weights.load_model; of a run nothing can be chosen.   Raises UserError.
    """
    if str(path) in PRESETS and not os.path.exists(path):
        raise UserError(f"{path} is a preset, not a file of weights: numpyvit.create_model({str(path)!r}) makes it, "
                        "with random weights")
    if not is_run(path):
        return build.load_model(path, dtype, **fields)
    check_nothing_chosen(path, [*fields, *(["dtype"] if dtype else [])])
    return Classifier(path).model


def check_nothing_chosen(path, names):
    """Raise UserError for fields that were given for the model of a run."""
    if names:
        raise UserError(f"{path}: a run's model is as config.json describes it; {', '.join(names)} cannot be chosen")


class Classifier:
    """A model with its classes. Of a run: with the weights that count, the running average where the run keeps one,
    else the last. Of anything else: whatever load_model makes of it.   fields: of its config, which weights do not tell
    """

    def __init__(self, path, fields=None):
        self.path, self.run, self.config, self.block = os.fspath(path), None, None, BLOCK
        if not os.path.exists(path):
            raise UserError(f"{path}: expected the folder of a run, or weights, got nothing")
        if is_run(path):
            check_nothing_chosen(path, fields or ())
            self.open_run(path)
        else:
            self.model = build.load_model(path, **(fields or {}))
        self.inference = ForInference(self.model)
        self.classes = self.model.classes or [str(k) for k in range(self.model.config.num_classes)]
        if self.model.preprocessing is None:
            raise UserError(f"{path}: it does not say how images are prepared, and is no file of another library")
        self.mean, self.std = (np.array(getattr(self.model.preprocessing, name)) for name in ("mean", "std"))
        self.prepared = str(self.model.preprocessing)                        # how images are, in words

    def open_run(self, path):
        """The newest checkpoint of a run."""
        self.run = RunFolder(path)
        self.config = self.run.read_config()
        checkpoint = self.run.read_checkpoint()
        self.model = build_model(self.config, checkpoint)
        finished, best = self.run.is_finished(), self.config.recipe.keep == "best"
        if checkpoint and not (finished and best):
            checkpoint.restore(self.model)
            self.step = checkpoint.position.step
        elif finished:                                                       # or somebody deleted its checkpoints
            load_weights(self.model, self.run.file("weights.safetensors"))
            last = checkpoint.position.step if checkpoint else self.config.plan.steps
            self.step = (best and (self.run.read_result().get("best_step") or best_step(self.run))) or last
        else:
            if os.path.exists(self.run.file("result.json")):
                again = f"numpyvit train --config {shlex.quote(self.run.file('config.json'))} repeats it"
                if self.config.plan.start:
                    again = how_to_repeat_parts(self.config, path)
                raise UserError(f"{path}: the run is finished, but its weights.safetensors and checkpoints are gone; "
                                f"{again}")
            raise UserError(f"{path}: the run has no checkpoint yet; train on with --resume "
                            f"{shlex.quote(self.path)}")
        self.block = self.config.lanes.micro_batch
        equip(self.model, self.config.data)

    def logits(self, images, threads=None, world=None, tta="none"):
        """images (n, C, H, W) uint8 → (n, K).   world: the ranks that share the work.   tta: whose views' logits are
        averaged, see data/views.py"""
        def logits_of(views):
            def load_images(lo, hi):
                return normalise(views[lo:hi], self.mean, self.std, self.model.dtype)

            return evaluation_logits(self.inference.get(), len(views), load_images, self.block, pool, world)

        with Pool(threads) as pool:
            return mean_logits(logits_of, images, tta)

    def predict(self, paths, tta="none"):
        """Image files → class probabilities (n, K) float64. Raises UserError for one that cannot be read."""
        return self.probabilities(np.stack([self.read(path)[0] for path in paths]), tta)

    def probabilities(self, images, tta="none"):
        """images (n, C, H, W) uint8 → (n, K) float64"""
        return softmax_forward(self.logits(images, tta=tta).astype(np.float64))[0]

    def read(self, path):
        """An image file as the model wants it → pixels (C, H, W) uint8, and a remark on what of it was dropped."""
        wanted = self.model.preprocessing
        return read_fitted(path, max(wanted.resized_to()), len(wanted.mean), wanted.fit)

    def folder(self, path):
        """The images of PATH/CLASS/…, of any number, each as read() prepares it.

        → images (n, C, H, W) uint8, labels (n,), a notice of what was skipped, or ""
        Raises UserError for a directory that is none of the classes, and for a folder without images.
        """
        shape = len(self.mean), *pair(self.model.config.img_size)
        labelled, notice = read_labelled(path, self.classes, shape, self.read)
        return labelled.images, labelled.labels, notice

    def data_set(self, name, data_dir=None):
        """A data set at the model's size. UserError where it has another number of classes or channels."""
        H, W = pair(self.model.config.img_size)
        if H != W:
            raise UserError(f"img_size: the data sets have square images, the model takes {H} × {W}")
        dataset, own = load_resized(name, data_dir, H)
        size = f"{own} × {own} pixels of the data set" + (f", resized to {H} × {H} (bilinear)" if own != H else "")
        self.prepared = f"the {size}; mean {self.mean.tolist()}, std {self.std.tolist()}"
        if len(dataset.classes) != len(self.classes) or dataset.test.images.shape[1] != len(self.mean):
            channels = dataset.test.images.shape[1]
            raise UserError(f"{self.path} has {len(self.classes)} classes and images of {len(self.mean)} channels, "
                            f"{dataset.name} has {len(dataset.classes)} and {channels}")
        return self.with_own_classes(dataset)

    def with_own_classes(self, dataset):
        """The data set with test labels that are the numbers of the weights' classes.

        Where the weights have the same names in another order, the labels are renumbered. Where they have other names,
        labels stay, self.classes becomes numbers, which are right for both, and the model's notes say so. UserError
        where a name of both has different numbers, so that neither can be right.
        """
        theirs, names = list(self.model.classes or dataset.classes), list(dataset.classes)
        if theirs == names:
            return dataset
        if sorted(theirs) == sorted(names) and len(set(names)) == len(names):
            numbers = np.array([theirs.index(name) for name in names])
            return replace(dataset, test=replace(dataset.test, labels=numbers[dataset.test.labels]))
        k = next(k for k, name in enumerate(names) if name != theirs[k])
        moved = [name for name in names if name in theirs and theirs.index(name) != names.index(name)]
        if moved:
            here, there = theirs.index(moved[0]), names.index(moved[0])
            raise UserError(f"{self.path} numbers its classes otherwise than {dataset.name}: {moved[0]!r} is class "
                            f"{here} of the weights and class {there} of the data set")
        self.classes = [str(number) for number in range(len(names))]
        sentence = (f"the classes of the weights have other names than those of {dataset.name} (class {k}: "
                    f"{theirs[k]}, and {names[k]}): they are compared by their numbers, and the accuracy means "
                    "something only if these are the same classes")
        self.model.notes = [*self.model.notes, sentence]
        return dataset

    def split(self, name, data_dir=None):
        """"test", or the "val" images that the run held out: → images (n, C, H, W) uint8, labels (n,)"""
        recorded, recipe = self.config.data, self.config.recipe
        data_dir, side = data_dir or recipe.data_dir, pair(self.model.config.img_size)[0]
        dataset = load_resized(recorded.name, data_dir, side)[0] if recipe.init else load(recorded.name, data_dir, side)
        if records_of(dataset) != recorded.checksum:
            raise UserError(f"the data set is not the one of this run: its checksum is {records_of(dataset)}, expected "
                            f"{recorded.checksum}; to score other images, name a folder of them: numpyvit evaluate "
                            f"{shlex.quote(self.run.path)} FOLDER")
        if name == "test":
            return dataset.test.images, dataset.test.labels
        _, images, labels = hold_out(dataset, recorded.val, recipe.seed)
        if not len(labels):
            raise UserError(f"{self.run.path}: the run held out no validation images (--val 0); use --split test")
        return images[:], labels


def equip(model, data):
    """Give a model the classes and the normalisation of a run's DataEntry."""
    model.classes = list(data.classes)
    size = pair(model.config.img_size)
    model.preprocessing = Preprocessing(size, "fit", 1.0, "bicubic", data.mean, data.std, "the run")


def best_step(run):
    """At which step the weights were kept that were best on the validation images, for a run whose result.json does not
    say so yet: the first look of the best accuracy, from metrics.jsonl. None where the file is missing or has no look.
    """
    if not os.path.exists(run.file("metrics.jsonl")):
        return None
    looks = [entry for entry in run.read_metrics() if entry.get("kind") == "val"]
    return max(looks, key=lambda entry: entry["accuracy"], default={}).get("step")


def confusion_matrix(labels, predicted, K):
    """How often class i (row) was taken for class j (column): (K, K) int64"""
    return np.bincount(labels * K + predicted, minlength=K * K).reshape(K, K)


def top_accuracy(logits, labels, count):
    """The share of images whose label is among the count largest logits, as predict() orders them.

    logits (n, K)   labels (n,).   A row with a NaN counts as wrong.
    """
    largest = (-logits).argsort(axis=1, kind="stable")[:, :count]
    right = (largest == labels[:, None]).any(axis=1) & ~np.isnan(logits).any(axis=1)
    return float(right.mean())
