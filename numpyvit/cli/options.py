"""What several commands share: an option for a field of the recipe, the kinds of values, a check of a run's data."""
import argparse
import json
import shlex

from ..errors import UserError

TTA = ("none", "mirror", "shifts")                                           # as in data/views.py


def add_setting(group, f):
    """A field of Recipe as an option, without a default: the namespace has what was given; Recipe has defaults."""
    if f.name == "model_fields":
        group.add_argument("--set", dest="model_fields", action="append", type=field_value, metavar="FIELD=VALUE",
                           default=argparse.SUPPRESS, help=f.metadata["help"])
        return
    if f.type is bool:                                                       # it is on, and the option turns it off
        group.add_argument("--no-" + f.name.replace("_", "-"), dest=f.name, action="store_false",
                           default=argparse.SUPPRESS, help="do not " + f.metadata["help"])
        return
    kind = next(t for t in (str, float, int) if t in (getattr(f.type, "__args__", None) or (f.type,)))
    default = "" if f.default is None else f" ({f.default})"
    name = "DIR" if f.name == "data_dir" else {str: "NAME", float: "X", int: "N"}[kind]
    choices, text = f.metadata["choices"], (f.metadata["help"] + default).replace("%", "%%")
    group.add_argument("--" + f.name.replace("_", "-"), type=kind, choices=choices, default=argparse.SUPPRESS,
                       metavar=None if choices else name, help=text)


def add_tta(parser):
    """--tta: the views of an image that are scored."""
    parser.add_argument("--tta", choices=TTA, default="none",
                        help="score the mean over several views of an image: the image and its mirror image, or both "
                             "of them also moved by a pixel (none)")


def add_fields(parser):
    """--set: fields of the model's config that weights do not tell, as a list of pairs."""
    parser.add_argument("--set", dest="fields", action="append", type=field_value, metavar="FIELD=VALUE", default=[],
                        help="a field of the model's config that a file of weights does not tell, such as num_heads=3; "
                             "each field takes a --set of its own")


def field_value(text):
    """"depth=4", "depths=2,2,6,2", "depths=(2, 2, 6, 2)", "qkv_bias=false" → (name, value)"""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE, got {text!r}")
    inner = value.strip("()").rstrip(", ") if value.startswith("(") else value       # depths=(2, 2), as in Python
    for candidate in (value, f"[{inner}]"):
        try:
            parsed = json.loads(candidate)
            return name, tuple(parsed) if isinstance(parsed, list) else parsed
        except (ValueError, RecursionError):
            pass
    return name, value


def positive(text):
    """"3" → 3; a number below 1 is refused."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def check_data_set(path, advice, config=None):
    """Raise UserError for a run on a data set that was made in Python. What is no run is let through.

    advice: what to do instead, with {path} for the run, or {quoted} in a command of a shell.   config: the run's
    RunConfig, read unless given
    """
    from ..data.registry import TABLE
    from ..runs.classifier import is_run
    from ..runs.folder import RunFolder
    if config is None and not is_run(path):
        return
    name = (config or RunFolder(path).read_config()).data.name
    if name not in TABLE:
        raise UserError(f"{path}: the run was trained from Python on a data set named {name!r}, which no command can "
                        f"load; {advice.format(path=path, quoted=shlex.quote(path))}")
