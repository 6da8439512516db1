"""Seeded defects: the suite has to notice every one.  make mutants, or  python tests/mutants.py [PATTERN] [--every N] [--jobs N]

Mutants are made by rule from the source of ops/, kernels/, layers.py and models/: a sign, a dropped term or factor, a wrong
axis, a mean for a sum, a constant, two gradients swapped, an accumulation that overwrites, a condition turned round, a
statement left out; and by hand in SPECIAL, where a defect is larger than one expression. Each is imported in place of its
file in a process of its own, nothing on disk changes, and the part of the suite that is named for the file runs until its
first failure: a test that fails kills the mutant. A mutant that computes the same is in EQUIVALENT, with the reason.
Every eighth of those made by rule and all made by hand take minutes; --every 1 runs all 2,000. Exit code 0 if none survives.
"""
import argparse
import ast
import fnmatch
import functools
import importlib.abc
import importlib.machinery
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 300                                                                # seconds; an endless loop is noticed too
SKIP = {"__init__", "random_bits", "erf", "positions", "checks"}             # no backward pass: test_ops has their tests
METHODS = re.compile("forward|backward|embed|classify|project|merge_heads|split_class")

# What runs for a file: the first failure ends it, so the quickest and the most telling first.
OPS = {"attention": "attention self_attention", "bias_activation": "bias_activation", "conv": "conv2d", "dropout":
       "dropout drop_path", "gelu": "gelu gelu_tanh quick_gelu", "windows": "gather_tokens shifted_windows merge_patches",
       "relative_position": "relative_position_bias"}


def tests_for(path):
    """pytest's arguments for a mutant of the file."""
    folder, name = Path(path).parent.name, Path(path).stem
    ops = OPS.get(name, name).split()
    if name in ("optim", "muon"):
        return [f"tests/test_{name}.py"]
    if folder == "ops":
        more = {"windows": ["tests/test_ops.py::test_window_tables", "tests/test_swin.py"],
                "window_attention": ["tests/test_swin.py"], "relative_position": ["tests/test_swin.py"],
                "batch_norm": ["tests/test_cvt.py"]}.get(name, [])
        return [*(f"tests/test_ops.py::test_against_autograd[{op}]" for op in ops),
                *(f"tests/test_ops.py::test_float32_stays_float32[{op}]" for op in ops), *more]
    if name == "fast_math":
        return [f"tests/test_kernels.py::{test}" for test in ("test_exp", "test_activations", "test_float64[bias_activation]")]
    if folder == "kernels":
        tests = ["test_float64[", "test_float32[", "test_nan_and_infinity_as_in_the_definition[float32-"]
        tests[1:1] = ["test_every_geometry["] if "conv" in name else []
        return [f"tests/test_kernels.py::{test}{op}]" for op in ops if op in bound_kernels() for test in tests]
    return {"embed": ["tests/test_stem.py", "tests/test_layers.py"], "vit": ["tests/test_vit.py", "tests/test_metamorphic.py"], "swin": ["tests/test_swin.py", "tests/test_metamorphic.py"],
            "cvt": ["tests/test_cvt.py", "tests/test_metamorphic.py"],
            "layers": ["tests/test_layers.py", "tests/test_vit.py", "tests/test_cvt.py"]}[name]


@functools.cache
def bound_kernels():
    """The ops that functional.py binds to a kernel, asked of another process: this one must not import numpyvit."""
    code = "import test_kernels; print(*(case.name for case in test_kernels.KERNELS))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True,
                          text=True).stdout.split()


@dataclass
class Mutant:
    path: str                    # relative to the repository
    function: str
    line: int
    rule: str
    before: str
    after: str
    source: bytes

    def __str__(self):
        return f"{self.path}:{self.line} {self.function}: {self.rule}: {short(self.before)}  →  {short(self.after)}"

    @property
    def key(self):
        """What EQUIVALENT names: without the line, which moves."""
        return f"{Path(self.path).parent.name}/{Path(self.path).stem}.{self.function}: {self.before} → {self.after}"


def short(text):
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


# --- by rule


