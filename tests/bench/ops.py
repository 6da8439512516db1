"""Every op of the table of cases alone, forward and backward, one thread: kernel, NumPy definition and torch take turns.

Times are CPU time of that thread, which a busy machine distorts less than the clock on the wall.

GB/s counts what has to move at least, each array once: forward reads the arguments and writes y, backward reads dy and the
arguments and writes the gradients. The peak is this thread's best large product of the same run.
"""
import argparse
import os
import statistics
import time
from functools import partial

import numpy as np
import threadpoolctl
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch.nn import functional as TF

import cases
from numpyvit import functional as F
from test_ops import DEFINITIONS

from . import race
from .train_step import in_words


def main(arguments):
    p = argparse.ArgumentParser(prog="bench ops", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ops", nargs="+", choices=[case.name for case in cases.CASES], metavar="NAME", help="default: all")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--milliseconds", type=float, default=30, help="length of a turn")
    p.add_argument("--json", default="runs/bench-ops.json", metavar="FILE")
    args = p.parse_args(arguments)
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1, user_api="blas")
    before, start = race.others_seconds(), time.perf_counter()
    peak = product_gflops(args.rounds)
    points = [point for case in cases.CASES if not args.ops or case.name in args.ops for point in measure(case, args, peak)]
    others = max(0.0, race.others_seconds() - before) / (time.perf_counter() - start) / os.cpu_count()
    console = Console(width=max(Console().width, 130))
    console.print(show(points, args))
    console.print(f"peak of this thread: {peak:.0f} GFLOP/s", *race.disturbance(others), sep="\n")
    race.write_json(args.json, peak_gflops=peak, rounds=args.rounds, others=others, points=points)


def product_gflops(rounds, size=2048):
    a, b = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    return 2 * size**3 / min(seconds(lambda: a @ b, 1) for _ in range(rounds + 1)) / 1e9


def measure(case, args, peak):
    """One point a direction: {"op", "direction", "gflops", …, "ms": {who: spread}}."""
    arrays, others = cases.bench_inputs(case)
    flops = dict(zip(("forward", "backward"), case.flops(arrays, others)))
    pairs = {"definition": DEFINITIONS[case.name]}
    bound = getattr(F, f"{case.name}_forward", None)
    if bound not in (None, pairs["definition"][0]):
        pairs = {"kernel": (bound, getattr(F, f"{case.name}_backward"))} | pairs
    y, _ = DEFINITIONS[case.name][0](**arrays, **others)
    dy = np.random.default_rng(0).standard_normal(np.shape(y)).astype(np.float32)
    runs = {who: numpy_runs(*pair, arrays, others, dy) for who, pair in pairs.items()} | {"torch": torch_runs(case, arrays, others, dy)}
    given = sum(a.nbytes for a in arrays.values() if a is not None)
    moved = {"forward": given + dy.nbytes, "backward": dy.nbytes + 2 * given}
    for direction in ("forward", "backward"):
        calls = {who: run[direction] for who, run in runs.items()}
        counts = {who: max(1, round(args.milliseconds / 1e3 / max(1e-6, min(seconds(call, 1) for _ in range(3))))) for who, call in calls.items()}
        turns = [{who: seconds(call, counts[who]) for who, call in calls.items()} for _ in range(args.rounds)]
        first = next(iter(calls))
        best = statistics.median(turn[first] for turn in turns)
        yield {"op": case.name, "direction": direction, "of": first, "gflops": flops[direction] / best / 1e9,
               "share_of_peak": flops[direction] / best / 1e9 / peak, "gb_per_second": moved[direction] / best / 1e9,
               "ms": {who: race.spread([turn[who] * 1e3 for turn in turns]) for who in calls},
               "ratio": race.spread([turn["torch"] / turn[first] for turn in turns])}


def seconds(call, count):
    start = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - start) / count


def numpy_runs(forward, backward, arrays, others, dy):
    _, cache = forward(**arrays, **others)
    return {"forward": lambda: forward(**arrays, **others), "backward": lambda: backward(dy, cache)}


def torch_runs(case, arrays, others, dy):
    """forward without a graph; backward of a graph that is kept. The function is the case's, or a faster one from below."""
    function = FASTER.get(case.name) or partial(case.torch, torch)
    tensors = {name: None if a is None else torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    wanted = [t for t in tensors.values() if t is not None]
    y, dy = function(**tensors, **others), torch.tensor(dy)
    assert y.shape == dy.shape, case.name
    return {"forward": torch.inference_mode()(lambda: function(**tensors, **others)),
            "backward": lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True, allow_unused=True)}


# An oracle says what an op is; these say it in the way torch runs fastest. The benchmark's draws have no mask and no dropout.

def fast_attention(q, k, v, bias, mask, scale, drop_rate, seeds):
    assert mask is None and drop_rate == 0
    return TF.scaled_dot_product_attention(q, k, v, bias, scale=scale)


def fast_self_attention(qkv, bias, num_heads, **others):
    q, k, v = qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return fast_attention(q, k, v, bias, **others).transpose(1, 2).flatten(2)


def fast_window_attention(qkv, qkv_bias, bias, index, inverse, num_heads, **others):
    B, _, C3 = qkv.shape
    index, inverse = torch.from_numpy(index), torch.from_numpy(inverse)
    qkv = qkv if qkv_bias is None else qkv + qkv_bias
    windows = qkv.index_select(1, index).reshape(-1, bias.shape[1], C3)
    return fast_self_attention(windows, bias, num_heads, **others).reshape(B, len(index), -1).index_select(1, inverse)


def fast_drop_path(x, rate, seeds):
    return x * (torch.rand(len(x), *[1] * (x.ndim - 1)) >= rate) / (1 - rate)


FASTER = {"attention": fast_attention, "self_attention": fast_self_attention, "window_attention": fast_window_attention,
          "gather_tokens": lambda x, index, inverse: x.index_select(1, torch.from_numpy(index)),
          "dropout": lambda x, rate, seeds: TF.dropout(x, rate), "drop_path": fast_drop_path}


def show(points, args):
    table = Table(title=f"ops alone, one thread, float32: medians of {args.rounds} turns", box=SIMPLE_HEAD)
    for heading in ("op", "", "kernel ms", "definition ms", "torch ms", "× torch", "GFLOP/s", "of peak", "GB/s"):
        table.add_column(heading, justify="left" if heading in ("op", "") else "right", no_wrap=True)
    for point in points:
        ms = point["ms"]
        table.add_row(point["op"] if point["direction"] == "forward" else "", point["direction"],
                      *(f"{ms[who]['median']:.3f}" if who in ms else "–" for who in ("kernel", "definition", "torch")),
                      in_words(point["ratio"], ".2f"), f"{point['gflops']:.1f}", f"{point['share_of_peak']:.0%}",
                      f"{point['gb_per_second']:.1f}")
    return table
