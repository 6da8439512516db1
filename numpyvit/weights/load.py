"""Weights of a model to and from files of several libraries.

    a file or folder → tensors (sources) → names here (recognise) → sizes here (fit) → into the model

All of it is checked before the first value is written into the model. What may differ: a table of positions for another
resolution is resized, a head for other classes is left out on request. Everything else has to fit exactly.
"""
import dataclasses
import json

from ..checks import check_tensors
from ..errors import UserError
from ..models import family_of
from .fit import CUBIC_A, resize_table
from .huggingface import read_config
from .infer import HABITS
from .recognise import FAMILY_TITLES, Recognised, differences, recognise
from .sources import read_source
from .timm import is_timms, read_timm_config

FORMAT = "numpyvit-weights-1"
USUAL = {"vit": {"act": "gelu", "norm_eps": 1e-6}, "swin": {"act": "gelu", "norm_eps": 1e-5},
         "cvt": {"act": "quick_gelu", "norm_eps": 1e-5}}
HEAD = ("head.", "pre_logits.")
FREE = ("img_size", "num_classes", "in_chans", "representation_size", "window_size", "mlp_ratio", "drop_rate",
        "attn_drop_rate", "drop_path_rate")          # fields that decide shapes alone, or what is dropped out


def load_weights(model, path, resize="bicubic", drop_head=False):
    """Read a file or folder of weights into the model: this library's, timm's, Hugging Face's, torchvision's,
    Google's or microsoft's, recognised by the names of the tensors, in a .safetensors, .npz, .pth or .bin file.

    resize: "bicubic" or "bilinear", how tables of positions are adapted to another resolution (see resize_grid).
    drop_head: keep the model's own head where the file has none, or one for another number of classes.
    →   what was done, in sentences, one for each thing that is not a plain copy.
    Raises UserError if a name, shape or dtype does not fit or a value is not finite; the model is then unchanged.
    """
    if resize not in CUBIC_A:
        raise UserError(f"resize: expected {' or '.join(CUBIC_A)}, got {resize!r}")
    source = read_source(path)
    try:
        return fill(model, source, resize, drop_head)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def fill(model, source, resize="bicubic", drop_head=False):
    """load_weights after reading: a Source into the model."""
    family = family_of(model)
    found, config = understand(source)
    if found.family != family:
        raise UserError(f"it holds a {found.title}, this model is a {FAMILY_TITLES[family]}")
    plain = (found.format, family) in (("numpyvit", family), ("timm", "vit"), ("timm", "swin"), ("microsoft", "cvt"))
    sentences = [*source.sentences, *([] if plain else [f"read as a {found.title}"])]
    sentences += compare_configs(found, config, model.config)
    try:
        sentences += assign_weights(model, found.tensors, resize, drop_head, config)
    except UserError as error:
        raise error if plain else UserError(f"read as a {found.title}: {error}") from None
    ours = kept_config(source.metadata, family)                              # then the file was made by a model here
    return sentences + ([] if ours else differences(found.format, family, model.config))


def understand(source):
    """Whose names a Source has.   →   Recognised, the config that is known of it, under the names of the fields here"""
    if source.metadata.get("format") == FORMAT:
        config = stored_config(source.metadata)
        family = source.metadata.get("family")
        if family not in FAMILY_TITLES:
            raise UserError(f"family {str(family)[:40]!r} in its metadata, expected one of {', '.join(FAMILY_TITLES)}")
        return Recognised("numpyvit", family, source.tensors, {}), config
    found = recognise(source.tensors)
    config = kept_config(source.metadata, found.family)
    if "model_type" in source.config:
        _, config, _ = read_config(source.config)
    elif found.format == "timm" and is_timms(source.config):
        config |= read_timm_config(source.config, found.family, found.tensors)
    return found, found.known | config


def compare_configs(found, config, model_config):
    """Where the file was made for another function of the same tensors, in sentences; UserError for another number of
    heads.
    """
    heads, mine = config.get("num_heads"), dataclasses.asdict(model_config)
    if heads is not None and tuple_of(heads) != tuple_of(mine["num_heads"]):
        raise UserError(f"its attention has {heads} heads, this model's {mine['num_heads']}")
    theirs = USUAL.get(found.family, {}) | HABITS.get((found.format, found.family), {}) | config
    compared = ("act", "norm_eps", "norm_order")
    if found.format == "numpyvit" or mine.keys() <= config.keys():           # the file has every field
        compared = [name for name in mine if name not in FREE]
    return [f"the weights were made with {name} {theirs[name]}, this model has {mine[name]}: the logits differ"
            + (" a little" if name in ("act", "norm_eps") else "")
            for name in compared if name in theirs and tuple_of(theirs[name]) != tuple_of(mine[name])]


def tuple_of(value):
    """A list as a tuple, anything else as it is."""
    return tuple(value) if isinstance(value, (list, tuple)) else value


def assign_weights(model, tensors, resize="bicubic", drop_head=False, config=None):
    """{name here: array} into the model.   config: that of the file, a dict, where it is known   →   sentences"""
    targets = {name: p.data for name, p in model.named_parameters()} | dict(model.named_buffers())
    tensors, tables, sentences = dict(tensors), model.position_tables(), []
    for name in sorted(set(tensors) & set(targets)):
        if name in tables and tensors[name].dtype.kind == "f":
            shape = targets[name].shape
            tensors[name], what = resize_table(name, tensors[name], shape, resize, tables[name], config or {})
            sentences += what
    if drop_head:
        sentences += keep_head(targets, tensors)
    for name in targets:
        if name.endswith("num_batches_tracked"):                             # a count that old files lack
            tensors.setdefault(name, targets[name])
    check_tensors(targets, tensors, type(model).__name__)
    converted = {str(tensors[name].dtype) for name in targets if tensors[name].dtype != targets[name].dtype}
    if converted:
        sentences.append(f"converted {' and '.join(sorted(converted))} to {model.dtype}")
    for name, target in targets.items():
        target[...] = tensors.pop(name)
    return sentences


def keep_head(targets, tensors):
    """Replace what belongs to the head and does not fit by the model's own; changes tensors.   →   sentences"""
    sentences = []
    for name in [n for n in targets if n.startswith(HEAD)]:
        if name not in tensors:
            sentences.append(f"kept the model's own {name} {targets[name].shape}: the file has none")
        elif tensors[name].shape != targets[name].shape:
            sentences.append(f"kept the model's own {name} {targets[name].shape}: the file's is {tensors[name].shape}")
        else:
            continue
        tensors[name] = targets[name]
    for name in [n for n in tensors if n.startswith(HEAD) and n not in targets]:
        sentences.append(f"left out the file's {name} {tensors.pop(name).shape}")
    return sentences


# --- which model a file is of

def describe_model(model, **fields):
    """{"family": …, "config": JSON of the config}, the metadata of every file that holds a model's weights.

    fields: of the config, where they are others for the tensors in the file
    """
    config = dataclasses.asdict(model.config) | fields
    return {"family": family_of(model), "config": json.dumps(config, sort_keys=True)}


def kept_config(metadata, family):
    """The config that save_weights put into the metadata of a file in another library's names, {} where there is none
    of that family.
    """
    return stored_config(metadata) if metadata.get("family") == family else {}


def stored_config(metadata):
    """The config in a file's metadata as a dict, {} where there is none or it is no JSON object."""
    return stored_json(metadata, "config", dict) or {}


def stored_json(metadata, key, kind):
    """What the metadata hold under key as JSON, None where that is missing or of another kind."""
    try:
        value = json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None
