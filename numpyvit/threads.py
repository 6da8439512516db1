"""Threads that share the work of one process: how many, their BLAS and their memory, and who does which range.

NumPy's products and the compiled kernels release Python's lock, so threads are all the parallelism there is: each of
them multiplies with single-threaded BLAS.
"""
import ctypes
import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager

import numpy as np
import threadpoolctl

from .checks import check_number
from .errors import UserError

CHUNK = 65536                                                                # elements; ranges start at multiples of it


class Pool:
    """So many threads, one a usable core unless given. With one thread, everything runs in the caller's own thread, so
    that a debugger stops at breakpoints.

    A context manager: inside, BLAS is single-threaded and freed memory is kept; outside, both are as they were.
    Raises UserError for a number of threads below 1, and for a BLAS that two threads cannot use at once.
    """

    def __init__(self, threads=None):
        self.threads = usable_cores() if threads is None else threads
        check_number("threads", self.threads, whole=True, least=1)
        self.executor, self.settings = None, ExitStack()

    def __enter__(self):
        with ExitStack() as settings:
            settings.enter_context(single_threaded_blas())
            settings.enter_context(freed_memory_is_kept())
            if self.threads > 1:
                check_blas()
                self.executor = ThreadPoolExecutor(self.threads, thread_name_prefix="lane")
                settings.callback(self.executor.shutdown, cancel_futures=True)
            self.settings = settings.pop_all()
        return self

    def __exit__(self, *exc):
        self.executor = None
        self.settings.close()

    def map(self, fn, items):
        """[fn(item) for item in items]; the threads take the items in order. After an exception, such as that of
        Ctrl-C, every thread has stopped when this function ends."""
        if not self.executor:
            return [fn(item) for item in items]
        futures = [self.executor.submit(fn, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def each_range(self, fn, size):
        """fn(lo, hi) over contiguous ranges that cover 0 … size, one a thread, each starting at a multiple of CHUNK."""
        chunks = -(-size // CHUNK)
        edges = np.linspace(0, chunks, min(self.threads, chunks) + 1).astype(int) * CHUNK
        self.map(lambda pair: fn(*pair), [(lo, min(hi, size)) for lo, hi in zip(edges[:-1], edges[1:])])


def evaluation_logits(model, count, load_images, block, pool, world=None):
    """Evaluation-mode logits of count images, a block of images at a time: (count, K).

    model: see ForInference in models/fold.py   load_images(lo, hi) → images (hi − lo, C, H, W); called from the pool's
    threads   world: ranks that share the work
    """
    starts = range(0, count, block)
    if world and world.size > 1:
        starts = starts[world.rank * len(starts) // world.size:(world.rank + 1) * len(starts) // world.size]
    logits = np.zeros((count, model.config.num_classes), model.dtype)

    def run(lo):
        logits[lo:lo + block] = model(load_images(lo, min(lo + block, count)))

    pool.map(run, starts)
    return world.together(logits) if world else logits


def usable_cores():
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def single_threaded_blas():
    """Context manager: inside, every product of NumPy uses one thread."""
    return threadpoolctl.threadpool_limits(1, user_api="blas")


@contextmanager
def freed_memory_is_kept():
    """Inside, glibc keeps freed arrays for reuse: a fresh 4 MB array costs more in page faults than in arithmetic.

    Afterwards freed memory goes back to the system as usual. Does nothing where the C library is another one.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_ARENA_MAX, 1)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, 2**17)                                # glibc's defaults
        libc.mallopt(M_MMAP_MAX, 2**16)
        libc.malloc_trim(0)


def use_large_pages():
    """Move the memory that this process has by now to pages of 2 MB, where Linux gives these to programs that ask.

    A core keeps the addresses of some thousand pages at hand: a few megabytes, with the usual pages of 4 KB. NumPy asks
    for large pages for an array of 4 MB or more; most arrays of a micro-batch are smaller. No number changes, and a
    training step takes 1 to 3 % less time. Does nothing on other systems, and where Linux has another setting.
    """
    MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as setting, open("/proc/self/maps") as maps:
            regions = anonymous_regions(maps.read()) if "[madvise]" in setting.read() else []
    except OSError:
        return
    if regions:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        for start, end in regions:
            madvise(start, end - start, MADV_HUGEPAGE)                       # for pages to come …
            madvise(start, end - start, MADV_COLLAPSE)                       # … and for what is there (Linux 6.1)


def anonymous_regions(maps):
    """[(start, end), …] of the memory of 2 MB or more that is no file's.   maps: the text of /proc/self/maps"""
    regions = []
    for line in maps.splitlines():
        span, rights, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in span.split("-"))
        if rights == "rw-p" and path in ([], ["[heap]"]) and end - start >= 2**21:
            regions.append((start, end))
    return regions


@functools.cache
def check_blas():
    """Raise UserError if concurrent products with a transposed operand differ from serial ones. Milliseconds, once.

    OpenBLAS 0.3.28 and 0.3.29 returned another thread's data for A · Bᵀ and Aᵀ · B, the shapes of every backward pass.
    """
    rng = np.random.default_rng(0)
    work = [(rng.standard_normal((96, 64), dtype=np.float32), rng.standard_normal((80, 64), dtype=np.float32))
            for _ in range(4)]

    def products(pair):
        a, b = pair
        return [(a @ b.T, b.T.copy() @ b, a.T @ a, a[::2] @ b.T) for _ in range(8)]

    serial = [products(pair) for pair in work]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(products, work))
    same = all(np.array_equal(x, y) for s, c in zip(serial, concurrent) for xs, ys in zip(s, c) for x, y in zip(xs, ys))
    if not same:
        raise UserError("this NumPy's BLAS gives wrong products when two threads multiply at once; install "
                        "numpy>=2.3.5, or run with --threads 1")
