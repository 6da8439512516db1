"""Ranks: the tree of additions, the exchange between processes, and how a rank that fails ends the others."""
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import pytest

from numpyvit.training import ranks
from numpyvit.training.exchange import CHUNK, cuts
from numpyvit.training.tree import deal, fold, inner, outer, pieces, tree
from tiny import recipe

THOROUGH = bool(os.environ.get("NUMPYVIT_THOROUGH"))

MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
try:
    import mpi4py                                           # noqa: F401  (not mpi4py.MPI, which starts MPI)
except ImportError:
    MPIEXEC = None
OPEN_MPI = bool(MPIEXEC) and "Open MPI" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout
needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="no mpi4py or no mpiexec: pip install mpi4py mpich")
LAUNCHED = [name for pair in ranks.LAUNCHERS for name in pair]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in LAUNCHED} | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",    # Open MPI, with fewer cores than ranks
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "PRTE_MCA_hwloc_default_binding_policy": "none"}


def mpiexec(count, script, *args, environment=ENVIRONMENT, seconds=300):
    """Run a script on so many ranks → subprocess.CompletedProcess, without what MPI itself adds to stderr"""
    command = [MPIEXEC, "-n", str(count), sys.executable, "-c", textwrap.dedent(script), *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    done.stderr = without_launcher(done.stderr)
    return done


def without_launcher(text):
    """Without the lines of Open MPI's launcher, and without that of UCX in a rank whose peer is gone before itself."""
    open_mpi = r"(?s:^-{60,}$.*?^-{60,}$\n?)|^\[[^\n]*PMIX ERROR[^\n]*\n|\0"
    ucx = r"^\[[^\n]*\bucp_\w+\.c:\d+ +Fatal: [^\n]*\n"
    return re.sub(open_mpi if OPEN_MPI else ucx, "", text, flags=re.MULTILINE)


def ended_by(status):
    """What mpiexec may return where a rank ends the others: its status or, with MPICH, the signal that ended them (9).

    MPICH's launcher forgets the status if it finds a rank that it killed while the output of another rank is still open:
    1 run in 30 on a busy machine. That the rank asks for its status is tested without a launcher, below.
    """
    return (status, signal.SIGKILL) if status and not OPEN_MPI else (status,)


def one_process(script, environment, *args):
    command = [sys.executable, "-c", textwrap.dedent(script), *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_the_line_of_ucx_is_not_ours():
    line = "[vm:19670:a:19673]  ucp_worker.c:824  Fatal: failed to modify 30 event handler to <empty>: No such element\n"
    assert OPEN_MPI or without_launcher(f"numpyvit: no space\n{line}") == "numpyvit: no space\n"
    assert without_launcher("numpyvit: no space\n") == "numpyvit: no space\n"


# --- the tree

def serial(shards, lo, hi):
    """The sum's definition: the left part has the largest power of two of shards that leaves something to the right."""
    if hi - lo == 1:
        return shards[lo]
    half = 1
    while 2 * half < hi - lo:
        half *= 2
    return serial(shards, lo, lo + half) + serial(shards, lo + half, hi)


def test_tree_is_its_serial_definition_for_any_number_of_shards_and_ranks():
    rng = np.random.default_rng(0)
    for count in range(1, 65):
        shards = rng.standard_normal((count, 7), dtype=np.float32) * 10.0 ** rng.integers(-4, 5, (count, 1))
        shards = shards.astype(np.float32)
        expected, steps = serial(shards, 0, count), tree(count)
        for size in range(1, count + 1):
            sums, shares = shards.copy(), deal(count, size)
            for lo, hi in shares:                                            # each rank by itself …
                for i, j in inner(steps, lo, hi):
                    sums[i] += sums[j]
            sent = [i for share in shares for i in pieces(steps, *share)]
            joins = outer(steps, shares)
            assert {i for pair in joins for i in pair} <= set(sent)
            for i, j in joins:                                               # … and what they send to each other
                sums[i] += sums[j]
            assert sums[0].tobytes() == expected.tobytes(), (count, size)
    assert serial(shards, 0, 64).tobytes() != sum(shards[1:], shards[0]).tobytes(), "these data cannot fail"


def test_ranks_have_equal_shares_and_send_one_vector_where_shards_are_subtrees():
    for count in range(1, 65):
        for size in range(1, count + 1):
            shares = deal(count, size)
            lengths = [hi - lo for lo, hi in shares]
            assert sum(lengths) == count and max(lengths) - min(lengths) <= 1
    for count, size in ((4, 1), (4, 2), (4, 4), (64, 16), (8, 8), (4, 3)):
        assert all(len(pieces(tree(count), *share)) == 1 for share in deal(count, size))


def test_the_fold_is_the_sum_of_older_runs():
    shards = list(np.random.default_rng(0).standard_normal((5, 9), dtype=np.float32))
    expected = (((shards[0] + shards[1]) + shards[2]) + shards[3]) + shards[4]
    for i, j, _ in fold(5):
        shards[i] = shards[i] + shards[j]
    assert shards[0].tobytes() == expected.tobytes()


def test_ranges_cover_the_vector_and_cut_no_matrix():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size, count = int(rng.integers(1, 40 * CHUNK)), int(rng.integers(1, 65))
        edges = cuts(size, count)
        assert edges[0] == 0 and edges[-1] == size and edges == sorted(edges)
        assert all(edge % CHUNK == 0 or edge == size for edge in edges)
        assert max(np.diff(edges)) <= size / count + CHUNK
        places = np.unique(rng.integers(0, size + 1, 12))
        whole = [(int(lo), int(hi)) for lo, hi in zip(places[:-1], places[1:])][::2]
        edges = cuts(size, count, whole)
        assert edges[0] == 0 and edges[-1] == size and edges == sorted(edges)
        assert not any(lo < edge < hi for edge in edges for lo, hi in whole)


# --- processes

@needs_mpi
def test_exchange_is_the_tree_and_the_same_everywhere():
    """Uneven shards (3 ranks of 5 and 7), matrices owned whole, vectors below a chunk, ranks without a range."""
    done = mpiexec(3, """
        from types import SimpleNamespace
        import numpy as np
        from numpyvit.training import exchange, ranks, tree
        world, rng = ranks.world(), np.random.default_rng(1)
        pool = SimpleNamespace(each_range=lambda fn, size: fn(0, size))
        for count in (3, 4, 5, 7, 13):
            matrices = (3, 200_000), (200_001, 290_000)
            for size, whole in (1, ()), (1000, ()), (70_000, ()), (300_003, matrices), (262_144, ()):
                shards = rng.standard_normal((count, size), dtype=np.float32)
                total, steps = shards.copy(), tree.tree(count)
                for i, j, _ in steps:
                    total[i] += total[j]
                own = exchange.Ranges(world, size, whole)
                add = exchange.ShardSum(own, count, "tree", np.float32)
                gradients = shards[add.first:add.end].copy()
                add.add(gradients, pool)
                assert gradients[0, own.lo:own.reach].tobytes() == total[0, own.lo:own.reach].tobytes()
                assert own.hi <= own.reach
                assert own.chunks[1] * exchange.CHUNK <= own.reach or own.reach in (size, own.lo)
                vector = np.full(size, np.nan, np.float32)
                vector[own.lo:own.hi] = gradients[0, own.lo:own.hi]
                own.share(vector)
                assert vector.tobytes() == total[0].tobytes()
                collected, part = own.collect(vector[own.lo:own.hi].copy()), np.zeros(own.hi - own.lo, np.float32)
                assert (collected is None) if world.rank else (collected.tobytes() == vector.tobytes())
                own.scatter(collected, part)
                assert part.tobytes() == vector[own.lo:own.hi].tobytes()
        bits = np.zeros((3, 4))
        bits[world.rank] = -0.0, np.nan, 5e-324, np.inf
        assert world.together(bits).tobytes() == np.array([[-0.0, np.nan, 5e-324, np.inf]] * 3).tobytes()
        assert world.agree(False, False) == (False, False)
        assert world.agree(world.rank == 2, False) == (True, False)
        assert world.agree(False, world.rank == 0) == (False, True)
        assert world.agree(False, world.rank == 1) == (False, False)
        assert world.from_first(lambda: world.rank + 7) == 7
        assert len(world.differences(lambda: {"a": world.rank, "b": 0})) == (0 if world.rank else 2)
        print("good", flush=True)
    """)
    assert (done.returncode, done.stderr, "".join(done.stdout.split())) == (0, "", "good" * 3)              # lines may mix


LEAVE = """
    import sys, time
    from numpyvit.training import ranks
    world, how = ranks.world(), sys.argv[1]
    say = lambda text: print(text, file=sys.stderr, flush=True)
    if how == "one fails" and world.rank == 1:
        sys.exit(world.leave(2, "no space", say))
    if how == "all fail":
        sys.exit(world.leave(2, "no space", say))
    if how == "a script fails" and world.rank == 1:
        raise KeyError("bug")
    if how == "rank 0 fails":
        try:
            world.from_first(lambda: 1 / 0)
        except Exception as error:
            sys.exit(world.leave(2, str(error), say))
    if how == "rank 0 takes its time":
        time.sleep(0 if world.rank else 1.5 * ranks.LEAVE_SECONDS)
        sys.exit(world.leave(0, None, say))
    world.wait()
"""


@needs_mpi
@pytest.mark.parametrize("how, status, said", [
    ("one fails", 2, "rank 1: no space"), ("all fail", 2, "no space"), ("a script fails", 1, "KeyError: 'bug'"),
    ("rank 0 fails", 2, "division by zero"), ("rank 0 takes its time", 0, "")])
def test_a_rank_that_fails_ends_all_with_its_status_and_one_message(how, status, said):
    start = time.monotonic()
    done = mpiexec(2, LEAVE, how)
    assert time.monotonic() - start < 60                                     # and not for ever
    lines = done.stderr.strip().splitlines()
    assert done.returncode in ended_by(status) and (lines[-1] if lines else "") == said
    assert len(lines) <= 1 or how == "a script fails"


@pytest.mark.parametrize("rank, said", [(0, "no space"), (3, "rank 3: no space")])
def test_a_rank_that_stays_alone_asks_mpi_to_end_all_with_its_status(rank, said, monkeypatch):
    monkeypatch.setattr(ranks, "LEAVE_SECONDS", 0)
    monkeypatch.setattr(ranks.os, "dup2", lambda *descriptors: None)
    for status in (1, 2):
        lines = []
        never = SimpleNamespace(Iallreduce=lambda *arguments, op: SimpleNamespace(Test=lambda: False))
        alone = SimpleNamespace(left=False, rank=rank, size=4, leaving=never, comm=SimpleNamespace(Abort=sys.exit),
                                mpi=SimpleNamespace(IN_PLACE=None, MIN=None))
        with pytest.raises(SystemExit) as end:                               # MPI's Abort does not return, either
            ranks.Ranks.leave(alone, status, "no space", lines.append)
        assert (end.value.code, lines) == (status, [said])


@pytest.mark.parametrize("variables, block, said", [
    ({"MPI4PY_LIBMPI": "/nonexistent.so"}, False, "mpi4py finds no MPI library"),
    ({}, True, "which takes mpi4py: pip install mpi4py"),
    ({}, False, "sees 1: they belong to different MPIs"),
])
def test_launcher_and_mpi_that_do_not_fit_are_one_sentence(variables, block, said):
    if MPIEXEC is None and not block:
        pytest.skip("no mpi4py or no mpiexec: pip install mpi4py mpich")
    script = f"""
        import sys
        {'sys.modules["mpi4py"] = None' if block else ''}
        from numpyvit.training import ranks
        try:
            ranks.world()
        except ValueError as error:
            print(error)
    """
    environment = ENVIRONMENT | variables | {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}
    done = one_process(script, environment)
    assert done.stdout.count("\n") == 1 and said in done.stdout and done.stderr == ""


def test_one_process_does_not_load_mpi():
    script = """
        import sys
        from numpyvit.training import ranks
        world = ranks.world()
        assert (world.rank, world.size, world.agree(True, False)) == (0, 1, (True, False))
        print([name for name in sys.modules if name.startswith("mpi4py")])
    """
    sbatch_without_srun = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    for variables in ({}, {"PMI_SIZE": "1", "PMI_RANK": "0"}, sbatch_without_srun):
        done = one_process(script, ENVIRONMENT | variables)
        assert (done.stdout, done.stderr) == ("[]\n", "")


# --- whole runs

RUN = f"""
    import os, sys, time
    sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
    from numpyvit import threads
    from numpyvit.cli.main import main
    from numpyvit.data import shapes
    from numpyvit.runs import classifier
    from numpyvit.training import exchange, loop, optim, prepare, ranks, trainer
    for module in (threads, exchange, optim):
        module.CHUNK = 1024                                                  # so that small models have ranges, too
    dataset = shapes.load(16, 256, 64)
    prepare.load = classifier.load = lambda *args, **kwargs: dataset
    loop.CHECKPOINT_SECONDS = float(os.environ.get("TEST_CHECKPOINT_SECONDS", "60"))
"""
TRAIN = RUN + """
    import json, tiny
    for name, settings in json.loads(sys.argv[3]).items():
        if "init" in settings:
            settings["init"] = os.path.join(sys.argv[1], settings["init"])
        recipe = tiny.recipe(name.split()[0], **settings)
        result = loop.train(recipe, os.path.join(sys.argv[1], name), threads=int(sys.argv[2]))
    from numpyvit.training.ranks import world
    print(world().size, sorted(result)[0])
"""
SLOW = RUN + """
    pause, take_step = float(os.environ.get("TEST_PAUSE", "0")), trainer.Trainer.take_step

    def slow_step(self, step):
        if step == int(os.environ.get("TEST_RAISE_AT", "-1")) and ranks.world().rank == 1:
            raise KeyError("a bug")
        if step == int(os.environ.get("TEST_FULL_AT", "-1")) and ranks.world().rank == 0:
            import tiny
            from numpyvit.files import atomic
            atomic.os = tiny.FaultyOs(0)
        time.sleep(pause)
        path = f"{sys.argv[-1]}.pid-{ranks.world().rank}"
        with open(path + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.replace(path + ".new", path)                              # a rank can be killed at any instant
        return take_step(self, step)

    trainer.Trainer.take_step = slow_step
    sys.exit(main(sys.argv[1:]))
"""
SPOILED = RUN + """
    from numpyvit.training.lanes import Lanes
    run_shard = Lanes.run_shard

    def spoiled_shard(self, replica, lo, hi, batch_size, load):
        outcomes = run_shard(self, replica, lo, hi, batch_size, load)
        if hi == batch_size:                                                 # the last shard, which is the last rank's
            dict(replica.named_parameters())["head.bias"].grad[0] = float("inf")
        return outcomes

    Lanes.run_shard = spoiled_shard
    sys.exit(main(sys.argv[1:]))
"""
EACH_FAMILY = {"vit": {"steps": 5}, "swin": {"steps": 5, "optimizer": "sgd", "keep": "best"},
               "cvt": {"steps": 5, "optimizer": "muon", "shards": 7, "small_size": 8, "small_window": 11},
               "vit tuned": {"steps": 3, "init": "vit"}}


def outcome(path):
    """What a run left: its weights and its metrics, to the byte."""
    return [(path / name).read_bytes() for name in ("weights.safetensors", "metrics.jsonl")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The runs of EACH_FAMILY by one process with one thread."""
    path = tmp_path_factory.mktemp("alone")
    done = one_process(TRAIN, ENVIRONMENT, str(path), "1", json.dumps(EACH_FAMILY))
    assert (done.returncode, done.stderr) == (0, "")
    return path


@needs_mpi
@pytest.mark.parametrize("size, threads", [(1, 2), (2, 1), (2, 2), (3, 1), (4, 1)])
def test_the_same_bits_for_any_number_of_ranks_and_threads(alone, tmp_path, size, threads):
    """With dropout, drop path, batch norm, clipping, an average of the weights, three optimisers, uneven shards."""
    done = mpiexec(size, TRAIN, str(tmp_path), str(threads), json.dumps(EACH_FAMILY))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.splitlines()[-1] == f"{size} data"
    assert done.stdout.count("test accuracy") == len(EACH_FAMILY), "one rank prints"
    for family in EACH_FAMILY:
        assert outcome(tmp_path / family) == outcome(alone / family), family


def options(family, **settings):
    """The recipe of tiny.py as options of the command line."""
    arguments = []
    for name, value in dataclasses.asdict(recipe(family, **settings)).items():
        if name == "model_fields":
            for field, content in value.items():
                arguments += ["--set", f"{field}={json.dumps(content).strip('[]')}"]
        elif isinstance(value, bool):
            arguments += [] if value else ["--no-" + name.replace("_", "-")]
        elif value is not None and name != "momentum":                       # AdamW has none
            arguments += ["--" + name.replace("_", "-"), str(value)]
    return ["train", *arguments]


STOPS = ["INT to mpiexec", "KILL to a rank", "TERM to mpiexec", "KILL to mpiexec", "USR1 to mpiexec", "USR1 to a rank"]
CLEAN = [stop for stop in STOPS if "USR1" in stop or ("KILL" not in stop and not OPEN_MPI)]
LAYOUTS = [(2, 1), (3, 1), (1, 1), (4, 1), (2, 2)]
"""Ranks and threads, in turn. Open MPI kills the ranks a quarter of a second after Ctrl-C, which is then not clean."""


@needs_mpi
@pytest.mark.parametrize("family", ["cvt", "vit", "swin"] if THOROUGH else ["cvt"])
def test_stopped_and_killed_and_resumed_on_other_numbers_of_ranks(family, tmp_path, figures):
    """After each kind of stop the run goes on with another number of ranks; its bits are those of one never stopped."""
    settings, draw = dict(steps=60), random.Random(family)
    begin = options(family, **settings)
    whole = one_process(SLOW, ENVIRONMENT, *begin, "--threads", "1", "--out", str(tmp_path / "whole"))
    assert (whole.returncode, whole.stderr) == (0, "")
    path, environment = tmp_path / "run", ENVIRONMENT | {"TEST_PAUSE": "0.03", "TEST_CHECKPOINT_SECONDS": "0.1"}
    for number, stop in enumerate(STOPS):
        size, threads = LAYOUTS[number % len(LAYOUTS)]
        size = max(size, 2) if "rank" in stop else size
        start = ["--out", str(path)] if number == 0 else ["--resume", str(path)]
        arguments = (begin if number == 0 else ["train"]) + ["--threads", str(threads), *start]
        process = subprocess.Popen([MPIEXEC, "-n", str(size), sys.executable, "-c", textwrap.dedent(SLOW), *arguments],
                                   env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        steps = lines_of(path / "metrics.jsonl")
        wait_until(lambda: process.poll() is not None or lines_of(path / "metrics.jsonl") not in (0, steps))
        time.sleep(draw.uniform(0.1, 0.25))
        target = process.pid if "mpiexec" in stop else int((tmp_path / f"run.pid-{draw.randrange(size)}").read_text())
        os.kill(target, getattr(signal, f"SIG{stop.split()[0]}"))
        begun = time.monotonic()
        _, said = process.communicate(timeout=100)
        assert time.monotonic() - begun < 60, stop                           # seconds, on a machine that has time
        status = process.returncode
        assert status == 130 if stop in CLEAN else status != 0, (stop, size, status, said)
        assert not (path / "result.json").exists(), "stopped too late to be a test"
        if stop in CLEAN:
            said = without_launcher(said)
            assert said.count("numpyvit: stopped after step") == 1 and "Traceback" not in said, said
        wait_until(lambda: not alive(tmp_path))
        figures.add()
    done = mpiexec(3, SLOW, "train", "--resume", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert outcome(path) == outcome(tmp_path / "whole")


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def alive(folder):
    """Whether any of the ranks that left their ids there still runs; the kernel frees the lock with the process."""
    for path in folder.glob("run.pid-*"):
        try:
            if path.suffix != ".new":
                os.kill(int(path.read_text()), 0)
                return True
        except ProcessLookupError:
            path.unlink()
    return False


def wait_until(condition, seconds=200):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)


@needs_mpi
def test_a_bug_or_a_full_disk_on_one_rank_ends_the_run_and_the_run_resumes(tmp_path):
    arguments = [*options("vit", steps=8), "--out", str(tmp_path / "run")]
    environment = ENVIRONMENT | {"TEST_CHECKPOINT_SECONDS": "0"}
    done = mpiexec(2, SLOW, *arguments, environment=environment | {"TEST_RAISE_AT": "3"})
    assert done.returncode in ended_by(1) and done.stderr.strip().splitlines()[-1] == "KeyError: 'a bug'"
    resume = ["train", "--resume", str(tmp_path / "run")]
    done = mpiexec(4, SLOW, *resume, environment=environment | {"TEST_FULL_AT": "6"})
    assert done.returncode in ended_by(2)
    assert re.fullmatch(r"numpyvit: .*No space left on device.*--resume.*\n", done.stderr)
    assert mpiexec(3, SLOW, *resume).returncode == 0
    assert one_process(SLOW, ENVIRONMENT, *arguments[:-1], str(tmp_path / "whole")).returncode == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@needs_mpi
def test_rank_0_names_a_gradient_that_is_not_finite_on_another_rank(tmp_path):
    """The infinity is in the last rank's shard and range of the flat vector: rank 0, which speaks, learns it from that rank."""
    expected = one_process(SPOILED, ENVIRONMENT, *options("vit", steps=2), "--out", str(tmp_path / "one"))
    assert expected.returncode == 2 and "the first values that are not finite are in the gradient of head.bias" in expected.stderr
    done = mpiexec(2, SPOILED, *options("vit", steps=2), "--out", str(tmp_path / "two"))
    assert done.returncode in ended_by(2) and done.stderr == expected.stderr


@needs_mpi
def test_what_ranks_cannot_do_is_one_line(tmp_path, alone):
    old = tmp_path / "old"
    shutil.copytree(alone / "vit", old, ignore=shutil.ignore_patterns("result.json"))
    config = json.loads((old / "config.json").read_text())
    del config["lanes"]["sum"]                                               # as version 0.1 wrote it
    (old / "config.json").write_text(json.dumps(config))
    for arguments, said in [(options("vit", shards=2)[1:], "3 ranks need --shards 3 or more"),
                            (["--resume", str(old)], "without mpiexec"),
                            (["--no-such-option"], "see numpyvit train --help"),
                            (["--resume", str(tmp_path / "nothing")], "expected the folder of a run")]:
        done = mpiexec(3, SLOW, "train", *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


@needs_mpi
def test_evaluation_is_dealt_out_and_the_same(alone):
    expected = one_process(SLOW, ENVIRONMENT, "evaluate", str(alone / "cvt"))
    assert expected.returncode == 0 and "on 64 test images" in expected.stdout
    assert mpiexec(3, SLOW, "evaluate", str(alone / "cvt")).stdout == expected.stdout