def rewrites(node, text):
    """(rule, what stands there in its place) of an AST node; text(child) is the source of a child."""
    if isinstance(node, ast.BinOp):
        left, right = f"({text(node.left)})", f"({text(node.right)})"
        if isinstance(node.op, (ast.Add, ast.Sub)):
            other = "-" if isinstance(node.op, ast.Add) else "+"
            yield "sign", f"({left} {other} {right})"
            yield "dropped term", right if isinstance(node.op, ast.Add) else f"(-{right})"
            yield "dropped term", left
        elif isinstance(node.op, (ast.Mult, ast.Div)):
            yield "dropped factor", left
            if isinstance(node.op, ast.Mult):
                yield "dropped factor", right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign", f"({text(node.operand)})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean"):
        other = {"sum": "mean", "mean": "sum"}[node.func.attr]
        arguments = text(node)[len(text(node.func)):]
        yield f"{other} for {node.func.attr}", f"({text(node.func.value)}).{other}{arguments}"
        for keyword in node.keywords:
            if keyword.arg == "axis":
                yield "wrong axis", f"{text(node.func)}{arguments.replace(text(keyword.value), wrong_axis(keyword.value), 1)}"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield "condition", f"({text(node.left)} {COMPARISONS[type(node.ops[0])]} {text(node.comparators[0])})"
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "condition", None                                              # of the test, see below
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
        parts = [text(e) for e in node.value.elts]
        for i in range(len(parts) - 1):
            yield "swapped results", "return " + ", ".join([*parts[:i], parts[i + 1], parts[i], *parts[i + 2:]])
    elif isinstance(node, ast.AugAssign):
        target, value = text(node.target), text(node.value)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            store = target if isinstance(node.target, ast.Subscript) else target + "[...]" if "grad" in target else target
            yield "overwrites", f"{store} = {value}"
            yield "sign", f"{target} {'-' if isinstance(node.op, ast.Add) else '+'}= {value}"
        yield "left out", "pass"
    elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
        yield "left out", "pass"


COMPARISONS = {ast.Gt: "<", ast.GtE: "<", ast.Lt: ">", ast.LtE: ">", ast.Eq: "!=", ast.NotEq: "=="}


def wrong_axis(axis):
    if isinstance(axis, ast.Tuple):
        return ast.unparse(ast.Tuple(axis.elts[1:])) if len(axis.elts) > 1 else "()"
    return "-1" if ast.unparse(axis) == "0" else "0"


def constants(node, text):
    """A number that is computed with, doubled. (Indices, axes and shapes are not: they fail at once.)"""
    if isinstance(node, ast.BinOp):
        for side in (node.left, node.right):
            if isinstance(side, ast.Constant) and isinstance(side.value, (int, float)) and not isinstance(side.value, bool):
                yield side, "constant", repr(side.value * 2 if side.value else 1)


def mutants_of(path):
    """Every mutant of a file, by rule."""
    source = (ROOT / path).read_bytes()
    tree = ast.parse(source)
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def span(node):
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    def text(node):
        start, end = span(node)
        return source[start:end].decode()

    in_package = Path(path).parent.name in ("ops", "kernels")
    for function in functions_of(tree):
        if not in_package and not METHODS.search(function.name):
            continue
        for node in computing(function):
            found = [(node.test if after is None else node, rule, f"(not ({text(node.test)}))" if after is None else after)
                     for rule, after in rewrites(node, text)]
            for place, rule, after in [*found, *constants(node, text)]:
                start, end = span(place)
                mutated = source[:start] + after.encode() + source[end:]
                if mutated != source:
                    yield Mutant(path, function.name, place.lineno, rule, text(place), after, mutated)


def functions_of(tree):
    """Functions and methods, outermost only."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (n for n in node.body if isinstance(n, ast.FunctionDef))


def computing(function):
    """The nodes of a function's body that compute: no docstring, no raise and what leads to it, no annotation, no subscript."""
    stack = list(reversed(function.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Raise) or (isinstance(node, ast.If) and any(isinstance(n, ast.Raise) for n in node.body)):
            continue
        yield node
        children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.JoinedStr)]
        if isinstance(node, ast.Subscript):
            children = [node.value]
        stack.extend(reversed(children))


# --- by hand: (file, in what, what stands there, what takes its place, the defect's name)

