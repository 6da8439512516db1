"""A checkpoint: one safetensors file with everything that a later process needs to go on with the same bits."""
import json
import os
from dataclasses import dataclass

from ..checks import check_tensors, is_number
from ..errors import UserError
from ..files.safetensors import read_tensors, write_tensors
from ..models import model_config
from ..weights.load import describe_model

FORMAT = "numpyvit-checkpoint-1"
LOGS = ("metrics.jsonl", "timings.jsonl")
OF_LENGTH = ("minutes", "epochs", "steps", "small_size", "evaluate_every", "seconds_per_step", "start")


@dataclass
class Position:
    """How far a run is: steps done, seconds of training, bytes in each of LOGS."""
    step: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    timings_bytes: int = 0


@dataclass
class Checkpoint:
    """A checkpoint as read: its tensors, the model that its metadata describes, where the run was, and its settings.

    settings: {name: value} of the recipe and the plan; empty in a checkpoint of an older version.
    """
    path: str
    tensors: dict
    model: dict
    position: Position
    settings: dict

    @classmethod
    def read(cls, path):
        tensors, metadata = read_tensors(path, expect_checksum=True)
        if metadata.get("format") != FORMAT:
            raise UserError(f"{path}: not a checkpoint of a run")
        position = parse_position(metadata.get("position", ""), path)
        if f"step-{position.step:08d}.safetensors" != os.path.basename(path):
            raise UserError(f"{path}: the file's name does not fit its content, which is of step {position.step}")
        model = {key: metadata.get(key) for key in ("family", "config")}
        return cls(path, tensors, model, position, stored_settings(metadata))

    def changes(self, config):
        """Sentences about settings of the RunConfig that are not those with which the checkpoint was written."""
        now = settings_of(config)
        if config.plan and 0 < config.plan.start == self.position.step:      # extended, and stopped before a checkpoint
            now = {name: value for name, value in now.items() if name not in OF_LENGTH}
        return [f"config.json was changed since step {self.position.step}: {name} was {self.settings[name]!r} and is "
                f"now {now[name]!r}; the run goes on with that" for name in now
                if name in self.settings and self.settings[name] != now[name]]

    def describes(self, model):
        """Whether the metadata's family and config are the model's. A field that is missing there has its default."""
        try:
            family, config = model_config(self.model["family"], **json.loads(self.model["config"]))
        except (ValueError, TypeError, RecursionError):
            return False
        return family == describe_model(model)["family"] and config == model.config

    def restore(self, model, optimizer=None):
        """Copy everything into the model and the optimiser, or raise UserError and change nothing.

        Without an optimiser, the model is to be evaluated: it gets the average of the weights where the run keeps one.
        """
        if not self.describes(model):
            raise UserError(f"{self.path}: its model is not the one that config.json describes")
        tensors, weights = self.tensors, checkpoint_tensors(model)
        if optimizer:
            targets = checkpoint_tensors(model, optimizer)
        else:
            averages = {name.removeprefix("ema/"): tensors[name] for name in tensors if name.startswith("ema/")}
            tensors = {name: averages.get(name, tensors[name]) for name in tensors if name in weights or name == "ema"}
            targets = weights | ({"ema": model.flat} if "ema" in tensors else {})
        try:
            check_tensors(targets, tensors, "run")
            for name, target in targets.items():
                if tensors[name].dtype != target.dtype:
                    raise UserError(f"{name} has dtype {tensors[name].dtype}, expected {target.dtype}")
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        if optimizer:
            targets = weights
            optimizer.load(tensors)
        for name, target in targets.items():                                 # "ema" comes last and replaces the weights
            target[...] = tensors[name]


def checkpoint_tensors(model, optimizer=None):
    """{name: array} of the model's parameters and buffers, which are views, and of the optimiser's state."""
    weights = {name: p.data for name, p in model.named_parameters()} | dict(model.named_buffers())
    return weights | (optimizer.state() if optimizer else {})


def settings_of(config):
    """{name: value} of all settings of a RunConfig that decide its bits, as JSON has them."""
    entry = config.to_json()
    return json.loads(json.dumps(entry["recipe"] | (entry["plan"] or {}) | entry["lanes"]))


def stored_settings(metadata):
    """The settings in a checkpoint's metadata; {} where there are none."""
    try:
        settings = json.loads(metadata.get("settings", "{}"))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def write_checkpoint(path, model, optimizer, position, config):
    """Write the state of the model and the optimiser. Atomic: after an OSError the old file is still there."""
    metadata = {"format": FORMAT, **describe_model(model), "position": json.dumps(vars(position)),
                "settings": json.dumps(settings_of(config))}
    write_tensors(path, checkpoint_tensors(model, optimizer), metadata)


def parse_position(text, path):
    """The Position in the metadata of the checkpoint at path. UserError if it is none."""
    try:
        values = json.loads(text)
        position = Position(*(values[name] for name in vars(Position())))
        counts = (position.step, position.metrics_bytes, position.timings_bytes)
        clock_is_right = is_number(position.seconds) and 0 <= position.seconds < 1e12
        if clock_is_right and all(type(n) is int and n >= 0 for n in counts):
            return position
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UserError(f"{path}: no usable position in its metadata")
