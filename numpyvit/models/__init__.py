"""The registry: presets by name, and families by their config's fields."""
import dataclasses
import difflib
import fnmatch

from . import cvt, swin, vit
from .checks import check_type

FAMILIES = {"vit": (vit.ViTConfig, vit.ViT), "swin": (swin.SwinConfig, swin.Swin), "cvt": (cvt.CvTConfig, cvt.CvT)}
PRESETS = {**{name: ("vit", config) for name, config in vit.PRESETS.items()},
           **{name: ("swin", config) for name, config in swin.PRESETS.items()},
           **{name: ("cvt", config) for name, config in cvt.PRESETS.items()}}


def list_models(pattern="*"):
    """Names of the presets that match an fnmatch pattern, sorted."""
    return sorted(fnmatch.filter(PRESETS, pattern))


def model_config(name, **overrides):
    """(family, config) of a preset, or of a family name, with fields overridden."""
    if name in PRESETS:
        family, config = PRESETS[name]
    elif name in FAMILIES:
        family, config = name, FAMILIES[name][0]()
    else:
        close = difflib.get_close_matches(name, [*PRESETS, *FAMILIES], n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"no model is called {name!r}{hint} (numpyvit models lists all)")
    fields = {f.name: f for f in dataclasses.fields(config)}
    unknown = [field for field in overrides if field not in fields]
    if unknown:
        raise ValueError(f"{family} has no field {unknown[0]!r}; its fields are {', '.join(fields)}")
    overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    for field, value in overrides.items():
        check_type(fields[field], value)
    return family, dataclasses.replace(config, **overrides)


def create_model(name, seed=0, dtype="float32", **overrides):
    """A model with initialised weights.

    name: a preset (list_models()) or a family ("vit", "swin", "cvt"), whose defaults the overrides then change.
    seed: of the initialisation.   dtype: "float32" or "float64".   overrides: any field of the family's config.
    Raises ValueError for an unknown name or field, or a value that the config refuses.
    """
    family, config = model_config(name, **overrides)
    return FAMILIES[family][1](config, seed=seed, dtype=dtype)


def count_parameters(name, **overrides):
    """Number of trained scalars of create_model(name, **overrides), by shape arithmetic, without allocating them."""
    family, config = model_config(name, **overrides)
    return FAMILIES[family][1](config, materialise=False).num_parameters()
