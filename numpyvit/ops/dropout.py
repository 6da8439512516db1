"""Dropout of elements, and of whole residual branches (stochastic depth). Its random bits are a function of seeds."""
import math

import numpy as np

from .random_bits import hash_combine, uniform


def dropout_forward(x, rate, seeds):
    """Zero each element with probability rate and scale the rest, so that the expectation stays x.

        y = x ⊙ keep / (1 − rate),   keep[b, i] = uniform(seeds[b], i) ≥ rate

    x (B, ...)   seeds (B,) uint64, one an image; None (evaluation) or rate 0 leaves x as it is   →   y (B, ...)
    cache: keep / (1 − rate), or None.
    Srivastava et al. 2014.  torch.nn.functional.dropout
    """
    if seeds is None or rate == 0:
        return x, (None,)
    elements = np.arange(math.prod(x.shape[1:]), dtype=np.uint64)
    keep = uniform(hash_combine(seeds[:, None], elements)) >= rate           # (B, elements)
    factor = (keep / (1 - rate)).astype(x.dtype).reshape(x.shape)
    return x * factor, (factor,)


def dropout_backward(dy, cache):
    """dx = dy ⊙ keep / (1 − rate)"""
    (factor,) = cache
    return dy if factor is None else dy * factor


def drop_path_forward(x, rate, seeds):
    """Drop the branch of a residual block for a whole image. x is the branch; the stream beside it is never dropped.

        y[b] = x[b] · keep[b] / (1 − rate),   keep[b] = uniform(seeds[b]) ≥ rate

    x (B, ...)   seeds (B,) uint64; None (evaluation) or rate 0 leaves x as it is   →   y (B, ...)
    cache: keep / (1 − rate), (B, 1, …), or None.
    Huang et al. 2016 (stochastic depth), scaled as in timm's DropPath
    """
    if seeds is None or rate == 0:
        return x, (None,)
    keep = uniform(hash_combine(seeds)) >= rate                              # (B,)
    factor = (keep / (1 - rate)).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return x * factor, (factor,)


def drop_path_backward(dy, cache):
    """dx[b] = dy[b] · keep[b] / (1 − rate)"""
    return dropout_backward(dy, cache)
