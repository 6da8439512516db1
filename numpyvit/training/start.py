"""Training that begins with weights: of a run, or of a file or folder that another library wrote."""
import dataclasses
import math

from ..errors import UserError
from ..models import FAMILIES, family_of
from ..module import pair
from ..runs.classifier import Classifier, is_run
from ..weights.build import describe
from ..weights.load import assign_weights, compare_configs, fill
from ..weights.recognise import Recognised
from ..weights.sources import read_source

RATES = ("drop_rate", "attn_drop_rate", "drop_path_rate")                    # of training, not of the weights


def model_of(path, given, finer=False):
    """The model that weights were made for, as settings of a recipe: {"model": family, "model_fields": {…}}.

    given: fields of the config that the user wants otherwise.   finer: images larger by 384 / 224, rounded to whole
    patches, as the ViT paper fine-tunes, unless given has a size. The classes are the data set's, the head is one
    layer, and nothing is dropped out unless given. Raises UserError for a path without weights.
    """
    if is_run(path):
        config = Classifier(path).model.config
    else:
        try:
            config = describe(read_source(path), {"num_classes": 1, **given}).config
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    family = next(name for name, about in FAMILIES.items() if type(config) is about.config)
    usual = FAMILIES[family].config()
    own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)
           if f.name not in ("num_classes", "in_chans", "representation_size", *RATES)}
    if finer:
        patch = getattr(config, "patch_size", math.prod(getattr(config, "patch_strides", (1,))))
        own["img_size"] = max(round(max(pair(config.img_size)) * 384 / 224 / patch), 1) * patch
    return {"model": family, "model_fields": {n: v for n, v in own.items() if v != getattr(usual, n)} | given}


def start_from(path, model, classes):
    """Fill a new model with weights and give it their preprocessing.   classes: of the data set   →   sentences

    The head is made anew, all zeros as in the ViT paper, where the weights have none, one for another number of
    classes or for classes of other names. Tables of positions and biases are resized. Raises UserError where the rest
    does not fit.
    """
    try:
        if is_run(path):
            other = Classifier(path).model
            if type(other) is not type(model):
                raise UserError(f"{path} is a {type(other).__name__}, the model is a {type(model).__name__}")
            theirs, model.preprocessing = other.classes, other.preprocessing
            config = dataclasses.asdict(other.config)
            found = Recognised("numpyvit", family_of(model), {}, {})
            sentences = compare_configs(found, config, model.config)
            sentences += assign_weights(model, other.state_dict(), drop_head=True, config=config)
        else:
            source = read_source(path)
            sentences = fill(model, source, drop_head=True)
            about = describe(source, {"num_classes": 1, **same_fields(model.config)})
            theirs, model.preprocessing = about.classes, about.preprocessing
    except UserError as error:
        raise UserError(f"init: {error}" if str(path) in str(error) else f"init: {path}: {error}") from None
    sentences.insert(0, f"began with the weights of {path}")
    kept = [s for s in sentences if s.startswith("kept the model's own head")]
    if kept or theirs is not None and list(theirs) != list(classes):
        for name, p in model.named_parameters():
            if name.startswith("head."):
                p.data[...] = 0
        sentences = [s for s in sentences if s not in kept]
        sentences.append(f"the head for the {len(classes)} classes is new, all zeros")
    return sentences


def same_fields(config):
    """What no shape tells, as the model has it."""
    fields = ("num_heads", "patch_strides", "patch_paddings", "img_size")
    return {name: getattr(config, name) for name in fields if hasattr(config, name)}
