"""Window attention with two fused copies: the copy to the windows adds qkv_bias, the copy back sums its gradient."""
from typing import NamedTuple

import numpy as np
from numba import njit

from ..ops.attention import AttentionCache
from ..ops.window_attention import window_seeds
from .attention import self_attention_backward, self_attention_forward
from .fast_math import LOOP


class WindowAttentionCache(NamedTuple):
    """attention: self_attention's cache   index: of the gather   has_qkv_bias: whether there was one"""

    attention: AttentionCache
    index: np.ndarray
    has_qkv_bias: bool


def window_attention_forward(qkv, qkv_bias, bias, index, inverse, num_heads, mask=None, scale=None, drop_rate=0.0,
                             seeds=None):
    B, N, C3 = qkv.shape
    M2, R = bias.shape[1], len(index)
    windows = np.empty((B, R, C3), qkv.dtype)
    added = np.zeros(C3, qkv.dtype) if qkv_bias is None else qkv_bias
    gather_rows_add(np.ascontiguousarray(qkv), added, index, windows)
    windows, seeds = windows.reshape(-1, M2, C3), window_seeds(seeds, R // M2)
    y, c1 = self_attention_forward(windows, num_heads, bias, mask, scale, drop_rate, seeds)
    return np.take(y.reshape(B, R, C3 // 3), inverse, axis=1), WindowAttentionCache(c1, index, qkv_bias is not None)


def window_attention_backward(dy, cache):
    B, N, C = dy.shape
    dy = np.take(dy, cache.index, axis=1)                                    # (B, nW·M², C)
    if dy.shape[1] != N:
        dy[:, cache.index < 0] = 0                                           # nobody reads what padding attends to
    M2 = cache.attention.q.shape[2]
    dwindows, dbias = self_attention_backward(dy.reshape(-1, M2, C), cache.attention)
    dqkv, dqkv_bias = np.empty((B, N, 3 * C), dy.dtype), np.zeros(3 * C, dy.dtype)
    scatter_rows_sum(dwindows.reshape(B, -1, 3 * C), cache.index, dqkv, dqkv_bias)
    return dqkv, dqkv_bias if cache.has_qkv_bias else None, dbias


@njit(**LOOP)
def gather_rows_add(x, bias, index, y):
    """y = gather(x) + bias"""
    for b in range(y.shape[0]):
        for r in range(y.shape[1]):
            row, to = index[r], y[b, r]              # views: numba does not vectorise an index that may be negative
            if row >= 0:
                source = x[b, row]
                for c in range(to.size):
                    to[c] = source[c] + bias[c]
            else:
                for c in range(to.size):
                    to[c] = bias[c]                                          # y[:, index < 0] = bias, a padded token


@njit(**LOOP)
def scatter_rows_sum(dy, index, dx, dbias):
    """dx = gather⁻¹(dy),   dbias += dy.sum(axis=(0, 1)), the padding's rows too"""
    for b in range(dy.shape[0]):
        for r in range(dy.shape[1]):
            row, source = index[r], dy[b, r]
            for c in range(source.size):
                dbias[c] += source[c]
            if row >= 0:
                to = dx[b, row]
                for c in range(source.size):
                    to[c] = source[c]
