"""A run cannot be lost: random kills, every file-system call failing in turn, two processes, damaged and foreign files."""
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import numpyvit
from numpyvit.errors import Interrupted, UserError
from numpyvit.files.safetensors import read_tensors, write_tensors
from numpyvit.files import atomic as files
from numpyvit.training import loop, plan as plans, prepare
from numpyvit.training.trainer import Trainer, new_optimizer
from numpyvit.runs.checkpoint import Checkpoint, checkpoint_tensors
from numpyvit.runs.config import Plan, build_model
from numpyvit.runs.folder import RunFolder
from tiny import FAMILIES, FaultyOs, recipe, same, small_shapes
from test_training import assert_same_run, state, stop_at

THOROUGH = bool(os.environ.get("NUMPYVIT_THOROUGH"))
KILLS = 1000 if THOROUGH else 60


@pytest.fixture
def data(monkeypatch):
    return small_shapes(monkeypatch)


@pytest.fixture
def trainer(data, tmp_path):
    """A run of which three steps are done and two checkpoints written."""
    trainer = new_trainer(data, tmp_path / "run")
    with trainer.lanes:
        for step in range(3):
            trainer.run.log("metrics.jsonl", trainer.take_step(step))
            trainer.run.log("timings.jsonl", {"step": step + 1, "seconds": 1.0})
            if step:
                trainer.run.save_checkpoint(trainer.model, trainer.optimizer, trainer.config, step + 1, step + 1.0)
        yield trainer


def new_trainer(data, path):
    settings = recipe()
    model = prepare.new_model(settings, data)
    config = dataclasses.replace(prepare.new_config(settings, data, model), plan=Plan(steps=12, steps_per_epoch=6, evaluate_every=4))
    run = prepare.free_folder(path, "")
    run.create()
    run.write_config(config)
    return Trainer(run, config, data, model, 1)


def snapshot(trainer):
    return {name: array.copy() for name, array in checkpoint_tensors(trainer.model, trainer.optimizer).items()}


# --- failing saves

@pytest.mark.parametrize("error", [28, 5, 13, "short"], ids=["ENOSPC", "EIO", "EACCES", "short write"])
def test_every_call_of_a_checkpoint_fails_in_turn(trainer, monkeypatch, error, figures):
    """The previous checkpoint or the new one loads, the failure is raised, and the next attempt succeeds."""
    run, before = trainer.run, snapshot(trainer)
    trainer.take_step(3)
    after = snapshot(trainer)
    for at in range(100):
        failed, faulty = False, FaultyOs(at, error)
        monkeypatch.setattr(files, "os", faulty)
        try:
            run.save_checkpoint(trainer.model, trainer.optimizer, trainer.config, 4, 4.0)
        except OSError as caught:
            failed = True
            assert run.path in str(caught)
        figures.add()
        monkeypatch.setattr(files, "os", os)
        newest = run.read_checkpoint()
        assert same(newest.tensors, {3: before, 4: after}[newest.position.step])
        assert failed or newest.position.step == 4
        assert len(run.checkpoints()) <= 3
        if faulty.count <= at:
            break
        for path in run.checkpoints():                                       # back to the state before the save
            if path.endswith("4.safetensors"):
                os.unlink(path)
        assert run.read_checkpoint().position.step == 3
    assert at >= 15 and failed is False
    run.save_checkpoint(trainer.model, trainer.optimizer, trainer.config, 4, 4.0)
    assert [p[-6 - 12:-12] for p in run.checkpoints()] == ["000003", "000004"]


