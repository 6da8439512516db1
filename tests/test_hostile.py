"""Mutated files by the thousand: every reader of a run gives a result or one UserError, fast and in little memory.

make test takes a few thousand, make test-thorough 100,000 of each kind.
"""
import io
import json
import os
import random
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from numpyvit.errors import UserError
from numpyvit.files.npz import read_npz
from numpyvit.files.pth import read_pth
from numpyvit.files.safetensors import read_tensors
from numpyvit.training import loop
from numpyvit.runs.checkpoint import Checkpoint
from numpyvit.runs.config import build_model
from numpyvit.runs.folder import RunFolder
from tiny import recipe, small_shapes

COUNT = 100_000 if os.environ.get("NUMPYVIT_THOROUGH") else 1_500
MEMORY = 64 << 20                                                            # bytes beyond the file's own size
SECONDS = 1.0                                                                # of processor time
FRAGMENTS = [b"0", b"9" * 30, b"-1", b"1e999", b"NaN", b"null", b"true", b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\u0000", b"\xff", b"[[[[",
             b'"__metadata__"', b'"../../x"', b"18446744073709551615", b'"F64"', b'"BF16"', b'"shape"', b'"data_offsets"']
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 10**40, 0.5, -0.0, float("nan"), float("inf"), "", "x", "../../etc", "\x00", [], [1], [[1]],
          [1] * 1000, {}, {"a": 1}, [None], "1", [2**40, 2**40], (0.1, 2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a model so small that its checkpoint is mostly header."""
    with pytest.MonkeyPatch.context() as patch:
        small_shapes(patch)
        fields = dict(img_size=16, patch_size=16, embed_dim=4, depth=1, num_heads=1, mlp_ratio=1.0)
        path = tmp_path_factory.mktemp("hostile") / "run"
        loop.train(recipe(model_fields=fields, steps=1), path)
    return RunFolder(path)


def mutate(content, rng):
    """One to four random changes of the bytes: flipped bits, cuts, repeats, fragments, sizes."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(content)) if content else 0
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            del content[place:place + rng.randrange(1, 16)]
        elif kind == 3:
            content[place:place] = rng.choice(FRAGMENTS)
        elif kind == 4:
            content[place:place + rng.randrange(1, 8)] = rng.choice(FRAGMENTS)
        elif kind == 5:
            content[place:place] = content[place:place + rng.randrange(1, 400)]
        else:
            content[:8] = rng.choice([0, 1, 100, 2**20, 2**32, 2**63, 2**64 - 1]).to_bytes(8, "little")
    return bytes(content)


def campaign(path, contents, read, figures):
    """Write each content to path and read it; count the outcomes. Anything but a result or a UserError fails the test."""
    outcomes, peak = {"result": 0, "error": 0}, 0
    for number, content in enumerate(contents):
        with open(path, "wb") as file:
            file.write(content)
        watched = number % 50 == 0                                           # tracing every one would take too long
        if watched:
            tracemalloc.start()
        started = time.process_time()
        try:
            read()
            outcomes["result"] += 1
        except UserError as error:
            outcomes["error"] += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
        seconds = time.process_time() - started
        if watched:
            peak = max(peak, tracemalloc.get_traced_memory()[1] - len(content))
            tracemalloc.stop()
        figures.add(seconds=seconds, MiB=peak / 2**20)
        assert seconds < SECONDS and peak < MEMORY, content[:400]
    return outcomes


def test_mutated_checkpoints(run, tmp_path, figures):
    rng, whole = random.Random(1), open(run.checkpoints()[-1], "rb").read()
    path = tmp_path / os.path.basename(run.checkpoints()[-1])
    config = run.read_config()

    def read():
        checkpoint = Checkpoint.read(path)
        checkpoint.restore(build_model(config, checkpoint))
    outcomes = campaign(path, (mutate(whole, rng) for _ in range(COUNT)), read, figures)
    assert outcomes["result"] < COUNT / 20                                   # a change that changes nothing is rare


def test_mutated_weights(run, tmp_path, figures):
    """Without the checksum, so that every check behind it is reached."""
    import safetensors.numpy
    rng, path = random.Random(2), tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.int64), "c": np.zeros((0, 4))}, path)
    whole = path.read_bytes()
    outcomes = campaign(path, (mutate(whole, rng) for _ in range(COUNT)), lambda: read_tensors(path), figures)
    assert outcomes["result"] > 0


def test_mutated_configs(run, tmp_path, figures):
    """Bytes changed, and values of the object exchanged for others."""
    rng, config = random.Random(3), json.loads(open(run.file("config.json")).read())
    whole, checkpoint = json.dumps(config).encode(), run.read_checkpoint()
    there = RunFolder(tmp_path)

    def contents():
        for number in range(COUNT):
            yield mutate(whole, rng) if number % 2 else json.dumps(exchange(config, rng)).encode()

    campaign(tmp_path / "config.json", contents(), lambda: build_model(there.read_config(), checkpoint), figures)


def exchange(value, rng, depth=0):
    """A copy of a JSON value in which one leaf or branch is another value, missing, or under another name."""
    if depth and rng.random() < 0.2 or not isinstance(value, (dict, list)) or not value:
        return rng.choice(VALUES)
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [exchange(v, rng, depth + 1) if i == place else v for i, v in enumerate(value)]
    name = rng.choice(list(value))
    if rng.random() < 0.1:
        return {k: v for k, v in value.items() if k != name}
    return {k: exchange(v, rng, depth + 1) if k == name else v for k, v in value.items()}


def test_mutated_metrics(run, tmp_path, figures):
    rng, whole = random.Random(4), open(run.file("metrics.jsonl"), "rb").read() * 5
    campaign(tmp_path / "metrics.jsonl", (mutate(whole, rng) for _ in range(COUNT)), RunFolder(tmp_path).read_metrics, figures)


# --- files that others wrote

def torch_files(path):
    """A small zip and a small legacy file: mostly pickle, so that most mutations meet the interpreter."""
    import torch
    state = {"model": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.nn.Parameter(torch.ones(2).bfloat16())}, "epoch": 3, "lr": [0.1, None, (1, 2)]}
    for layout in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(state, path, **layout)
        yield path.read_bytes()


def with_right_checksums(content):
    """A mutated zip archive whose members' checksums fit again, so that the readers behind that check are reached."""
    content = bytearray(content)
    at = content.find(b"PK\1\2")
    while at >= 0:
        size, header = int.from_bytes(content[at + 24:at + 28], "little"), int.from_bytes(content[at + 42:at + 46], "little")
        name, extra = (int.from_bytes(content[header + i:header + i + 2], "little") for i in (26, 28))
        data = content[header + 30 + name + extra:][:size]
        content[at + 16:at + 20] = zlib.crc32(data).to_bytes(4, "little")
        at = content.find(b"PK\1\2", at + 1)
    return bytes(content)


def exchanged(content, rng, alphabet):
    """One to four bytes anywhere between the first and the last archive record, exchanged: sizes and places stay as they are."""
    content = bytearray(content)
    end = content.find(b"PK\1\2") if b"PK\1\2" in content else len(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        content[rng.randrange(end)] = rng.choice(alphabet) if rng.random() < 0.7 else rng.randrange(256)
    return bytes(content)


OPCODES = b"(.0123456789FIJKLMNPRSTUVX)]}abcdeghijlopqrstu\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x93\x94"


def test_mutated_torch_files(tmp_path, figures):
    rng, path = random.Random(5), tmp_path / "w.pth"
    wholes = list(torch_files(path))

    def contents():
        for number in range(COUNT):
            whole = wholes[number % 2]
            yield mutate(whole, rng) if number % 3 == 0 else with_right_checksums(exchanged(whole, rng, OPCODES))

    outcomes = campaign(path, contents(), lambda: read_pth(path), figures)
    assert outcomes["result"] > COUNT / 100 and outcomes["error"] > COUNT / 4


def test_mutated_pickles(tmp_path, figures):
    """The data.pkl alone, in an archive that is whole."""
    rng, path = random.Random(6), tmp_path / "w.pth"
    with zipfile.ZipFile(io.BytesIO(next(torch_files(path)))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))

    def contents():
        for _ in range(COUNT):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for member, data in members.items():
                    archive.writestr(member, mutate(data, rng) if member == name else data)
            yield file.getvalue()

    campaign(path, contents(), lambda: read_pth(path), figures)


def test_mutated_npz(tmp_path, figures):
    rng, path = random.Random(7), tmp_path / "w.npz"
    arrays = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, "V2"), "c": np.zeros((0, 4))}
    wholes = []
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)
        wholes.append(path.read_bytes())
    digits = b"0123456789(),' |<>fiuVO{}"

    def contents():
        for number in range(COUNT):
            whole = wholes[number % 5 == 0]
            yield mutate(whole, rng) if number % 3 == 0 else with_right_checksums(exchanged(whole, rng, digits))

    outcomes = campaign(path, contents(), lambda: read_npz(path), figures)
    assert outcomes["result"] > COUNT / 100


