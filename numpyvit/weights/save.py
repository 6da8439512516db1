"""Weights written for this library or another: the same numbers under other names, in a file or a folder."""
import dataclasses
import json
import os

from ..errors import UserError
from ..files.atomic import make_folder, write_atomic
from ..files.npz import write_npz
from ..files.pth import write_pth
from ..files.safetensors import write_tensors
from ..module import pair
from .huggingface import check_expressible, write_config, write_preprocessor
from .images import usual_preprocessing
from .load import FORMAT, describe_model, family_of
from .recognise import TITLES, differences, rename

FORMATS = ("numpyvit", "timm", "huggingface", "torchvision", "google", "microsoft")
TORCH_SUFFIXES = (".pth", ".pt", ".bin")


def save_weights(model, path, format="numpyvit"):
    """Write the model's weights in a library's names.

    numpyvit: a .safetensors file that also holds the config, the classes and the preprocessing, for load_model. timm,
    torchvision, microsoft: a .safetensors file, or one of torch where the path ends in .pth, .pt or .bin. google: an
    .npz file.   huggingface: a folder that transformers opens with from_pretrained. →   where that library computes
    something else from these weights, in sentences Atomic: after a failed or killed save each old file is still
    there. Raises UserError where the library has no such model, OSError if a file cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    path, family = os.fspath(path), family_of(model)
    if format == "numpyvit":
        write_tensors(path, model.state_dict(), {"format": FORMAT, **describe_model(model), **describe_use(model)})
        return []
    if format == "huggingface":
        check_expressible(model.config, family)
    tensors = rename(model, family, format)
    sentences = differences(format, family, model.config)
    if getattr(model.config, "pos_embed", "learn") != "learn":
        sentences.append(f"the model's {model.config.pos_embed} positions were written as a table, as if learned")
    check_windows(format, family, model.config)
    if format == "huggingface":
        write_folder(model, family, path, tensors)
    elif format == "google":
        check_suffix(path, (".npz",), format)
        write_npz(path, tensors)
    elif path.endswith(TORCH_SUFFIXES):
        write_pth(path, tensors, wrapped="model" if (format, family) == ("microsoft", "swin") else None)
    else:
        check_suffix(path, (".safetensors", *TORCH_SUFFIXES), format)
        write_tensors(path, tensors, {"format": "pt"})
    return sentences


def write_folder(model, family, path, tensors):
    """config.json, preprocessor_config.json and model.safetensors, the weights last."""
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f"{path}: expected a folder for Hugging Face's files, there is a file")
    config = write_config(model, family, model.classes)
    preprocessing = model.preprocessing or usual_preprocessing("huggingface", family, pair(model.config.img_size),
                                                               model.config.in_chans)
    make_folder(path)
    for name, value in {"config.json": config,
                        "preprocessor_config.json": write_preprocessor(preprocessing, family, model.config)}.items():
        write_atomic(os.path.join(path, name), [(json.dumps(value, indent=2) + "\n").encode()])
    write_tensors(os.path.join(path, "model.safetensors"), tensors, {"format": "pt"})


def describe_use(model):
    """The classes and the preprocessing of a model that has them, as metadata."""
    use = {}
    if model.classes:
        use["classes"] = json.dumps(list(model.classes))
    if model.preprocessing:
        use["preprocessing"] = json.dumps(dataclasses.asdict(model.preprocessing))
    return use


def check_suffix(path, suffixes, format):
    """UserError unless the path ends in one of suffixes: whoever reads the file goes by its name."""
    if not path.endswith(suffixes):
        raise UserError(f"{path}: a file in {TITLES[format]}'s names ends in {' or '.join(suffixes)}")


def check_windows(format, family, config):
    """UserError where a stage's table of biases is not of the size that the library gives it."""
    if family != "swin" or format == "microsoft":
        return
    for i, stage in enumerate(config.stages()):
        _, H, W, M, _ = stage
        if M < config.window_size and (format != "timm" or H != W):
            raise UserError(f"format: {TITLES[format]}'s Swin keeps windows of {config.window_size} × "
                            f"{config.window_size} where the map is smaller, as in stage {i} here "
                            f"({H} × {W}); it cannot hold this model")
