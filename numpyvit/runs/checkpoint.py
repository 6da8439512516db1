"""A run is a folder, and a process can die at any instant without losing more than the steps since the last checkpoint.

    config.json             all it takes to repeat the run: recipe, model, data with checksum, plan, versions
    metrics.jsonl           one object a step and an evaluation; the same bytes in every run of the same config
    timings.jsonl           what a clock says: seconds and images a second, now and then
    checkpoints/step-….safetensors    the last two: weights, buffers, optimiser, average of the weights, position
    weights.safetensors, result.json, curves.png    at the end
    lock                    held by the process that trains

A checkpoint knows how long metrics.jsonl and timings.jsonl were when it was written; resuming cuts them there.
"""
import json
import math
import os
import re
from dataclasses import dataclass

from ..errors import UserError
from ..models import FAMILIES, model_config
from ..module import pair
from ..files.safetensors import read_tensors, write_tensors
from ..weights.load import check_tensors, describe_model
from ..files import atomic as files
from ..training.recipe import recipe_from_json

FORMAT = "numpyvit-run-1"
CHECKPOINT_FORMAT = "numpyvit-checkpoint-1"
KEEP = 2                                                                     # checkpoints
LOGS = ("metrics.jsonl", "timings.jsonl")
MAX_SIDE, MAX_DEPTH = 4096, 1024                                             # pixels and blocks of a model that a file describes


@dataclass
class Position:
    """How far a run is: steps done, seconds of training, bytes in each of LOGS."""
    step: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    timings_bytes: int = 0


class RunFolder:
    """The files of one run. Everything that changes them goes through files/atomic.py."""

    def __init__(self, path):
        self.path = os.fspath(path)
        self.position = Position()

    def file(self, *names):
        return os.path.join(self.path, *names)

    def lock(self):
        """Context manager: this process is the only one that trains here. UserError if another one does."""
        return files.locked(self.file("lock"), f"{self.path}: the run")

    # --- config.json

    def create(self):
        """Make the folder. Raises UserError if it already has a run in it."""
        if os.path.lexists(self.file("config.json")):
            raise UserError(f"{self.path} already holds a run; continue it with --resume {self.path}, or choose another --out")
        files.make_folder(self.path)
        files.make_folder(self.file("checkpoints"))

    def write_config(self, config):
        files.write_atomic(self.file("config.json"), [(json.dumps(config, indent=1) + "\n").encode()])

    def read_config(self):
        """config.json, with everything in it that the program relies on checked. UserError with the reason if it is not so."""
        path = self.file("config.json")
        if not os.path.isdir(self.path):
            raise UserError(f"{self.path}: expected the folder of a run, got {'a file' if os.path.exists(self.path) else 'nothing'}")
        if not os.path.lexists(path):
            raise UserError(f"{self.path} is not the folder of a run: it has no config.json")
        config = read_json(path)
        try:
            check_config(config)
        except (UserError, ValueError, TypeError) as error:
            raise UserError(f"{path}: {error}") from None
        return config

    # --- logs

    def log(self, name, entry):
        """Append one object to metrics.jsonl or timings.jsonl."""
        files.append(self.file(name), (json.dumps(entry) + "\n").encode())

    def rewind(self):
        """Cut both logs where the checkpoint at self.position says they ended. → what was not as expected, in sentences"""
        sentences = []
        for name, length in zip(LOGS, (self.position.metrics_bytes, self.position.timings_bytes)):
            size = files.size_of(self.file(name))
            if size > length:
                files.truncate(self.file(name), length)
            elif size < length:
                sentences.append(f"{self.file(name)} has {size} bytes, fewer than the {length} it had at the checkpoint: lines are missing")
        return sentences

    def read_metrics(self):
        """The objects of metrics.jsonl; an unfinished last line is left out. UserError for a line that is no object."""
        path = self.file("metrics.jsonl")
        entries = []
        with files.open_regular(path) as (file, _):
            for number, line in enumerate(iter(lambda: file.readline(1 << 16), b""), start=1):
                if not line.endswith(b"\n") and not file.peek(1):
                    break
                try:
                    entry = json.loads(line.decode())
                except (ValueError, RecursionError):
                    entry = None
                if not isinstance(entry, dict):
                    raise UserError(f"{path}: line {number} is not a JSON object")
                entries.append(entry)
        return entries

    # --- checkpoints

    def checkpoints(self):
        """Paths of the checkpoints, oldest first."""
        folder = self.file("checkpoints")
        return [os.path.join(folder, name) for name in files.names_in(folder) if re.fullmatch(r"step-\d{8}\.safetensors", name)]

    def save_checkpoint(self, model, optimizer, step, seconds):
        """Write the state after so many steps and delete all but the last two. Raises OSError, and keeps what was there."""
        for name in LOGS:
            files.sync_file(self.file(name))
        position = Position(step, seconds, *(files.size_of(self.file(name)) for name in LOGS))
        metadata = {"format": CHECKPOINT_FORMAT, **describe_model(model), "position": json.dumps(vars(position))}
        write_tensors(self.file("checkpoints", f"step-{step:08d}.safetensors"), checkpoint_tensors(model, optimizer), metadata)
        self.position = position
        for path in self.checkpoints()[:-KEEP]:
            files.remove(path)

    def read_checkpoint(self):
        """The newest checkpoint, or None where there is none yet. UserError, which says how to go back one, if it is damaged."""
        paths = self.checkpoints()
        if not paths:
            return None
        try:
            return Checkpoint.read(paths[-1])
        except UserError as error:
            older = f"; delete it to go back to {paths[-2]}" if len(paths) > 1 else ""
            raise UserError(f"{error}{older}") from None