SPECIAL = [
    ("ops/attention.py", "scale = 1 / math.sqrt(hd) if", "scale = 1.0 if", "missing 1/√d"),
    ("ops/attention.py", "dq = (dscores @ k) * scale", "dq = dscores @ k", "missing 1/√d"),
    ("ops/attention.py", "softmax_backward(dattn, (attn,))", "softmax_backward(dattn, (dropped,))", "stale cache"),
    ("ops/attention.py", "dropped.swapaxes(-1, -2) @ dy", "attn.swapaxes(-1, -2) @ dy", "stale cache"),
    ("ops/attention.py", "np.stack([dq, dk, dv], axis=2)", "np.stack([dq, dv, dk], axis=2)", "swapped q, k, v"),
    ("ops/attention.py", "(-1, len(mask), *scores.shape[1:]) + mask[:, None])",
     "(len(mask), -1, *scores.shape[1:]) + mask[:, None, None])", "mask by image, not by window"),
    ("ops/dropout.py", "factor = (keep / (1 - rate)).astype(x.dtype).reshape(x.shape)",
     "factor = keep.astype(x.dtype).reshape(x.shape)", "missing 1/keep"),
    ("ops/dropout.py", "factor = (keep / (1 - rate)).astype(x.dtype).reshape(-1,", "factor = keep.astype(x.dtype).reshape(-1,",
     "missing 1/keep"),
    ("ops/dropout.py", "hash_combine(seeds[:, None], elements)", "hash_combine(seeds[:1, None], elements)", "one mask for all"),
    ("ops/relative_position.py", "    dtable = [np.bincount(pairs, weights=head.ravel(), minlength=offsets) for head in dbias]\n",
     "    dtable = np.zeros((len(dbias), offsets))\n    dtable[:, pairs] = dbias.reshape(len(dbias), -1)\n", "no scatter-add"),
    ("ops/relative_position.py", 'indexing="ij"', 'indexing="xy"', "rows for columns"),
    ("ops/relative_position.py", "(2 * M - 1) + (column", "(2 * M) + (column", "wrong stride of the table"),
    ("ops/relative_position.py", "row[:, None] - row +", "row - row[:, None] +", "key minus query"),
    ("ops/windows.py", "np.roll(dx, (shift, shift), axis=(1, 2))", "dx", "unshifted roll"),
    ("ops/windows.py", "np.roll(x, (-shift, -shift), axis=(1, 2))", "x", "unshifted roll"),
    ("ops/windows.py", "    x = pad_map(x, M)\n", "    x = pad_map(np.roll(x, (-shift, -shift), axis=(1, 2)), M)\n    shift = 0\n",
     "rolled before it is padded"),
    ("ops/windows.py", "x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], axis=-1)",
     "x[:, 0::2, 1::2], x[:, 1::2, 0::2], x[:, 1::2, 1::2]], axis=-1)", "swapped merge order"),
    ("ops/windows.py", "dx[:, 1::2, 0::2], dx[:, 0::2, 1::2], dx", "dx[:, 0::2, 1::2], dx[:, 1::2, 0::2], dx", "swapped merge order"),
    ("ops/windows.py", "np.float32(-np.inf)", "np.float32(-100)", "a mask that lets a little through"),
    ("ops/windows.py", "y[:, index < 0] = 0", "pass", "padding is the last token"),
    ("ops/batch_norm.py", "(centred * centred).mean(axis=positions)",
     "(centred * centred).sum(axis=positions) / (x.size // x.shape[-1] - 1)", "unbiased variance"),
    ("ops/batch_norm.py", "var * (n / (n - 1))", "var", "biased running variance"),
    ("ops/batch_norm.py", "if of_batch:\n        dnorm", "if True:\n        dnorm", "batch statistics in evaluation"),
    ("ops/layer_norm.py", "np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)",
     "(np.sqrt((centred * centred).mean(axis=-1, keepdims=True)) + eps)", "eps outside the root"),
    ("ops/layer_norm.py", "(x, weight, mean, rstd)\n\n", "(centred, weight, mean, rstd)\n\n", "stale cache"),
    ("ops/cross_entropy.py", "s / K).astype", "s / (K - 1)).astype", "smoothing over the other classes"),
    ("ops/cross_entropy.py", "(dloss / len(p))", "dloss", "missing 1/B"),
    ("ops/linear.py", "dy_rows.T @ x_rows", "dy[:1].reshape(-1, dy.shape[-1]).T @ x[:1].reshape(-1, x.shape[-1])",
     "the first image's tokens"),
    ("ops/patch_embed.py", "x.transpose(0, 2, 4, 1, 3, 5)", "x.transpose(0, 2, 4, 1, 5, 3)", "patches transposed"),
    ("ops/patch_embed.py", "x.transpose(0, 3, 1, 4, 2, 5)", "x.transpose(0, 3, 1, 5, 2, 4)", "patches transposed"),
    ("ops/patch_embed.py", "x.transpose(0, 2, 4, 1, 3, 5)", "x.transpose(0, 4, 2, 1, 3, 5)", "column-major grid"),
    ("models/vit.py", "dx = np.add(dx, dh, out=dh)", "dx = dh", "residual lost"),
    ("models/vit.py", "return np.add(dx, dh, out=dh)", "return dh", "residual lost"),
    ("models/vit.py", "x = np.add(x, h, out=h)", "x = h", "residual lost"),
    ("models/vit.py", "x = np.add(x, h, out=h)", "x = np.add(x, h, out=x)", "written over an x that is not its own"),
    ("models/vit.py", "self.pos_embed.grad += dx.sum(axis=0)", "self.pos_embed.grad += dx[0]", "the first image's positions"),
    ("models/vit.py", "zip(reversed(self.blocks), reversed(c_blocks))", "zip(reversed(self.blocks), c_blocks)", "another block's cache"),
    ("layers.py", "self.weight.grad += dweight", "self.weight.grad[...] = dweight", "overwrites"),
    ("layers.py", "self.fc1.bias.grad += dbias", "self.fc1.bias.grad[...] = dbias", "overwrites"),
]


