"""Everything a user decides about a run, in one table: the command line's options and config.json are made of it."""
import dataclasses
import typing
from dataclasses import dataclass, field

from ..errors import UserError


def setting(default, help, group, positive=False, choices=None):
    """A field with its help text, its group on the command line, and what it has to satisfy."""
    meta = {"help": help, "group": group, "positive": positive, "choices": choices}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Recipe:
    """A run, but for the machine it runs on. Two runs of one recipe, data set and plan have the same bits."""

    model: str = setting("vit_nano_patch4_32", "preset or family, see `numpyvit models`", "model")
    model_fields: dict = setting({}, "fields of the model's config, FIELD=VALUE, any number of times", "model")
    dtype: str = setting("float32", "of weights and activations", "model", choices=("float32", "float64"))
    seed: int = setting(0, "decides weights, order, augmentation, dropout and the validation split", "model")

    data: str = setting("auto", "auto, cifar10, shapes or folder:ROOT; auto is cifar10 if it can be had, else shapes", "data")
    data_dir: str | None = setting(None, "where the files of the data set are", "data")
    val: int | None = setting(None, "training images held out to watch (default: 5000, at most a tenth); 0 trains on all", "data")

    minutes: float | None = setting(None, "train for so long: the number of steps is fixed after measuring the speed (30)",
                                    "length", positive=True)
    epochs: float | None = setting(None, "train for so many passes over the training images", "length", positive=True)
    steps: int | None = setting(None, "train for so many steps", "length", positive=True)

    optimizer: str = setting("adamw", "how gradients become steps", "optimisation", choices=("adamw", "adam", "sgd"))
    lr: float = setting(1.5e-3, "learning rate at its peak", "optimisation", positive=True)
    schedule: str = setting("linear", "how the learning rate falls from its peak", "optimisation",
                            choices=("linear", "cosine", "one_cycle", "constant"))
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises", "optimisation")
    batch_size: int = setting(64, "images a step", "optimisation", positive=True)
    weight_decay: float = setting(0.05, "on weight matrices, not on biases, norms and position tables", "optimisation")
    beta1: float = setting(0.9, "Adam's memory of the gradient", "optimisation")
    beta2: float = setting(0.98, "Adam's memory of its square", "optimisation")
    eps: float = setting(1e-8, "Adam's floor under the root of that", "optimisation")
    momentum: float = setting(0.9, "SGD's", "optimisation")
    clip_norm: float = setting(0.0, "largest global norm of a gradient, 0 for any", "optimisation")
    ema: float = setting(0.0, "decay of a running average of the weights, which is then what is evaluated; 0 for none", "optimisation")
    label_smoothing: float = setting(0.1, "share of each target spread over all classes", "optimisation")

    padding: int = setting(4, "crop at random from the image padded by so many reflected pixels", "augmentation")
    flip: str = setting("alternating", "mirror left to right", "augmentation", choices=("none", "random", "alternating"))
    cutout: int = setting(0, "side of a square of mean colour", "augmentation")
    erasing: float = setting(0.0, "probability of a rectangle of noise", "augmentation")
    mixup: float = setting(0.0, "alpha of blending two images", "augmentation")
    cutmix: float = setting(0.0, "alpha of pasting a box of another image", "augmentation")

    shards: int = setting(4, "gradient sums kept apart, and added in order: the most threads of use; decides the bits", "lanes",
                          positive=True)
    micro_batch: int | None = setting(None, "images a thread takes at once (default: by the model's size); decides the bits", "lanes",
                                      positive=True)

    def __post_init__(self):
        for f in dataclasses.fields(self):
            check_setting(f, getattr(self, f.name))
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1:
            raise UserError("minutes, epochs, steps: give one of them")
        for name in ("warmup", "beta1", "beta2", "momentum", "ema", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}: expected 0 to below 1, got {getattr(self, name)}")
        for name in ("weight_decay", "eps", "clip_norm"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if self.val is not None and self.val < 0:
            raise UserError(f"val: expected 0 or more, got {self.val}")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed: expected 0 to 2^63 - 1, got {self.seed}")


FAMILY_DEFAULTS = {"vit": {}, "swin": {}, "cvt": {}}                         # settings that differ from the table above
SHAPES_DEFAULTS = {"model": "vit_pico_patch4_32", "batch_size": 32, "lr": 2e-3}  # the built-in set is learnt in a minute


def recipe_for(family, **given):
    """The recipe of a model family with what the user gave; given: names of settings → values."""
    given = dict(given)
    if given.get("data", "").startswith("folder:"):
        given["data"], given["data_dir"] = "folder", given["data"].removeprefix("folder:")
    if not {"minutes", "epochs", "steps"} & {name for name, value in given.items() if value is not None}:
        given["minutes"] = 30.0
    shapes = SHAPES_DEFAULTS if given.get("data") == "shapes" and "model" not in given else {}
    return Recipe(**{**FAMILY_DEFAULTS.get(family, {}), **shapes, **given})


def recipe_from_json(settings):
    """The recipe that config.json holds. Raises UserError for anything that is none."""
    if not isinstance(settings, dict):
        raise UserError(f"recipe: expected an object, got {type(settings).__name__}")
    names = {f.name for f in dataclasses.fields(Recipe)}
    for wrong in sorted(settings.keys() ^ names):
        raise UserError(f"recipe: {'missing' if wrong in names else 'unknown'} setting {wrong[:40]!r}")
    return Recipe(**settings)


def check_setting(f, value):
    """The type that the annotation says (a whole number will do for a float), finite, and what setting() says."""
    kinds = typing.get_args(f.type) or (f.type,)
    kinds += (int,) if float in kinds else ()
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise UserError(f"{f.name}: expected {kinds[0].__name__}, got {str(value)[:40]!r}")
    if isinstance(value, (int, float)) and not abs(value) <= 2**63:
        raise UserError(f"{f.name}: expected a finite number, got {value}")
    if f.metadata["positive"] and value is not None and not value > 0:
        raise UserError(f"{f.name}: expected more than 0, got {value}")
    if f.metadata["choices"] and value not in f.metadata["choices"]:
        raise UserError(f"{f.name}: expected one of {', '.join(f.metadata['choices'])}, got {value[:40]!r}")
