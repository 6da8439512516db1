"""The tables of recipes: which settings a model family, an optimiser and a data set begin with."""
from ..data.registry import recipe_defaults
from ..ops.optim import OPTIMIZERS, optimizer_settings
from ..runs.recipe import Recipe

MINUTES = 30.0                                                               # of a run whose length is not given
SHAPES = {"model": "vit_pico_patch4_32", "batch_size": 32, "lr": 2e-3}       # the built-in set is learnt in a minute


def recipe_for(family=None, **given):
    """The recipe for a model family with what the user gave; given: names of settings → values."""
    given = dict(given)
    if given.get("data", "").startswith("folder:"):
        given["data"], given["data_dir"] = "folder", given["data"].removeprefix("folder:")
    if not {"minutes", "epochs", "steps"} & {name for name, value in given.items() if value is not None}:
        given["minutes"] = MINUTES
    shapes = SHAPES if given.get("data") == "shapes" and given.get("model", SHAPES["model"]) == SHAPES["model"] else {}
    kind = given.get("optimizer", Recipe.optimizer)
    optimizer = optimizer_settings(kind) if kind in OPTIMIZERS else {}
    return Recipe(**{**optimizer, **recipe_defaults(given.get("data", "auto")), **shapes, **given})
