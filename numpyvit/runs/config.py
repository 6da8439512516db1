"""config.json as records: the parts of a run, and the only place that checks what the file holds.

The file is one object; each record below is an object in it, and a field is a key. Reading the file gives a RunConfig,
or one UserError that names the key, what was expected and what came. Keys that this version does not know are left out.
"""
import dataclasses
import json
import shlex
from dataclasses import MISSING, dataclass, field

from ..checks import check_number, check_type, fail, is_number, shown
from ..data.dataset import records_checksum
from ..errors import UserError
from ..files.atomic import read_small
from ..models import FAMILIES, model_config
from ..module import pair
from .recipe import Recipe, recipe_from_json

FORMAT = "numpyvit-run-1"
MAX_SIDE, MAX_DEPTH = 4096, 1024                                             # pixels and blocks that a file may ask for


@dataclass(frozen=True)
class ModelEntry:
    """The model: its family, the family's config as a dict, and how many numbers it trains."""
    family: str
    config: dict
    parameters: int = 0

    def __post_init__(self):
        if self.family not in FAMILIES:
            fail("family", f"one of {', '.join(FAMILIES)}", shown(self.family))


@dataclass(frozen=True)
class DataEntry:
    """The data set: where it came from, the checksum of its images and labels, its classes, each channel's mean and
    standard deviation, and how many images are for training, validation and test."""
    name: str
    notice: str
    checksum: str
    classes: list
    mean: list
    std: list
    source: str = ""
    files: str = ""
    train: int = 0
    val: int = 0
    test: int = 0

    def __post_init__(self):
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            fail("classes", "a list of names", shown(self.classes))
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not all(is_number(x) and abs(x) < 1e6 and (x > 0 or name == "mean") for x in values):
                fail(name, f"a list of {'positive ' if name == 'std' else ''}numbers", shown(values))
        for name in ("train", "val", "test"):
            check_number(name, getattr(self, name), whole=True, least=0)


@dataclass(frozen=True)
class LanesEntry:
    """How a batch is divided: gradient sums kept apart, images at a time, the order in which the sums are added, and
    how the images of a sum are divided. All four decide the bits. Version 0.1 added the sums one after the other, a
    fold, took whole micro-batches and then the rest, and did not say so."""
    shards: int
    micro_batch: int
    sum: str = "fold"
    division: str = "whole"

    def __post_init__(self):
        for name, choices in (("sum", ("fold", "tree")), ("division", ("whole", "equal"))):
            if getattr(self, name) not in choices:
                fail(name, " or ".join(choices), shown(getattr(self, name)))
        for name in ("shards", "micro_batch"):
            check_number(name, getattr(self, name), whole=True, least=1, most=65536)


@dataclass(frozen=True)
class Plan:
    """How long the run is and how often the validation images are scored. Made once, before the first step.

    seconds_per_step: what was measured, where the length was given in minutes.
    start: the step at which the schedule begins; above 0 in a finished run that was extended.
    """
    steps_per_epoch: int
    steps: int
    evaluate_every: int
    seconds_per_step: float | None = None
    start: int = 0

    def __post_init__(self):
        for name in ("steps_per_epoch", "steps", "evaluate_every"):
            check_number(name, getattr(self, name), whole=True, least=1)
        check_number("start", self.start, whole=True, least=0, below=self.steps)


