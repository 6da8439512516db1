"""The loop: the same bits for any number of threads and any interruption, a plan that fits the budget, trouble by name."""
import io
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from rich.console import Console

import numpyvit
from numpyvit.data.mapped import OnDisk
from numpyvit.errors import Interrupted, UserError
from numpyvit.files.safetensors import read_tensors
from numpyvit.models import create_model
from numpyvit.training import loop, plan as plans
from numpyvit.training.lanes import Lanes, default_shards
from numpyvit.runs.config import Plan
from numpyvit.runs.folder import RunFolder
from numpyvit.threads import Pool
from numpyvit.training.progress import Progress, clock
from tiny import FAMILIES, recipe, same, small_shapes


@pytest.fixture
def data(monkeypatch):
    return small_shapes(monkeypatch)


def state(path):
    """Everything a run leaves that a clock has no part in: final tensors and metrics.jsonl, byte for byte."""
    run = RunFolder(path)
    tensors, _ = read_tensors(run.checkpoints()[-1])
    weights, _ = read_tensors(run.file("weights.safetensors"))
    return tensors | {f"result/{name}": w for name, w in weights.items()}, open(run.file("metrics.jsonl"), "rb").read()


def assert_same_run(a, b):
    (tensors, metrics), (tensors_b, metrics_b) = state(a), state(b)
    assert same(tensors, tensors_b)
    assert metrics == metrics_b


def stop_at(monkeypatch, *steps):
    """Ctrl-C in the middle of these steps (counted over the process, without those that measure the speed)."""
    take_step, count = loop.Trainer.take_step, iter(range(10**6))

    def step(self, number):
        if next(count) in steps:
            signal.raise_signal(signal.SIGINT)
        return take_step(self, number)
    monkeypatch.setattr(loop.Trainer, "take_step", step)


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_and_interruptions_leave_no_trace(family, data, tmp_path, monkeypatch):
    """1 thread straight through; 2 threads, interrupted at three steps, mid-epoch and at an epoch's end, and resumed."""
    loop.train(recipe(family), tmp_path / "a", threads=1)
    stop_at(monkeypatch, 0, 3, 5)                                            # 6 steps an epoch
    with pytest.raises(Interrupted, match="--resume"):
        loop.train(recipe(family), tmp_path / "b", threads=2)
    for _ in range(2):
        with pytest.raises(Interrupted):
            loop.resume(tmp_path / "b", threads=2)
    loop.resume(tmp_path / "b", threads=2)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    names = state(tmp_path / "a")[0]
    assert {"optimizer/m", "optimizer/v", "ema"} <= names.keys()
    assert (family == "cvt") == any("running_mean" in name for name in names)


def test_muon_and_a_stem_leave_no_trace(data, tmp_path, monkeypatch):
    """The same with Muon, whose matrices are dealt to the threads, and with the batch norms of a convolutional stem."""
    stem = FAMILIES["vit"] | dict(stem_widths=(8, 16), stem_strides=(2, 2))
    settings = dict(optimizer="muon", lr=3e-3, lr_rest=0.25, model_fields=stem)
    loop.train(recipe(**settings), tmp_path / "a", threads=1)
    stop_at(monkeypatch, 0, 3, 5)
    with pytest.raises(Interrupted, match="--resume"):
        loop.train(recipe(**settings), tmp_path / "b", threads=2)
    for threads in (3, 2):
        with pytest.raises(Interrupted):
            loop.resume(tmp_path / "b", threads=threads)
    loop.resume(tmp_path / "b", threads=4)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    names = state(tmp_path / "a")[0]
    assert {"optimizer/m", "optimizer/v", "ema"} <= names.keys() and any("running_mean" in name for name in names)


def test_stopped_while_scoring(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "evaluate", lambda *args: signal.raise_signal(signal.SIGINT))
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)    # a background job starts with Ctrl-C ignored
        try:
            with pytest.raises(Interrupted, match="--resume"):
                loop.train(recipe(steps=2, val=0), tmp_path / "b")
        finally:
            signal.signal(signal.SIGINT, handler)
        assert RunFolder(tmp_path / "b").read_checkpoint().position.step == 2 and not (tmp_path / "b" / "result.json").exists()
    assert "test_accuracy" in loop.resume(tmp_path / "b")
    assert [m["kind"] for m in RunFolder(tmp_path / "b").read_metrics()] == ["train", "train", "test"]


