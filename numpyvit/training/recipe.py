"""The tables of recipes: which net a family trains in so many minutes, and the settings of a net and of a data set.

README.md beside this page says how the settings were found, and what each of them is worth.
"""
import math

from ..data.registry import recipe_defaults
from ..errors import UserError
from ..ops.optim import OPTIMIZERS, optimizer_settings
from ..runs.recipe import Recipe

MINUTES = 30.0                                                               # of a run whose length is not given
SHAPES = {"model": "vit_pico_patch4_32", "batch_size": 32, "lr": 2e-3}       # the built-in set is learnt in a minute

# {family: ((up to so many minutes, the preset, its settings that are then not those of SETTINGS), …)}
LENGTHS = {
    "vit": ((45.0, "vit_mini_convpool_32", {}),
            (math.inf, "vit_mini_convpool_32", {"cutout": 8})),
    "cvt": ((math.inf, "cvt_mini_convpool_32", {}),),
    "swin": ((math.inf, "swin_mini_convpool_32", {}),),
}
MUON = {"optimizer": "muon", "lr": 3e-3, "lr_rest": 0.5}
MUON_STEM = MUON | {"lr": 8.5e-3, "lr_rest": 0.25, "batch_size": 128, "weight_decay": 0.15,
                    "first_filters": "whitened"}
SMALL_FIRST = {"small_size": 24, "small_share": 0.6}
WINDOWS_FIRST = {"small_size": 24, "small_share": 0.8, "small_window": 24}
MUON_POOL = MUON_STEM | {"lr": 0.012, "batch_size": 256, "momentum": 0.7}
SETTINGS = {
    "vit_mini_convpool_32": MUON_POOL | WINDOWS_FIRST | {"weight_decay": 0.35},
    "swin_mini_convpool_32": MUON_POOL | {"weight_decay": 0.5},              # whose windows fix the size of the images
    "cvt_mini_convpool_32": MUON_POOL | WINDOWS_FIRST | {"weight_decay": 0.35},
    "vit_nano_conv_32": MUON_STEM | SMALL_FIRST,
    "vit_mini_conv_32": MUON_STEM | SMALL_FIRST,
    "vit_nano_patch4_32": MUON | SMALL_FIRST | {"lr": 8.5e-3, "lr_rest": 0.25, "batch_size": 128, "weight_decay": 0.15,
                                                "momentum": 0.8},
    "vit_nano_patch4_rope_32": MUON | SMALL_FIRST | {"lr": 0.017, "lr_rest": 0.125, "batch_size": 128,
                                                     "weight_decay": 0.08, "momentum": 0.8, "small_share": 0.8},
    "cvt_nano_32": MUON,
    "swin_nano_patch4_window4_32": MUON,
}
# Settings of runs that begin with weights. "paper": Dosovitskiy et al. 2021, appendix B.1.1, and their code's rate.
FINE_TUNE = {
    "adamw": {"optimizer": "adamw", "lr": 3e-4, "schedule": "cosine", "clip_norm": 1.0, "beta2": 0.999},
    "paper": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0, "schedule": "cosine", "lr": 0.03,
              "warmup": 0.05, "batch_size": 512, "clip_norm": 1.0, "label_smoothing": 0.0},
}


