"""numpyvit train: a new run, or one that goes on."""
import argparse
import dataclasses

from ..errors import UserError
from ..runs.recipe import Recipe
from ..training.recipe import FINE_TUNE, recipe_for, table
from .options import add_setting, positive


def add_commands(commands):
    """Add the command train."""
    epilog = ["A family and a length choose a net, and a net chooses its settings:", *table()]
    p = commands.add_parser("train", help="train a model from scratch, or continue a run",
                            description="Train a model from scratch. The run is a folder: config, metrics, "
                                        "checkpoints, curves. Ctrl-C writes a checkpoint; --resume continues it, bit "
                                        "for bit.",
                            formatter_class=argparse.RawDescriptionHelpFormatter, epilog="\n".join(epilog))
    p.add_argument("--out", metavar="DIR", help="folder of the run (default: the first free runs/MODEL-DATA-N)")
    p.add_argument("--resume", metavar="RUN",
                   help="continue this run as its config.json says; --minutes, --epochs or --steps extend a "
                        "finished one")
    p.add_argument("--config", metavar="FILE",
                   help="a run's config.json: repeat that run, with other settings where they are given")
    p.add_argument("--threads", type=positive, metavar="N",
                   help="default: one a core; with several ranks, the cores of a machine are dealt to its ranks. "
                        "Does not change the result")
    p.add_argument("--fine-tune", choices=tuple(FINE_TUNE),
                   help="with --init, the settings to begin with: adamw, for short runs (default), or the ViT paper's "
                        "SGD without decay, at a higher resolution")
    groups = {}
    for f in dataclasses.fields(Recipe):
        group = groups.setdefault(f.metadata["group"], p.add_argument_group(f.metadata["group"]))
        add_setting(group, f)
    p.set_defaults(run=run_train)


def run_train(args):
    """A new run or one that goes on; SIGTERM and SIGHUP end it as Ctrl-C does."""
    from ..training.interrupts import like_ctrl_c
    with like_ctrl_c():
        train_or_resume(args)


def train_or_resume(args):
    """Raises UserError for an option that a run that goes on cannot take."""
    from ..training.loop import resume, train
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if hasattr(args, f.name)}
    if args.resume is not None:
        length = {name: given.pop(name) for name in ("minutes", "epochs", "steps") if name in given}
        fixed = [name for name in given if name != "data_dir"] + (["out"] if args.out else [])
        if fixed:
            option = "--" + fixed[0].replace("_", "-")
            raise UserError(f"--resume continues the run as it was planned: {option} cannot be changed")
        resume(args.resume, args.threads, given.get("data_dir"), **length)
        return
    if args.config:
        train(repeated(args.config, given), args.out, args.threads)
        return
    given["model_fields"] = dict(given.get("model_fields", []))
    if args.fine_tune and not given.get("init"):
        raise UserError("--fine-tune: expected --init with the weights to begin with")
    if given.get("init") and "model" not in given:
        from ..training.start import model_of
        given |= model_of(given["init"], given["model_fields"], finer=args.fine_tune == "paper")
    train(recipe_for(fine_tune=args.fine_tune or "adamw", **given), args.out, args.threads)


def repeated(path, given):
    """The recipe in a run's config.json, with what the user gave. A length in minutes is the steps that it became."""
    import os

    from ..runs.config import read_config
    config = read_config(os.path.join(path, "config.json") if os.path.isdir(path) else path)
    lengths = {"minutes", "epochs", "steps"}
    settings = {"data": config.data.name, "micro_batch": config.lanes.micro_batch, "shards": config.lanes.shards}
    if lengths & given.keys():
        settings |= dict.fromkeys(lengths)
    elif config.plan:
        settings |= dict.fromkeys(lengths) | {"steps": config.plan.steps}
    if "model_fields" in given:
        given = given | {"model_fields": dict(given["model_fields"])}
    if given.get("data", "").startswith("folder:"):
        given = given | {"data": "folder", "data_dir": given["data"].removeprefix("folder:")}
    return dataclasses.replace(config.recipe, **settings | given)
