"""Max-pooling in windows of 2 × 2 cells: one pass over the map, vectorised over the channels.

Windows of another size are rare; the definition computes them.
"""
import numpy as np
from numba import njit

from ..checks import check_shape
from ..ops import max_pool as definition
from .fast_math import LOOP


def max_pool_forward(x, kernel):
    if kernel != 2:
        return definition.max_pool_forward(x, kernel)
    B, H, W, C = x.shape
    y, which = np.empty((B, H // 2, W // 2, C), x.dtype), np.empty((B, H // 2, W // 2, C), np.uint8)
    largest(np.ascontiguousarray(x), y, which)
    return y, (which, x.shape, kernel)


def max_pool_backward(dy, cache):
    which, shape, kernel = cache
    if kernel != 2:
        return definition.max_pool_backward(dy, cache)
    check_shape("dy", dy, *which.shape)
    _, H, W, _ = shape
    dx = np.empty(shape, dy.dtype)
    dx[:, H - H % 2:], dx[:, :, W - W % 2:] = 0, 0                           # what fills no window
    spread(np.ascontiguousarray(dy), which, dx)
    return dx


@njit(**LOOP)
def largest(x, y, which):
    """y = the largest of four cells, and which of them it is; a NaN is the largest"""
    B, Ho, Wo, C = y.shape
    for b in range(B):
        for h in range(Ho):
            for v in range(Wo):
                x0, x1 = x[b, 2 * h, 2 * v], x[b, 2 * h, 2 * v + 1]
                x2, x3 = x[b, 2 * h + 1, 2 * v], x[b, 2 * h + 1, 2 * v + 1]
                out, number = y[b, h, v], which[b, h, v]
                for c in range(C):
                    top, n = x0[c], np.uint8(0)
                    n = np.uint8(1) if x1[c] > top else n                    # np.where(x1 > top, 1, n)
                    top = top if top > x1[c] or top != top else x1[c]        # np.maximum(top, x1)
                    n = np.uint8(2) if x2[c] > top else n
                    top = top if top > x2[c] or top != top else x2[c]
                    n = np.uint8(3) if x3[c] > top else n
                    top = top if top > x3[c] or top != top else x3[c]
                    out[c], number[c] = top, n


@njit(**LOOP)
def spread(dy, which, dx):
    """dx of every cell = dy where which is the cell's number, else 0"""
    B, Ho, Wo, C = dy.shape
    for b in range(B):
        for h in range(Ho):
            for v in range(Wo):
                given, number, zero = dy[b, h, v], which[b, h, v], dy.dtype.type(0)
                for n in range(4):
                    out = dx[b, 2 * h + n // 2, 2 * v + n % 2]
                    for c in range(C):
                        out[c] = given[c] if number[c] == n else zero
