"""Seeded defects: the suite has to notice every one.  make mutants, or  python tests/mutants.py [PATTERN] [--every N]

Mutants are made by rule from the source of ops/, kernels/, layers.py and models/ (mutation.py): a sign, a dropped term or
factor, a wrong axis, a mean for a sum, a constant, two gradients swapped, an accumulation that overwrites, a condition
turned round, a statement left out; and by hand (mutants_by_hand.py), where a defect is larger than one expression. Each is
imported in place of its file in a process of its own, nothing on disk changes, and the part of the suite that is named for
the file runs until its first failure: a test that fails kills the mutant. A mutant that computes the same is listed in
EQUIVALENT, with the reason. Every eighth of those made by rule and all made by hand take minutes; --every 1 runs all.
Exit code 0 if no mutant survives.
"""
import argparse
import ast
import fnmatch
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutants_by_hand import EQUIVALENT, SPECIAL
from mutation import ROOT, Mutant, mutants_of

for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

TIMEOUT = 300                                                                # seconds; an endless loop is noticed too
SKIP = {"__init__", "random_bits", "erf", "positions", "checks", "rows"}     # no backward pass: other tests cover them
FAMILIES = ("vit", "swin", "cvt")

# Files whose tests do not follow from their names. The first failure ends a run, so the quickest and most telling is first.
TESTS = {
    "optim": ["tests/test_optim.py"],
    "augment": ["tests/test_augment.py"],
    "muon": ["tests/test_muon.py"],
    "fast_math": [f"tests/test_kernels.py::{test}" for test in ("test_exp", "test_activations", "test_float64[bias_activation]")],
    "max_pool": ["tests/test_ops.py::test_max_pool_of_equal_cells", "tests/test_ops.py::test_against_autograd[max_pool]",
                 "tests/test_ops.py::test_float32_stays_float32[max_pool]",
                 "tests/test_kernels.py::test_gradients_of_another_shape_are_refused"],
    "winograd": [f"tests/test_kernels.py::test_winograd_{test}" for test in ("of_every_geometry", "in_float32", "spreads_no_nan", "keeps_filters",
                                                                    "tile_size")],
    "layers": ["tests/test_layers.py", "tests/test_vit.py", "tests/test_cvt.py"],
    "heads": ["tests/test_vit.py"],
    "positions": ["tests/test_vit.py"],
    "block": ["tests/test_layers.py", "tests/test_vit.py", "tests/test_swin.py", "tests/test_cvt.py", "tests/test_metamorphic.py"],
    "grids": ["tests/test_analysis.py"],
    "fold": ["tests/test_cvt.py", "tests/test_stem.py"],
    "embed": ["tests/test_vit.py", "tests/test_swin.py", "tests/test_cvt.py"],
    "stem": ["tests/test_layers.py", "tests/test_stem.py"],
    "residual": ["tests/test_layers.py", "tests/test_vit.py", "tests/test_metamorphic.py"],
}
TESTS |= {f"tiles_{m}x{m}": TESTS["winograd"] for m in (2, 3, 4)}
WITHOUT_DX = ["tests/test_metamorphic.py::test_without_dx_the_other_gradients_are_the_same"]
MORE = {                                                                     # after the op's own tests
    "windows": ["tests/test_ops.py::test_window_tables", "tests/test_swin.py"],
    "window_attention": ["tests/test_swin.py"], "relative_position": ["tests/test_swin.py"],
    "batch_norm": ["tests/test_cvt.py"],
    "rotary": ["tests/test_ops.py::test_rotary_angles_by_hand", "tests/test_ops.py::test_rotary_scores_depend_on_offsets_alone"],
    "conv": WITHOUT_DX, "patch_embed": WITHOUT_DX,
}
REFUSALS = {folder: [f"tests/test_{folder}.py::test_arrays_of_another_shape_are_refused"] for folder in ("ops", "kernels")}
REFUSALS["kernels"] += ["tests/test_kernels.py::test_gradients_of_another_shape_are_refused"]
KERNEL_TESTS = {                                                             # after the kernel's own tests
    "batch_norm": ["tests/test_kernels.py::test_batch_norm_of_constant_channels"],
    "conv": [f"tests/test_kernels.py::test_winograd_{test}" for test in ("where_it_is_faster", "tiles_fit_the_map_of_outputs")] + WITHOUT_DX,
}


