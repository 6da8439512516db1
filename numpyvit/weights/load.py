"""Weights of a model to and from safetensors files, and what may differ between a file and the model that reads it.

A table of positions for another resolution is resized, a head for other classes is dropped on request; everything else has
to fit exactly. All of it is checked before the first value is written into the model.
"""
import dataclasses
import json

import numpy as np

from ..errors import UserError
from ..files.safetensors import read_tensors, write_tensors
from .fit import CUBIC_A, RESIZERS

FORMAT = "numpyvit-weights-1"


def save_weights(model, path):
    """Write the model's state_dict to a safetensors file, with its family and config as metadata.

    Atomic: after a failed or killed save the old file is still there. Raises OSError if the file cannot be written.
    """
    write_tensors(path, model.state_dict(), {"format": FORMAT, **describe_model(model)})


def load_weights(model, path, resize="bicubic", drop_head=False):
    """Read a safetensors file with timm's names (numpyvit's own, or a checkpoint of timm's) into the model.

    resize: "bicubic" or "bilinear", how tables of positions are adapted to another resolution (see resize_grid).
    drop_head: keep the model's own head where the file's has another number of classes.
    →   what was done, in sentences, one for each thing that is not a plain copy.
    Raises UserError if a name, shape or dtype does not fit or a value is not finite; the model is then unchanged.
    """
    if resize not in CUBIC_A:
        raise UserError(f"resize: expected {' or '.join(CUBIC_A)}, got {resize!r}")
    tensors, metadata = read_tensors(path)
    try:
        return assign_weights(model, tensors, resize, drop_head, stored_config(metadata))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def assign_weights(model, tensors, resize="bicubic", drop_head=False, config=None):
    """load_weights after reading: {name: array} into the model; config: that of the file, a dict, where it is known."""
    targets = {name: p.data for name, p in model.named_parameters()} | dict(model.named_buffers())
    tensors, sentences = dict(tensors), []
    for name in sorted(set(tensors) & set(targets)):
        kind, shape = name.rsplit(".", 1)[-1], targets[name].shape
        if kind in RESIZERS and tensors[name].dtype.kind == "f":
            tensors[name], what = RESIZERS[kind](name, tensors[name], shape, resize, model, config or {})
            sentences += what
        elif tensors[name].shape != shape and name.split(".")[0] == "head" and drop_head:
            sentences.append(f"kept the model's own {name} {shape}: the file's is {tensors[name].shape}")
            tensors[name] = targets[name]
    check_tensors(targets, tensors, type(model).__name__)
    converted = {str(tensors[name].dtype) for name in targets if tensors[name].dtype != targets[name].dtype}
    if converted:
        sentences.append(f"converted {' and '.join(sorted(converted))} to {model.dtype}")
    for name, target in targets.items():
        target[...] = tensors[name]
    return sentences


def check_tensors(targets, tensors, what):
    """Raise one UserError that names up to five tensors of the wrong name, shape, dtype or with a value not finite."""
    problems = [f"{name} is missing" for name in targets if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in targets]
    for name in targets.keys() & tensors.keys():
        target, tensor = targets[name], tensors[name]
        if tensor.shape != target.shape:
            hint = " (drop_head=True keeps the model's own)" if name.split(".")[0] == "head" else ""
            problems.append(f"{name} has shape {tensor.shape}, expected {target.shape}{hint}")
        elif tensor.dtype.kind != target.dtype.kind:
            problems.append(f"{name} has dtype {tensor.dtype}, expected {target.dtype}")
        elif not is_finite(tensor, target.dtype):
            problems.append(f"{name} holds values that are not finite in {target.dtype}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"the weights do not fit this {what}: {'; '.join(sorted(problems)[:5])}{more}")


def is_finite(tensor, dtype):
    """Whether every value is a finite number once it is converted to dtype."""
    with np.errstate(over="ignore"):
        return tensor.dtype.kind != "f" or bool(np.isfinite(tensor.astype(dtype, copy=False)).all())


# --- which model a file is of

def describe_model(model):
    """{"family": …, "config": JSON of the config}, the metadata of every file that holds a model's weights."""
    from ..models import FAMILIES
    family = next(name for name, (_, cls) in FAMILIES.items() if type(model) is cls)
    return {"family": family, "config": json.dumps(dataclasses.asdict(model.config), sort_keys=True)}


def stored_config(metadata):
    """The config in a file's metadata as a dict, {} where there is none or it is no JSON object."""
    try:
        config = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
