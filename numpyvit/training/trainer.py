"""One process's work on a run, step by step: batches, lanes, optimiser, evaluation."""
import math
from contextlib import contextmanager

import numpy as np

from ..data import normalise, train_val_split
from ..errors import UserError
from ..inspection.flops import training_flops
from ..ops.cross_entropy import cross_entropy_forward
from ..ops.optim import optimizer_settings
from ..threads import usable_cores
from .batches import Batches
from .lanes import Lanes
from .optim import Optimizer
from .progress import Progress
from .schedule import learning_rate
from .trouble import not_finite


class Trainer:
    """The model of a RunConfig, its optimiser, the lanes, and the data as indices into the data set.

    run: the RunFolder.   threads: one a core unless given; never more than the run's shards.
    Raises UserError where batch size, validation split or augmentation do not fit the data.
    """

    def __init__(self, run, config, dataset, model, threads=None, progress=None):
        self.run, self.config, self.recipe, self.dataset, self.model = run, config, config.recipe, dataset, model
        self.progress = progress or Progress()
        self.optimizer = new_optimizer(model, self.recipe)
        self.mean, self.std = np.array(config.data.mean), np.array(config.data.std)
        train_rows, val_rows = train_val_split(dataset.train, config.data.val, self.recipe.seed)
        self.val_images, self.val_labels = dataset.train.images[val_rows], dataset.train.labels[val_rows]
        if self.recipe.batch_size > len(train_rows):
            raise UserError(f"batch_size: expected at most the {len(train_rows)} training images, got "
                            f"{self.recipe.batch_size}")
        self.batches = Batches(dataset.train, train_rows, self.recipe, len(dataset.classes), self.mean, self.std)
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.flops_per_image = training_flops(config.model.family, model.config)
        self.lanes = Lanes(model, min(threads or usable_cores(), config.lanes.shards), config.lanes.shards,
                           config.lanes.micro_batch, self.recipe.label_smoothing)

    def take_step(self, step):
        """One update of the weights → its line of metrics.jsonl."""
        recipe = self.recipe
        lr = learning_rate(recipe.schedule, step, self.config.plan.steps, recipe.lr, recipe.warmup)
        loss, accuracy, norm = self.update(step, lr)
        return {"kind": "train", "step": step + 1, "epoch": step // self.steps_per_epoch, "loss": loss,
                "accuracy": accuracy, "lr": lr, "grad_norm": norm}

    def update(self, step, lr):
        """Change the weights with the batch of this step.   →   loss, accuracy, norm of the gradient

        Raises NotFinite, and leaves the weights as they are, where loss or gradient are not finite.
        """
        load = self.batches.loader(step)
        loss, correct = self.lanes.gradient(self.recipe.batch_size, load)
        norm = self.optimizer.grad_norm(self.lanes.pool)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise not_finite(self, step, loss, load)
        self.optimizer.step(lr, step + 1, norm, self.lanes.pool)
        return loss, correct / self.recipe.batch_size, norm

    def evaluate(self, images, labels):
        """Mean loss (without label smoothing) and accuracy of uint8 images, with the weights that count."""
        def load(lo, hi):
            return normalise(images[lo:hi], self.mean, self.std, self.recipe.dtype)

        with self.averaged_weights():
            logits = self.lanes.logits(len(images), load)
        loss, _ = cross_entropy_forward(logits.astype(np.float64), labels)
        return float(loss), float((logits.argmax(axis=1) == labels).mean())

    @contextmanager
    def averaged_weights(self):
        """Inside, the model has the running average of its weights, if one is kept."""
        if self.optimizer.ema is None:
            yield
            return
        buffers = dict(self.model.named_buffers())
        pairs = [(self.model.flat, self.optimizer.ema)]
        pairs += [(buffers[name], average) for name, average in self.optimizer.ema_buffers.items()]
        own = [array.copy() for array, _ in pairs]
        try:
            for array, average in pairs:
                array[...] = average
            yield
        finally:
            for (array, _), mine in zip(pairs, own):
                array[...] = mine


def new_optimizer(model, recipe):
    """The recipe's Optimizer of the model."""
    settings = {name: getattr(recipe, name) for name in optimizer_settings(recipe.optimizer)}
    return Optimizer(model, recipe.optimizer, recipe.weight_decay, recipe.clip_norm, recipe.ema, **settings)
