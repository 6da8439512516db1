"""Rotary positions in one pass over the packed projection."""
import numpy as np
from numba import njit

from ..ops.rotary import check_angles
from .fast_math import LOOP


def rotary_forward(qkv, cos, sin):
    return turn(qkv, cos, sin), (cos, sin)


def rotary_backward(dy, cache):
    cos, sin = cache
    return turn(dy, cos, -sin)


def turn(qkv, cos, sin):
    check_angles(qkv, cos, sin)
    rows = np.ascontiguousarray(qkv).reshape(-1, qkv.shape[-1])
    y = np.empty_like(rows)
    turn_rows(rows, cos, sin, y)
    return y.reshape(qkv.shape)


@njit(**LOOP)
def turn_rows(x, cos, sin, y):
    """y of the definition: x, y (B · N, 3·C), every head's halves beside each other"""
    n, C3 = x.shape
    N, half = cos.shape
    values = 2 * C3 // 3
    for r in range(n):
        c, s = cos[r % N], sin[r % N]
        for start in range(0, values, 2 * half):
            middle = start + half
            a, b, turned_a, turned_b = x[r, start:middle], x[r, middle:], y[r, start:middle], y[r, middle:]
            for i in range(half):                                            # a loop a half: LLVM then uses vectors
                turned_a[i] = a[i] * c[i] - b[i] * s[i]                      # a * cos - b * sin
            for i in range(half):
                turned_b[i] = a[i] * s[i] + b[i] * c[i]                      # a * sin + b * cos
        y[r, values:] = x[r, values:]                                        # parts[:, :, 2:]