def test_stopped_while_the_last_checkpoint_is_written(data, tmp_path, monkeypatch):
    save = RunFolder.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", lambda *args: (save(*args), signal.raise_signal(signal.SIGINT)))
        with pytest.raises(Interrupted, match="stopped after step 2 of 2; finish with: numpyvit train --resume .*/b$"):
            loop.train(recipe(steps=2), tmp_path / "b", threads=1)
    assert not (tmp_path / "b" / "result.json").exists()
    assert "test_accuracy" in loop.resume(tmp_path / "b", threads=1)


@pytest.mark.parametrize("settings", [dict(optimizer="sgd", ema=0.0), dict(optimizer="adam", schedule="one_cycle", dtype="float64")])
def test_other_optimisers_resume_too(settings, data, tmp_path, monkeypatch):
    loop.train(recipe(**settings), tmp_path / "a")
    stop_at(monkeypatch, 7)
    with pytest.raises(Interrupted):
        loop.train(recipe(**settings), tmp_path / "b")
    loop.resume(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_resumed_run_gives_back_the_memory_of_its_checkpoint(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 7)
    with pytest.raises(Interrupted):
        loop.train(recipe(), tmp_path / "a")
    read, take_step, seen = RunFolder.read_checkpoint, loop.Trainer.take_step, []

    def read_and_see(self):
        seen.append(read(self))
        assert seen[-1].tensors
        return seen[-1]

    def step(self, number):
        assert not seen[0].tensors
        return take_step(self, number)

    monkeypatch.setattr(RunFolder, "read_checkpoint", read_and_see)
    monkeypatch.setattr(loop.Trainer, "take_step", step)
    loop.resume(tmp_path / "a")
    assert len(seen) == 1


def test_another_seed_is_another_run(data, tmp_path):
    loop.train(recipe(steps=2), tmp_path / "a")
    loop.train(recipe(steps=2, seed=1), tmp_path / "b")
    assert not same(state(tmp_path / "a")[0], state(tmp_path / "b")[0])


def test_what_a_run_leaves_behind(data, tmp_path):
    out = io.StringIO()
    result = loop.train(recipe(), tmp_path / "r", console=Console(file=out))
    run = RunFolder(tmp_path / "r")
    assert result == json.loads(open(run.file("result.json")).read()) and 0 <= result["test_accuracy"] <= 1
    config = run.read_config()
    assert config.plan == Plan(steps_per_epoch=6, steps=12, evaluate_every=14)
    assert config.data.train == 192 and config.data.checksum == data.checksum
    metrics = run.read_metrics()
    assert [m["step"] for m in metrics if m["kind"] == "train"] == list(range(1, 13))
    assert [m["step"] for m in metrics if m["kind"] == "val"] == [12]
    assert [m["step"] for m in metrics if m["kind"] == "test"] == [12]
    assert {os.path.basename(p) for p in run.checkpoints()} == {"step-00000012.safetensors"}
    assert os.path.getsize(run.file("curves.png")) > 1000
    said = out.getvalue()
    assert "running average weights" in said and f"{result['test_accuracy']:.2%}" in said and "curves.png" in said
    assert loop.resume(tmp_path / "r", console=Console(file=out)) == {} and "finished" in out.getvalue()


def test_it_learns(data, tmp_path):
    """192 images by heart: without augmentation, dropout and decay of the loss's floor."""
    plain = dict(padding=0, flip="none", mixup=0.0, cutmix=0.0, erasing=0.0, cutout=0, label_smoothing=0.0, weight_decay=0.0)
    fields = {**FAMILIES["vit"], "drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.0}
    loop.train(recipe(steps=240, lr=5e-3, model_fields=fields, **plain), tmp_path / "r")
    metrics = RunFolder(tmp_path / "r").read_metrics()
    losses = [m["loss"] for m in metrics if m["kind"] == "train"]
    assert np.mean(losses[:6]) > 2.2 and np.mean(losses[-6:]) < 1.0


def test_minutes_become_a_plan_that_is_kept(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 12)
    with pytest.raises(Interrupted):
        loop.train(recipe(steps=None, minutes=0.08), tmp_path / "r")
    plan = RunFolder(tmp_path / "r").read_config().plan
    assert plan.steps > 12
    loop.resume(tmp_path / "r")
    assert RunFolder(tmp_path / "r").read_config().plan == plan
    assert RunFolder(tmp_path / "r").read_metrics()[-1]["step"] == plan.steps
    seconds = json.loads((tmp_path / "r" / "result.json").read_text())["seconds"]
    assert seconds < 5 * 4.8                                                 # loose: tests run side by side


def test_the_images_of_a_run_lie_on_the_disk(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "run_to_the_end", lambda trainer, checkpoint: seen.append(trainer.dataset) or {})
    loop.train(recipe(), tmp_path / "r")
    assert isinstance(seen[0].train.images, OnDisk) and isinstance(seen[0].test.images, OnDisk)


def test_measuring_leaves_no_trace(data, tmp_path, monkeypatch):
    """A run by minutes has the bits of a run by its number of steps: the measured steps are undone, buffers included."""
    loop.train(recipe("cvt", steps=None, minutes=0.04), tmp_path / "a")
    steps = RunFolder(tmp_path / "a").read_config().plan.steps
    monkeypatch.setattr(plans, "evaluation_interval", lambda *args: RunFolder(tmp_path / "a").read_config().plan.evaluate_every)
    loop.train(recipe("cvt", steps=steps), tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_measuring_that_is_interrupted_leaves_no_trace(data, monkeypatch):
    """Ctrl-C in the fourth measured step of fit: the weights, the running means and their averages are those of before."""
    settings = {name: getattr(recipe(), name) for name in ("batch_size", "val", "micro_batch", "ema")}
    update, count = loop.Trainer.update, iter(range(10**6))

    def interrupted(self, *args):
        outcome = update(self, *args)
        if next(count) == 3:
            raise KeyboardInterrupt
        return outcome
    monkeypatch.setattr(loop.Trainer, "update", interrupted)
    model = create_model("cvt", num_classes=10, **FAMILIES["cvt"])
    before = {name: array.copy() for name, array in model.state_dict().items()}
    result = numpyvit.fit(model, data, minutes=0.04, threads=2, **settings)
    assert result == {"steps": 0, "history": []} and next(count) == 4
    assert same(model.state_dict(), before)


def test_no_thread_works_on_after_an_exception():
    """Such as that of Ctrl-C: what it restores is not written to any more."""
    begun, ended, second = [], [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 0:
            second.wait(10)
            raise KeyboardInterrupt
        second.set()
        time.sleep(0.2)
        ended.append(item)

    with Pool(2) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.map(work, range(20))
        assert sorted(begun) == [0, *sorted(ended)] and 1 in ended and len(begun) < 20


@pytest.mark.parametrize("watching, per_epoch, steps, expected", [(13, 351, 5000, 351), (13, 351, 1000, 260), (0, 351, 5000, 351),
                                                                  (0, 10, 5, 1), (100, 10, 50, 2000)])
def test_watching_takes_a_bounded_share(watching, per_epoch, steps, expected):
    assert plans.evaluation_interval(watching, per_epoch, steps) == expected


@pytest.mark.parametrize("batch, micro_batch, expected", [(256, 32, 4), (16, 32, 4), (15, 32, 3), (8, 32, 2), (3, 32, 1), (8, 3, 2),
                                                          (8, 2, 4), (3, 1, 3), (1, 1, 1)])
def test_small_batches_have_fewer_gradient_sums(batch, micro_batch, expected):
    assert default_shards(batch, micro_batch) == expected


def test_micro_batches_are_equal():
    """33 images in micro-batches of at most 4: no last one of a single image, whose batch norm would have no variance."""
    model, seen = create_model("vit", img_size=16, embed_dim=32, depth=1, num_heads=2), []

    def load(lo, hi):
        seen.append((lo, hi))
        return np.zeros((hi - lo, 3, 16, 16), np.float32), np.zeros(hi - lo, int), None
    with Lanes(model, 1, 1, micro_batch=4) as lanes:
        lanes.gradient(33, load)
    assert [lo for lo, _ in seen[1:]] == [hi for _, hi in seen[:-1]] and (seen[0][0], seen[-1][1]) == (0, 33)
    assert {hi - lo for lo, hi in seen} == {3, 4}


@pytest.mark.parametrize("given, expected", [(None, 2), (3, 3)])
def test_a_run_keeps_the_number_of_its_gradient_sums(data, tmp_path, given, expected):
    loop.train(recipe(batch_size=8, steps=1, shards=given), tmp_path / "run")
    assert RunFolder(tmp_path / "run").read_config().lanes.shards == expected
    model = create_model("vit", img_size=16, embed_dim=32, depth=1, num_heads=2)
    with Lanes(model, 1, given, micro_batch=8) as lanes:
        lanes.gradient(8, lambda lo, hi: (np.zeros((hi - lo, 3, 16, 16), np.float32), np.zeros(hi - lo, int), None))
    assert len(lanes.replicas) == expected


# --- trouble

overflows = pytest.mark.filterwarnings("ignore::RuntimeWarning")             # the command line says it in its own words


@overflows
def test_an_exploding_rate_is_stopped_by_name(data, tmp_path):
    with pytest.raises(UserError) as caught:
        loop.train(recipe(lr=1e18, warmup=0.0, clip_norm=0.0, ema=0.0), tmp_path / "r")
    message = str(caught.value)
    assert "step 2: the loss is nan" in message or "step 2: the gradient is not finite" in message
    assert "the output of blocks.0" in message and "largest weight" in message and "--lr" in message
    assert "no checkpoint yet" in message and "\n" not in message
    assert RunFolder(tmp_path / "r").checkpoints() == []


@overflows
@pytest.mark.parametrize("where, words", [("weight", "the weights blocks.1.mlp.fc1.weight"), ("gradient", "the gradient is not finite")])
def test_what_is_not_finite_is_named(data, tmp_path, monkeypatch, where, words):
    gradient = Lanes.gradient

    def broken(self, batch_size, load):
        parameters = dict(self.model.named_parameters())
        if where == "weight":
            parameters["blocks.1.mlp.fc1.weight"].data[0, 0] = np.inf
        outcome = gradient(self, batch_size, load)
        if where == "gradient":
            parameters["blocks.1.mlp.fc1.weight"].grad[0, 0] = np.nan
        return outcome
    loop.train(recipe(steps=1), tmp_path / "good")
    monkeypatch.setattr(Lanes, "gradient", broken)
    with pytest.raises(UserError, match=words):
        loop.train(recipe(), tmp_path / "r")


def test_the_last_good_checkpoint_is_named_and_stays(data, tmp_path, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(Interrupted):
        loop.train(recipe(), tmp_path / "r")
    run = RunFolder(tmp_path / "r")
    before = open(run.checkpoints()[-1], "rb").read()
    gradient = Lanes.gradient
    monkeypatch.setattr(Lanes, "gradient", lambda *args: (float("nan"), gradient(*args)[1]))
    with pytest.raises(UserError, match="last good checkpoint is .*step-00000003"):
        loop.resume(tmp_path / "r")
    assert open(run.checkpoints()[-1], "rb").read() == before


def test_misfits_are_told_before_training(data, tmp_path):
    for settings, words in [(dict(batch_size=500), "batch_size"), (dict(val=500), "validation"), (dict(model="vit_x"), "vit_x"),
                            (dict(model_fields={"num_classes": 3, **FAMILIES["vit"]}), "num_classes"),
                            (dict(model_fields={"img_size": (16, 32)}), "square"), (dict(mixup=-1.0), "mixup")]:
        with pytest.raises(ValueError, match=words):
            loop.train(recipe(**settings), tmp_path / words)


# --- what is shown

def test_a_console_that_goes_away_does_not_stop_the_run(data, tmp_path):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    devices = os.dup(1)                                                      # rich points a broken standard output to /dev/null
    try:
        for terminal in (False, True):
            result = loop.train(recipe(steps=2), tmp_path / str(terminal), console=Console(file=Gone(), force_terminal=terminal))
            assert "test_accuracy" in result
    finally:
        os.dup2(devices, 1)
        os.close(devices)


def test_lines_and_live_table_show_the_same(data):
    for terminal in (False, True):
        out = io.StringIO()
        progress = Progress(Console(file=out, force_terminal=terminal, width=120))
        progress.start(total_steps=3, steps_per_epoch=2, batch_size=8, work=lambda steps: 8e6 * steps)
        with progress:
            for step in (1, 2, 3):
                progress.step(step, 2.0 / step, 0.5, 1e-3)
            progress.evaluated("val acc", 0.25)
        for word in ("3/3", "loss", "lr", "images/s", "GFLOP/s", "left"):
            assert word in out.getvalue()


def test_progress_costs_little(data):
    progress = Progress(Console(file=io.StringIO()))
    progress.start(10**6, 100, 128, lambda steps: 128e6 * steps)
    with progress:
        started = time.process_time()
        for step in range(1, 2001):
            progress.step(step, 1.0, 0.5, 1e-3)
    assert (time.process_time() - started) / 2000 < 2e-4                     # seconds a step


def test_clock():
    assert [clock(s) for s in (0, 75, 3700, float("nan"))] == ["0:00", "1:15", "1:01:40", "?"]


def test_signals_are_left_alone_in_other_threads(data, tmp_path):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(loop.train(recipe(steps=1), tmp_path / "r")))
    thread.start()
    thread.join()
    assert outcome and "test_accuracy" in outcome[0]