def ops_of(name):
    """The ops that ops/NAME.py defines."""
    tree = ast.parse((ROOT / "numpyvit/ops" / f"{name}.py").read_text())
    return [node.name.removesuffix("_forward") for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_forward")]


def tests_for(path):
    """pytest's arguments for a mutant of the file."""
    folder, name = Path(path).parent.name, Path(path).stem
    if name in TESTS:
        return [test for test in TESTS[name] if (ROOT / test.partition("::")[0]).exists()]
    if folder == "ops":
        return [*(f"tests/test_ops.py::test_against_autograd[{op}]" for op in ops_of(name)),
                *(f"tests/test_ops.py::test_float32_stays_float32[{op}]" for op in ops_of(name)), *MORE.get(name, []), *REFUSALS["ops"]]
    if folder == "kernels":
        tests = ["test_float64[", "test_float32[", "test_nan_and_infinity_as_in_the_definition[float32-"]
        tests[1:1] = ["test_every_geometry["] if "conv" in name else []
        return [*(f"tests/test_kernels.py::{test}{op}]" for op in ops_of(name) if op in bound_kernels() for test in tests),
                *KERNEL_TESTS.get(name, []), *REFUSALS["kernels"]]
    families = [family for family in FAMILIES if name.startswith(family)] or FAMILIES
    return [*(f"tests/test_{family}.py" for family in families), "tests/test_stem.py", "tests/test_metamorphic.py"]


@functools.cache
def bound_kernels():
    """The ops that functional.py binds to a kernel, asked of another process: this one must not import numpyvit."""
    code = "import test_kernels; print(*(case.name for case in test_kernels.KERNELS))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True,
                          capture_output=True, text=True).stdout.split()


def special_mutants():
    """Those made by hand. SystemExit if a file has moved away from under its row."""
    for place, before, after, name in SPECIAL:
        where = ROOT / "numpyvit" / place
        files = [where] if where.is_file() else sorted(where.glob("*.py"))
        there = [file for file in files if before in file.read_text()]
        if not there:
            raise SystemExit(f"SPECIAL: {place} no longer contains {before!r}")
        source = there[0].read_text()
        line = source[:source.index(before)].count("\n") + 1
        yield Mutant(str(there[0].relative_to(ROOT)), "by hand", line, name, before, after,
                     source.replace(before, after, 1).encode())


def sources():
    """The files of which mutants are made."""
    folders = [p for folder in ("ops", "kernels", "models") for p in sorted((ROOT / "numpyvit" / folder).glob("*.py"))]
    return [ROOT / "numpyvit/layers.py", *(path for path in folders if path.stem not in SKIP)]


def all_mutants(pattern="*", every=1):
    """Each N-th of those made by rule, and those made by hand, whose description contains the pattern."""
    mutants = [m for path in sources() for m in mutants_of(str(path.relative_to(ROOT)))][::every]
    mutants += list(special_mutants())
    return [m for m in mutants if fnmatch.fnmatch(str(m), f"*{pattern}*")]


def reason(mutant):
    """Why the mutant computes the same, or None."""
    return next((why for beginning, why in EQUIVALENT.items() if mutant.key.startswith(beginning)), None)


class Substitute(importlib.abc.MetaPathFinder):
    """Imports the mutant in place of its file."""

    def __init__(self, mutant):
        self.name = ".".join(Path(mutant.path).with_suffix("").parts)
        self.path, self.source = str(ROOT / mutant.path), mutant.source
        if "/kernels/" in mutant.path:                                       # numba's cache knows a function by file and name;
            self.source = self.source.replace(b"cache=True", b"cache=False")  # fast_math, which all have compiled in, has the option
            self.source = self.source.replace(b"= LOOP | {", b"= LOOP | {'cache': False, ")
            self.source = self.source.replace(b"@njit(**LOOP", b"@njit(**LOOP | {'cache': False}")

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.machinery.ModuleSpec(name, self, origin=self.path)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__file__ = self.path
        exec(compile(self.source, self.path, "exec"), module.__dict__)


