"""A model from a file or folder alone: its config from the JSON or the shapes there, its classes, and how it sees
images.
"""
import dataclasses
import math
import os
from typing import NamedTuple

import numpy as np

from ..checks import is_number, shown
from ..errors import UserError
from ..models import FAMILIES, model_config
from ..module import pair
from .huggingface import read_classes, read_config
from .images import Preprocessing, usual_preprocessing
from .infer import infer_config
from .load import fill, kept_config, stored_json, understand
from .processors import FILE, for_channels, read_preprocessor, sides_of
from .recognise import Recognised
from .sources import read_source

MAX_SIDE = 4096                                                              # pixels of a model that a file describes
MAX_NUMBER = 1e15                                                            # in a config: no model is near it
TOO_LARGE = "its config has a number that is too large for any model"
ROOM = 1 << 24                                                               # parameters that a file need not hold


def load_model(path, dtype=None, **fields):
    """The model of a file or folder of weights, ready to classify: model.predict(image).

    dtype: that of the file's tensors unless given, float32 or float64.
    path: a file of this library, a folder of Hugging Face, or any file that load_weights reads; there the config is
    inferred from the shapes and the library's habits.   fields: of the family's config that are known better, such as
    num_heads, or that shall be different, such as img_size (tables of positions are resized) and act. The model's
    classes, preprocessing and notes (what was done, in sentences) say what came with the weights. Raises UserError
    for anything that is not a whole model; before memory is taken for what a config claims.
    """
    source = read_source(path)
    try:
        return build(source, dtype, fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


class Description(NamedTuple):
    """What a Source says about its model.   classes: names or None;  notes: what was assumed, in sentences"""
    found: Recognised
    family: str
    config: object
    classes: list | None
    preprocessing: Preprocessing | None
    notes: list


def build(source, dtype, given):
    """load_model after reading: a Source and the fields that the caller gave   →   model"""
    found, family, config, classes, preprocessing, notes = describe(source, given)
    if classes is not None and len(classes) != config.num_classes:
        raise UserError(f"expected the names of its {config.num_classes} classes, got {len(classes)}")
    if dtype is None:
        dtype = "float64" if any(a.dtype == np.float64 for a in found.tensors.values()) else "float32"
    model = checked_model(family, config, found.tensors, dtype)
    model.notes = notes + fill(model, source)
    model.classes, model.preprocessing = classes, preprocessing
    return model


def describe(source, given):
    """The config, classes and preprocessing that belong to a Source; given: fields that the caller knows better."""
    found, config = understand(source)
    notes, classes, preprocessing = [], read_classes(source.config), None
    ours = found.format == "numpyvit" or bool(kept_config(source.metadata, found.family))
    if ours and "model_type" not in source.config:
        family, classes = found.family, classes or stored_json(source.metadata, "classes", list)
        fields = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
        preprocessing = None if source.config else stored_preprocessing(source.metadata)
    elif "model_type" in source.config:
        family, fields, notes = read_config(source.config)
        if family != found.family:
            raise UserError(f"config.json is of a {family}, the weights are a {found.title}")
        if "num_classes" not in given:
            fields |= {"num_classes": len(classes)} if classes else classes_of(found.tensors)
    else:
        family = found.family
        fields, notes = infer_config(found.format, family, found.tensors, config | given)
        fields |= config
    if family == "cvt" and "img_size" not in fields | given:
        fields["img_size"], note = size_of_preprocessor(source.preprocessor)
        notes = [*notes, *note]
    config = checked_config(family, fields | given)
    size = pair(config.img_size)
    preprocessing = preprocessing or read_preprocessor(source.preprocessor, source.config, size, config.in_chans)
    if preprocessing is None and found.format != "numpyvit":
        preprocessing = usual_preprocessing(found.format, family, size, config.in_chans, config)
    if preprocessing is not None:
        mean, std = for_channels(preprocessing.mean, preprocessing.std, config.in_chans, preprocessing.said)
        preprocessing = dataclasses.replace(preprocessing, size=size, mean=mean, std=std)
    if classes is None and not ours and config.num_classes == 1000:
        classes = imagenet_classes()
        notes = [*notes, "no names of classes came with the weights: assumed the 1000 of ImageNet in their usual order"]
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise UserError("expected texts as the names of its classes")
    return Description(found, family, config, classes, preprocessing, notes)


def size_of_preprocessor(p):
    """img_size of a CvT whose config.json has none, by its preprocessor_config.json   →   the size, sentences"""
    wanted = p.get("crop_size") if p.get("do_center_crop") and p.get("crop_size") else p.get("size")
    if isinstance(wanted, dict) and "shortest_edge" in wanted:
        wanted = wanted["shortest_edge"]
    H, W = sides_of("size", wanted, (224, 224))
    if H != int(H) or W != int(W):
        raise UserError(f"size of {FILE}: expected whole numbers of pixels, got {shown(wanted)}")
    note = "no file says for which images it was made: assumed 224 × 224; give img_size if that is wrong"
    return int(H) if H == W else (int(H), int(W)), [note] if wanted is None else []


def checked_config(family, fields):
    """The family's config with these fields. UserError for fields that it refuses, or numbers that no model has."""
    numbers = [n for value in fields.values() for n in (value if isinstance(value, (tuple, list)) else (value,))]
    if any(is_number(n) and abs(n) > MAX_NUMBER for n in numbers):
        raise UserError(TOO_LARGE)
    try:
        _, config = model_config(family, **fields)
    except OverflowError:
        raise UserError(TOO_LARGE) from None
    except ValueError as error:                                              # a UserError is one, too
        raise UserError(str(error)[:300]) from None
    if max(pair(config.img_size)) > MAX_SIDE:
        raise UserError(f"img_size: expected at most {MAX_SIDE} pixels a side, got {shown(config.img_size)}")
    return config


def classes_of(tensors):
    """{"num_classes": …} by the head's rows. UserError without a head."""
    head = tensors.get("head.weight", tensors.get("head.fc.weight"))
    if head is None:
        raise UserError("it has no head; load_weights(model, path, drop_head=True) takes the rest")
    return {"num_classes": len(head)}


def checked_model(family, config, tensors, dtype="float32"):
    """A model of that config, not initialised, once its claims are held against the tensors that it is to be filled
    with.
    """
    depth = sum(config.depths) if hasattr(config, "depths") else config.depth
    windows = sum(H * W * M * M for _, H, W, M, _ in config.stages()) if family == "swin" else 0
    numbers = sum(math.prod(array.shape) for array in tensors.values())
    widths = (*getattr(config, "embed_dims", ()), *getattr(config, "stem_widths", ()), getattr(config, "embed_dim", 0))
    if depth > len(tensors) or windows > 1 << 26:
        raise UserError(f"a config with img_size {shown(config.img_size)} and {shown(depth)} blocks is not of these "
                        "weights")
    if max(widths)**2 > 2 * numbers + ROOM:                                  # a layer has a matrix of that size
        raise UserError(f"a config with a width of {shown(max(widths))} is not of these weights, {numbers:,} numbers")
    cls = FAMILIES[family].model
    try:
        wanted = cls(config, materialise=False).num_parameters()
    except OverflowError:
        raise UserError(TOO_LARGE) from None
    if wanted > 2 * numbers + ROOM:
        raise UserError(f"its config calls for {wanted:,} parameters, its tensors hold {numbers:,} numbers")
    return cls(config, seed=None, dtype=dtype)


def imagenet_classes():
    """The 1000 classes of ILSVRC 2012 in the order of their WordNet numbers, as every published model has them."""
    with open(os.path.join(os.path.dirname(__file__), "imagenet.txt"), encoding="utf-8") as file:
        return file.read().split("\n")[:1000]


def stored_preprocessing(metadata):
    """The Preprocessing in the metadata of a file of this library, None where there is none."""
    stored = stored_json(metadata, "preprocessing", dict)
    if stored is None:
        return None
    try:
        stored["size"] = pair(stored["size"])
        return Preprocessing(**stored)
    except (TypeError, KeyError) as error:
        raise UserError(f"no usable preprocessing in its metadata: {str(error)[:80]}") from None
