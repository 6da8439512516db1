"""One training step as a table of operations: where the next bottleneck is read, not guessed.

Every name of functional.py and every layer's forward and backward is wrapped from outside while it runs. Times are CPU time of
the calling thread (time.thread_time), summed over the lanes, and exclusive: a layer's row is what it does besides its ops, such as
adding up gradients and residuals. GFLOP/s is that of one thread.
"""
import argparse
import inspect
import os
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import wraps

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import cases
import numpyvit
from numpyvit import functional as F
from numpyvit.training.lanes import Lanes
from numpyvit.training.optim import Optimizer

from . import models, race
from .train_step import add_common
from .worker import batch_of

FLOPS = {case.name: case.flops for case in cases.CASES if case.name not in ("dropout", "drop_path")}   # theirs depend on the rate


class Profile:
    """rows: {name: [exclusive seconds, calls, FLOPs]}. Any number of threads may be inside wrapped functions."""

    def __init__(self):
        self.rows, self.lock, self.here = defaultdict(lambda: [0.0, 0, 0]), threading.Lock(), threading.local()
        self.backward_flops = {}                     # id of a cache: what the backward pass that gets it will cost

    def timed(self, name, function, flops=None):
        """function, counted as `name`. flops(args, kwargs, result) → FLOPs of a call"""
        @wraps(function)
        def run(*args, **kwargs):
            inner = getattr(self.here, "inner", 0.0)                         # seconds of wrapped calls so far in the caller
            self.here.inner, start = 0.0, time.thread_time()
            try:
                result = function(*args, **kwargs)
            finally:
                total = time.thread_time() - start
                own, self.here.inner = total - self.here.inner, inner + total
            count = flops(args, kwargs, result) if flops else 0
            with self.lock:
                row = self.rows[name]
                row[0], row[1], row[2] = row[0] + own, row[1] + 1, row[2] + count
            return result
        return run

    def timed_op(self, name, function):
        """A name of functional.py; a pair of the table of cases has FLOPs, whose backward share waits under the cache's id."""
        stem, _, way = name.rpartition("_")
        if stem not in FLOPS or way not in ("forward", "backward"):
            return self.timed(name, function)
        if way == "backward":
            return self.timed(name, function, lambda args, kwargs, result: self.backward_flops.pop(id(args[1]), 0))
        signature = inspect.signature(function)

        def flops(args, kwargs, result):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            forward, self.backward_flops[id(result[1])] = FLOPS[stem](bound.arguments, bound.arguments)
            return forward
        return self.timed(name, function, flops)

    @contextmanager
    def watching(self, model):
        """Within, F's functions and the layers of this model are wrapped."""
        classes = {c for _, module in model.modules() for c in type(module).__mro__}
        targets = [(F, name, self.timed_op(name, f)) for name, f in vars(F).items() if callable(f) and hasattr(f, "__module__")]
        targets += [(c, way, self.timed(f"{c.__name__}.{way}, besides its ops", vars(c)[way]))
                    for c in classes for way in ("forward", "backward") if way in vars(c)]
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in targets]
        try:
            for owner, name, wrapped in targets:
                setattr(owner, name, wrapped)
            yield self
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)


class ProfiledLanes(Lanes):
    """Lanes whose own work has rows too."""

    def __init__(self, profile, *args):
        super().__init__(*args)
        self.profile, self.task = profile, "optimiser, besides its ops"
        self.run_shard = profile.timed("lane, besides layers and ops", self.run_shard)
        each_range = self.pool.each_range
        self.pool.each_range = lambda fn, size: each_range(profile.timed(self.task, fn), size)

    def add_shards(self, gradients):
        self.task = "sum of shards"
        super().add_shards(gradients)
        self.task = "optimiser, besides its ops"


def main(arguments):
    p = argparse.ArgumentParser(prog="bench profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?", default="vit_nano_patch4_32", help=f"preset, {', '.join(models.MODELS)}, or NAME:FIELD=VALUE")
    p.add_argument("--layers", action="store_true", help="a row for every layer's own work, not one for all")
    add_common(p, "runs/profile.json")
    args = p.parse_args(arguments)
    family, fields = models.configuration(args.model)
    rows, wall, plain, others = measure(family, fields, args)
    if not args.layers:
        rows = merged(rows)
    total = sum(seconds for seconds, _, _ in rows.values())
    console = Console(width=max(Console().width, 100))
    table = Table(title=f"a training step of {args.model}, batch {args.batch}, {args.threads} threads, micro-batch of "
                        f"{args.micro_batch or 'default size'}", box=SIMPLE_HEAD)
    for heading in ("operation", "ms", "share", "calls", "GFLOP", "GFLOP/s"):
        table.add_column(heading, justify="left" if heading == "operation" else "right", no_wrap=True)
    rows = dict(sorted(rows.items(), key=lambda item: -item[1][0]))
    for name, (seconds, calls, flops) in rows.items():
        table.add_row(name, f"{seconds * 1e3:.2f}", f"{seconds / total:.1%}", f"{calls:.0f}", f"{flops / 1e9:.2f}" if flops else "–",
                      f"{flops / seconds / 1e9:.1f}" if flops and seconds else "–")
    table.add_section()
    table.add_row("all threads together", f"{total * 1e3:.2f}", "100 %", "", "", "")
    console.print(table)
    console.print(f"step: {wall * 1e3:.1f} ms wrapped, {plain * 1e3:.1f} ms plain; {total / wall / args.threads:.0%} of {args.threads} threads "
                  f"busy", *race.disturbance(others), sep="\n")
    race.write_json(args.json, model=args.model, batch=args.batch, threads=args.threads, step_seconds=wall, plain_seconds=plain, others=others,
                    rows={name: dict(zip(("seconds", "calls", "flops"), row)) for name, row in rows.items()})


def measure(family, fields, args):
    """({name: (seconds, calls, FLOPs) a step}, seconds a wrapped step, seconds a plain one, others' share of the machine)"""
    model = numpyvit.create_model(family, **fields)
    optimizer, profile = Optimizer(model), Profile()
    images, labels = batch_of(np, fields, args.batch)
    count = args.rounds * args.steps

    def steps(lanes):
        start = time.perf_counter()
        for step in range(1, count + 1):
            lanes.gradient(args.batch, lambda lo, hi: (images[lo:hi], labels[lo:hi], None))
            optimizer.step(1e-4, step, 0.0, lanes.pool)
        return (time.perf_counter() - start) / count

    settings = (model, args.threads, args.shards, args.micro_batch)
    with Lanes(*settings) as lanes:
        steps(lanes)                                 # compiles and warms up
        before, start = race.others_seconds(), time.perf_counter()
        plain = steps(lanes)
    with ProfiledLanes(profile, *settings) as lanes, profile.watching(model):
        wall = steps(lanes)
    others = max(0.0, race.others_seconds() - before) / (time.perf_counter() - start) / os.cpu_count()
    return {name: tuple(value / count for value in row) for name, row in profile.rows.items()}, wall, plain, others


def merged(rows):
    """The layers' own rows as one: residual sums, gradients added up, reshapes, Python."""
    layers = [row for name, row in rows.items() if name.endswith("ward, besides its ops")]
    return {name: row for name, row in rows.items() if not name.endswith("ward, besides its ops")} | {
        "layers, besides their ops (--layers)": tuple(map(sum, zip(*layers)))}
