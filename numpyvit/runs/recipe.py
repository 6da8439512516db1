"""Everything a user decides about a run, in one table: the command line's options and config.json are made of it."""
import dataclasses
from dataclasses import dataclass, field

from ..checks import check_choice, check_numbers, check_types, fail, shown
from ..data.registry import TABLE
from ..errors import UserError
from ..ops.optim import OPTIMIZERS

ADAM, MOMENTUM = OPTIMIZERS["adamw"][0].settings, OPTIMIZERS["sgd"][0].settings
MANY = 10**9                                                                 # no count of a run comes near it


def setting(default, help, group, choices=None, later=False, **limits):
    """A field with its help text, its group on the command line, its choices, and its limits as in check_number.

    later: a setting that runs of older versions do not have in their config.json; they ran with the default.
    """
    metadata = {"help": help, "group": group, "choices": choices, "later": later, "limits": limits}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def share(default, help, group):
    """A setting from 0 to below 1."""
    return setting(default, help, group, least=0, below=1)


@dataclass(frozen=True)
class Recipe:
    """A run, but for the machine it runs on. Two runs of one recipe, data set and plan have the same bits.

    Raises UserError, in one line, for a value of the wrong kind or out of its range.
    """

    model: str = setting("vit_mini_convpool_32", "preset (see `numpyvit models`), or vit, swin or cvt: then the length "
                         "chooses the preset, or, with --set, the net is the family's default, changed", "model")
    model_fields: dict = setting({}, "a field of the model's config; each field takes a --set of its own: --set "
                                 "depth=2 --set embed_dim=96", "model")
    dtype: str = setting("float32", "of weights and activations", "model", choices=("float32", "float64"))
    seed: int = setting(0, "decides weights, order, augmentation, dropout and the validation split", "model",
                        least=0, below=2**63)

    init: str | None = setting(None, "begin with these weights: a run, a file of weights or a folder of Hugging Face",
                               "model", later=True)
    first_filters: str = setting("random", "filters that look at the pixels: random ones that learn, or the principal "
                                 "components of the training images' patches, whitened, which stay as they are",
                                 "model", choices=("random", "whitened"), later=True)
    freeze: str = setting("", "parameters that keep their values, by patterns such as 'patch_embed*,blocks.0.*'",
                          "model", later=True)

    data: str = setting("auto", f"{', '.join(('auto', *TABLE))}:ROOT; auto is cifar10 if it can be had, else shapes",
                        "data")
    data_dir: str | None = setting(None, "where the files of the data set are", "data")
    val: int | None = setting(None, "training images held out to watch (default: 1000, at most a tenth; 5000 tell "
                              "settings apart better); 0 trains on all", "data", least=0, below=MANY)

    test: bool = setting(True, "score the test images, once, at the end", "data", later=True)

    minutes: float | None = setting(None, "train for so long: the number of steps is fixed after measuring the speed "
                                    "(30)", "length", above=0, below=MANY)
    epochs: float | None = setting(None, "train for so many passes over the training images", "length",
                                   above=0, below=MANY)
    steps: int | None = setting(None, "train for so many steps", "length", above=0, below=MANY)

    optimizer: str = setting("adamw", "how gradients become steps", "optimisation", choices=tuple(OPTIMIZERS))
    lr: float = setting(1.5e-3, "learning rate at its peak", "optimisation", above=0)
    lr_rest: float = setting(1.0, "share of lr for the parameters that Muon leaves to AdamW", "optimisation",
                             later=True, above=0)
    schedule: str = setting("linear", "how the learning rate falls from its peak", "optimisation",
                            choices=("linear", "cosine", "one_cycle", "constant"))
    warmup: float = share(0.1, "share of the steps in which the learning rate rises", "optimisation")
    batch_size: int = setting(64, "images a step", "optimisation", above=0, below=MANY)
    weight_decay: float = setting(0.05, "on weight matrices, not on biases, norms and position tables", "optimisation",
                                  least=0)
    beta1: float = share(ADAM["beta1"], "decay of Adam's average of gradients", "optimisation")
    beta2: float = share(ADAM["beta2"], "decay of Adam's average of squared gradients", "optimisation")
    eps: float = setting(ADAM["eps"], "number that Adam adds to the root of this average", "optimisation", least=0)
    momentum: float = share(MOMENTUM["momentum"], "decay of the average of gradients: SGD's, or Muon's, which has "
                            f"{OPTIMIZERS['muon'][0].settings['momentum']} by itself", "optimisation")
    clip_norm: float = setting(0.0, "largest global norm of a gradient, 0 for any", "optimisation", least=0)
    ema: float = share(0.0, "decay of a running average of the weights, which is then evaluated; 0 for none",
                       "optimisation")
    keep: str = setting("last", "the weights that a run ends with: its last, or those of the best validation accuracy",
                        "optimisation", choices=("last", "best"), later=True)
    patience: int = setting(0, "end a run after so many looks at the validation images without a better accuracy; 0 "
                            "for never", "optimisation", later=True, least=0, below=MANY)
    label_smoothing: float = share(0.1, "share of each target spread over all classes", "optimisation")

    padding: int = setting(4, "crop at random from the image padded by so many reflected pixels", "augmentation",
                           least=0, below=MANY)
    flip: str = setting("alternating", "mirror left to right", "augmentation",
                        choices=("none", "random", "alternating"))
    cutout: int = setting(0, "side of a square of mean colour", "augmentation", least=0, below=MANY)
    erasing: float = setting(0.0, "probability of a rectangle of noise", "augmentation", least=0, most=1)
    mixup: float = setting(0.0, "alpha of blending two images", "augmentation", least=0)
    cutmix: float = setting(0.0, "alpha of pasting a box of another image", "augmentation", least=0)

    small_size: int = setting(0, "side of the images in the first part of the run; 0 for full size throughout",
                              "augmentation", later=True, least=0, below=MANY)
    small_share: float = setting(0.6, "share of the steps that train on the smaller images", "augmentation",
                                 later=True, least=0, below=1)
    small_window: int = setting(0, "a smaller image is a random square of its image, of so many pixels a side "
                                "or more, resized; 0 for the whole image", "augmentation", later=True, least=0,
                                below=MANY)

    shards: int | None = setting(None, "gradient sums kept apart, added in a fixed order: the most threads, of all "
                                 "ranks, that compute gradients (default: 4, fewer for small batches); decides "
                                 "the bits", "lanes", above=0, most=65536)
    micro_batch: int | None = setting(None, "images a thread takes at once (default: by the model's size); decides the "
                                      "bits", "lanes", above=0, most=65536)

    def __post_init__(self):
        check_types(self)
        for f in dataclasses.fields(self):
            if f.metadata["choices"]:
                check_choice(self, f.name, f.metadata["choices"])
            if f.metadata["limits"]:
                check_numbers(self, f.name, **f.metadata["limits"])
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1:
            raise UserError("minutes, epochs, steps: give one of them")
        if self.init and self.first_filters != "random":
            raise UserError(f"first_filters: expected random beside init, which gives the weights to begin with, got "
                            f"{self.first_filters}")


def recipe_from_json(settings):
    """The recipe that config.json holds. Raises UserError for anything that is none."""
    if not isinstance(settings, dict):
        fail("recipe", "a table of settings", shown(settings))
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    for wrong in sorted(settings.keys() ^ fields.keys()):
        if wrong not in fields:
            raise UserError(f"recipe: unknown setting {wrong[:40]!r}")
        if not fields[wrong].metadata["later"]:
            raise UserError(f"recipe: missing setting {wrong!r}")
    return Recipe(**settings)
