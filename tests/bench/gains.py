"""What every compiled kernel gains: a training step with all of them, and with one file's replaced by its definitions."""
import argparse

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from numpyvit import functional as F

from . import models, race
from .train_step import add_common, in_words, ours


def bound_files():
    """The files of kernels/ from which functional.py binds something."""
    modules = {getattr(value, "__module__", None) or "" for value in vars(F).values()}
    return sorted(module.rpartition(".")[2] for module in modules if module.startswith("numpyvit.kernels."))


def main(arguments):
    p = argparse.ArgumentParser(prog="bench gains", description=__doc__)
    p.add_argument("--models", nargs="+", default=list(models.DEFAULT), metavar="NAME")
    p.add_argument("--kernels", nargs="+", default=bound_files(), metavar="FILE", help="files of kernels/, without .py")
    add_common(p, "runs/bench-gains.json")
    args = p.parse_args(arguments)
    console, points, notes = Console(width=max(Console().width, 100)), [], []
    table = Table(title=f"a training step without one file of kernels/, batch {args.batch}, {args.threads} threads", box=SIMPLE_HEAD)
    for heading in ("model", "without", "takes longer by"):
        table.add_column(heading, justify="right" if heading.startswith("takes") else "left", no_wrap=True)
    for name in args.models:
        family, fields = models.configuration(name)
        specs = {without: ours(family, fields, args.batch, args, without=without) for without in ("", *args.kernels)}
        there, missing = race.race(specs, args.rounds, args.steps)
        disturbed = race.largest_disturbance(there.values())
        notes += [f"{name} without {file} is missing: {why}" for file, why in missing.items()] + race.disturbance(disturbed, name)
        for without, c in there.items():
            if without and "" in there:
                longer = race.spread([100 * (seconds / full - 1) for seconds, full in zip(c.rounds, there[""].rounds)])
                points.append({"model": name, "without": without, "longer_percent": longer, "disturbed": disturbed})
                table.add_row(name, without, in_words(longer, ".1f") + " %")
    console.print(table, *notes, sep="\n")
    race.write_json(args.json, batch=args.batch, threads=args.threads, rounds=args.rounds, notes=notes, points=points)
