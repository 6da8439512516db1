"""Ranks: the processes that mpiexec or srun started together, on one machine or on many, to train one model.

Nothing here needs mpi4py unless a launcher started more than one process. world() is then the group of all of them, and
else one process by itself, with the same methods, which do nothing or almost nothing. MPI never adds floating-point
numbers: exchange.py adds them in a fixed order, and together() moves bits without arithmetic.
"""
import atexit
import functools
import os
import sys
import time
import warnings

import numpy as np

from ..errors import UserError
from ..threads import usable_cores

LAUNCHERS = (("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),     # variables: ranks, rank
             ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"), ("PALS_SIZE", "PALS_RANKID"),
             ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
LEAVE_SECONDS = 2.0                                                 # a rank that failed waits so long for the others
POLL_SECONDS = 0.002


def launched():
    """(rank, number of ranks) as the launcher's environment variables say; (0, 1) without a launcher."""
    for size, rank in LAUNCHERS:
        if os.environ.get(size, "").isdigit() and os.environ.get(rank, "").isdigit():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


@functools.cache
def world():
    """All ranks of this run, joined at the first call. UserError if launcher and mpi4py do not fit together."""
    _, size = launched()
    return ALONE if size == 1 else Ranks(load_mpi(size))


def load_mpi(size):
    """mpi4py's MPI module, with a communicator of so many ranks. UserError, with what to do, in every other case."""
    os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")           # a rank that fails says so itself
    try:
        import mpi4py
        mpi4py.rc.thread_level = "serialized"                                # only the main thread communicates
        with warnings.catch_warnings(action="ignore"):              # about a foreign launcher; more is said below
            from mpi4py import MPI
    except ModuleNotFoundError:
        raise UserError(f"{size} processes were started together, which takes mpi4py: pip install mpi4py, and "
                        "an MPI unless the machine has one: pip install mpich") from None
    except (ImportError, RuntimeError) as error:                             # mpi4py is there, libmpi is not
        raise UserError(f"mpi4py finds no MPI library ({str(error).splitlines()[0]}): load the machine's MPI "
                        "(module load mpi) or pip install mpich") from None
    if MPI.COMM_WORLD.size != size:
        library = MPI.Get_library_version().splitlines()[0].rstrip("\0")
        raise UserError(f"the launcher started {size} processes, but mpi4py's MPI ({library}) sees 1: they belong "
                        "to different MPIs; use the mpiexec of mpi4py's MPI, or build mpi4py with the launcher's: "
                        "pip install --force-reinstall --no-binary mpi4py mpi4py")
    return MPI


def leave(status, message, say):
    """The last call of a command: say the message, on one rank, end all ranks if this one failed, and return status."""
    if world.cache_info().currsize:
        return world().leave(status, message, say)
    if message and launched()[0] == 0:                                       # the ranks have not met: all failed alike
        say(message)
    return status


class OneProcess:
    """The only process of a run: nobody to wait for, nobody to tell."""
    rank, size, node_size = 0, 1, 1

    def from_first(self, fn):
        return fn()

    def begin(self, fn):
        return fn()

    def first_on_node(self, fn):
        pass

    def wait(self):
        pass

    def together(self, array):
        return array

    def join(self, items):
        return items

    def agree(self, asked, due):
        return asked, due

    def bcast(self, array):
        pass

    def differences(self, facts):
        return []

    def default_threads(self):
        return usable_cores()

    def describe(self):
        return ""

    def leave(self, status, message, say):
        if message:
            say(message)
        return status


ALONE = OneProcess()


class Ranks:
    """Several processes. All ranks call the methods in the same order; leave() may be called at any time."""

    def __init__(self, mpi):
        self.mpi, self.comm = mpi, mpi.COMM_WORLD.Dup()
        self.leaving = self.comm.Dup()                                       # so that leave() meets no other collective
        self.node = self.comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.rank, self.size, self.node_size, self.left = self.comm.rank, self.comm.size, self.node.size, False
        atexit.register(self.leave_at_exit)                         # before mpi4py's MPI_Finalize, which waits for all

    def wait(self):
        """Return when every rank has called wait(). Waits asleep: another rank may need the core for minutes."""
        rest(self.comm.Ibarrier())

    def from_first(self, fn):
        """What fn() returns on rank 0, which alone calls fn, on all ranks. If fn raises, the others raise UserError."""
        return self.begin(lambda: (None, fn()))[1]

    def begin(self, fn):
        """Rank 0 calls fn() → (own, told) and gets both; the others get (None, told), or UserError if fn raises."""
        own = told = error = None
        if self.rank == 0:
            try:
                own, told = fn()
            except BaseException as caught:                         # KeyboardInterrupt, too: the others are waiting
                error = caught
        self.wait()
        told, failed = self.comm.bcast((told, error is not None))
        if error:
            raise error
        if failed:
            raise UserError("rank 0 failed")
        return own, told

    def first_on_node(self, fn):
        """One rank a node calls fn() while the others wait: what fn compiles, they then find in Numba's cache."""
        if self.node.rank == 0:
            fn()
        self.wait()

    def together(self, array):
        """Every rank has filled some places of the array and left zeros in the others; then all ranks have all places.

        array: C-contiguous, of 4- or 8-byte elements, changed in place and returned. OR combines the bits: no rounding.
        """
        self.comm.Allreduce(self.mpi.IN_PLACE, array.reshape(-1).view(np.uint32), op=self.mpi.BOR)
        return array

    def join(self, items):
        """The lists of all ranks as one list, in the order of the ranks."""
        return [item for part in self.comm.allgather(items) for item in part]

    def agree(self, asked, due):
        """Once a step, for all ranks: (has any rank been asked to stop, is a checkpoint due on rank 0)."""
        flags = np.array([asked, due and self.rank == 0], np.uint32)
        self.comm.Allreduce(self.mpi.IN_PLACE, flags, op=self.mpi.MAX)
        return bool(flags[0]), bool(flags[1])

    def bcast(self, array):
        """Rank 0's array, everywhere, in place."""
        self.comm.Bcast(array.reshape(-1).view(np.uint8))

    def differences(self, facts):
        """Sentences for rank 0 to print: which of the facts() → {name: value} are not the same on all ranks."""
        everyone = self.comm.gather(facts())
        if not everyone:
            return []
        first = everyone[0]
        return [f"rank {rank} has {name} {theirs[name]}, rank 0 has {first[name]}: the result may have other bits than "
                "on ranks that are all alike" for name in first for rank, theirs in enumerate(everyone)
                if theirs[name] != first[name]][:4]

    def default_threads(self):
        """Cores of this node by ranks of this node, at least 1. Ranks bound to cores of their own count together."""
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
        cores = set().union(*self.node.allgather(set(mine)))
        return max(1, min(len(mine), len(cores) // self.node.size))

    def describe(self):
        return f"{self.size} ranks of "

    def leave(self, status, message, say):
        """The last call of a rank. Waits for the others and returns status; the lowest rank that has a message says it.

        A rank that failed (status not 0) and is still alone after LEAVE_SECONDS says its message and ends all ranks.
        mpiexec then returns that status; MPICH's returns 9 now and then, the signal with which it ends the other ranks.
        """
        if self.left:
            return status
        self.left = True
        lowest = np.full(1, self.rank if message else self.size, np.int64)
        request = self.leaving.Iallreduce(self.mpi.IN_PLACE, lowest, op=self.mpi.MIN)
        if not rest(request, LEAVE_SECONDS if status else None):
            if message:
                say(f"rank {self.rank}: {message}" if self.rank else message)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)            # MPI's own lines about it would hide the message
            self.comm.Abort(status)
        if message and lowest[0] == self.rank:
            say(f"rank {self.rank}: {message}" if self.rank else message)
        return status

    def leave_at_exit(self):
        """For scripts under mpiexec: an exception that ends the script on one rank ends the other ranks, too."""
        self.leave(1 if hasattr(sys, "last_type") else 0, None, None)


def rest(request, seconds=None):
    """Sleep until the request is complete. → False if that takes longer than so many seconds"""
    start = time.monotonic()
    while not request.Test():
        if seconds is not None and time.monotonic() - start > seconds:
            return False
        time.sleep(POLL_SECONDS)
    return True
