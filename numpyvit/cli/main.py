"""The command line: numpyvit train | evaluate | predict | models | gradcheck, and those of inspect.py.

Exit 0; 2 with one line on standard error for whatever the user can mend; 130 when interrupted.
What a command needs is imported when it runs, so that --help does not wait for compilers.
"""
import argparse
import dataclasses
import json
import os
import sys
import warnings

from .. import __version__
from ..errors import Interrupted
from .explore import add_explore
from .inspect import add_figures, add_summary
from ..training.recipe import Recipe, recipe_for


def main(argv=None):
    """Run one command. → exit status"""
    warnings.filterwarnings("ignore", category=RuntimeWarning)               # overflow shows as a loss that is not finite
    args = None
    try:
        args = parser().parse_args(argv)
        status = args.run(args)
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:                                                  # | head: whoever reads has had enough
        return leave(0)
    except KeyboardInterrupt:
        return leave(130, "interrupted")
    except (ValueError, OSError, MemoryError, OverflowError, ImportError) as error:
        if os.environ.get("NUMPYVIT_DEBUG"):
            raise
        return leave(2, message_of(error))
    except Interrupted as error:
        return leave(130, str(error))


def leave(status, message=None):
    """Say one line on standard error, where there still is one, and make sure that nothing fails after it."""
    try:
        if message:
            print(f"numpyvit: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    except (OSError, ValueError):
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    return status


def message_of(error):
    """An exception in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        text = f"out of memory: {text or 'the system has no more'}; try a smaller --batch-size, --micro-batch or model"
    return "; ".join([text or type(error).__name__, *getattr(error, "__notes__", [])])


class Parser(argparse.ArgumentParser):
    """argparse whose complaint is one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def parser():
    root = Parser(prog="numpyvit", description="Vision transformers in NumPy and Numba, every gradient written by hand.")
    root.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in (add_train, add_evaluate, add_predict, add_models, add_summary, add_gradcheck, add_figures, add_explore):
        add(commands)
    return root


# --- train

def add_train(commands):
    p = commands.add_parser("train", help="train a model from scratch, or continue a run",
                            description="Train a model from scratch. The run is a folder: config, metrics, checkpoints, curves. "
                                        "Ctrl-C writes a checkpoint; --resume continues it, bit for bit.")
    p.add_argument("--out", metavar="DIR", help="folder of the run (default: the first free runs/MODEL-DATA-N)")
    p.add_argument("--resume", metavar="RUN", help="continue this run; what it does is in its config.json")
    p.add_argument("--threads", type=positive, metavar="N", help="default: one a core. Does not change the result")
    groups = {}
    for f in dataclasses.fields(Recipe):
        group = groups.setdefault(f.metadata["group"], p.add_argument_group(f.metadata["group"]))
        add_setting(group, f)
    p.set_defaults(run=run_train)


def add_setting(group, f):
    """One field of Recipe as an option; absent from the namespace unless given, so that defaults stay in one place."""
    if f.name == "model_fields":
        group.add_argument("--set", dest="model_fields", action="append", type=field_value, metavar="FIELD=VALUE",
                           default=argparse.SUPPRESS, help=f.metadata["help"])
        return
    kind = next(t for t in (str, float, int) if t in (getattr(f.type, "__args__", None) or (f.type,)))
    default = "" if f.default is None else f" ({f.default})"
    name = "DIR" if f.name == "data_dir" else {str: "NAME", float: "X", int: "N"}[kind]
    group.add_argument("--" + f.name.replace("_", "-"), type=kind, choices=f.metadata["choices"], default=argparse.SUPPRESS,
                       metavar=None if f.metadata["choices"] else name,
                       help=(f.metadata["help"] + default).replace("%", "%%"))


def field_value(text):
    """"depth=4", "depths=2,2,6,2", "qkv_bias=false" → (name, value)"""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE, got {text!r}")
    for candidate in (value, f"[{value}]"):
        try:
            parsed = json.loads(candidate)
            return name, tuple(parsed) if isinstance(parsed, list) else parsed
        except (ValueError, RecursionError):
            pass
    return name, value


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def run_train(args):
    from ..training.interrupts import like_ctrl_c
    with like_ctrl_c():
        train_or_resume(args)


def train_or_resume(args):
    from ..training.loop import resume, train
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if hasattr(args, f.name)}
    if args.resume is not None:
        fixed = [name for name in given if name != "data_dir"] + (["out"] if args.out else [])
        if fixed:
            raise ValueError(f"--resume continues the run as it was planned: --{fixed[0].replace('_', '-')} cannot be changed")
        resume(args.resume, args.threads, given.get("data_dir"))
        return
    from ..models import model_config
    given["model_fields"] = dict(given.get("model_fields", []))
    family, _ = model_config(given.get("model", Recipe.model), **given["model_fields"])
    train(recipe_for(family, **given), args.out, args.threads)


