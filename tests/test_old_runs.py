"""A run that an old version stopped is finished by today's code, with the bits that the old version gave it.

tests/golden/old_runs/NAME is the folder of a run of version 0.1.0 (commit b0579a2), stopped by Ctrl-C after step 5 of 12;
NAME/end holds the weights and the metrics with which that version finished the run. All runs are of tiny models on 256
generated images, with dropout, mixtures, clipping and, but for vit_sgd, an average of the weights.

The last bits depend on the compiled code that the processor gets: on NumPy's BLAS, its exp, and Numba's vector width. The
comparison is exact where MACHINE is the machine that made the folders, and to 1e-5 everywhere else. One thing is not exact
there either: the loss of images that a CvT scores, since its batch norms are folded now; it is compared to 1e-9.
"""
import hashlib
import json
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest

from numpyvit.files.safetensors import read_tensors
from numpyvit.errors import Interrupted
from numpyvit.training import lanes, loop
from test_training import assert_same_run, state, stop_at
from tiny import recipe, same, small_shapes

FOLDER = Path(__file__).parent / "golden" / "old_runs"
MACHINE = "eaa2f6bbcaad9982"


@numba.njit(fastmath={"reassoc"}, error_model="numpy")
def sum_of_squares(x):
    total = np.float32(0)
    for value in x:
        total += value * value
    return total


def machine():
    """A checksum of what the processor's own code makes of a product, of exp and of a sum in any order, none of it ours."""
    x = (np.arange(997 * 48) % 1013 / np.float32(1013) - np.float32(0.5)).astype(np.float32).reshape(997, 48)
    results = x @ x[:144].T, x.T @ x, np.exp(x), np.array([sum_of_squares(row) for row in x[:9]])
    return hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()[:16]


def training(metrics):
    """The lines of metrics.jsonl that were written by steps."""
    return [line for line in metrics.splitlines() if json.loads(line)["kind"] == "train"]


def assert_scores(metrics, expected):
    """The same accuracy in every line, and the same loss to 1e-9."""
    for line, other in zip(metrics.splitlines(), expected.splitlines(), strict=True):
        line, other = json.loads(line), json.loads(other)
        assert line.pop("kind") == other.pop("kind") and line["accuracy"] == other["accuracy"]
        assert line == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_an_old_run_resumes(name, tmp_path, monkeypatch):
    small_shapes(monkeypatch)
    shutil.copytree(FOLDER / name, tmp_path / "run")
    loop.resume(tmp_path / "run", threads=2)

    ours, _ = read_tensors(tmp_path / "run" / "weights.safetensors")
    theirs, _ = read_tensors(FOLDER / name / "end" / "weights.safetensors")
    metrics, expected = ((path / "metrics.jsonl").read_bytes() for path in (tmp_path / "run", FOLDER / name / "end"))
    started, _ = read_tensors(next((FOLDER / name / "checkpoints").iterdir()))
    assert ours.keys() == theirs.keys() and any(not np.array_equal(started[n], theirs[n]) for n in theirs)
    if machine() == MACHINE:
        assert all(np.array_equal(ours[n], theirs[n]) and ours[n].dtype == theirs[n].dtype for n in theirs)
        assert training(metrics) == training(expected)
        if name.startswith("cvt"):                                           # scored with its batch norms folded
            assert_scores(metrics, expected)
        else:
            assert metrics == expected
    for n in theirs:
        np.testing.assert_allclose(ours[n], theirs[n], rtol=1e-5, atol=1e-5, err_msg=n)
    for line, other in zip(metrics.splitlines(), expected.splitlines(), strict=True):
        line, other = json.loads(line), json.loads(other)
        assert line.pop("kind") == other.pop("kind") and line == pytest.approx(other, rel=1e-5)


def test_a_run_that_does_not_say_how_it_divides_a_shard_has_whole_micro_batches(tmp_path, monkeypatch):
    """Shards of 9 images in micro-batches of at most 8: 8 and 1, where a run of today has 5 and 4."""
    small_shapes(monkeypatch)
    settings, cuts = recipe("cvt", batch_size=18, shards=2, micro_batch=8, steps=4), set()

    def whole(lo, hi, *_):
        cuts.add((lo, hi))
        return [(lo, lo + 8), (lo + 8, hi)] if hi - lo > 8 else [(lo, hi)]

    loop.train(settings, tmp_path / "today", threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "micro_batches", whole)
        loop.train(settings, tmp_path / "whole", threads=1)
        stop_at(patch, 1)
        with pytest.raises(Interrupted):
            loop.train(settings, tmp_path / "stopped", threads=1)
    assert {(0, 9), (9, 18)} <= cuts and not same(state(tmp_path / "whole")[0], state(tmp_path / "today")[0])
    path = tmp_path / "stopped" / "config.json"
    config = json.loads(path.read_text())
    assert config["lanes"].pop("division") == "equal"
    path.write_text(json.dumps(config))
    loop.resume(tmp_path / "stopped", threads=2)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
