"""numpyvit train: a new run, or one that goes on."""
import argparse
import dataclasses

from ..errors import UserError
from ..runs.recipe import Recipe
from ..training.recipe import FINE_TUNE, MINUTES, check_effect, preset_for, recipe_for, table, with_folder
from .options import add_setting, check_data_set, positive


def add_commands(commands):
    """Add the command train."""
    epilog = ["A value in parentheses holds where neither the data set, nor --init, nor the net, nor the optimiser has",
              "another one; a run's config.json has those that it was trained with.",
              "A family and a length choose a net, and a net chooses its settings:", *table()]
    p = commands.add_parser("train", help="train a model from scratch, or continue a run",
                            description="Train a model from scratch. The run is a folder: config, metrics, "
                                        "checkpoints, curves. Ctrl-C writes a checkpoint; --resume continues the run "
                                        "from there, bit for bit.",
                            formatter_class=argparse.RawDescriptionHelpFormatter, epilog="\n".join(epilog))
    p.add_argument("--out", metavar="DIR", help="folder of the run (default: the first free runs/MODEL-DATA-N)")
    p.add_argument("--resume", metavar="RUN",
                   help="continue this run as its config.json says; --minutes, --epochs or --steps extend a "
                        "finished one")
    p.add_argument("--config", metavar="FILE",
                   help="a run's config.json: repeat that run, with other settings where they are given; a run that "
                        "was extended cannot be repeated in this way")
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
    """A new run or one that goes on; SIGTERM, SIGHUP and SIGUSR1 end the run as Ctrl-C does."""
    from ..training.interrupts import like_ctrl_c
    with like_ctrl_c():
        train_or_resume(args)


def train_or_resume(args):
    """Raises UserError for an option that a run that goes on cannot take."""
    from ..training.loop import resume, train
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if hasattr(args, f.name)}
    if args.resume is not None:
        length = {name: given.pop(name) for name in ("minutes", "epochs", "steps") if name in given}
        fixed = [name for name in given if name != "data_dir"]
        fixed += [name for name in ("out", "fine_tune") if getattr(args, name)]
        if fixed:
            option = "--" + fixed[0].replace("_", "-")
            raise UserError(f"--resume continues the run as it was planned: {option} cannot be changed")
        if args.config:
            raise UserError("--resume continues a run as its own config.json says, --config begins a new one: leave "
                            "out one of the two")
        check_data_set(args.resume, "continue in Python: numpyvit.fit(numpyvit.load_model({path!r}), …)")
        resume(args.resume, args.threads, given.get("data_dir"), **length)
        return
    if args.config:
        if args.fine_tune:
            raise UserError("--fine-tune chooses the settings of a new run, and --config has them all: leave out one "
                            "of the two")
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
    """The recipe in a run's config.json, with what the user gave. A length in minutes is the steps that it became.

    Raises UserError for a run that was extended, unless a length is given: its parts cannot be one run again.
    """
    import os

    from ..runs.config import how_to_repeat_parts, read_config
    config = read_config(os.path.join(path, "config.json") if os.path.isdir(path) else path)
    lengths = {"minutes", "epochs", "steps"}
    settings = {"data": config.data.name} | lanes_of(config, given)
    if lengths & given.keys():
        settings |= dict.fromkeys(lengths)
    elif config.plan:
        if config.plan.start:
            raise UserError(f"--config: {how_to_repeat_parts(config, path)}")
        settings |= dict.fromkeys(lengths) | {"steps": config.plan.steps}
    if "data" not in given:
        check_data_set(path, "give --data with another one, or train in Python with numpyvit.fit", config)
    elif given["data"] not in (config.data.name, config.recipe.data):
        settings |= {"data_dir": None}                                       # is that of the other data set
    given = with_folder(given)
    if not given.get("model_fields"):                                        # a family's name stands for a preset
        given |= {"model": preset_for(given["model"], given.get("minutes") or MINUTES)} if "model" in given else {}
    same_model = given.get("model", config.recipe.model) == config.recipe.model
    given["model_fields"] = (config.recipe.model_fields if same_model else {}) | dict(given.get("model_fields", []))
    recipe = dataclasses.replace(config.recipe, **settings | given)
    check_effect(recipe, given)
    return recipe


def lanes_of(config, given):
    """How the run divided a batch, as far as that still fits what the user gave: settings of a recipe."""
    same_net = not {"model", "model_fields", "micro_batch"} & given.keys()
    same_batch = same_net and "batch_size" not in given
    return {"micro_batch": config.lanes.micro_batch if same_net else config.recipe.micro_batch,
            "shards": config.lanes.shards if same_batch else config.recipe.shards}
