"""Whole steps of numpyvit beside torch, eager and compiled: same configuration, batch, threads, float32.

A training step is forward, cross-entropy, backward and AdamW's update (torch's fused one), or Muon's for the net of `make
train`. --whole adds what `numpyvit train` does besides: augmented images of uint8, clipping. Every competitor is a process; they
take turns, and a ratio is that of two turns of the same round. GFLOP/s count the model's own matrix products, three
forward passes a training step. The peak is the best large product of the same run, NumPy's or torch's.
"""
import argparse

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from . import models, race

SWEEPS = {"batch": (8, 16, 32, 64, 128, 256, 512), "size": (32, 64, 96, 128, 224)}
PRODUCTS = ("numpy_product", "torch_product")
PRODUCT_SIZE = 2048


def main(arguments):
    args = parser().parse_args(arguments)
    console = Console(width=max(Console().width, 130))
    points, notes = [], {}
    for name in args.models:
        for batch, fields in sweep(args, name):
            console.print(f"{name}, {'×'.join(map(str, 2 * [fields[1]['img_size']]))}, batch {batch} …", style="dim")
            points.append(measure(name, *fields, batch, args, notes))
    peak = max(rate for point in points for rate in point["products_gflops"].values())
    for point in points:                                                     # the best product of the whole run, for all alike
        for result in point["results"].values():
            result["share_of_peak"] = result["gflops"] / peak
    console.print(show(points, args))
    best = {who: max(point["products_gflops"].get(who, 0) for point in points) for who in PRODUCTS}
    console.print(f"practical peak: {peak:.0f} GFLOP/s, the best of NumPy's {best['numpy_product']:.0f} ({args.threads} Python threads, one "
                  f"BLAS thread each) and torch's {best['torch_product']:.0f}")
    for note in dict.fromkeys(notes.values()):
        console.print(note)
    race.write_json(args.json, inference=args.inference, threads=args.threads, rounds=args.rounds, steps=args.steps,
                    peak_gflops=peak, notes=notes, points=points)
    console.print(f"written: {args.json}")


def parser():
    p = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", nargs="+", default=list(models.DEFAULT), metavar="NAME",
                   help=f"of {', '.join(models.MODELS)}, presets, or NAME:FIELD=VALUE (default: {' '.join(models.DEFAULT)})")
    add_common(p, "runs/bench.json")
    p.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    p.add_argument("--optimizer", choices=("adamw", "muon"), help="default: muon for the net of `make train`, else adamw")
    p.add_argument("--whole", action="store_true", help="training steps with augmentation and clipping")
    p.add_argument("--inference", action="store_true", help="forward passes alone")
    p.add_argument("--sweep", choices=SWEEPS, help=f"batch: {SWEEPS['batch']}; size: {SWEEPS['size']} pixels, same number of "
                                                   "pixels a batch but at least 8 images")
    return p


def add_common(p, json):
    """The options that every race has."""
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5, help="turns of every competitor")
    p.add_argument("--steps", type=int, default=3, help="steps a turn, their median counts; one more goes before")
    p.add_argument("--micro-batch", type=int, help="numpyvit's images a lane takes at once")
    p.add_argument("--shards", type=int, help="numpyvit's gradient sums kept apart")
    p.add_argument("--json", default=json, metavar="FILE")


def sweep(args, name):
    """(batch, (family, fields)) of every point to measure."""
    if args.sweep == "size":
        for size in SWEEPS["size"]:
            yield max(8, args.batch * 32**2 // size**2), models.configuration(name, img_size=size)
    else:
        for batch in SWEEPS["batch"] if args.sweep else [args.batch]:
            yield batch, models.configuration(name)


def ours(family, fields, batch, args, **changes):
    """The spec of numpyvit's worker."""
    return dict(who="numpyvit", family=family, fields=fields, batch=batch, threads=args.threads, shards=args.shards,
                micro_batch=args.micro_batch) | changes


def measure(name, family, fields, batch, args, notes):
    """One model at one size: {"model", "batch", "img_size", "products_gflops", "results": {who: figures}}."""
    kind = dict(inference=args.inference, whole=args.whole, optimizer=args.optimizer or models.OPTIMIZERS.get(name, "adamw"))
    spec = dict(family=family, fields=fields, batch=batch, threads=args.threads, **kind)
    specs = {"numpyvit": ours(family, fields, batch, args, **kind), "torch": dict(who="torch", **spec)}
    if not args.no_compile:
        specs["torch.compile"] = dict(who="torch", compiled=True, **spec)
    specs |= {who: dict(who=who, threads=args.threads, size=PRODUCT_SIZE) for who in PRODUCTS}
    with race.Competitor(specs["numpyvit"]):                                 # compiles the kernels, so that no figure contains it
        pass
    there, missing = race.race(specs, args.rounds, args.steps)
    disturbed = race.largest_disturbance(there.values())
    for warning in race.disturbance(disturbed, f"{name} at batch {batch}"):
        notes[f"{name} at {batch} of {fields['img_size']} pixels"] = warning
    notes.update({f"{name} {who}": f"{who} of {name} is missing: {why}" for who, why in missing.items()})
    products = {who: 2 * args.threads * PRODUCT_SIZE**3 / min(there.pop(who).rounds) / 1e9 for who in PRODUCTS if who in there}
    rivals = {who: c for who, c in there.items() if who != "numpyvit"}
    best = min(rivals.values(), key=lambda c: race.spread(c.rounds)["median"]) if rivals else None
    flops = models.forward_flops(family, fields) * (1 if args.inference else 3)
    results = {}
    for who, c in there.items():
        rate = race.spread([batch / seconds for seconds in c.rounds])
        gflops = rate["median"] * flops / 1e9
        results[who] = {"images_per_second": rate, "gflops": gflops, "share_of_peak": gflops / max(products.values()),
                        "peak_mb": c.peak_mb, "first_step_seconds": c.first_step,
                        "ratio": race.spread([b / a for a, b in zip(c.rounds, best.rounds)]) if best else None,
                        "memory_ratio": c.peak_mb / there["torch"].peak_mb if "torch" in there else None}
    return {"model": name, "family": family, "fields": fields, "batch": batch, "img_size": fields["img_size"],
            "gflop_per_image": flops / 1e9, "disturbed": disturbed, "products_gflops": products, "results": results}


def show(points, args):
    table = Table(title=f"{'inference' if args.inference else 'training'} step, {args.threads} threads, float32: medians of "
                        f"{args.rounds} interleaved turns (lowest–highest)", box=SIMPLE_HEAD, padding=(0, 1))
    for heading in ("model", "pixels", "batch", "", "images/s", "× better torch", "GFLOP/s", "of peak", "peak MB", "of torch's"):
        table.add_column(heading, justify="right" if heading not in ("model", "") else "left", no_wrap=True)
    for point in points:
        for i, (who, r) in enumerate(point["results"].items()):
            head = (point["model"], str(point["img_size"]), str(point["batch"])) if i == 0 else ("", "", "")
            table.add_row(*head, who, in_words(r["images_per_second"], ".0f"), in_words(r["ratio"], ".2f"), f"{r['gflops']:.0f}",
                          f"{r['share_of_peak']:.0%}", f"{r['peak_mb']:.0f}",
                          f"{r['memory_ratio']:.0%}" if r["memory_ratio"] else "–")
        table.add_section()
    return table


def in_words(spread, form):
    """median (low–high)"""
    return f"{spread['median']:{form}} ({spread['low']:{form}}–{spread['high']:{form}})" if spread else "–"