def special_mutants():
    for path, before, after, name in SPECIAL:
        path = f"numpyvit/{path}"
        source = (ROOT / path).read_text()
        if source.count(before) < 1:
            raise SystemExit(f"SPECIAL: {path} no longer contains {before!r}")
        line = source[:source.index(before)].count("\n") + 1
        yield Mutant(path, "by hand", line, name, before, after, source.replace(before, after, 1).encode())


# --- mutants that compute the same, and why: how their key begins, and the reason

BUFFER = "a larger buffer of zeros, of which the same part is used"
EQUIVALENT = {
    "ops/avg_pool.avg_pool_backward: H + 2 * padding → (H)": "pad_end makes up for what the buffer lacks, the rest is cropped",
    "ops/avg_pool.avg_pool_backward: W + 2 * padding → (W)": "pad_end makes up for what the buffer lacks, the rest is cropped",
    "ops/avg_pool.avg_pool_backward: 2 * padding → ": "pad_end makes up for what the buffer lacks, the rest is cropped",
    "ops/avg_pool.avg_pool_backward: 2 → 4": BUFFER,
    "ops/avg_pool.pad_end: n - 1 → ((n) +": BUFFER,
    "ops/avg_pool.pad_end: n - 1 → (n)": BUFFER,
    "ops/avg_pool.pad_end: rows - padded.shape[1] → ((rows) +": BUFFER,
    "ops/avg_pool.pad_end: rows - padded.shape[1] → (rows)": BUFFER,
    "ops/avg_pool.pad_end: columns - padded.shape[2] → ((columns) +": BUFFER,
    "ops/avg_pool.pad_end: columns - padded.shape[2] → (columns)": BUFFER,
    "ops/conv.col2im: 2 → 4": BUFFER,
    "kernels/depthwise_conv.correlate: 4 → 8": "four at a time less often, one at a time more often",
    "kernels/batch_norm.row_sums: 4 → 8": "four at a time less often, one at a time more often",
    "kernels/depthwise_conv.convolve: j + 3 <= W → ": "the way for pixels at the edge serves the others, too",
    "kernels/depthwise_conv.convolve: 3 → 6": "the way for pixels at the edge serves the others, too",
    "ops/muon.orthogonal: x.shape[0] > x.shape[1] → (x.shape[0] < ": "the larger side's products give the same, with more work",
    "ops/windows.shifted_window_mask: np.arange(padded_H) >= ": "the two labels change places, and only their equality counts",
    "ops/windows.shifted_window_mask: np.arange(padded_W) >= ": "the two labels change places, and only their equality counts",
    "models/cvt.split_class: N - size[0] * size[1] → (-(size": "a negative end of a slice counts from the end",
    "ops/windows.shifted_window_mask: 2 → 4": "four labels remain four labels",
    "ops/windows.shifted_window_mask: 2 * row[:, None] + column → ((2 * row[:, None]) - ": "four labels remain four labels",
}


def all_mutants(pattern="*", every=1):
    files = [*(p for folder in ("ops", "kernels") for p in sorted((ROOT / "numpyvit" / folder).glob("*.py")) if p.stem not in SKIP),
             *(ROOT / "numpyvit" / name for name in ("layers.py", "models/embed.py", "models/vit.py", "models/swin.py", "models/cvt.py"))]
    mutants = [m for path in files for m in mutants_of(str(path.relative_to(ROOT)))][::every]
    mutants += list(special_mutants())
    return [m for m in mutants if fnmatch.fnmatch(str(m), f"*{pattern}*")]


# --- killing


class Substitute(importlib.abc.MetaPathFinder):
    """Imports the mutant in place of its file."""

    def __init__(self, mutant):
        self.name = ".".join(Path(mutant.path).with_suffix("").parts)
        self.path, self.source = str(ROOT / mutant.path), mutant.source
        if "/kernels/" in mutant.path:                                       # numba's cache knows a function by file and name;
            self.source = self.source.replace(b"cache=True", b"cache=False")  # fast_math, which all have compiled in, has the option
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


def reason(mutant):
    return next((why for beginning, why in EQUIVALENT.items() if mutant.key.startswith(beginning)), None)


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
