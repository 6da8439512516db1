"""The command line on real files: exit codes, one line for each thing the user can mend, and signals."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import numpyvit
from numpyvit.cli import inspect as looking, main as cli, options
from numpyvit.models import PRESETS
from numpyvit.files.safetensors import read_tensors, write_tensors
from numpyvit.training import loop
from numpyvit.runs.folder import RunFolder
from numpyvit.runs.recipe import Recipe
from tiny import FAMILIES, image_folder

ENV = {**os.environ, "PYTHONPATH": str(Path(numpyvit.__file__).parents[1])}
MODEL = ["--model", "vit", *(f"--set={field}={value}" for field, value in FAMILIES["vit"].items())]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A finished run on the folder of images, with two checkpoints."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    train(images, path, "--steps", "6")
    checkpoint = path / "checkpoints" / "step-00000006.safetensors"
    tensors, metadata = read_tensors(checkpoint)
    metadata["position"] = metadata["position"].replace('"step": 6', '"step": 5')
    write_tensors(checkpoint.with_name("step-00000005.safetensors"), tensors, metadata)
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be damaged; not yet scored, so that it can be resumed."""
    shutil.copytree(finished, tmp_path / "run")
    os.unlink(tmp_path / "run" / "result.json")
    return tmp_path / "run"


def train(images, path, *options):
    assert cli.main(["train", "--data", f"folder:{images}", "--out", str(path), "--batch-size", "16", "--val", "6", *MODEL, *options]) == 0


def one_line(capsys, *argv, status=2):
    """Run a command that fails: exit status 2, nothing but one line on standard error. → the line"""
    capsys.readouterr()
    try:
        code = cli.main([str(a) for a in argv])
    except SystemExit as leaving:                                            # argparse's own
        code = leaving.code
    out, err = capsys.readouterr()
    assert code == status, err
    assert err.count("\n") == 1 and err.startswith("numpyvit") and "Traceback" not in out + err, err
    return err


# --- what works

