"""The registry: families by the fields of their configs, and presets by name.

A new family is a file of this folder and a line in FAMILIES.
"""
import dataclasses
import difflib
import fnmatch
from typing import NamedTuple

from ..checks import check_number, fail, plain, shown
from ..module import Model
from . import cvt, swin, vit


class Family(NamedTuple):
    """The frozen dataclass of a family's fields, its subclass of Model, and {name: config} of its presets."""

    config: type
    model: type
    presets: dict


FAMILIES = {
    "vit": Family(vit.ViTConfig, vit.ViT, vit.PRESETS),
    "swin": Family(swin.SwinConfig, swin.Swin, swin.PRESETS),
    "cvt": Family(cvt.CvTConfig, cvt.CvT, cvt.PRESETS),
}
PRESETS = {name: (family, config) for family, about in FAMILIES.items() for name, config in about.presets.items()}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the presets that match an fnmatch pattern, sorted."""
    return sorted(fnmatch.filter(PRESETS, pattern))


def model_config(name: str, **overrides):
    """(family, config) of a preset, or of a family name, with fields overridden."""
    if not isinstance(name, str):
        fail("name", "the name of a preset or a family", shown(name))
    if name in PRESETS:
        family, config = PRESETS[name]
    elif name in FAMILIES:
        family, config = name, FAMILIES[name].config()
    else:
        close = difflib.get_close_matches(name, [*PRESETS, *FAMILIES], n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"no model is called {name!r}{hint} (numpyvit models lists all)")
    fields = {f.name: f for f in dataclasses.fields(config)}
    unknown = [field for field in overrides if field not in fields]
    if unknown:
        raise ValueError(f"{family} has no field {unknown[0]!r}; its fields are {', '.join(fields)}")
    return family, dataclasses.replace(config, **{field: plain(value) for field, value in overrides.items()})


def create_model(name: str, seed: int = 0, dtype: str = "float32", **overrides) -> Model:
    """A model with initialised weights.

    name: a preset (list_models()) or a family ("vit", "swin", "cvt"), whose defaults the overrides then change.
    seed: of the initialisation, a whole number from 0 up.   dtype: "float32" or "float64".
    overrides: any field of the family's config.
    Raises ValueError for an unknown name or field, or a value that the config refuses.
    """
    check_number("seed", seed, whole=True, least=0)
    family, config = model_config(name, **overrides)
    model = FAMILIES[family].model(config, seed=seed, dtype=dtype)
    model.title = ", ".join([name, *(f"{field}={plain(value)!r}" for field, value in overrides.items())])
    return model


def count_parameters(name: str, **overrides) -> int:
    """Number of trained scalars of create_model(name, **overrides), by shape arithmetic, without allocating them."""
    family, config = model_config(name, **overrides)
    return FAMILIES[family].model(config, materialise=False).num_parameters()


def family_of(model: Model) -> str:
    """The name of the model's family."""
    return next(name for name, family in FAMILIES.items() if type(model) is family.model)