# --- evaluate, predict

def add_evaluate(commands):
    p = commands.add_parser("evaluate", help="accuracy, accuracy by class and confusion matrix of a run",
                            description="Score the newest checkpoint of a run.")
    p.add_argument("path", metavar="RUN", help="folder of the run")
    p.add_argument("--split", choices=("test", "val"), default="test", help="test images (default) or those held out of training")
    p.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are now")
    p.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    p.set_defaults(run=run_evaluate)


def run_evaluate(args):
    from ..runs.classifier import Classifier, confusion_matrix
    classifier = Classifier(args.path)
    images, labels = classifier.split(args.split, args.data_dir)
    predicted = classifier.logits(images, args.threads).argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(classifier.classes))
    data = classifier.config["data"]
    print(f"accuracy {matrix.trace() / len(labels):.2%} on {len(labels):,} {args.split} images of {data['name']}, "
          f"step {classifier.step} of {classifier.run.path}")
    if data["notice"]:
        print(data["notice"])
    names = [name[:12] for name in classifier.classes]
    width, cell = max(map(len, names)), max(len(str(matrix.max())), 4)
    print("\nrow: true class   accuracy   column: taken for, in the same order")
    for name, row, hits in zip(names, matrix, matrix.diagonal()):
        share = f"{hits / row.sum():.1%}" if row.sum() else "-"
        print(f"{name:<{width}}  {share:>7}  " + " ".join(f"{count or '·':>{cell}}" for count in row))


def add_predict(commands):
    p = commands.add_parser("predict", help="classify PNG or JPEG images with a run",
                            description="Classify images with the newest checkpoint of a run.")
    p.add_argument("path", metavar="RUN", help="folder of the run")
    p.add_argument("images", metavar="IMAGE", nargs="+", help="PNG or JPEG files")
    p.add_argument("--top", type=positive, default=3, metavar="N", help="classes to show (3)")
    p.set_defaults(run=run_predict)


def run_predict(args):
    from ..runs.classifier import Classifier
    classifier = Classifier(args.path)
    for path, probabilities in zip(args.images, classifier.predict(args.images)):
        best = (-probabilities).argsort(kind="stable")[:args.top]
        print(f"{path}: " + ", ".join(f"{classifier.classes[k]} {probabilities[k]:.1%}" for k in best))


# --- models, gradcheck

def add_models(commands):
    p = commands.add_parser("models", help="list the presets", description="List the presets: image size, parameters, forward GFLOPs.")
    p.add_argument("pattern", nargs="?", default="*", help="of names, such as 'vit*32'")
    p.set_defaults(run=run_models)


def run_models(args):
    from ..inspection.flops import forward_flops
    from ..models import count_parameters, list_models, model_config
    from ..module import pair
    names = list_models(args.pattern)
    if not names:
        raise ValueError(f"no model matches {args.pattern!r}; numpyvit models lists all")
    width = max(map(len, names))
    print(f"{'model':<{width}}  {'image':>9}  {'parameters':>12}  {'GFLOP':>8}")
    for name in names:
        family, config = model_config(name)
        size, flops = "×".join(map(str, pair(config.img_size))), forward_flops(family, config) / 1e9
        print(f"{name:<{width}}  {size:>9}  {count_parameters(name):>12,}  {f'{flops:.3f}' if flops else '-':>8}")


def add_gradcheck(commands):
    p = commands.add_parser("gradcheck", help="check every backward pass against its forward pass, here and now",
                            description="⟨u, J v⟩ = ⟨Jᵀu, v⟩ for every op and model: the directional check, without torch.")
    p.add_argument("names", nargs="*", metavar="NAME", help="of ops or models (default: all)")
    p.set_defaults(run=run_gradcheck)


def run_gradcheck(args):
    from rich.console import Console

    from ..gradcheck import run
    return 0 if run(args.names, Console()) else 1
