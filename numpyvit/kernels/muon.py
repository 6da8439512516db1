"""Muon's step with fewer and smaller products.

A Newton–Schulz step is x ← p·x with p = A + B·g + C·g² and g = x·xᵀ. Since g is symmetric, g² is g·gᵀ, of which NumPy
computes one half and copies the other.

Where x is much wider than high, another way is faster. Since p is symmetric, too, the next g is p·g·p, which needs no
product with x. So x is multiplied once for SEGMENT steps, by the product of their matrices p, and all other products
are of small matrices. More steps at once would round more: every further p multiplies numbers by up to 3.4.
"""
import math

import numpy as np

from ..ops.muon import A, B, C

WIDE = 3                                             # times as many columns as rows, from which segments are faster
SEGMENT = 3                                          # steps


def muon_step(data, grad, m, update, momentum, ns_steps=5):
    lr, _, decay, scale = update
    grad = grad * scale
    m += (1 - momentum) * (grad - m)
    direction = orthogonal(grad + momentum * (m - grad), ns_steps)
    data *= 1 - lr * decay
    data -= (lr * 0.2 * math.sqrt(max(data.shape))) * direction


def orthogonal(x, steps=5, eps=1e-7):
    """orthogonal of ops/muon.py, up to rounding.   x (rows, columns)   →   the same shape"""
    if x.shape[0] > x.shape[1]:
        return orthogonal(np.ascontiguousarray(x.T), steps, eps).T
    x = x / np.maximum(np.linalg.norm(x), eps)
    if x.shape[1] >= WIDE * x.shape[0]:
        for start in range(0, steps, SEGMENT):
            x = segment(x @ x.T, min(SEGMENT, steps - start)) @ x
        return x
    for _ in range(steps):
        g = x @ x.T
        x = A * x + (B * g + C * (g @ g.T)) @ x                              # g @ g
    return x


def segment(g, steps):
    """The product of the matrices p of so many steps.   g (rows, rows) of the first   →   the same shape"""
    product = p = None
    for _ in range(steps):
        g = g if p is None else p @ g @ p                                    # (p·x)·(p·x)ᵀ: p is symmetric
        p = B * g + C * (g @ g.T)                                            # B * g + C * (g @ g)
        p.flat[::len(p) + 1] += A                                            # its diagonal
        product = p if product is None else p @ product
    return product
