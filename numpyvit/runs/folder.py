"""A run is a folder, and a process can die at any instant without losing more than the steps since the last checkpoint.

    config.json             all it takes to repeat the run: recipe, model, data with checksum, plan, versions
    metrics.jsonl           one object a step and an evaluation; the same bytes in every run of the same config
    timings.jsonl           what a clock says: step and seconds since the run began, at every checkpoint
    checkpoints/step-….safetensors    the last two: weights, buffers, optimiser, average of the weights, position
    weights.safetensors, result.json, curves.png, report.html    at the end
    best.safetensors        with keep "best": the weights of the best validation accuracy so far
    lock                    held by the process that trains

A checkpoint knows how long metrics.jsonl and timings.jsonl were when it was written; resuming cuts them there.
"""
import json
import os
import re
import shlex

from ..checks import is_number, shown
from ..errors import UserError
from ..files import atomic as files
from .checkpoint import LOGS, Checkpoint, Position, write_checkpoint
from .config import read_config

KEEP = 2                                                                     # checkpoints
NUMBERS = {"train": ("step", "loss", "accuracy", "lr"),                      # what a line of metrics.jsonl has, by kind
           "val": ("step", "loss", "accuracy"), "test": ("step", "loss", "accuracy")}


class RunFolder:
    """The files of one run. Everything that changes them goes through files/atomic.py."""
    has_files = True

    def __init__(self, path):
        self.path = os.fspath(path)
        self.position = Position()

    def file(self, *names):
        return os.path.join(self.path, *names)

    def lock(self):
        """Context manager: this process is the only one that trains here. UserError if another one does."""
        return files.locked(self.file("lock"), f"{self.path}: the run")

    # --- config.json

    def check_free(self):
        """Raise UserError if there is a run in the folder already, or the checkpoints of one."""
        if os.path.lexists(self.file("config.json")):
            raise UserError(f"{self.path} already holds a run; continue it with --resume {shlex.quote(self.path)}, or "
                            "choose another --out")
        if self.checkpoints():
            raise UserError(f"{self.path} has checkpoints of another run, which would be taken for those of a new one; "
                            f"delete {self.file('checkpoints')}, or choose another --out")

    def create(self, numbered=False):
        """Make the folder. Raises UserError if there is a run in it already.

        numbered: the name ends in a number; where another process has just made that folder, the next one is taken.
        """
        self.check_free()
        while numbered and not files.make_new_folder(self.path):
            name, _, number = self.path.rpartition("-")
            self.path = f"{name}-{int(number) + 1}"
        files.make_folder(self.path)
        files.make_folder(self.file("checkpoints"))

    def write_config(self, config):
        """Write a RunConfig to config.json."""
        files.write_atomic(self.file("config.json"), [(json.dumps(config.to_json(), indent=1) + "\n").encode()])

    def read_config(self):
        """config.json as a RunConfig. Raises UserError with the reason where it is none."""
        path = self.file("config.json")
        if not os.path.isdir(self.path):
            found = "a file" if os.path.exists(self.path) else "nothing"
            raise UserError(f"{self.path}: expected the folder of a run, got {found}")
        if not os.path.lexists(path):
            raise UserError(f"{self.path} is not the folder of a run: it has no config.json")
        return read_config(path)

    def is_finished(self):
        """Whether the run has been scored and its weights are there."""
        return all(os.path.exists(self.file(name)) for name in ("result.json", "weights.safetensors"))

    def open_again(self):
        """Forget the result of the run, which goes on, and the curves, which are drawn again at its end."""
        for name in ("curves.png", "result.json"):
            files.remove(self.file(name))

    def tidy(self):
        """Remove what a killed process left half written, and make the folder of checkpoints where it is missing."""
        files.make_folder(self.file("checkpoints"))
        files.remove_temporaries(self.path)
        files.remove_temporaries(self.file("checkpoints"))

    # --- logs

    def log(self, name, entry):
        """Append one object to metrics.jsonl or timings.jsonl."""
        files.append(self.file(name), (json.dumps(entry) + "\n").encode())

    def rewind(self):
        """Cut both logs where they ended at the checkpoint of self.position. → sentences about missing lines

        A log that is shorter is cut after its last whole line. UserError if a line of metrics.jsonl cannot be read: now
        and not after hours of training.
        """
        sentences = []
        for name, length in zip(LOGS, (self.position.metrics_bytes, self.position.timings_bytes)):
            path, size = self.file(name), files.size_of(self.file(name))
            if size > length:
                files.truncate(path, length)
            elif size < length:
                if size:
                    files.truncate(path, whole_lines(path))
                sentences.append(f"{path} has {size} bytes, fewer than the {length} it had at the checkpoint: "
                                 "lines are missing")
        self.check_metrics()
        return sentences

    def check_metrics(self):
        """Raise UserError for a line of metrics.jsonl that cannot be read."""
        if files.size_of(self.file("metrics.jsonl")):
            self.read_metrics()

    def read_metrics(self):
        """The objects of metrics.jsonl, whose lines of a kind in NUMBERS have these numbers; an unfinished last line is
        left out. UserError for any other line.
        """
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
                    raise UserError(f"{path}: line {number} is not a JSON object; mend or delete it")
                names = NUMBERS.get(str(entry.get("kind")), ())
                if not all(is_measured(name, entry.get(name)) for name in names):
                    raise UserError(f"{path}: line {number}: expected numbers as {', '.join(names)} in a line of kind "
                                    f"{entry['kind']}, got {shown(entry)}; mend or delete that line")
                entries.append(entry)
        return entries

    def read_result(self):
        """The object in result.json. Raises UserError where the file holds none, or texts for numbers."""
        path = self.file("result.json")
        result = files.read_json(path)
        names = ("test_accuracy", "seconds", "best_step")
        numbers = [result.get(name) for name in names] if isinstance(result, dict) else [""]
        if not all(number is None or is_number(number) and abs(number) < 1e30 for number in numbers):
            raise UserError(f"{path}: expected a table with numbers as {', '.join(names)}, got {shown(result)}; delete "
                            "the file, and train --resume makes it again")
        return result

    # --- checkpoints

    def checkpoints(self):
        """Paths of the checkpoints, oldest first."""
        folder = self.file("checkpoints")
        names = [name for name in files.names_in(folder) if re.fullmatch(r"step-\d{8}\.safetensors", name)]
        return [os.path.join(folder, name) for name in names]

    def save_checkpoint(self, model, optimizer, config, step, seconds):
        """Write the state after so many steps and delete all but the last two, never this one. An OSError leaves the
        older ones.
        """
        for name in LOGS:
            files.sync_file(self.file(name))
        position = Position(step, seconds, *(files.size_of(self.file(name)) for name in LOGS))
        new = self.file("checkpoints", f"step-{step:08d}.safetensors")
        write_checkpoint(new, model, optimizer, position, config)
        self.position = position
        for path in self.checkpoints()[:-KEEP]:
            if path != new:
                files.remove(path)

    def read_checkpoint(self):
        """The newest checkpoint, or None where there is none yet. UserError, with the way back, if it is damaged."""
        paths = self.checkpoints()
        if not paths:
            return None
        try:
            return Checkpoint.read(paths[-1])
        except UserError as error:
            older = f"; delete it to go back to {paths[-2]}" if len(paths) > 1 else ""
            raise UserError(f"{error}{older}") from None


class FollowedRun(RunFolder):
    """A run that this process writes no files of: it only remembers how far the run is. Rank 0 may write them."""
    has_files = False

    def __init__(self, path="the run of rank 0"):
        super().__init__(path)

    def write_config(self, config):
        pass

    def open_again(self):
        pass

    def log(self, name, entry):
        pass

    def rewind(self):
        return []

    def checkpoints(self):
        return []

    def save_checkpoint(self, model, optimizer, config, step, seconds):
        optimizer.state()                                                    # rank 0 collects it
        self.position = Position(step, seconds)


def is_measured(name, value):
    """Whether the value can be that of this name in a line of metrics.jsonl. A loss may be infinite, or NaN."""
    if name == "loss" and isinstance(value, float):
        return True
    return is_number(value, whole=name == "step") and abs(value) < 1e30


def whole_lines(path):
    """How many bytes of a file its whole lines have."""
    with files.open_regular(path) as (file, size):
        end = size
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