def test_train_evaluate_predict(finished, images, capsys):
    config = json.loads((finished / "config.json").read_text())
    assert config["recipe"]["data"] == "folder" and config["data"]["classes"] == ["disc", "ring", "square"]
    assert config["recipe"]["model_fields"]["drop_rate"] == 0.1
    assert (finished / "curves.png").exists() and (finished / "weights.safetensors").exists()

    assert cli.main(["evaluate", str(finished)]) == 0
    out = capsys.readouterr().out
    test_accuracy = json.loads((finished / "result.json").read_text())["test_accuracy"]
    assert f"accuracy {test_accuracy:.2%} on {config['data']['test']} test images" in out
    assert all(name in out for name in ("disc", "ring", "square")) and config["data"]["notice"] in out
    assert cli.main(["evaluate", str(finished), "--split", "val", "--threads", "1"]) == 0
    assert "on 6 val images" in capsys.readouterr().out

    picture = images / "train" / "ring" / "3.png"
    assert cli.main(["predict", str(finished), str(picture), str(picture), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0].startswith(f"{picture}: ") and lines[0].count("%") == 2


def test_models_lists_presets(capsys):
    assert cli.main(["models", "vit_tiny*"]) == 0
    out = capsys.readouterr().out
    assert "vit_tiny_patch16_224" in out and "5,717,416" in out and "224×224" in out and "1.25 G" in out and "swin" not in out
    assert cli.main(["models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(PRESETS)


def test_set_reads_every_kind_of_value():
    assert options.field_value("depth=4") == ("depth", 4)
    assert options.field_value("depths=2,2,6,2") == ("depths", (2, 2, 6, 2))
    assert options.field_value("num_heads=[1,3]") == ("num_heads", (1, 3))
    assert options.field_value("qkv_bias=false") == ("qkv_bias", False)
    assert options.field_value("act=gelu_tanh") == ("act", "gelu_tanh")


def test_help_is_fast_and_compiles_nothing():
    code = "import sys, numpyvit.cli.main as c\ntry: c.main(['train', '--help'])\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV)
    assert "--minutes" in done.stdout and f"({Recipe().lr})" in done.stdout
    assert not {"numba", "matplotlib", "rich"} & set(done.stderr.split())


def test_a_second_seed_folder_is_numbered(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert cli.main(["train", "--data", f"folder:{images}", "--steps", "1", "--batch-size", "8", *MODEL]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["vit-folder-1", "vit-folder-2"]


# --- what does not

BROKEN_RUNS = {
    "no such folder": lambda r: shutil.rmtree(r),
    "an empty folder": lambda r: [shutil.rmtree(r), r.mkdir()],
    "config gone": lambda r: (r / "config.json").unlink(),
    "config truncated": lambda r: truncate(r / "config.json", 100),
    "config empty": lambda r: truncate(r / "config.json", 0),
    "config of something else": lambda r: (r / "config.json").write_text('{"model_type": "vit"}'),
    "config deeply nested": lambda r: (r / "config.json").write_text("[" * 10**6),
    "config a folder": lambda r: [(r / "config.json").unlink(), (r / "config.json").mkdir()],
    "unknown family": lambda r: edit(r, lambda c: c["model"].update(family="rnn")),
    "another width": lambda r: edit(r, lambda c: c["model"]["config"].update(embed_dim=64)),
    "another image size": lambda r: edit(r, lambda c: c["model"]["config"].update(img_size=32)),
    "a depth of a billion": lambda r: edit(r, lambda c: c["model"]["config"].update(depth=10**9)),
    "a class missing": lambda r: edit(r, lambda c: c["data"]["classes"].pop()),
    "a negative rate": lambda r: edit(r, lambda c: c["recipe"].update(lr=-1)),
    "checkpoint truncated": lambda r: truncate(newest(r), 1000),
    "checkpoint empty": lambda r: truncate(newest(r), 0),
    "checkpoint with a flipped bit": lambda r: flip(newest(r), 20000),
    "checkpoint is weights only": lambda r: shutil.copy(r / "weights.safetensors", newest(r)),
    "checkpoint is text": lambda r: newest(r).write_text("not a checkpoint\n" * 99),
    "checkpoint is a pickle": lambda r: newest(r).write_bytes(b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94"),
    "checkpoint claims a terabyte": lambda r: newest(r).write_bytes((2**40).to_bytes(8, "little") + b"{}"),
    "checkpoint is a folder": lambda r: [newest(r).unlink(), (r / "checkpoints" / "step-00000006.safetensors").mkdir()],
    "checkpoint is a pipe": lambda r: [newest(r).unlink(), os.mkfifo(r / "checkpoints" / "step-00000006.safetensors")],
    "checkpoint with NaN": lambda r: poison(newest(r)),
    "data set moved away": lambda r: edit(r, lambda c: c["recipe"].update(data_dir="/nonexistent/images")),
    "data set changed": lambda r: edit(r, lambda c: c["data"].update(checksum="records-sha256:" + "0" * 64)),
}


def newest(run):
    return run / "checkpoints" / "step-00000006.safetensors"


def truncate(path, size):
    os.truncate(path, size)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def edit(run, change):
    config = json.loads((run / "config.json").read_text())
    change(config)
    (run / "config.json").write_text(json.dumps(config))


def poison(path):
    tensors, metadata = read_tensors(path)
    tensors["norm.weight"] = np.full_like(tensors["norm.weight"], np.nan)
    write_tensors(path, tensors, metadata)


@pytest.mark.parametrize("damage", BROKEN_RUNS.values(), ids=BROKEN_RUNS.keys())
def test_a_broken_run_is_one_line_for_every_command(run, images, damage, capsys):
    damage(run)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file() and p.name != "lock"}
    commands = [("evaluate", run), ("train", "--resume", run)]
    if "data set" not in str(next(k for k, v in BROKEN_RUNS.items() if v is damage)):
        commands.append(("predict", run, images / "train" / "ring" / "3.png"))
    for command in commands:
        started = time.monotonic()
        one_line(capsys, *command)
        assert time.monotonic() - started < 5
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file() and p.name != "lock"}


DAMAGED_LOGS = [
    ("metrics.jsonl", '{"kind": "val", "step": 7}'), ("metrics.jsonl", '{"kind": "val"}'), ("metrics.jsonl", "[7]"),
    ("metrics.jsonl", '{"kind": "train", "step": "x", "loss": 1.0, "accuracy": 0.5, "lr": 0.1}'),
    ("metrics.jsonl", '{"kind": "train", "step": 7, "loss": 1.0, "accuracy": 0.5, "lr": null}'),
    ("metrics.jsonl", '{"kind": "test", "step": 7, "loss": 1.0, "accuracy": true}'),
    ("result.json", '{"seconds": "x"}'), ("result.json", '{"test_accuracy": [1]}'), ("result.json", "[]"), ("result.json", "{")]


@pytest.mark.parametrize("name, line", DAMAGED_LOGS)
def test_a_damaged_log_is_one_line_and_hides_no_other_run(name, line, finished, tmp_path, capsys):
    bad, good = (shutil.copytree(finished, tmp_path / "runs" / folder) for folder in ("bad", "good"))
    before = (bad / name).read_text() if name == "metrics.jsonl" else ""
    (bad / name).write_text(before + line + "\n")
    capsys.readouterr()
    assert cli.main(["runs", str(tmp_path / "runs")]) == 0
    _, row, sentence = capsys.readouterr().out.splitlines()
    assert row.startswith(str(good)) and sentence.startswith(f"{bad / name}: ")
    (bad / "curves.png").unlink()
    commands = [("train", "--resume", bad), ("report", bad)] if name == "metrics.jsonl" else []
    for command in commands:
        assert f"{bad / name}: line {before.count(chr(10)) + 1}" in one_line(capsys, *command)


def test_lines_of_other_kinds_and_losses_that_are_not_finite_are_read(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "note", "step": "x"}\n{"step": 7}\n{"kind": ["val"]}\n'
                   '{"kind": "val", "step": 7, "loss": NaN, "accuracy": 0.5}\n')
    assert RunFolder(run).read_metrics()[-1]["step"] == 7


def test_the_undamaged_copy_works(run, capsys):
    """So that the errors above are about the damage."""
    assert cli.main(["evaluate", str(run)]) == 0 and cli.main(["train", "--resume", str(run)]) == 0
    assert (run / "result.json").exists()


BROKEN_IMAGES = {
    "no such file": None,
    "empty": b"",
    "text": b"hello\n",
    "PNG signature only": b"\x89PNG\r\n\x1a\n",
    "JPEG start only": b"\xff\xd8\xff\xe0",
    "half a PNG": "half",
    "a folder": "folder",
}


@pytest.mark.parametrize("content", BROKEN_IMAGES.values(), ids=BROKEN_IMAGES.keys())
def test_an_unreadable_image_is_one_line(finished, images, tmp_path, content, capsys):
    path, good = tmp_path / "x.png", images / "train" / "ring" / "3.png"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(good.read_bytes()[:300] if content == "half" else content)
    assert str(path) in one_line(capsys, "predict", finished, good, path)


WRONG_OPTIONS = {
    "unknown command": (["fly"], "fly"),
    "unknown option": (["train", "--speed", "9"], "--speed"),
    "unknown preset": (["train", "--model", "vit_tinny_patch4_32"], "vit_tiny_patch4_32"),
    "unknown field": (["train", "--set", "width=3"], "width"),
    "field without value": (["train", "--set", "depth"], "FIELD=VALUE"),
    "wrong value": (["train", "--set", "depth=-1"], "depth"),
    "patch does not divide": (["train", "--set", "patch_size=5"], "patch_size"),
    "not a number": (["train", "--lr", "fast"], "--lr"),
    "NaN": (["train", "--lr", "nan"], "lr"),
    "zero minutes": (["train", "--minutes", "0"], "minutes"),
    "minutes and epochs": (["train", "--minutes", "1", "--epochs", "1"], "minutes"),
    "unknown optimiser": (["train", "--optimizer", "lion"], "lion"),
    "zero threads": (["train", "--threads", "0"], "threads"),
    "unknown data set": (["train", "--data", "imagenet"], "imagenet"),
    "folder that is not there": (["train", "--data", "folder:/nonexistent"], "/nonexistent"),
    "wrong image size": (["train", "--data", "cifar10", "--model", "vit_tiny_patch16_224"], "224"),
    "wrong number of classes": (["train", "--data", "shapes", "--set", "num_classes=7"], "num_classes"),
    "batch beyond the data": (["train", "--data", "shapes", "--batch-size", "100000"], "batch_size"),
    "out is a file": (["train", "--data", "shapes", "--out", __file__], "test_cli.py"),
    "out cannot be made": (["train", "--data", "shapes", "--out", "/proc/nothing/here"], "/proc/nothing"),
    "a model too large": (["train", "--data", "shapes", "--set", "embed_dim=400000000"], "memory"),
    "no such model": (["models", "resnet*"], "resnet"),
    "resume nothing": (["train", "--resume", "/nonexistent/run"], "/nonexistent/run"),
}


@pytest.mark.parametrize("argv, word", WRONG_OPTIONS.values(), ids=WRONG_OPTIONS.keys())
def test_a_wrong_option_is_one_line(argv, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert word in one_line(capsys, *argv)
    assert not any(path.name == "config.json" and path.stat().st_size == 0 for path in tmp_path.rglob("*"))


def test_resume_does_not_take_another_recipe(run, finished, capsys):
    assert "--lr cannot be changed" in one_line(capsys, "train", "--resume", run, "--lr", "1")
    assert "--resume" in one_line(capsys, "train", "--data", "shapes", "--out", finished)


@pytest.mark.parametrize("more", [[], ["--set", "num_heads=3"]])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_what_is_not_there_may_have_been_a_run_or_weights(command, more, tmp_path, capsys):
    path = tmp_path / "typo.safetensors"
    line = one_line(capsys, command, path, *["a.png"] * (command == "predict"), *more)
    assert line == f"numpyvit: {path}: expected the folder of a run, or weights, got nothing\n"


def test_no_checkpoint_yet(run, capsys):
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint yet" in one_line(capsys, "evaluate", run)
    assert cli.main(["train", "--resume", str(run)]) == 0                    # config and plan are enough to begin


def test_a_truncated_archive_is_one_line(tmp_path, capsys):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b" + bytes(1000))
    assert "cifar-10-binary.tar.gz" in one_line(capsys, "train", "--data", "cifar10", "--data-dir", tmp_path)


def test_a_full_disk_is_one_line(images, tmp_path):
    """A real refusal by the kernel: no file of this process may grow beyond 30 kB."""
    code = ("import resource, sys; from numpyvit.cli import main as cli; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000));"
            "sys.exit(cli.main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", code, "train", "--data", f"folder:{images}", "--out", str(tmp_path / "run"), "--val", "6",
                           "--batch-size", "16", "--steps", "4", *MODEL], capture_output=True, text=True, env=ENV)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "checkpoint" in done.stderr and "--resume" in done.stderr, done.stderr
    assert cli.main(["train", "--resume", str(tmp_path / "run")]) == 0


def in_step(monkeypatch, number, act):
    """act() before a step is taken."""
    take_step = loop.Trainer.take_step

    def step(self, n):
        if n == number:
            act()
        return take_step(self, n)
    monkeypatch.setattr(loop.Trainer, "take_step", step)


def test_out_of_memory_in_mid_run_is_one_line_and_the_run_goes_on_later(images, finished, tmp_path, monkeypatch, capsys):
    def too_much():
        np.empty(2**60, np.uint8)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        in_step(patch, 3, too_much)
        line = one_line(capsys, "train", "--data", f"folder:{images}", "--out", run, "--batch-size", "16", "--val", "6", "--steps", "6", *MODEL)
        assert "out of memory" in line and "--batch-size" in line
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_a_data_folder_that_disappears_in_mid_run(images, finished, tmp_path, monkeypatch, capsys):
    """The images are in memory by then: the run ends as if nothing had happened. What needs them again names them."""
    there = tmp_path / "images"
    shutil.copytree(images, there)
    run = tmp_path / "run"
    in_step(monkeypatch, 2, lambda: shutil.rmtree(there))
    train(there, run, "--steps", "6")
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert str(there) in one_line(capsys, "evaluate", run)


@pytest.mark.parametrize("error, words", [(MemoryError(), "out of memory"), (ValueError("two\nlines"), "two lines"),
                                          (OSError(28, "No space left on device", "x.bin"), "x.bin: No space left on device")])
def test_errors_from_below_are_one_line(error, words, monkeypatch, capsys):
    def fail(args):
        raise error
    monkeypatch.setattr(looking, "run_models", fail)
    assert words in one_line(capsys, "models")


# --- signals

def hears_sighup():
    """In a child: as in a terminal, even if these tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(*argv, **options):
    return subprocess.Popen([sys.executable, "-m", "numpyvit", *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=ENV, **{"preexec_fn": hears_sighup} | options)


def wait_for_steps(process, path, count=3, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        metrics = path / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the run did not begin")


def assert_nothing_is_lost(run):
    """There is a checkpoint of the last step that metrics.jsonl has."""
    last = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert (run / "checkpoints" / f"step-{last:08d}.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_writes_a_checkpoint_and_exits_130(images, tmp_path, number):
    run = tmp_path / "run"
    process = start("train", "--data", f"folder:{images}", "--out", run, "--batch-size", "16", "--val", "6", "--steps", "100000", *MODEL)
    wait_for_steps(process, run)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and f"--resume {run}" in err and err.count("\n") == 1
    assert_nothing_is_lost(run)


def test_a_second_signal_exits_at_once(images, tmp_path):
    """The first one finds the loop inside a step that takes for ever."""
    code = ("import sys, time; from numpyvit.cli import main as cli; from numpyvit.training import loop; step = loop.Trainer.take_step\n"
            "def slow(self, n):\n  entry = step(self, n)\n  if n == 3: open(self.run.file('slow'), 'w'); time.sleep(60)\n  return entry\n"
            "loop.Trainer.take_step = slow; sys.exit(cli.main(sys.argv[1:]))")
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", code, "train", "--data", f"folder:{images}", "--out", str(run), "--batch-size", "16",
                                "--val", "6", "--steps", "100", *MODEL], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENV)
    wait_for_steps(process, run)
    while not (run / "slow").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert process.stderr.read().decode() == f"numpyvit: stopped without a checkpoint; continue with: numpyvit train --resume {run}\n"
    process.stderr.close()


def test_a_terminal_that_goes_away(images, tmp_path):
    """A real pseudo-terminal, closed while the live table is on it."""
    import pty
    leader, follower = pty.openpty()
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-m", "numpyvit", "train", "--data", f"folder:{images}", "--out", str(run), "--batch-size",
                                "16", "--val", "6", "--steps", "100000", *MODEL], stdin=follower, stdout=follower, stderr=follower,
                               start_new_session=True, env={**ENV, "TERM": "xterm"}, preexec_fn=controlling_terminal)
    os.close(follower)
    wait_for_steps(process, run)
    assert os.read(leader, 100)
    os.close(leader)
    assert process.wait(60) == 130
    assert_nothing_is_lost(run)


def controlling_terminal():
    import fcntl
    import termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    hears_sighup()


def test_output_into_a_closed_pipe(finished):
    process = start("evaluate", finished)
    process.stdout.close()
    assert process.wait(60) == 0 and process.stderr.read() == ""
    process.stderr.close()


def test_numpyvit_alone_prints_help(capsys):
    assert cli.main([]) == 0
    out, err = capsys.readouterr()
    assert "COMMAND" in out and "train" in out and "evaluate" in out and not err


def test_signals_that_are_ignored_stay_ignored_and_a_closing_terminal_asks_once(images, tmp_path):
    """Under nohup SIGHUP does nothing; else the two SIGHUPs of a terminal that closes end the run with a checkpoint."""
    for ignored in (True, False):
        run = tmp_path / str(ignored)
        options = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)} if ignored else {}
        process = start("train", "--data", f"folder:{images}", "--out", run, "--batch-size", "16", "--val", "6", "--steps", "100000",
                        *MODEL, **options)
        wait_for_steps(process, run)
        steps = (run / "metrics.jsonl").read_bytes().count(b"\n")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        if ignored:
            wait_for_steps(process, run, steps + 3)
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert_nothing_is_lost(run)


def test_runs_that_begin_together_have_folders_of_their_own(images, tmp_path):
    """Three seeds, started at once and without --out."""
    runs = [start("train", "--data", f"folder:{images}", "--batch-size", "16", "--val", "6", "--steps", "2", "--seed", seed, "--threads", "1",
                  *MODEL, cwd=tmp_path) for seed in range(3)]
    for process in runs:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name[-2:] for folder in folders] == ["-1", "-2", "-3"]
    assert {json.loads((folder / "config.json").read_text())["recipe"]["seed"] for folder in folders} == {0, 1, 2}
