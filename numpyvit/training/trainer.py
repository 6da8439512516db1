"""One process's work on a run, step by step: batches, lanes, optimiser, evaluation."""
import math
from contextlib import contextmanager

import numpy as np

from ..data import hold_out, normalise
from ..data.views import mean_logits
from ..errors import UserError
from ..inspection.flops import training_flops
from ..ops.cross_entropy import cross_entropy_forward
from ..ops.optim import optimizer_settings
from .batches import Batches
from .lanes import Lanes
from .optim import Optimizer
from .progress import Progress
from .ranks import ALONE
from .schedule import learning_rate
from .sizes import at_size
from .trouble import not_finite
from .watched import Watched
from .whiten import filters_name, whiten


class Trainer:
    """The model of a RunConfig, its optimiser, the lanes, and the data as indices into the data set.

    run: the RunFolder.   threads: one a core unless given; as many as there are shards compute gradients
    world: its ranks
    Raises UserError where batch size, validation split or augmentation do not fit the data.
    """

    def __init__(self, run, config, dataset, model, threads=None, progress=None, world=ALONE):
        self.run, self.config, self.recipe, self.dataset, self.model = run, config, config.recipe, dataset, model
        self.progress, self.world, self.callback = progress or Progress(), world, None
        self.stopping = self.ends = False                            # asked to stop; the weights are those of the end
        check_ranks(config, world.size)
        self.optimizer = new_optimizer(model, self.recipe, self.world)
        self.mean, self.std = np.array(config.data.mean), np.array(config.data.std)
        train_rows, self.val_images, self.val_labels = hold_out(dataset, config.data.val, self.recipe.seed)
        if self.recipe.first_filters == "whitened" and world.rank == 0:      # the other ranks get rank 0's weights
            whiten(model, dataset.train.images, train_rows, self.mean, self.std)
        if self.recipe.batch_size > len(train_rows):
            smaller = 1 << max(len(train_rows).bit_length() - 4, 0)          # about an eighth of them
            raise UserError(f"batch_size: expected at most the {len(train_rows)} training images, got "
                            f"{self.recipe.batch_size}; choose a smaller batch, such as --batch-size {smaller}")
        self.watched = Watched(self)
        self.batches = Batches(dataset.train, train_rows, self.recipe, len(dataset.classes), self.mean, self.std)
        self.steps_per_epoch = self.batches.steps_per_epoch
        shards = config.lanes.shards
        self.lanes = Lanes(model, threads, shards, config.lanes.micro_batch, self.recipe.label_smoothing,
                           config.lanes.sum, self.optimizer.ranges, self.optimizer.frozen, config.lanes.division)
        self.small_lanes = self.lanes_for(self.recipe.small_size) if self.recipe.small_size else None
        self.flops, self.small_flops = (lanes and training_flops(config.model.family, lanes.model.config)
                                        for lanes in (self.lanes, self.small_lanes))         # an image

    def lanes_for(self, side):
        """Lanes for smaller images: they train the same weights with the same threads, in as many images at a time."""
        lanes = self.lanes
        small = Lanes(at_size(self.model, side), lanes.pool.threads, lanes.shards, lanes.micro_batch,
                      lanes.label_smoothing, lanes.kind, lanes.ranges, lanes.frozen, lanes.division)
        small.pool = lanes.pool
        return small

    def compile(self):
        """Have Numba compile, or load from its cache, the kernels of a step; changes nothing but gradients."""
        load, B = self.batches.loader(0), self.recipe.batch_size
        self.lanes.run_shard(self.lanes.replicas[0], 0, min(self.lanes.micro_batch, B), B, load)
        self.model.forward(load(0, 1)[0])
        self.optimizer.compile()

    def restore(self, checkpoint):
        """Go on from a Checkpoint, which rank 0 has read, or None. → whether there is one"""
        position = self.world.from_first(lambda: checkpoint and checkpoint.position)
        if position is None:
            return False
        self.run.position = position
        if self.world.rank == 0:
            checkpoint.restore(self.model, self.optimizer)
            checkpoint.tensors.clear()                                       # the run needs the memory
        else:
            self.optimizer.state()                                           # whose shapes rank 0 compares
            self.optimizer.load({})
        share_weights(self.world, self.model)
        return True

    def use_final_weights(self):
        """Leave the model with the weights that the run ends with: the running average, if one is kept."""
        with self.averaged_weights():
            final = self.model.state_dict()
        self.model.load_state_dict(final)

    def record(self, entry):
        """A line of metrics.jsonl, which the callback sees, too; it ends the run by returning True."""
        self.run.log("metrics.jsonl", entry)
        if self.callback and self.callback(entry) is True:
            self.stopping = True

    def take_step(self, step):
        """One update of the weights → its line of metrics.jsonl."""
        recipe, last = self.recipe, self.config.plan.steps
        start = self.config.plan.start
        lr = learning_rate(recipe.schedule, step - start, last - start, recipe.lr, recipe.warmup)
        loss, accuracy, norm = self.update(step, lr, step < self.small_steps())
        return {"kind": "train", "step": step + 1, "epoch": step // self.steps_per_epoch, "loss": loss,
                "accuracy": accuracy, "lr": lr, "grad_norm": norm}

    def small_steps(self):
        """How many steps, from the run's first, train on smaller images."""
        return math.ceil(self.recipe.small_share * self.config.plan.steps) if self.small_lanes else 0

    def work(self, steps):
        """FLOPs of the run's first steps, each for the size of its images."""
        small = min(steps, self.small_steps())
        return self.recipe.batch_size * ((steps - small) * self.flops + (small and small * self.small_flops))

    def update(self, step, lr, small=False):
        """Change the weights with the batch of this step.   →   loss, accuracy, norm of the gradient

        small: of smaller images, where the recipe has some.

        Raises NotFinite, and leaves the weights as they are, where loss or gradient are not finite.
        """
        lanes = self.small_lanes if small else self.lanes
        if self.small_lanes:                                                 # shards' gradients: one size at a time
            del (self.lanes if small else self.small_lanes).replicas[1:]
        load = self.batches.loader(step, small)
        loss, correct = lanes.gradient(self.recipe.batch_size, load)
        norm = self.optimizer.grad_norm(self.lanes.pool)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.ranges.share(self.model.flat_grad)
            raise not_finite(self, step, loss, load, lanes.model)
        self.optimizer.step(lr, step + 1, norm, self.lanes.pool)
        return loss, correct / self.recipe.batch_size, norm

    def evaluate(self, images, labels, tta="none"):
        """Mean loss (without label smoothing) and accuracy of uint8 images, with the weights that count.

        tta: the views of an image over which logits are averaged, see data/views.py
        """
        def logits_of(views):
            def load(lo, hi):
                return normalise(views[lo:hi], self.mean, self.std, self.recipe.dtype)

            return self.lanes.logits(len(views), load)

        with self.averaged_weights():
            logits = mean_logits(logits_of, images, tta)
        loss, _ = cross_entropy_forward(logits.astype(np.float64), labels)
        return float(loss), float((logits.argmax(axis=1) == labels).mean())

    @contextmanager
    def averaged_weights(self):
        """Inside, the model has the running average of its weights, if one is kept."""
        if self.optimizer.ema is None or self.ends:
            yield
            return
        flat, ranges, buffers = self.model.flat, self.optimizer.ranges, dict(self.model.named_buffers())
        averages = [(buffers[name], average) for name, average in self.optimizer.ema_buffers.items()]
        pairs = [(flat[ranges.lo:ranges.hi], self.optimizer.ema)] + averages
        own = [(array, array.copy()) for array in (flat, *(buffer for buffer, _ in averages))]
        try:
            for array, average in pairs:
                array[...] = average
            ranges.share(flat)
            yield
        finally:
            for array, mine in own:
                array[...] = mine


def new_optimizer(model, recipe, world=ALONE):
    """The recipe's Optimizer of the model."""
    settings = {name: getattr(recipe, name) for name in optimizer_settings(recipe.optimizer)}
    freeze = recipe.freeze if recipe.first_filters == "random" else f"{recipe.freeze},{filters_name(model)}"
    return Optimizer(model, recipe.optimizer, recipe.weight_decay, recipe.clip_norm, recipe.ema, world, recipe.lr_rest,
                     freeze, **settings)


def share_weights(world, model):
    """The weights and buffers of rank 0's model, on all ranks."""
    for array in (model.flat, *dict(model.named_buffers()).values()):
        world.bcast(array)


def check_ranks(config, size):
    """Raise UserError if the batches of this RunConfig cannot be dealt to so many ranks."""
    count = min(config.lanes.shards, config.recipe.batch_size)
    if size > count:
        raise UserError(f"{size} ranks need --shards {size} or more, and as many images a batch; got {count}. The "
                        "number of shards decides the bits, so a run keeps the number that it was started with")
    if size > 1 and config.lanes.sum != "tree":
        raise UserError("this run was started by a version without ranks, which added shards in another order: "
                        "continue it without mpiexec")
