"""Ranks: which share of a training step is exchange, measured on this machine; and a model of clusters on paper.

Measured: mpiexec starts 1, 2, 4 ranks with a batch for all of them together. Before every call of MPI the ranks meet,
so that waiting for a slower rank is not taken for exchange. Modelled: the time of a step measured here, and the time
that the messages of a step would take in a network of so much latency and bandwidth. Nobody has run the modelled table.
"""
import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from . import models, race

FABRICS = {"10 GbE": (30e-6, 1.15e9), "25 GbE": (25e-6, 2.9e9), "100 GbE": (20e-6, 11e9),
           "HPC fabric": (2e-6, 22e9)}                                       # seconds of latency, bytes a second
MODELLED = (4, 16, 64, 256, 1024)                                            # ranks


def main(arguments):
    if arguments[:1] == ["--worker"]:
        return worker(**json.loads(arguments[1]))
    p = argparse.ArgumentParser(prog="bench ranks", description=__doc__)
    p.add_argument("--models", nargs="+", default=["vit_nano_patch4_32"], metavar="NAME")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    p.add_argument("--threads", type=int, default=1, help="of each rank")
    p.add_argument("--steps", type=int, default=20, help="that are measured; 3 go before")
    p.add_argument("--optimizer", default="adamw")
    p.add_argument("--state", action="store_true", help="instead: memory of the optimiser's state by number of ranks")
    p.add_argument("--json", default="runs/bench-ranks.json", metavar="FILE")
    args = p.parse_args(arguments)
    mpiexec = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
    if not mpiexec:
        sys.exit("bench ranks: no mpiexec: pip install mpi4py mpich")
    console, points = Console(width=max(Console().width, 110)), []
    for name in args.models:
        for ranks in args.ranks:
            spec = dict(name=name, batch=args.batch, threads=args.threads, steps=args.steps, optimizer=args.optimizer,
                        state=args.state)
            command = [sys.executable, str(race.BENCH), "ranks", "--worker", json.dumps(spec)]
            done = subprocess.run([mpiexec, "-n", str(ranks), *command], capture_output=True, text=True)
            if done.returncode:
                why = (done.stderr.strip().splitlines() or ["failed"])[-1]
                sys.exit(f"bench ranks: {name} on {ranks} ranks: {why}")
            points.append({"model": name, "ranks": ranks} | json.loads(done.stdout.splitlines()[-1]))
    console.print((show_state if args.state else show)(points, args))
    if not args.state:
        for point in (point for point in points if point["ranks"] == 1):
            console.print(modelled(point, args))
    race.write_json(args.json, batch=args.batch, threads=args.threads, points=points)
    console.print(f"written: {args.json}")


