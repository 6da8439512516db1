"""Ranks: the tree of additions, the exchange between processes, and how a rank that fails ends the others."""
import os
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from numpyvit.training import ranks
from numpyvit.training.exchange import CHUNK, cuts
from numpyvit.training.tree import deal, fold, inner, outer, pieces, tree

MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
try:
    import mpi4py                                           # noqa: F401  (not mpi4py.MPI, which starts MPI)
except ImportError:
    MPIEXEC = None
needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="no mpi4py or no mpiexec: pip install mpi4py mpich")
LAUNCHED = [name for pair in ranks.LAUNCHERS for name in pair]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in LAUNCHED}


def mpiexec(count, script, *args, seconds=60):
    """Run a script on so many ranks → subprocess.CompletedProcess"""
    command = [MPIEXEC, "-n", str(count), sys.executable, "-c", textwrap.dedent(script), *args]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds)


def one_process(script, environment):
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


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
                assert own.chunks[world.rank + 1] * exchange.CHUNK <= own.reach or own.reach in (size, own.lo)
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
        assert len(world.differences({"a": world.rank, "b": 0})) == (0 if world.rank else 2)
        print("good", flush=True)
    """)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["good"] * 3)


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
    assert time.monotonic() - start < 20
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status and (lines[-1] if lines else "") == said
    assert len(lines) <= 1 or how == "a script fails"


@pytest.mark.parametrize("variables, block, said", [
    ({"MPI4PY_LIBMPI": "/nonexistent.so"}, False, "mpi4py finds no MPI library"),
    ({}, True, "which takes mpi4py: pip install 'numpyvit[mpi]'"),
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
