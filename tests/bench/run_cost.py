"""What a run adds to its bare steps: augmentation, the line of metrics, progress, and a checkpoint once a minute.

The steps of `numpyvit.fit` with a folder and the bare ones (images that are there, gradients, the optimiser) take turns.
"""
import argparse
import statistics
import tempfile
import time

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import numpyvit
from numpyvit.runs.folder import RunFolder
from numpyvit.training.loop import CHECKPOINT_SECONDS
from numpyvit.training.optim import Optimizer
from numpyvit.training.prepare import new_config
from numpyvit.training.recipe import recipe_for

from . import models, race, worker
from .train_step import add_common, in_words, ours


def main(arguments):
    p = argparse.ArgumentParser(prog="bench run_cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", nargs="+", default=["vit_mini_convpool_32", "vit_nano_patch4_32"], metavar="NAME")
    add_common(p, "runs/bench-run-cost.json")
    args = p.parse_args(arguments)
    console, points, notes = Console(width=max(Console().width, 110)), [], []
    table = Table(title=f"a step of a run beside a bare one, batch {args.batch}: medians of {args.rounds} turns", box=SIMPLE_HEAD)
    for heading in ("model", "bare images/s", "run images/s", "time, × bare", "a checkpoint's share"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name in args.models:
        family, fields = models.configuration(name)
        kind = models.OPTIMIZERS.get(name, "adamw")
        bare = ours(family, fields, args.batch, args, optimizer=kind)
        there, missing = race.race({"bare": bare, "run": bare | {"who": "run"}}, args.rounds, args.steps)
        disturbed = race.largest_disturbance(there.values())
        notes += [f"{name}, {who}, is missing: {why}" for who, why in missing.items()] + race.disturbance(disturbed, name)
        rates = {who: race.spread([args.batch / seconds for seconds in c.rounds]) for who, c in there.items()}
        ratio = race.spread([run / b for b, run in zip(there["bare"].rounds, there["run"].rounds)]) if len(there) == 2 else None
        share = checkpoint_seconds(family, fields, kind, args.rounds) / CHECKPOINT_SECONDS
        points.append({"model": name, "images_per_second": rates, "ratio": ratio, "checkpoint_share": share, "disturbed": disturbed})
        table.add_row(name, in_words(rates.get("bare"), ".0f"), in_words(rates.get("run"), ".0f"), in_words(ratio, ".3f"), f"{share:.2%}")
    console.print(table, *notes, sep="\n")
    race.write_json(args.json, batch=args.batch, threads=args.threads, rounds=args.rounds, notes=notes, points=points)


def checkpoint_seconds(family, fields, optimizer, rounds):
    """How long it takes to write a checkpoint, the median of so many; a run writes one in CHECKPOINT_SECONDS."""
    model, seconds = numpyvit.create_model(family, **fields), []
    recipe = recipe_for(data="cifar10", model=family, model_fields=fields, optimizer=optimizer, batch_size=1, steps=1, val=0)
    config, optimizer = new_config(recipe, worker.random_dataset(np, fields, 2), model), Optimizer(model, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(folder)
        run.tidy()
        for name in ("metrics.jsonl", "timings.jsonl"):
            run.log(name, {})
        for step in range(rounds):
            start = time.perf_counter()
            run.save_checkpoint(model, optimizer, config, step, 0.0)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
