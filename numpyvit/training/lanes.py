"""Lanes: data parallelism over threads inside one process, with the same bits for any number of threads.

    batch → shards → micro-batches;   d = Σ_shards Σ_micro-batches d_micro,   each sum in a fixed order

A lane is a thread that runs forward and backward on one micro-batch after another with single-threaded BLAS: NumPy's
products and the compiled kernels both release Python's lock, and a micro-batch's activations stay in the core's cache.
Gradients add up in the shard's own vector, and the shards' vectors are added in a fixed order (tree.py), also across
processes where several train one model (ranks.py). Which rows form a shard and a micro-batch depends on the settings of
the run alone, never on the number of processes or threads or on which of them was faster.
"""
import math
from typing import NamedTuple

import numpy as np

from .. import functional as F
from ..checks import check_number
from ..models.fold import ForInference
from ..threads import Pool, evaluation_logits, use_large_pages
from .exchange import Ranges, ShardSum
from .ranks import ALONE


class Outcome(NamedTuple):
    """What one micro-batch gave: the sum of its losses, how many of its images were right, its batch statistics."""
    loss: float
    correct: int
    statistics: object


class Lanes:
    """Threads, replicas and gradient shards for one model. A context manager: the threads live inside.

    threads      how many lanes, one a usable core unless given
    shards       gradient sums kept apart, default_shards unless given: a setting of the run, for it decides the bits
    micro_batch  images a lane takes at once, default_micro_batch(model) unless given; it decides the bits, too
    kind         order of the sum over shards, "tree" or "fold"; it decides the bits, too
    ranges       the Optimizer's, where there are several ranks
    frozen       names of parameters whose gradients may be left out
    division     of a shard, see micro_batches; it decides the bits, too
    """

    def __init__(self, model, threads=None, shards=None, micro_batch=None, label_smoothing=0.0, kind="tree",
                 ranges=None, frozen=(), division="equal"):
        self.model, self.label_smoothing, self.division = model, label_smoothing, division
        self.pool, self.micro_batch = Pool(threads), default_micro_batch(model) if micro_batch is None else micro_batch
        if shards is not None:
            check_number("shards", shards, whole=True, least=1)
        check_number("micro_batch", self.micro_batch, whole=True, least=1)
        self.ranges = ranges or Ranges(ALONE, model.flat.size)
        self.shards, self.kind, self.sum, self.frozen, self.batches = shards, kind, None, frozen, 0
        self.replicas, self.inference = [self.replica(model.flat_grad)], ForInference(model)

    def __enter__(self):
        self.pool.__enter__()
        return self

    def __exit__(self, *exc):
        self.pool.__exit__(*exc)

    def gradient(self, batch_size, load):
        """Forward and backward of one batch; the gradient of its mean loss is then in model.flat_grad (own range).

        load(lo, hi) → images (b, C, H, W), targets (b,) or (b, K), seeds (b,) uint64 or None, of rows lo to hi of the
        batch; called from the lanes.
        →   mean loss (float), number of images whose largest logit is their largest target
        """
        self.begin_batch()
        self.inference.forget()                                              # the weights are about to change
        shards = self.deal(batch_size)
        outcomes = self.pool.map(lambda shard: self.run_shard(*shard, batch_size, load), shards)
        outcomes = self.ranges.world.join([outcome for shard in outcomes for outcome in shard])
        self.add_shards([replica.flat_grad for replica, _, _ in shards])
        self.model.update_buffers([outcome.statistics for outcome in outcomes])
        return sum(outcome.loss for outcome in outcomes) / batch_size, sum(outcome.correct for outcome in outcomes)

    def begin_batch(self):
        """Count the batches. When the second begins, the memory for the arrays of the first moves to large pages."""
        self.batches += 1
        if self.batches == 2:
            use_large_pages()

    def deal(self, batch_size):
        """This process's shards of a batch, all of which are as equal as they can be: [(replica, lo, hi), …]"""
        count = min(self.shards or default_shards(batch_size, self.micro_batch), batch_size)
        if self.sum is None or self.sum.count != count:
            self.sum = ShardSum(self.ranges, count, self.kind, self.model.dtype)
        while len(self.replicas) < self.sum.end - self.sum.first:
            self.replicas.append(self.replica())
        bounds = np.linspace(0, batch_size, count + 1).astype(int)[self.sum.first:self.sum.end + 1]
        return list(zip(self.replicas, bounds[:-1], bounds[1:]))

    def replica(self, flat_grad=None):
        """The model with gradients of its own, for a shard."""
        return self.model.replica(flat_grad).for_training_steps(self.frozen)

    def run_shard(self, replica, lo, hi, batch_size, load):
        """Rows lo to hi, a micro-batch at a time, into replica.flat_grad → [Outcome, …]"""
        replica.zero_grad()
        outcomes = []
        for start, end in micro_batches(lo, hi, self.micro_batch, self.division):
            images, targets, seeds = load(start, end)
            b = len(images)
            logits, cache = replica.forward(images, train=True, rng=seeds)
            loss, loss_cache = F.cross_entropy_forward(logits, targets, self.label_smoothing)
            dlogits = F.cross_entropy_backward(b / batch_size, loss_cache)   # the batch's mean, not the micro-batch's
            replica.backward(dlogits, cache)
            labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
            correct = int((logits.argmax(axis=1) == labels).sum())
            outcomes.append(Outcome(float(loss) * b, correct, replica.batch_statistics(cache)))
            del cache                                                        # or two caches would be alive at once
        return outcomes

    def add_shards(self, gradients):
        """gradients[0], the model's own, ← the sum of all shards; each lane adds a range."""
        self.sum.add(gradients, self.pool)

    def logits(self, count, load_images):
        """Evaluation-mode logits of count images: (count, K). load_images(lo, hi) → images, called from the lanes.

        A block is a micro-batch: its arrays are as large as those of a training step, and reuse their memory.
        """
        self.begin_batch()
        model = self.inference.get()
        return evaluation_logits(model, count, load_images, self.micro_batch, self.pool, self.ranges.world)


def micro_batches(lo, hi, most, division):
    """Rows lo to hi in micro-batches of at most so many rows: [(start, end), …]

    division: "equal", the larger ones first, or "whole", as older runs have them: of most rows each, then the rest
    """
    if division == "whole":
        edges = [*range(lo, hi, most), hi]
    else:
        count = -(-(hi - lo) // most)
        edges = [hi - (hi - lo) * left // count for left in range(count, -1, -1)]
    return list(zip(edges[:-1], edges[1:]))


def default_shards(batch_size, micro_batch):
    """Four gradient sums, or fewer, so that each has four images or a whole micro-batch: a sum has costs that do not
    depend on its images, and the statistics of batch norm need several images."""
    return min(4, max(1, batch_size // min(4, micro_batch)))


def default_micro_batch(model):
    """Images whose activations fit a core's cache and whose products are still large: the power of two with at most 2¹⁷
    numbers, half a megabyte in float32, in one (tokens, C) map. Larger ones are no faster and hold more memory."""
    return 1 << max(0, int(math.log2(2**17 / (model.tokens * model.width))))