def recipe_for(family="vit", fine_tune="adamw", **given):
    """The recipe with all that the user gave; given: names of settings → values.   family: unless a model is given
    fine_tune: a name in FINE_TUNE, whose settings a run has that begins with weights (init).

    What is given counts first, then a setting of the data set, of the preset, of the optimiser, of Recipe.
    A family's name alone stands for the preset that the run's length in minutes chooses, 30 for a length in steps or
    epochs; a preset has the same settings when it is named. A family's name with model_fields is the family as these
    describe it. Raises UserError.
    """
    given = with_folder(given)
    if not {"minutes", "epochs", "steps"} & {name for name, value in given.items() if value is not None}:
        given["minutes"] = MINUTES
    shapes = given.get("data") == "shapes" and given.get("model", SHAPES["model"]) == SHAPES["model"]
    if shapes and not given.get("init"):
        settings = SHAPES
    elif given.get("init"):
        settings = FINE_TUNE[fine_tune]
    else:
        minutes = given.get("minutes") or MINUTES
        if not (given.get("model") in LENGTHS and given.get("model_fields")):
            given["model"] = preset_for(given.get("model", family), minutes)
        settings = settings_for(given["model"], minutes)
        if given.get("model_fields"):                                        # another net may not fit other sizes
            settings = {name: value for name, value in settings.items() if name not in WINDOWS_FIRST}
    kind = given.get("optimizer", settings.get("optimizer", Recipe.optimizer))
    if kind != settings.get("optimizer", kind):                              # another optimiser needs other numbers
        settings = {}
    optimizer = optimizer_settings(kind) if kind in OPTIMIZERS else {}
    recipe = Recipe(**{**optimizer, **settings, **recipe_defaults(given.get("data", "auto")), **given})
    check_effect(recipe, given)
    return recipe


def with_folder(given):
    """The settings that the user gave, where data "folder:ROOT" becomes data "folder" and data_dir ROOT."""
    data = given.get("data", "")
    if not data.startswith("folder:"):
        return dict(given)
    root = data.removeprefix("folder:")
    if not root:
        raise UserError("--data folder: names no folder: give folder:ROOT, or folder:. for the current directory")
    if given.get("data_dir"):
        raise UserError(f"--data {data} names the folder already: leave out --data-dir")
    return given | {"data": "folder", "data_dir": root}


def check_effect(recipe, given):
    """Raise UserError for a setting that the user gave and that the recipe's other settings leave without effect."""
    unusual = {name for name, value in given.items() if value not in (None, getattr(Recipe, name, None))}
    for name in ("small_window", "small_share"):
        if name in unusual and not recipe.small_size:
            raise UserError(f"--{name.replace('_', '-')} is about the smaller images that a run can begin with: give "
                            "--small-size as well, the side of these images")
    if "small_size" in unusual and not recipe.small_share:
        raise UserError("--small-size is about the first part of a run, and --small-share 0 leaves no such part: leave "
                        "out one of the two")
    for name in ("beta1", "beta2", "eps", "momentum"):
        if given.get(name) is not None and name not in optimizer_settings(recipe.optimizer):
            raise UserError(f"--{name}: {recipe.optimizer} has no such setting, its own are "
                            f"{', '.join(optimizer_settings(recipe.optimizer))}: leave out --{name}")
    if "shards" in unusual and recipe.shards > recipe.batch_size:
        raise UserError(f"--shards: expected at most the {recipe.batch_size} images of a batch, got {recipe.shards}")
    if "data_dir" in unusual and recipe.data == "shapes":
        raise UserError("--data-dir: the data set shapes needs no files: leave out --data-dir")
    if "lr_rest" in unusual and len(OPTIMIZERS[recipe.optimizer]) == 1:
        raise UserError("--lr-rest is about the parameters that an optimiser leaves to another one, and "
                        f"{recipe.optimizer} leaves none: leave out --lr-rest, or give --optimizer muon")


def preset_for(model, minutes):
    """The preset that a family trains in so many minutes; a preset's name is returned as it is."""
    return next(preset for limit, preset, _ in LENGTHS[model] if minutes <= limit) if model in LENGTHS else model


def settings_for(preset, minutes):
    """{setting: value} of a preset in a run of so many minutes; {} for a preset without a row in SETTINGS."""
    rows = (row for rows in LENGTHS.values() for row in rows)
    own = next((own for limit, name, own in rows if name == preset and minutes <= limit), {})
    return SETTINGS.get(preset, {}) | own


def table():
    """The tables as lines of text: what train --help shows."""
    lines = []
    for family, rows in LENGTHS.items():
        for limit, preset, _ in rows:
            length = "any length" if len(rows) == 1 else f"up to {limit:g} min" if limit < math.inf else "longer"
            settings = ", ".join(f"{name} {value}" for name, value in settings_for(preset, limit).items())
            lines.append(f"{family:5} {length:13} {preset:28} {settings}")
    return lines