@pytest.mark.parametrize("error", [28, 5, 13], ids=["ENOSPC", "EIO", "EACCES"])
def test_every_call_of_a_whole_run_fails_in_turn(data, tmp_path, monkeypatch, error, figures):
    """Whatever call fails, at whatever step: an OSError, and the run resumes to the same bits."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("numpyvit.runs.curves.draw_curves", lambda run: "")
    settings = recipe(steps=3)
    loop.train(settings, tmp_path / "whole")
    places, tried = iter(sorted(random.Random(error).sample(range(12, 180), 8 if not THOROUGH else 160))), 0
    for at in places:
        path = tmp_path / str(at)
        faulty = FaultyOs(at, error)
        monkeypatch.setattr(files, "os", faulty)
        try:
            loop.train(settings, path)
        except OSError:
            tried += 1
        figures.add()
        monkeypatch.setattr(files, "os", os)
        if (path / "config.json").exists():
            loop.resume(path)
            assert_same_run(tmp_path / "whole", path)
        if faulty.count <= at:
            break
    assert tried >= 5


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(data, tmp_path, monkeypatch):
    """The kernel's own refusal, of a file beyond a limit: metrics grow, and the run stops where they meet it."""
    import resource
    loop.train(recipe(steps=60), tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(OSError, match="metrics.jsonl"):
            loop.train(recipe(steps=60), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    loop.resume(tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


# --- kills

CHILD = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from numpyvit.data import shapes
import tiny
from numpyvit.runs import curves
from numpyvit.training import loop, plan as plans, prepare
dataset = shapes.load(16, 256, 64)
prepare.load = lambda *args, **kwargs: dataset
loop.CHECKPOINT_SECONDS = 0.0                                                # a checkpoint every step: most kills hit one
curves.draw_curves = lambda run: ""
settings = tiny.recipe({family!r}, steps={steps})
loop.train(settings, {folder!r} + "/whole", threads=1)
print("ready", flush=True)
for line in sys.stdin:                                                       # one line: one process that trains until it is killed
    pid = os.fork()
    if pid == 0:
        run = {folder!r} + "/run"
        try:
            if os.path.exists(run + "/config.json"):
                loop.resume(run, threads=2)
            else:
                loop.train(settings, run, threads=2)
        except BaseException as error:
            print("error", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_kills_at_random_instants(family, tmp_path, figures):
    """kill -9, again and again, until the run is through; then the same, until all kills are done. The bits are those of
    a run that was never stopped, and at every instant there is a checkpoint that loads."""
    kills, rng = 0, random.Random(family)
    script = CHILD.format(tests=str(Path(__file__).parent), family=family, steps=40, folder=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(numpyvit.__file__).parents[1]),
                                                                               os.environ.get("PYTHONPATH", "")])})
    lines = iter(child.stdout.readline, "")
    try:
        until(lines, "ready")
        run, newest = RunFolder(tmp_path / "run"), 0
        while kills < -(-KILLS // len(FAMILIES)):
            child.stdin.write("go\n")
            child.stdin.flush()
            pid = int(until(lines, digits=True))
            time.sleep(rng.choice([rng.uniform(0, 0.02), rng.uniform(0, 0.4)]))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            status = int(until(lines, digits=True))
            assert status in (0, -signal.SIGKILL)
            if status == 0:                                                  # through: compare, and begin anew
                assert_same_run(tmp_path / "whole", tmp_path / "run")
                subprocess.run(["rm", "-r", str(tmp_path / "run")], check=True)
                newest = 0
                continue
            kills += 1
            newest = assert_consistent(run, newest)
            figures.add(steps=newest)
        if (tmp_path / "run" / "config.json").exists():
            child.stdin.write("go\n")
            child.stdin.flush()
            until(lines, digits=True)
            assert until(lines, digits=True) == "0"
            assert_same_run(tmp_path / "whole", tmp_path / "run")
    finally:
        child.stdin.close()
        child.wait(60)
        child.stdout.close()


def until(lines, word=None, digits=False):
    """The next line that is the word, or a number; the run's own lines are passed over."""
    for line in lines:
        if line.strip() == word or (digits and line.strip().lstrip("-").isdigit()):
            return line.strip()
    raise AssertionError("the training process ended")


def assert_consistent(run, newest):
    """What must hold at any instant: the newest checkpoint loads, is no older than before, and the logs reach it."""
    if not os.path.exists(run.file("config.json")):
        return 0
    run.read_config()
    checkpoint = run.read_checkpoint()
    if checkpoint is None:
        assert newest == 0
        return 0
    position = checkpoint.position
    assert position.step >= newest
    metrics = open(run.file("metrics.jsonl"), "rb").read()[:position.metrics_bytes]
    entries = [json.loads(line) for line in metrics.splitlines()]
    assert len(metrics) == position.metrics_bytes and metrics.endswith(b"\n")
    assert [e["step"] for e in entries if e["kind"] == "train"] == list(range(1, position.step + 1))
    assert len(run.checkpoints()) <= 3
    return position.step


# --- two processes

def test_a_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path):
    (tmp_path / "run").mkdir()
    lock = str(tmp_path / "run" / "lock")
    code = ("import sys, time; from numpyvit.files import atomic as files\n"
            f"with files.locked({lock!r}, 'this run'):\n print('held', flush=True); time.sleep(60)")
    env = {**os.environ, "PYTHONPATH": str(Path(numpyvit.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"this run is in use by another process .id {holder.pid}"):
            with files.locked(lock, "this run"):
                pass
        holder.kill()
        holder.wait()
    with files.locked(lock, "this run"):
        assert Path(lock).read_text() == str(os.getpid())


def test_resume_and_train_hold_the_lock(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), tmp_path / "run")
    with RunFolder(tmp_path / "run").lock(), pytest.raises(UserError, match="in use"):
        loop.resume(tmp_path / "run")
    with pytest.raises(UserError, match="--resume"):
        loop.train(recipe(), tmp_path / "run")


def test_a_new_run_does_not_mix_with_old_checkpoints(data, tmp_path):
    """They would be taken for its own, and its own would be deleted, for they are of earlier steps."""
    loop.train(recipe(steps=2), tmp_path / "run", threads=1)
    for path in tmp_path.glob("run/*.*"):
        path.unlink()
    kept = RunFolder(tmp_path / "run").checkpoints()
    with pytest.raises(UserError, match="checkpoints of another run, .* delete .*/run/checkpoints, or choose another --out"):
        loop.train(recipe(steps=1), tmp_path / "run", threads=1)
    assert RunFolder(tmp_path / "run").checkpoints() == kept and not (tmp_path / "run" / "config.json").exists()


def test_the_checkpoint_that_was_just_written_stays(trainer):
    trainer.run.save_checkpoint(trainer.model, trainer.optimizer, trainer.config, 1, 4.0)
    assert [p[-6 - 12:-12] for p in trainer.run.checkpoints()] == ["000001", "000002", "000003"]


# --- what is read

def test_logs_are_cut_where_the_checkpoint_was_taken(trainer):
    run = trainer.run
    metrics = open(run.file("metrics.jsonl"), "rb").read()
    run.log("metrics.jsonl", {"kind": "train", "step": 4})
    files.append(run.file("metrics.jsonl"), b'{"kind": "trai')                # a torn line
    again = RunFolder(run.path)
    again.position = again.read_checkpoint().position
    assert again.rewind() == []
    assert open(run.file("metrics.jsonl"), "rb").read() == metrics
    os.truncate(run.file("metrics.jsonl"), 10)
    assert "lines are missing" in again.rewind()[0]


def test_a_damaged_checkpoint_is_told_with_the_way_back(trainer):
    run = trainer.run
    newest, older = run.checkpoints()[::-1]
    whole = open(newest, "rb").read()
    for broken in (whole[:-1], whole[:100], b"", whole[:5000] + b"\xff" + whole[5001:], whole + b"\0"):
        Path(newest).write_bytes(broken)
        with pytest.raises(UserError, match="delete it to go back to") as caught:
            run.read_checkpoint()
        assert newest in str(caught.value) and older in str(caught.value)
    os.unlink(newest)
    assert run.read_checkpoint().path == older


def test_a_foreign_checkpoint_is_refused_and_nothing_is_changed(trainer, tmp_path):
    run, before = trainer.run, snapshot(trainer)
    path = run.checkpoints()[-1]
    tensors, metadata = read_tensors(path)
    position = json.loads(metadata["position"])
    config = json.loads(metadata["config"])
    changes = {
        "not a checkpoint": (tensors, metadata | {"format": "numpyvit-weights-1"}),
        "its model is not the one": (tensors, metadata | {"config": json.dumps(config | {"depth": 3})}),
        "of step 7": (tensors, metadata | {"position": json.dumps(position | {"step": 7})}),
        "no usable position": (tensors, metadata | {"position": json.dumps(position | {"step": -1})}),
        "no usable position ": (tensors, metadata | {"position": json.dumps({"step": 3})}),
        "optimizer/v is missing": ({k: v for k, v in tensors.items() if k != "optimizer/v"}, metadata),
        "extra is unknown": (tensors | {"extra": np.zeros(3)}, metadata),
        "optimizer/m has shape": (tensors | {"optimizer/m": np.zeros(3, np.float32)}, metadata),
        "ema has dtype float64": (tensors | {"ema": tensors["ema"].astype(np.float64)}, metadata),
        "norm.bias holds values that are not finite": (tensors | {"norm.bias": np.full(32, np.nan, np.float32)}, metadata),
    }
    for words, (changed, described) in changes.items():
        write_tensors(path, changed, described)
        with pytest.raises(UserError, match=words.strip()) as caught:
            run.read_checkpoint().restore(trainer.model, trainer.optimizer)
        assert path in str(caught.value)
        assert same(before, snapshot(trainer))


def test_restoring_without_an_optimiser_gives_the_average(trainer):
    checkpoint = trainer.run.read_checkpoint()
    model = build_model(trainer.config, checkpoint)
    checkpoint.restore(model)
    np.testing.assert_array_equal(model.flat, trainer.optimizer.ema)
    optimizer = new_optimizer(model, trainer.recipe)
    checkpoint.restore(model, optimizer)
    np.testing.assert_array_equal(model.flat, trainer.model.flat)
    assert Checkpoint.read(checkpoint.path).position == trainer.run.position


def test_temporaries_of_a_killed_process_are_removed(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1)
    with pytest.raises(loop.Interrupted):
        loop.train(recipe(), tmp_path / "run")
    stale = tmp_path / "run" / "checkpoints" / ".step-00000009.safetensors.1.tmp"
    stale.write_bytes(b"half")
    loop.resume(tmp_path / "run")
    assert not stale.exists()


HOSTILE = {
    "no object": lambda c: [],
    "no format": lambda c: {k: v for k, v in c.items() if k != "format"},
    "no recipe": lambda c: c | {"recipe": None},
    "a setting missing": lambda c: c | {"recipe": {k: v for k, v in c["recipe"].items() if k != "lr"}},
    "a setting too many": lambda c: c | {"recipe": c["recipe"] | {"learning_rate": 1}},
    "a rate that is text": lambda c: c | {"recipe": c["recipe"] | {"lr": "fast"}},
    "a rate that is NaN": lambda c: c | {"recipe": c["recipe"] | {"lr": float("nan")}},
    "a batch of 2.5": lambda c: c | {"recipe": c["recipe"] | {"batch_size": 2.5}},
    "a huge number": lambda c: c | {"recipe": c["recipe"] | {"steps": 10**30}},
    "unknown family": lambda c: c | {"model": c["model"] | {"family": "rnn"}},
    "unknown field": lambda c: c | {"model": {"family": "vit", "config": {"x": 1}}},
    "huge depth": lambda c: c | {"model": {"family": "vit", "config": c["model"]["config"] | {"depth": 10**9}}},
    "huge width": lambda c: c | {"model": {"family": "vit", "config": c["model"]["config"] | {"embed_dim": 10**9}}},
    "huge image": lambda c: c | {"model": {"family": "vit", "config": c["model"]["config"] | {"img_size": 4 * 10**8}}},
    "width as list": lambda c: c | {"model": {"family": "vit", "config": c["model"]["config"] | {"embed_dim": [1, [2]]}}},
    "other classes": lambda c: c | {"data": c["data"] | {"classes": ["a"]}},
    "classes no text": lambda c: c | {"data": c["data"] | {"classes": [1] * 10}},
    "deviation zero": lambda c: c | {"data": c["data"] | {"std": [1, 0, 1]}},
    "means nested": lambda c: c | {"data": c["data"] | {"mean": [[1], 2, 3]}},
    "plan of zero steps": lambda c: c | {"plan": c["plan"] | {"steps": 0}},
    "plan no object": lambda c: c | {"plan": "soon"},
    "many shards": lambda c: c | {"lanes": c["lanes"] | {"shards": 10**9}},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_config_that_is_not_one_is_one_error(trainer, change):
    run = trainer.run
    files.write_atomic(run.file("config.json"), [json.dumps(change(trainer.config.to_json())).encode()])
    started = time.monotonic()
    with pytest.raises(ValueError) as caught:
        build_model(run.read_config(), run.read_checkpoint())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and time.monotonic() - started < 1


def test_a_config_that_is_no_json_is_one_error(tmp_path):
    run = RunFolder(tmp_path)
    for content in (b"", b"{", b"\xff", b"[" * 10**6, b"1" * 10**5, b" " * (5 << 20)):
        Path(run.file("config.json")).write_bytes(content)
        with pytest.raises(UserError, match="config.json"):
            run.read_config()


def test_metrics_that_are_none_are_one_error(trainer):
    path = Path(trainer.run.file("metrics.jsonl"))
    whole = path.read_bytes()
    assert [m["step"] for m in trainer.run.read_metrics()] == [1, 2, 3]
    path.write_bytes(whole + b'{"kind": "tr')
    assert len(trainer.run.read_metrics()) == 3
    for line in (b"{\n", b"[]\n", b"\xff\n", b"[" * 10**5 + b"\n"):
        path.write_bytes(whole + line)
        with pytest.raises(UserError, match="line 4"):
            trainer.run.read_metrics()


# --- files of any kind

def test_a_new_file_has_the_old_ones_permissions_and_any_name(tmp_path):
    path = tmp_path / ("x" * 252)
    files.write_atomic(path, [b"old"])
    path.chmod(0o600)
    files.write_atomic(path, [b"new", b"er"])
    assert path.read_bytes() == b"newer" and path.stat().st_mode & 0o777 == 0o600 and len(list(tmp_path.iterdir())) == 1


def test_a_pipe_gets_the_bytes_and_stays(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    files.write_atomic(pipe, [b"one", b"two"])
    reader.join(10)
    assert received == [b"onetwo"] and pipe.is_fifo()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr", "/dev/fd/{}", "/proc/self/fd/{}"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_an_open_file_gets_the_bytes_where_it_is(name, kind, tmp_path):
    """As a shell opens them: | cat, and >> log, whose lines of before stay."""
    log = tmp_path / "log"
    log.write_bytes(b"before ")
    reader, writer = os.pipe() if kind == "pipe" else (os.open(log, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND))
    code = f"from numpyvit.files import atomic; atomic.write_atomic({name.format(writer)!r}, [b'one', b'two'])"
    streams = {name.removeprefix("/dev/"): writer} if name.startswith("/dev/std") else {"pass_fds": [writer]}
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path(numpyvit.__file__).parents[1])},
                   **streams)
    assert os.read(reader, 99) == (b"onetwo" if kind == "pipe" else b"before onetwo")
    os.close(reader)
    os.close(writer)


