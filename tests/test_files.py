"""What reaches the disk, and in which order: a power cut at any instant leaves the old file or the new one.

No test here cuts the power. The tests look at the order of the system calls, which is what the promise rests on.
"""
import os
import re

import pytest

from numpyvit.files import atomic as files
from numpyvit.runs.folder import RunFolder
from numpyvit.training import loop
from tiny import recipe, small_shapes


class RecordingOs:
    """The os module for numpyvit.files.atomic, which notes the calls that change files and those that wait for the disk.

    calls: ["open a", "write a", …], where temporary files are called .1, .2, … and writes in a row to one file are one call.
    """

    def __init__(self):
        self.calls, self.opened, self.temporaries = [], {}, []               # opened: {descriptor: name}

    def name_of(self, path):
        """The last part of the path, or the number of the temporary file."""
        name = os.path.basename(path)
        if not re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name):
            return name
        if name not in self.temporaries:
            self.temporaries.append(name)
        return f".{self.temporaries.index(name) + 1}"

    def note(self, *words):
        if words[0] != "write" or self.calls[-1:] != [" ".join(words)]:
            self.calls.append(" ".join(words))

    def __getattr__(self, name):
        function = getattr(os, name)

        def open_file(path, *args):
            fd = function(path, *args)
            self.opened[fd] = self.name_of(path)
            self.note(name, self.opened[fd])
            return fd

        def with_descriptor(fd, *args):
            self.note(name, self.opened[fd])
            return function(fd, *args)

        def with_paths(*paths):
            self.note(name, *map(self.name_of, paths))
            return function(*paths)

        return ({"open": open_file} | dict.fromkeys(("write", "fsync", "close", "ftruncate"), with_descriptor)
                | dict.fromkeys(("replace", "unlink"), with_paths)).get(name, function)


@pytest.fixture
def recording(monkeypatch):
    """The RecordingOs that numpyvit.files.atomic has during the test."""
    recording = RecordingOs()
    monkeypatch.setattr(files, "os", recording)
    return recording


def new_file(number):
    """The calls that write a temporary file and wait until the disk has it."""
    return [f"{call} .{number}" for call in ("open", "write", "fsync", "close")]


def waited_for(name):
    """The calls that wait until the disk has what a file or a folder holds."""
    return [f"{call} {name}" for call in ("open", "fsync", "close")]


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_on_the_disk_before_it_is_renamed_and_its_folder_after(old, tmp_path, recording):
    path = tmp_path / "a"
    if old:
        path.write_bytes(old)
    files.write_atomic(path, [b"new", b" bytes"])
    assert recording.calls == [*new_file(1), "replace .1 a", *waited_for(tmp_path.name)]
    assert path.read_bytes() == b"new bytes"


def test_all_files_are_on_the_disk_before_the_first_is_renamed(tmp_path, recording):
    (tmp_path / "inner").mkdir()
    files.write_together({tmp_path / "a": [b"1"], tmp_path / "b": [b"2"], tmp_path / "inner" / "c": [b"3"]})
    before, folders = recording.calls[:15], recording.calls[15:]
    assert before == [*new_file(1), *new_file(2), *new_file(3), "replace .1 a", "replace .2 b", "replace .3 c"]
    assert sorted(folders) == sorted(waited_for(tmp_path.name) + waited_for("inner"))


def test_a_cut_file_and_a_new_folder_are_waited_for(tmp_path, recording):
    (tmp_path / "log").write_bytes(b"0123456789")
    files.truncate(tmp_path / "log", 4)
    files.make_folder(tmp_path / "new")
    assert recording.calls == ["open log", "ftruncate log", "fsync log", "close log", *waited_for(tmp_path.name)]


def test_a_checkpoint_is_written_after_its_logs_and_before_the_oldest_is_deleted(tmp_path, monkeypatch):
    """A checkpoint knows how long the logs are, so these bytes have to be on the disk before it is. An epoch is one step here."""
    small_shapes(monkeypatch)
    monkeypatch.setattr(loop, "EPOCH_SECONDS", 0.0)                          # with a checkpoint at each epoch's end
    save, recording = RunFolder.save_checkpoint, RecordingOs()

    def recorded(self, model, optimizer, config, step, seconds):
        with monkeypatch.context() as patch:
            if step == 3:
                patch.setattr(files, "os", recording)
            save(self, model, optimizer, config, step, seconds)

    monkeypatch.setattr(RunFolder, "save_checkpoint", recorded)
    loop.train(recipe(steps=3, batch_size=192), tmp_path / "run", threads=1)
    assert recording.calls == [
        *waited_for("metrics.jsonl"), *waited_for("timings.jsonl"),
        *new_file(1), "replace .1 step-00000003.safetensors", *waited_for("checkpoints"),
        "unlink step-00000001.safetensors"]
