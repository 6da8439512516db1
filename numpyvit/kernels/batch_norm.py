"""Batch norm in three passes over x forward and two backward, each vectorised over the channels."""
import numpy as np
from numba import njit

from ..checks import check_shape
from ..ops.batch_norm import BatchNormCache
from .fast_math import LOOP

BLOCK = 64                                                                   # rows that are summed apart: less rounding


def batch_norm_forward(x, weight, bias, running_mean=None, running_var=None, eps=1e-5):
    for name, vector in dict(weight=weight, bias=bias, running_mean=running_mean, running_var=running_var).items():
        if vector is not None:
            check_shape(name, vector, x.shape[-1])
    x = np.ascontiguousarray(x)
    rows = x.reshape(-1, x.shape[-1])
    of_batch = running_mean is None
    mean, var = running_mean, running_var
    if of_batch:
        mean = row_sums(rows) / len(rows)                                    # mean = x.mean(positions)
        centred, squares = centred_sums(rows, mean)
        rest = centred / len(rows)                                           # 0 but for the rounding of mean
        mean, var = mean + rest, squares / len(rows)                         # var = (centred * centred).mean(positions)
    rstd = 1 / np.sqrt(var + eps)
    y = np.empty_like(rows)
    normalise(rows, mean, rstd * weight, bias, y)
    return y.reshape(x.shape), BatchNormCache(x, weight, mean, var, rstd, of_batch)


def batch_norm_backward(dy, cache):
    x, weight, mean, var, rstd, of_batch = cache
    check_shape("dy", dy, *x.shape)
    rows, dy_rows = x.reshape(-1, x.shape[-1]), np.ascontiguousarray(dy).reshape(-1, x.shape[-1])
    dbias, dot = gradient_sums(dy_rows, rows, mean)
    dweight, gain, n = dot * rstd, weight * rstd, len(rows)                  # norm = (x - mean) * rstd
    if not of_batch:
        return dy * gain, dweight, dbias                                     # constants have no gradient
    dx = np.empty_like(rows)
    gradient(dy_rows, rows, mean, gain, dbias / n, rstd * dweight / n, dx)
    return dx.reshape(dy.shape), dweight, dbias


@njit(**LOOP)
def row_sums(x):
    """x.sum(axis=0)"""
    n, C = x.shape
    total, part = np.zeros(C, x.dtype), np.empty(C, x.dtype)
    for start in range(0, n, BLOCK):
        part[:] = 0
        end = min(start + BLOCK, n)
        whole = end - end % 4                                                # start is a multiple of 4
        for i in range(start, whole, 4):
            for c in range(C):
                part[c] += x[i, c] + x[i + 1, c] + x[i + 2, c] + x[i + 3, c]
        for i in range(whole, end):
            for c in range(C):
                part[c] += x[i, c]
        total += part
    return total


@njit(**LOOP)
def centred_sums(x, mean):
    """(x - mean).sum(axis=0), ((x - mean) ** 2).sum(axis=0)"""
    n, C = x.shape
    total, squares = np.zeros(C, x.dtype), np.zeros(C, x.dtype)
    part, part_squares = np.empty(C, x.dtype), np.empty(C, x.dtype)
    for start in range(0, n, BLOCK):
        part[:] = 0
        part_squares[:] = 0
        for i in range(start, min(start + BLOCK, n)):
            for c in range(C):
                centred = x[i, c] - mean[c]
                part[c] += centred
                part_squares[c] += centred * centred
        total += part
        squares += part_squares
    return total, squares


@njit(**LOOP)
def normalise(x, mean, gain, bias, y):
    """y = centred * rstd * weight + bias"""
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[i, c] = (x[i, c] - mean[c]) * gain[c] + bias[c]


@njit(**LOOP)
def gradient_sums(dy, x, mean):
    """dy.sum(axis=0), (dy * (x - mean)).sum(axis=0)"""
    n, C = x.shape
    total, dot = np.zeros(C, x.dtype), np.zeros(C, x.dtype)
    part, part_dot = np.empty(C, x.dtype), np.empty(C, x.dtype)
    for start in range(0, n, BLOCK):
        part[:] = 0
        part_dot[:] = 0
        for i in range(start, min(start + BLOCK, n)):
            for c in range(C):
                part[c] += dy[i, c]
                part_dot[c] += dy[i, c] * (x[i, c] - mean[c])
        total += part
        dot += part_dot
    return total, dot


@njit(**LOOP)
def gradient(dy, x, mean, gain, dmean, slope, dx):
    """dx = rstd * (dnorm - dnorm.mean(positions) - norm * (dnorm * norm).mean(positions)),   gain = weight * rstd"""
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            dx[i, c] = gain[c] * (dy[i, c] - dmean[c] - (x[i, c] - mean[c]) * slope[c])