@dataclass(frozen=True)
class RunConfig:
    """All it takes to repeat a run."""
    recipe: Recipe
    model: ModelEntry
    data: DataEntry
    lanes: LanesEntry
    plan: Plan | None = None
    versions: dict = field(default_factory=dict)
    command: str = ""
    started: str = ""

    def with_plan(self, plan):
        """The same config with this Plan."""
        return dataclasses.replace(self, plan=plan)

    def to_json(self):
        """The object that config.json holds."""
        plan = None
        if self.plan:
            plan = {name: value for name, value in vars(self.plan).items() if value}
        return {"format": FORMAT, "command": self.command, "started": self.started,
                "recipe": dataclasses.asdict(self.recipe), "model": vars(self.model), "data": vars(self.data),
                "lanes": vars(self.lanes), "versions": self.versions, "plan": plan}

    @classmethod
    def from_json(cls, entry):
        """The config that the object of config.json describes. Raises UserError where it is not as it has to be."""
        if not isinstance(entry, dict):
            fail("config", "a table of names and values", shown(entry))
        if entry.get("format") != FORMAT:
            fail("format", repr(FORMAT), shown(entry.get("format")))
        recipe = recipe_from_json(entry.get("recipe"))
        records = {"model": ModelEntry, "data": DataEntry, "lanes": LanesEntry}
        records = {name: read_record(record, name, entry.get(name)) for name, record in records.items()}
        plan = None if entry.get("plan") is None else read_record(Plan, "plan", entry["plan"])
        others = {name: entry[name] for name in ("versions", "command", "started") if name in entry}
        for name, value in others.items():
            check_type(name, dict if name == "versions" else str, value)
        return cls(recipe, **records, plan=plan, **others)


def read_record(record, name, entry):
    """One of the records above from its object; messages name the key, such as data.mean."""
    if not isinstance(entry, dict):
        fail(name, "a table of names and values", shown(entry))
    given = {}
    for f in dataclasses.fields(record):
        if f.name in entry:
            check_type(f"{name}.{f.name}", f.type, entry[f.name])
            given[f.name] = entry[f.name]
        elif f.default is MISSING:
            raise UserError(f"{name}.{f.name} is missing")
    try:
        return record(**given)
    except UserError as error:
        raise UserError(f"{name}.{error}") from None


def read_config(path):
    """The RunConfig in a config.json. Raises UserError, with the path, where the file holds none."""
    entry = read_json(path)
    try:
        return RunConfig.from_json(entry)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_json(path):
    """A JSON file of at most 4 MiB. Raises UserError, with the path and the place."""
    try:
        return json.loads(read_small(path).decode())
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {str(error)[:80]}") from None


def records_of(dataset):
    """A checksum of the images and labels themselves, however they were stored."""
    known = dataset.checksum.startswith("records-") and dataset.name != "cifar10"
    return dataset.checksum if known else records_checksum(dataset.train, dataset.test)


def build_model(config, checkpoint=None):
    """The model that a RunConfig describes, with fresh weights.

    What a file claims is held against what is there before memory is allocated for it: the sizes of the checkpoint's
    tensors, and at least one of them a block.
    """
    recipe, classes, channels = config.recipe, len(config.data.classes), len(config.data.mean)
    try:
        family, model = model_config(config.model.family, **config.model.config)
    except ValueError as error:
        raise UserError(f"the model in config.json: {str(error)[:300]}") from None
    sides, depths = pair(model.img_size), getattr(model, "depths", None) or (model.depth,)
    if max(sides) > MAX_SIDE or sum(depths) > (len(checkpoint.tensors) if checkpoint else MAX_DEPTH):
        raise UserError(f"model: img_size {model.img_size} and depth {sum(depths)} cannot be those of this run")
    if model.num_classes != classes or model.in_chans != channels:
        raise UserError(f"model: {model.num_classes} classes and {model.in_chans} channels do not fit the data set's "
                        f"{classes} and {channels}")
    cls = FAMILIES[family].model
    if checkpoint:
        for name, p in cls(model, materialise=False).named_parameters():
            if name not in checkpoint.tensors or checkpoint.tensors[name].shape != p.shape:
                raise UserError(f"{checkpoint.path}: it has no {name} of shape {p.shape}, which config.json calls for")
    return cls(model, seed=recipe.seed, dtype=recipe.dtype)


def how_to_repeat_parts(config, path):
    """What to do instead of train --config to repeat a run that was extended, in plain text."""
    start, steps = config.plan.start, config.plan.steps
    began = f", which began with: numpyvit {config.command}," if config.command.startswith("train ") else ""
    return (f"{path} was trained in parts, and its config.json has the settings of the last one only, from step "
            f"{start} to step {steps}. To repeat it, train a new run to step {start} as this one was{began} and then "
            f"extend the new run: numpyvit train --resume NEW_RUN --steps {steps - start}. To train in one part, with "
            f"images of full size throughout: numpyvit train --config {shlex.quote(str(path))} --steps {steps}")