class FirstFailure:
    """pytest plugin: which test failed, and with what."""
    found = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.found is None:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.found = report.nodeid, (crash.message if crash else str(report.longrepr)).partition("\n")[0][:150]

    def pytest_collectreport(self, report):
        if report.failed and self.found is None:
            self.found = report.nodeid or "collection", str(report.longrepr).strip().splitlines()[-1][:150]


def child(mutant, tests, reference, result):
    """In a process of its own: run the tests with the mutant in place, and write what killed it."""
    if reference:
        os.environ["NUMPYVIT_REFERENCE"] = "1"                               # the definitions are what runs, in models too
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1), os.dup2(sink, 2)
    if mutant is not None:
        sys.meta_path.insert(0, Substitute(mutant))
    import pytest
    first = FirstFailure()
    code = pytest.main([*tests, "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:unraisableexception",
                        "--hypothesis-profile=mutants", f"--rootdir={ROOT}"], plugins=[first])
    result.write_text(json.dumps([int(code), *(first.found or ["", ""])]))


def campaign(runs, jobs, report):
    """Run each (mutant or None, path) in a forked process, jobs at a time; report(mutant, (exit code, test, message, seconds))."""
    import numba, torch, hypothesis, pytest, rich, numpy   # noqa: F401, E401  once, for all children
    torch.set_num_threads(1)
    waiting, running = list(enumerate(runs)), {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                i, (mutant, path) = waiting.pop(0)
                result = Path(folder) / str(i)
                pid = os.fork()
                if pid == 0:
                    try:
                        child(mutant, tests_for(path), "/ops/" in path, result)
                    finally:
                        os._exit(0)
                running[pid] = mutant, result, time.monotonic()
            pid, _ = os.waitpid(-1, os.WNOHANG)
            now = time.monotonic()
            if pid in running:
                mutant, result, start = running.pop(pid)
                outcome = json.loads(result.read_text()) if result.exists() else [3, "the process", "died"]
                report(mutant, (*outcome, now - start))
            else:
                for pid, (mutant, result, start) in list(running.items()):
                    if now - start > TIMEOUT:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                        del running[pid]
                        report(mutant, (1, "the clock", f"no end after {TIMEOUT} s", now - start))
                time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="*", help="only mutants whose description contains this (fnmatch)")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--every", type=int, default=8, metavar="N", help="each N-th of those made by rule; 1 runs them all (8)")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    mutants = all_mutants(args.pattern, args.every)
    bound_kernels()
    known = [m for m in mutants if reason(m)]
    mutants = [m for m in mutants if not reason(m)]
    if args.list:
        print(*map(str, mutants), sep="\n")
        print(f"{len(mutants)} mutants, and {len(known)} that compute the same")
        return 0
    broken, killed, survivors, start = [], {}, [], time.monotonic()

    def baseline(tests, outcome):
        if outcome[0] != 0:
            broken.append(f"without a mutant: {outcome[1]} fails: {outcome[2]}")

    def report(mutant, outcome):
        code, test, message, seconds = outcome
        if code == 0:
            survivors.append(mutant)
            print(f"SURVIVES  {mutant}   ({seconds:.0f} s)", flush=True)
        else:
            killed.setdefault(test, []).append(mutant)
            print(f"killed    {mutant}   by {test}: {message}", flush=True)

    campaign([(None, path) for path in dict.fromkeys(m.path for m in mutants)], args.jobs, baseline)
    if broken:
        print(*broken, sep="\n")
        return 2
    campaign([(m, m.path) for m in mutants], args.jobs, report)
    print("\nkilled by")
    for test, dead in sorted(killed.items(), key=lambda item: -len(item[1])):
        print(f"{len(dead):5}  {test}")
    print(f"\n{len(mutants)} mutants: {len(mutants) - len(survivors)} killed, {len(survivors)} survive; {len(known)} more compute the "
          f"same. {time.monotonic() - start:.0f} s")
    print(*(f"SURVIVES  {m}\n          {m.key}" for m in survivors), sep="\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
