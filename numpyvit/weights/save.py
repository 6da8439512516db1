"""Weights written for this library or another: the same numbers under other names, in a file or a folder."""
import dataclasses
import json
import os

from ..errors import UserError
from ..files.atomic import make_folder, write_together
from ..files.npz import write_npz
from ..files.pth import write_pth
from ..files.safetensors import tensor_buffers, write_tensors
from ..module import pair
from .huggingface import check_depths, write_config
from .images import usual_preprocessing
from .infer import HABITS
from .load import FORMAT, USUAL, describe_model, family_of
from .processors import write_preprocessor
from .recognise import FAMILY_TITLES, TITLES, differences, rename
from .sources import optional_json, path_text

FORMATS = ("numpyvit", "timm", "huggingface", "torchvision", "google", "microsoft")
TORCH_SUFFIXES = (".pth", ".pt", ".bin")
# (format, family) → fields of our config, and the one value that every model of that library has
NEEDS = {("huggingface", "vit"): {"stem_widths": (), "global_pool": "token", "norm_order": "pre",
                                  "representation_size": 0},
         ("huggingface", "swin"): {"stem_widths": ()},
         ("huggingface", "cvt"): {"stem_widths": (), "qkv_method": "dw_bn", "norm_eps": 1e-5},
         ("torchvision", "vit"): {"global_pool": "token", "qkv_bias": True}, ("google", "vit"): {"qkv_bias": True}}


def save_weights(model, path, format="numpyvit"):
    """Write the model's weights in a library's names.

    numpyvit: a .safetensors file that also holds the config, the classes and the preprocessing, for load_model.
    timm, torchvision, microsoft: a .safetensors file, which holds these too, or one of torch where the path ends in
    .pth, .pt or .bin.   google: an .npz file.   huggingface: a folder that transformers opens with from_pretrained.
    →   where that library computes something else from these weights, in sentences

    A file is replaced as a whole: after a failed or killed save the old one is still there. The three files of a folder
    are all written before the first one is renamed, so a save that fails to write leaves the old folder; only a kill or
    an error between two of the renames leaves files of both. Raises UserError where the library has no such model, for
    names of classes that are not as many as the model has classes, and for the folder of a run; OSError if a file
    cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    path, family = path_text(path), family_of(model)
    if model.classes and len(model.classes) != model.config.num_classes:
        raise UserError(f"classes: expected the names of the model's {model.config.num_classes} classes, got "
                        f"{len(model.classes)}")
    if format == "numpyvit":
        write_tensors(path, model.state_dict(), {"format": FORMAT, **describe_model(model), **describe_use(model)})
        return []
    check_expressible(format, family, model.config)
    tensors = rename(model, family, format)
    sentences = [*other_settings(format, family, model.config), *differences(format, family, model.config)]
    if getattr(model.config, "pos_embed", "learn") != "learn":
        sentences.append(f"the model's {model.config.pos_embed} positions were written as a table, as if learned")
    if format == "timm" and getattr(model.config, "representation_size", 0):
        sentences.append("timm's ViT no longer has a layer pre_logits: only older versions of timm open this file")
    check_windows(format, family, model.config)
    if format == "huggingface":
        sentences += write_folder(model, family, path, tensors)
    elif format == "google":
        check_suffix(path, (".npz",), format)
        write_npz(path, tensors)
    elif path.endswith(TORCH_SUFFIXES):
        write_pth(path, tensors, wrapped="model" if (format, family) == ("microsoft", "swin") else None)
    else:
        check_suffix(path, (".safetensors", *TORCH_SUFFIXES), format)
        write_tensors(path, tensors, {"format": "pt", **describe_model(model, **tables_are_learned(model.config)),
                                      **describe_use(model)})
    return sentences


def check_expressible(format, family, config):
    """UserError where the library cannot compute what the model does."""
    for field, needed in NEEDS.get((format, family), {}).items():
        if getattr(config, field) != needed:
            raise UserError(f"format: {TITLES[format]}'s {FAMILY_TITLES[family]} needs {field} {needed!r}, this model "
                            f"has {getattr(config, field)!r}; numpyvit's own format holds it")
    H, W = pair(config.img_size)
    if (format, family) == ("torchvision", "vit") and H != W:
        raise UserError(f"format: torchvision's ViT needs a square img_size, this model has {config.img_size}; "
                        "numpyvit's own format holds it")
    if (format, family) == ("huggingface", "cvt"):
        check_depths(config)


def other_settings(format, family, config):
    """Where the library's models have another act or norm_eps than this config, in sentences. A folder of Hugging Face
    says in its config.json what they are.
    """
    if format == "huggingface":
        return []
    theirs = USUAL[family] | HABITS.get((format, family), {})
    return [f"{TITLES[format]}'s {FAMILY_TITLES[family]} has {name} {theirs[name]}, this model has "
            f"{getattr(config, name)}: the logits differ"
            for name in ("act", "norm_eps") if getattr(config, name) != theirs[name]]


def tables_are_learned(config):
    """The fields of the config that are not the same for the tensors in a foreign file: it holds every position."""
    return {"pos_embed": "learn"} if hasattr(config, "pos_embed") else {}


def write_folder(model, family, path, tensors):
    """config.json, preprocessor_config.json and model.safetensors, each written before the first of them is renamed.
    →   what the processor of images there does otherwise, in sentences
    """
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f"{path}: expected a folder for Hugging Face's files, there is a file")
    checkpoints = os.path.lexists(os.path.join(path, "checkpoints"))
    if checkpoints or "recipe" in optional_json(os.path.join(path, "config.json")):
        raise UserError(f"{path}: expected a folder for Hugging Face's files, this is the folder of a run, whose "
                        "config.json would be lost; choose another")
    config = write_config(model, family, model.classes)
    preprocessing = model.preprocessing or usual_preprocessing("huggingface", family, pair(model.config.img_size),
                                                               model.config.in_chans)
    processor, sentences = write_preprocessor(preprocessing)
    make_folder(path)
    contents = {name: [(json.dumps(value, indent=2) + "\n").encode()]
                for name, value in (("config.json", config), ("preprocessor_config.json", processor))}
    contents["model.safetensors"] = tensor_buffers(tensors, {"format": "pt"})
    write_together({os.path.join(path, name): buffers for name, buffers in contents.items()})
    return sentences if model.preprocessing else []                          # none of its own: nothing differs from it


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
