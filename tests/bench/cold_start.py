"""How long a beginner waits: the import, the first step with no kernel compiled, the first step of a later process."""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from . import models, race
from .train_step import add_common, ours

IMPORT = "import time; start = time.perf_counter(); import numpyvit{}; print(time.perf_counter() - start)"
USERS = {"PYTHONDONTWRITEBYTECODE": ""}              # a later process of a user reads Python's bytecode from __pycache__


def main(arguments):
    p = argparse.ArgumentParser(prog="bench cold_start", description=__doc__)
    p.add_argument("--models", nargs="+", default=["vit_nano_patch4_32", "swin_nano_patch2_window4_32", "cvt_nano_32"], metavar="NAME")
    add_common(p, "runs/bench-cold-start.json")
    args = p.parse_args(arguments)
    table = Table(title="seconds", box=SIMPLE_HEAD)
    table.add_column("")
    for heading in ("first step", "process start to first step's end"):
        table.add_column(heading, justify="right", no_wrap=True)
    imports = {"numpyvit": import_seconds("", args.rounds), "numpyvit and its models": import_seconds(".models", args.rounds)}
    for name, seconds in imports.items():
        table.add_row(f"import {name}", "", f"{seconds:.2f}")
    points, disturbed = [], []
    for name in args.models:
        family, fields = models.configuration(name)
        with tempfile.TemporaryDirectory() as cache:
            for when in ("nothing compiled", "a later process"):
                before, start = race.others_seconds(), time.perf_counter()
                with race.Competitor(ours(family, fields, args.batch, args), USERS | {"NUMBA_CACHE_DIR": cache}) as c:
                    points.append({"model": name, "when": when, "first_step": c.first_step, "from_start": c.start})
                    others = race.others_seconds(c.process.pid) - before
                    disturbed.append(max(0.0, others) / (time.perf_counter() - start) / os.cpu_count())
                table.add_row(f"{name}, {when}", f"{c.first_step:.2f}", f"{c.start:.2f}")
    Console().print(table, *race.disturbance(max(disturbed)), sep="\n")
    race.write_json(args.json, batch=args.batch, threads=args.threads, disturbed=max(disturbed), imports=imports, points=points)


def import_seconds(module, rounds):
    """Median over new processes; the first, which may have to read the files from disk, does not count."""
    paths = os.pathsep.join(sys.path[:2])            # where this process has numpyvit from
    return statistics.median([float(subprocess.run([sys.executable, "-c", IMPORT.format(module)], check=True, text=True,
                                                   stdout=subprocess.PIPE, env=os.environ | USERS | {"PYTHONPATH": paths}).stdout)
                              for _ in range(rounds + 1)][1:])
