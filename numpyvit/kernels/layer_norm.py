"""Layer norm row by row, forward and backward: a row stays in the first-level cache for all its sums."""
import numpy as np
from numba import njit

from ..checks import check_shape
from .fast_math import LOOP


def layer_norm_forward(x, weight, bias, eps=1e-6):
    check_shape("weight", weight, x.shape[-1])
    check_shape("bias", bias, x.shape[-1])
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    y, mean, rstd = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    forward_rows(rows, weight, bias, x.dtype.type(eps), y, mean, rstd)
    return y.reshape(x.shape), (rows, weight, mean, rstd)


def layer_norm_backward(dy, cache):
    x, weight, mean, rstd = cache
    dy_rows = np.ascontiguousarray(dy).reshape(x.shape)
    dx, dweight, dbias = np.empty_like(x), np.zeros_like(weight), np.zeros_like(weight)
    backward_rows(dy_rows, x, weight, mean, rstd, dx, dweight, dbias)
    return dx.reshape(dy.shape), dweight, dbias


@njit(**LOOP)
def forward_rows(x, weight, bias, eps, y, mean, rstd):
    """y, mean and rstd of the definition, for every row"""
    n, C = x.shape
    scale = x.dtype.type(1) / x.dtype.type(C)
    for i in range(n):
        total = x.dtype.type(0)
        for c in range(C):                                                   # mean = x.mean(axis=-1)
            total += x[i, c]
        m = total * scale
        squares = x.dtype.type(0)
        for c in range(C):                                                   # var = (centred * centred).mean(axis=-1)
            centred = x[i, c] - m
            squares += centred * centred
        r = x.dtype.type(1) / np.sqrt(squares * scale + eps)
        for c in range(C):                                                   # y = centred * rstd * weight + bias
            y[i, c] = (x[i, c] - m) * r * weight[c] + bias[c]
        mean[i], rstd[i] = m, r


@njit(**LOOP)
def backward_rows(dy, x, weight, mean, rstd, dx, dweight, dbias):
    """dx of the definition, for every row; dweight and dbias grow by what the row adds"""
    n, C = x.shape
    scale = x.dtype.type(1) / x.dtype.type(C)
    for i in range(n):
        m, r = mean[i], rstd[i]
        sum_dnorm, sum_dnorm_norm = x.dtype.type(0), x.dtype.type(0)
        for c in range(C):
            norm = (x[i, c] - m) * r                                         # norm = (x - mean) * rstd
            dnorm = dy[i, c] * weight[c]                                     # dnorm = dy * weight
            sum_dnorm += dnorm
            sum_dnorm_norm += dnorm * norm
            dbias[c] += dy[i, c]                                             # dbias = dy.sum(tokens)
            dweight[c] += dy[i, c] * norm                                    # dweight = (dy * norm).sum(tokens)
        a, b = sum_dnorm * scale, sum_dnorm_norm * scale
        for c in range(C):                       # dx = rstd * (dnorm - mean(dnorm) - norm * mean(dnorm * norm))
            dx[i, c] = r * (dy[i, c] * weight[c] - a - (x[i, c] - m) * r * b)
