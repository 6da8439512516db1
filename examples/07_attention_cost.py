"""How attention's cost grows with the image: global, in windows, and on squeezed keys; measured, and drawn beside theory.

    python examples/07_attention_cost.py                             half a minute, one core

What you will see: milliseconds for maps of 7×7 to 56×56 tokens, and multiply-adds; in runs/examples/ both on one logarithmic plot.
Theory counts the two products, q kᵀ and attn v: 2·N·S·C for N queries and S keys.
    global (ViT)                  S = N          grows with the square of the number of tokens
    windows of 7×7 (Swin)         S = 49         grows with the number of tokens
    keys at stride 2 (CvT)        S = N / 4      a quarter of global
"""
import time

import numpy as np
import threadpoolctl

from numpyvit import functional as F
from numpyvit.inspection.plots import new_figure, save

C, nh, M = 64, 2, 7
sides = (7, 14, 21, 28, 42, 56)
rng = np.random.default_rng(0)


def heads(B, N):
    return rng.standard_normal((B, nh, N, C // nh), dtype=np.float32)


KINDS = {  # name: tokens N → the shapes (B, N), (B, S) of queries and keys
    "global (ViT)": lambda N: ((1, N), (1, N)),
    "keys at stride 2 (CvT)": lambda N: ((1, N), (1, -(-N // 4))),
    f"windows of {M}×{M} (Swin)": lambda N: ((N // M**2, M**2), (N // M**2, M**2)),
}


def measure(queries, keys):
    """The best of several forward passes, in seconds"""
    q, k, v = heads(*queries), heads(*keys), heads(*keys)
    seconds = []
    while sum(seconds) < 0.4 or len(seconds) < 5:
        start = time.perf_counter()
        F.attention_forward(q, k, v)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


threadpoolctl.threadpool_limits(1, user_api="blas")
F.attention_forward(heads(1, 9), heads(1, 9), heads(1, 9))                   # compile
times, work = {}, {}
print("tokens" + "".join(f"{name:>26}" for name in KINDS))
for side in sides:
    N, line = side * side, ""
    for name, shapes in KINDS.items():
        (B, n), (_, S) = shapes(N)
        times.setdefault(name, []).append(measure(*shapes(N)))
        work.setdefault(name, []).append(2 * B * n * S * C)
        line += f"{times[name][-1] * 1e3:10.3f} ms{work[name][-1] / 1e6:8.1f} MMAC"
    print(f"{side:>3}×{side:<2}{line}")

rate = np.median([w / t for name in KINDS for w, t in zip(work[name][2:], times[name][2:])])
figure = new_figure(6.5, 4.4)
axes = figure.subplots()
tokens = np.array(sides) ** 2
for i, name in enumerate(KINDS):
    axes.loglog(tokens, np.array(times[name]) * 1e3, "o-", color=f"C{i}", label=f"{name}, measured")
    axes.loglog(tokens, np.array(work[name]) / rate * 1e3, "--", color=f"C{i}", label=f"multiply-adds at {rate / 1e9:.1f} G/s")
axes.set_xticks(tokens, [f"{s}×{s}" for s in sides], minor=False)
axes.set_xticks([], minor=True)
axes.set(title=f"attention of one image, {C} channels, {nh} heads", xlabel="tokens", ylabel="milliseconds")
axes.grid(alpha=0.3)
axes.legend(fontsize=8)
save(figure, "runs/examples/07_attention_cost.png")
print("figure: runs/examples/07_attention_cost.png")