def show(points, args):
    table = Table(title=f"measured: training step, batch {args.batch} for all ranks together, {args.threads} thread(s) "
                        f"a rank, {os.cpu_count()} cores", box=SIMPLE_HEAD)
    for heading in ("model", "ranks", "ms a step", "ms of exchange", "share", "lowest share", "ms waiting for others"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for p in points:
        table.add_row(p["model"], str(p["ranks"]), f"{1e3 * p['step']:.1f}", f"{1e3 * p['exchange']:.2f}",
                      f"{p['exchange'] / p['step']:.1%}", f"{p['lowest']:.1%}", f"{1e3 * p['waiting']:.1f}")
    return table


def show_state(points, args):
    table = Table(title=f"measured: resident memory that {args.optimizer} adds to a rank in two steps", box=SIMPLE_HEAD)
    for heading in ("model", "parameters", "ranks", "MB of state on rank 0", "MB on the last rank"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for p in points:
        megabytes = [f"{p['state_mb'][rank]:.0f}" for rank in (0, -1)]
        table.add_row(p["model"], f"{p['parameters']:,}", str(p["ranks"]), *megabytes)
    return table


def modelled(point, args):
    """Efficiency of R ranks on R nodes that each have the whole batch for themselves: T(1) / T(R).

    T(R) = compute + update / R + 8n(R − 1) / (Rβ) + 2(R − 1)α + 3⌈log₂R⌉α,   n parameters, latency α, bandwidth β
    Ranks share the update, so that a fast network can give more than 100 %.
    """
    n, compute, update = point["parameters"], point["step"] - point["update"], point["update"]
    table = Table(title=f"MODELLED, not measured: efficiency of R nodes, {args.batch} images each, {point['model']}, "
                        f"{n:,} parameters, {1e3 * point['step']:.0f} ms a step on one", box=SIMPLE_HEAD)
    for heading in ("fabric", *(f"R = {ranks:,}" for ranks in MODELLED)):
        table.add_column(heading, justify="right", no_wrap=True)
    for fabric, (latency, bandwidth) in FABRICS.items():
        row = []
        for R in MODELLED:
            exchange = 8 * n * (R - 1) / (R * bandwidth) + (2 * (R - 1) + 3 * math.ceil(math.log2(R))) * latency
            row.append(f"{point['step'] / (compute + update / R + exchange):.1%}")
        table.add_row(fabric, *row)
    return table


class Timed:
    """A communicator whose collectives are timed, after a meeting of all ranks that is timed, too."""

    def __init__(self, comm):
        self.comm, self.waiting, self.exchange = comm, 0.0, 0.0

    def __getattr__(self, name):
        method = getattr(self.comm, name)
        return self.timed(method) if name in ("Alltoallv", "Allreduce", "allgather") else method

    def timed(self, method):
        def call(*args, **kwargs):
            start = time.perf_counter()
            self.comm.Barrier()
            met = time.perf_counter()
            result = method(*args, **kwargs)
            self.waiting += met - start
            self.exchange += time.perf_counter() - met
            return result
        return call


def worker(name, batch, threads, steps, optimizer, state):
    import numpy as np

    import numpyvit
    from numpyvit.training.lanes import Lanes
    from numpyvit.training.optim import Optimizer
    from numpyvit.training.ranks import world
    group = world()
    family, fields = models.configuration(name)
    model = numpyvit.create_model(family, **fields)
    if state:
        model.flat_grad[...] = 1e-3
        added = together(group, state_mb(Optimizer, model, group, optimizer))
        return report(group, parameters=model.num_parameters(), state_mb=added)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, fields["in_chans"], fields["img_size"], fields["img_size"]), dtype=np.float32)
    labels = rng.integers(0, fields["num_classes"], batch)
    optimizer = Optimizer(model, optimizer, world=group)
    timed = group.comm = Timed(group.comm) if group.size > 1 else None
    records = []
    with Lanes(model, threads, max(4, group.size), ranges=optimizer.ranges) as lanes:
        for step in range(1, steps + 4):
            group.wait()
            if timed:
                timed.waiting = timed.exchange = 0.0
            start = time.perf_counter()
            lanes.gradient(batch, lambda lo, hi: (images[lo:hi], labels[lo:hi], None))
            added = time.perf_counter()
            optimizer.step(1e-4, step, optimizer.grad_norm(lanes.pool), lanes.pool)
            group.agree(False, False)
            end = time.perf_counter()
            records.append((end - start, *((timed.exchange, timed.waiting) if timed else (0.0, 0.0)), end - added))
    step, exchange, waiting, update = (statistics.median(values) for values in zip(*records[3:]))
    lowest = min(record[1] / record[0] for record in records[3:])            # of a step that nothing else disturbed
    exchange, waiting, lowest = (statistics.median(together(group, value)) for value in (exchange, waiting, lowest))
    report(group, parameters=model.num_parameters(), step=step, exchange=exchange, lowest=lowest, waiting=waiting,
           update=update)


def state_mb(Optimizer, model, group, kind):
    """Resident memory that the optimiser and two of its steps add to this process."""
    group.wait()
    before = resident_mb()
    optimizer = Optimizer(model, kind, world=group)
    for step in (1, 2):
        optimizer.step(1e-4, step, 0.0)
    return resident_mb() - before


def resident_mb():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def together(group, value):
    """The values of all ranks, by rank."""
    return group.comm.allgather(value) if group.size > 1 else [value]


def report(group, **values):
    if group.rank == 0:
        print(json.dumps(values), flush=True)
    group.leave(0, None, None)
