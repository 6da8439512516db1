"""Dropout that computes the hash of every element where it is used, without an array of random bits."""
import math

import numpy as np
from numba import njit

from ..checks import check_shape
from ..ops.random_bits import GOLDEN_GAMMA, mix
from .fast_math import LOOP

u64 = np.uint64


def dropout_forward(x, rate, seeds):
    if seeds is None or rate == 0:
        return x, (None,)
    check_shape("seeds", seeds, len(x))
    factor = np.empty((len(x), math.prod(x.shape[1:])), x.dtype)
    state = mix(seeds.astype(u64) + u64(1))                                  # hash_combine's state after the first part
    keep_factors(state, u64(int(np.ceil(rate * 2.0**53))), x.dtype.type(1 / (1 - rate)), factor)
    factor = factor.reshape(x.shape)
    return x * factor, (factor,)


def dropout_backward(dy, cache):
    (factor,) = cache
    return dy if factor is None else dy * factor


@njit(**LOOP)
def keep_factors(state, threshold, scale, factor):
    """factor[b, i] = scale where uniform(hash_combine(seeds[b], i)) ≥ rate, else 0"""
    zero = factor.dtype.type(0)
    for b in range(factor.shape[0]):
        base = state[b] * u64(GOLDEN_GAMMA) + u64(1)
        for i in range(factor.shape[1]):
            z = base + u64(i)
            z = (z ^ (z >> u64(30))) * u64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> u64(27))) * u64(0x94D049BB133111EB)
            z = z ^ (z >> u64(31))
            factor[b, i] = scale if (z >> u64(11)) >= threshold else zero