def test_threads_that_save_to_one_path_leave_one_whole_file(tmp_path):
    contents = [bytes([k]) * 50_000 for k in range(4)]
    threads = [threading.Thread(target=lambda c=c: [files.write_atomic(tmp_path / "x", [c]) for _ in range(20)]) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


# --- runs whose files are gone

def stopped(tmp_path, monkeypatch, **settings):
    """A run of 12 steps that was stopped after the sixth, with a look and a checkpoint at every step. → its folder"""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(plans, "evaluation_interval", lambda *_: 2)
    stop_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        loop.train(recipe(**settings), tmp_path / "run", threads=1)
    return RunFolder(tmp_path / "run")


def test_a_run_without_checkpoints_says_that_it_begins_again(data, tmp_path, monkeypatch, capsys):
    run = stopped(tmp_path, monkeypatch)
    for path in run.checkpoints():
        os.unlink(path)
    loop.resume(run.path, threads=1)
    assert "no checkpoint, so it begins again with its first step" in " ".join(capsys.readouterr().out.split())
    loop.train(recipe(), tmp_path / "whole", threads=1)
    assert_same_run(tmp_path / "whole", run.path)


@pytest.mark.parametrize("change", [{"step": None}, {"accuracy": "0.5"}])
def test_a_damaged_look_is_one_line(data, tmp_path, monkeypatch, change):
    run = stopped(tmp_path, monkeypatch)
    entries = run.read_metrics()
    changed = [entry | (change if entry["kind"] == "val" else {}) for entry in entries]
    text = "".join(json.dumps(entry) + "\n" for entry in changed).encode()
    Path(run.file("metrics.jsonl")).write_bytes(text)
    monkeypatch.setattr(RunFolder, "rewind", lambda self: [])                # the lines have another length
    with pytest.raises(UserError, match="expected numbers as step, loss, accuracy in a line of kind val"):
        loop.resume(run.path, threads=1)


def test_a_run_without_its_metrics_goes_on(data, tmp_path, monkeypatch):
    run = stopped(tmp_path, monkeypatch)
    os.unlink(run.file("metrics.jsonl"))
    loop.resume(run.path, threads=1)
    assert [entry["step"] for entry in run.read_metrics() if entry["kind"] == "train"] == list(range(7, 13))


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 100)])
def test_lost_best_weights_are_told_at_once(data, tmp_path, monkeypatch, damage, capsys):
    """The run keeps the best of the looks that are left."""
    run = stopped(tmp_path, monkeypatch, keep="best")
    damage(run.file("best.safetensors"))
    result = loop.resume(run.path, threads=1)
    out = " ".join(capsys.readouterr().out.split())
    assert "best.safetensors" in out and "the run keeps the best from now on" in out
    assert result["weights"] == "best on validation" and Path(run.file("best.safetensors")).stat().st_size > 100


def test_an_extension_that_was_killed_at_once_goes_on(data, tmp_path, monkeypatch):
    """Between the new config and the removal of the result, nothing but config.json tells that the run goes on."""
    loop.train(recipe(steps=2), tmp_path / "run", threads=1)
    with monkeypatch.context() as patch:
        def killed(self):
            raise KeyboardInterrupt
        patch.setattr(RunFolder, "open_again", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.resume(tmp_path / "run", threads=1, steps=2)
    assert (tmp_path / "run" / "result.json").exists()
    assert loop.resume(tmp_path / "run", threads=1)["steps"] == 4