@pytest.mark.parametrize("folder", ["huggingface_vit", "huggingface_swin", "huggingface_cvt"])
def test_mutated_configs_of_others(folder, tmp_path, figures):
    """config.json and preprocessor_config.json of a Hugging Face folder: a model or one line."""
    import shutil
    from pathlib import Path

    import numpyvit
    rng, there = random.Random(8), tmp_path / "hf"
    shutil.copytree(Path(__file__).parent / "golden" / "interop" / folder, there)
    name = "config.json"
    config = json.loads((there / name).read_text()) | {"image_size": 32}

    def contents():
        for number in range(COUNT // 5):
            mutated = exchange(config, rng)
            yield mutate(json.dumps(config).encode(), rng) if number % 3 == 0 else json.dumps(mutated).encode()

    campaign(there / name, contents(), lambda: numpyvit.load_model(there), figures)


def test_mutated_preprocessors_of_others(tmp_path, figures):
    import shutil
    from pathlib import Path

    import numpyvit
    rng, there = random.Random(9), tmp_path / "hf"
    shutil.copytree(Path(__file__).parent / "golden" / "interop" / "huggingface_vit", there)
    config = json.loads((there / "preprocessor_config.json").read_text()) | {"crop_pct": 0.9, "do_normalize": True}
    campaign(there / "preprocessor_config.json", (json.dumps(exchange(config, rng)).encode() for _ in range(COUNT // 5)),
             lambda: numpyvit.load_model(there), figures)
