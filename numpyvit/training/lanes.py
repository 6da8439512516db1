"""Lanes: data parallelism over threads inside one process, with the same bits for any number of threads.

    batch → shards → micro-batches;   d = Σ_shards Σ_micro-batches d_micro,   each sum in a fixed order

A lane is a thread that runs forward and backward on one micro-batch after another with single-threaded BLAS: NumPy's products
and the compiled kernels both release the GIL, and a micro-batch's activations stay in the core's cache. Gradients add up
in the shard's own vector, and the shards' vectors are added in order. Which rows form a shard and a micro-batch depends on
the settings of the run alone, never on the number of threads or on who was faster.
"""
import ctypes
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from .. import functional as F
from ..errors import UserError

CHUNK = 65536                                                                # elements; ranges of a flat vector start at multiples


class Lanes:
    """Threads, replicas and gradient shards for one model. A context manager: leaving it ends the threads.

    threads: how many lanes, one per usable core unless given.   shards: gradient sums kept apart (a setting of the run: it decides
    the bits).   micro_batch: images a lane takes at once, default_micro_batch(model) unless given (decides the bits, too).
    """

    def __init__(self, model, threads=None, shards=4, micro_batch=None, label_smoothing=0.0):
        self.threads = threads or usable_cores()
        self.shards, self.micro_batch = shards, micro_batch or default_micro_batch(model)
        for name in ("threads", "shards", "micro_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: expected at least 1, got {getattr(self, name)}")
        self.model, self.label_smoothing = model, label_smoothing
        single_threaded_blas()
        keep_freed_memory()
        self.replicas = [model.replica(model.flat_grad)] + [model.replica() for _ in range(shards - 1)]
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="lane")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.pool.shutdown(cancel_futures=True)

    def gradient(self, batch_size, load):
        """Forward and backward of one batch; the gradient of its mean loss is then in model.flat_grad.

        load(lo, hi) → images (b, C, H, W), targets (b,) or (b, K), seeds (b,) uint64 or None, of rows lo to hi of the batch;
        called from the lanes.   →   mean loss (float), number of images whose largest logit is their largest target
        """
        bounds = np.linspace(0, batch_size, min(self.shards, batch_size) + 1).astype(int)
        shards = [(replica, *pair) for replica, pair in zip(self.replicas, zip(bounds[:-1], bounds[1:]))]
        outcomes = [o for shard in self.pool.map(lambda s: self.run_shard(*s, batch_size, load), shards) for o in shard]
        self.add_shards(len(shards))
        self.model.update_buffers([statistics for _, _, statistics in outcomes])
        return sum(loss for loss, _, _ in outcomes) / batch_size, sum(correct for _, correct, _ in outcomes)

    def run_shard(self, replica, lo, hi, batch_size, load):
        """Rows lo to hi, a micro-batch at a time, into replica.flat_grad → [(loss sum, correct, batch statistics), …]"""
        replica.zero_grad()
        outcomes = []
        for start in range(lo, hi, self.micro_batch):
            images, targets, seeds = load(start, min(start + self.micro_batch, hi))
            b = len(images)
            logits, cache = replica.forward(images, train=True, rng=seeds)
            loss, loss_cache = F.cross_entropy_forward(logits, targets, self.label_smoothing)
            dlogits = F.cross_entropy_backward(b / batch_size, loss_cache)   # the batch's mean, not the micro-batch's
            replica.backward(dlogits, cache)
            labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
            outcomes.append((float(loss) * b, int((logits.argmax(axis=1) == labels).sum()), replica.batch_statistics(cache)))
            del cache                                                        # or it would live through the next forward pass, too
        return outcomes

    def add_shards(self, count):
        """model.flat_grad (which is shard 0's) += shard 1 + shard 2 + …, in this order, every lane a range of it."""
        total, others = self.model.flat_grad, [r.flat_grad for r in self.replicas[1:count]]
        if count == 0 or not others:
            return

        def add(lo, hi):
            for other in others:
                total[lo:hi] += other[lo:hi]

        self.each_range(add, len(total))

    def logits(self, count, load_images):
        """Evaluation-mode logits of count images: (count, K). load_images(lo, hi) → images, called from the lanes."""
        size = 2 * self.micro_batch                                          # there is no backward pass to hold as much again

        def run(lo):
            logits, _ = self.model.forward(load_images(lo, min(lo + size, count)))
            return logits

        return np.concatenate(list(self.pool.map(run, range(0, count, size))))

    def each_range(self, fn, size):
        """fn(lo, hi) over contiguous ranges that cover 0 … size, one a lane, each starting at a multiple of CHUNK."""
        chunks = -(-size // CHUNK)
        edges = np.linspace(0, chunks, min(self.threads, chunks) + 1).astype(int) * CHUNK
        list(self.pool.map(lambda pair: fn(*pair), [(lo, min(hi, size)) for lo, hi in zip(edges[:-1], edges[1:])]))


def default_micro_batch(model):
    """Images whose activations fit a core's cache and whose products are still large: the power of two with at most 2¹⁷
    numbers, half a megabyte in float32, in one (tokens, C) map. Larger ones are no faster and hold more memory."""
    return 1 << max(0, int(math.log2(2**17 / (model.tokens * model.width))))


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def single_threaded_blas():
    """One BLAS thread, for the whole process and for good: the lanes are the parallelism."""
    threadpoolctl.threadpool_limits(1, user_api="blas")


def keep_freed_memory():
    """Ask glibc to keep freed arrays for reuse: a fresh 4 MB temporary costs more in page faults than in arithmetic."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_ARENA_MAX, 1)


def check_blas():
    """Raise UserError if concurrent products with a transposed operand differ from serial ones.

    OpenBLAS 0.3.28 and 0.3.29 returned another thread's data for A · Bᵀ and Aᵀ · B, the shapes of every backward pass.
    """
    rng = np.random.default_rng(0)
    work = [(rng.standard_normal((96, 64), dtype=np.float32), rng.standard_normal((80, 64), dtype=np.float32))
            for _ in range(4)]

    def products(pair):
        a, b = pair
        return [(a @ b.T, b.T.copy() @ b, a.T @ a, a[::2] @ b.T) for _ in range(8)]

    serial = [products(pair) for pair in work]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(products, work))
    same = all(np.array_equal(x, y) for s, c in zip(serial, concurrent) for xs, ys in zip(s, c) for x, y in zip(xs, ys))
    if not same:
        raise UserError("this NumPy's BLAS gives wrong products when two threads multiply at once; install numpy>=2.3.5, "
                        "or run with --threads 1")