@dataclass
class Checkpoint:
    """A checkpoint as read: its tensors, the model it says it is of, and where the run was."""
    path: str
    tensors: dict
    model: dict
    position: Position

    @classmethod
    def read(cls, path):
        tensors, metadata = read_tensors(path, expect_checksum=True)
        if metadata.get("format") != CHECKPOINT_FORMAT:
            raise UserError(f"{path}: not a checkpoint of a run")
        position = parse_position(metadata.get("position", ""), path)
        if f"step-{position.step:08d}.safetensors" != os.path.basename(path):
            raise UserError(f"{path}: it was taken at step {position.step}")
        return cls(path, tensors, {key: metadata.get(key) for key in ("family", "config")}, position)

    def restore(self, model, optimizer=None):
        """Copy everything into the model and the optimiser, or raise UserError and change nothing.

        Without an optimiser the model gets the average of the weights where the run keeps one: what is to be evaluated.
        """
        if self.model != describe_model(model):
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
        for name, target in targets.items():                                 # "ema" comes last, over the weights
            target[...] = tensors[name]


def checkpoint_tensors(model, optimizer=None):
    """{name: view} of the model's parameters and buffers and of the optimiser's vectors: nothing is copied."""
    weights = {name: p.data for name, p in model.named_parameters()} | dict(model.named_buffers())
    return weights | (optimizer.state() if optimizer else {})


def parse_position(text, path):
    try:
        values = json.loads(text)
        position = Position(*(values[name] for name in vars(Position())))
        counts = (position.step, position.metrics_bytes, position.timings_bytes)
        if all(type(n) is int and n >= 0 for n in counts) and 0 <= float(position.seconds) < math.inf:
            return position
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UserError(f"{path}: no usable position in its metadata")


# --- reading what others may have written

def read_json(path):
    """A JSON file of at most 4 MiB. Raises UserError, with the path and the place."""
    try:
        return json.loads(files.read_small(path).decode())
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {str(error)[:80]}") from None


def check_config(config):
    """Raise UserError unless config.json's object has all that resume, evaluate and predict use, of the right kind."""
    expect(config, dict, "config")
    if config.get("format") != FORMAT:
        raise UserError(f"format: expected {FORMAT!r}, got {str(config.get('format'))[:40]!r}")
    recipe_from_json(config.get("recipe"))
    model = expect(config.get("model"), dict, "model")
    if not isinstance(model.get("family"), str) or model["family"] not in FAMILIES:
        raise UserError(f"model.family: expected one of {', '.join(FAMILIES)}, got {str(model.get('family'))[:40]!r}")
    data = expect(config.get("data"), dict, "data")
    for key in ("name", "checksum", "notice"):
        expect(data.get(key), str, f"data.{key}")
    if len(expect(data.get("classes"), list, "data.classes")) < 1 or not all(isinstance(c, str) for c in data["classes"]):
        raise UserError("data.classes: expected a list of names")
    for key in ("mean", "std"):
        values = expect(data.get(key), list, f"data.{key}")
        if not all(type(x) in (int, float) and abs(x) < 1e6 and (x > 0 or key == "mean") for x in values):
            raise UserError(f"data.{key}: expected a list of {'positive ' if key == 'std' else ''}numbers")
    if config.get("plan") is not None:
        for key in ("steps", "steps_per_epoch", "evaluate_every"):
            if expect(expect(config["plan"], dict, "plan").get(key), int, f"plan.{key}") < 1:
                raise UserError(f"plan.{key}: expected 1 or more, got {config['plan'][key]}")
    lanes = expect(config.get("lanes"), dict, "lanes")
    for key in ("shards", "micro_batch"):
        if not 1 <= expect(lanes.get(key), int, f"lanes.{key}") <= 65536:
            raise UserError(f"lanes.{key}: expected 1 to 65536, got {lanes[key]}")


def expect(value, kind, name):
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def build_model(config, checkpoint=None):
    """The model that config.json describes, with fresh weights.

    What a file claims is held against what is there before memory is allocated for it: the sizes of the checkpoint's
    tensors, and at least one of them a block.
    """
    fields, recipe = expect(config["model"].get("config"), dict, "model.config"), config["recipe"]
    try:
        family, model = model_config(config["model"]["family"], **fields)
    except ValueError as error:
        raise UserError(f"the model in config.json: {str(error)[:300]}") from None
    sides, depths = pair(model.img_size), getattr(model, "depths", None) or (model.depth,)
    if max(sides) > MAX_SIDE or sum(depths) > (len(checkpoint.tensors) if checkpoint else MAX_DEPTH):
        raise UserError(f"model: img_size {model.img_size} and depth {sum(depths)} cannot be those of this run")
    if model.num_classes != len(config["data"]["classes"]) or model.in_chans != len(config["data"]["mean"]):
        raise UserError(f"model: {model.num_classes} classes and {model.in_chans} channels do not fit the data set's "
                        f"{len(config['data']['classes'])} and {len(config['data']['mean'])}")
    cls = FAMILIES[family][1]
    if checkpoint:
        for name, p in cls(model, materialise=False).named_parameters():
            if name not in checkpoint.tensors or checkpoint.tensors[name].shape != p.shape:
                raise UserError(f"{checkpoint.path}: it has no {name} of shape {p.shape}, which config.json calls for")
    return cls(model, seed=recipe["seed"], dtype=recipe["dtype"])
