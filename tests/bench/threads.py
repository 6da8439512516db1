"""Throughput of numpyvit's training step from one thread to several, taking turns."""
import argparse

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from . import models, race
from .train_step import add_common, in_words, ours


def main(arguments):
    p = argparse.ArgumentParser(prog="bench threads", description=__doc__)
    p.add_argument("--models", nargs="+", default=list(models.DEFAULT), metavar="NAME")
    p.add_argument("--inference", action="store_true")
    add_common(p, "runs/bench-threads.json")
    args = p.parse_args(arguments)
    console, points, notes = Console(width=max(Console().width, 100)), [], []
    table = Table(title=f"images/s by threads, batch {args.batch}", box=SIMPLE_HEAD)
    for heading in ("model", "threads", "images/s", "× one thread"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name in args.models:
        family, fields = models.configuration(name)
        specs = {n: ours(family, fields, args.batch, args, threads=n, inference=args.inference) for n in range(1, args.threads + 1)}
        there, missing = race.race(specs, args.rounds, args.steps)
        disturbed = race.largest_disturbance(there.values())
        notes += [f"{name}, {n} threads, is missing: {why}" for n, why in missing.items()] + race.disturbance(disturbed, name)
        for n, c in there.items():
            rate = race.spread([args.batch / seconds for seconds in c.rounds])
            speedup = race.spread([one / s for one, s in zip(there[1].rounds, c.rounds)]) if 1 in there else None
            points.append({"model": name, "threads": n, "images_per_second": rate, "speedup": speedup, "disturbed": disturbed})
            table.add_row(name, str(n), in_words(rate, ".0f"), in_words(speedup, ".2f"))
    console.print(table, *notes, sep="\n")
    race.write_json(args.json, batch=args.batch, inference=args.inference, rounds=args.rounds, notes=notes, points=points)
