"""Time of a training step against the number of pixels: linear for Swin, whose attention stays inside windows; not for ViT."""
import argparse
import statistics

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from . import models, race
from .train_step import add_common, in_words, ours


def main(arguments):
    p = argparse.ArgumentParser(prog="bench scaling", description=__doc__)
    p.add_argument("--models", nargs="+", default=["swin_nano_patch2_window4_32", "vit_nano_patch4_32"], metavar="NAME")
    p.add_argument("--sizes", nargs="+", type=int, default=[32, 48, 64, 96, 128], help="pixels a side")
    add_common(p, "runs/bench-scaling.json")
    p.set_defaults(batch=32)
    args = p.parse_args(arguments)
    curves, disturbed = {}, 0.0
    for model in args.models:
        curves[model], of_model = measure(model, args)
        disturbed = max(disturbed, of_model)
    notes = race.disturbance(disturbed)
    Console(width=max(Console().width, 100)).print(*notes, sep="\n")
    race.write_json(args.json, batch=args.batch, threads=args.threads, disturbed=disturbed, notes=notes, curves=curves)


def measure(model, args):
    """Print the curve of one model → its points, and the share of the machine that others took"""
    specs = {size: ours(*models.configuration(model, img_size=size), args.batch, args) for size in args.sizes}
    there, missing = race.race(specs, args.rounds, args.steps)
    cost = {size: [seconds / (args.batch * size**2) * 1e9 for seconds in c.rounds] for size, c in there.items()}     # ns a pixel
    middle = statistics.median(statistics.median(values) for values in cost.values())
    table = Table(title=f"training step of {model}, batch {args.batch}, {args.threads} threads", box=SIMPLE_HEAD)
    for heading in ("pixels", "seconds a step", "ns a pixel", "against the middle"):
        table.add_column(heading, justify="right", no_wrap=True)
    points = []
    for size, c in there.items():
        off = statistics.median(cost[size]) / middle - 1
        points.append({"img_size": size, "seconds": race.spread(c.rounds), "ns_per_pixel": race.spread(cost[size]), "off": off})
        table.add_row(f"{size} × {size}", in_words(points[-1]["seconds"], ".3f"), in_words(points[-1]["ns_per_pixel"], ".0f"),
                      f"{off:+.1%}")
    left_out = [f"{size} pixels a side is missing: {why}" for size, why in missing.items()]
    Console(width=max(Console().width, 100)).print(table, *left_out, sep="\n")
    return points, race.largest_disturbance(there.values())
