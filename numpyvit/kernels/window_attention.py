"""Window attention with two fused copies: the copy to the windows adds qkv_bias, the copy back sums its gradient.

Both copies also put the rows of a head beside each other: BLAS multiplies matrices of 16 × 32 twice as fast then.
"""
from typing import NamedTuple

import numpy as np
from numba import njit

from ..checks import check_shape
from ..ops.attention import AttentionCache
from ..ops.window_attention import check_index, window_seeds
from .attention import NO_TABLE, attend, attend_backward
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
    check_index(index, inverse, N, M2)
    added = np.zeros(C3, qkv.dtype) if qkv_bias is None else qkv_bias
    check_shape("qkv_bias", added, C3)
    heads = np.empty((3, B, R // M2, num_heads, M2, C3 // 3 // num_heads), qkv.dtype)
    split_rows(rows_of(qkv, heads), added.reshape(3, num_heads, -1), index, heads)
    q, k, v = heads.reshape(3, -1, *heads.shape[3:])
    y, merged = np.empty_like(q), np.empty((B, N, C3 // 3), qkv.dtype)
    cache = attend(q, k, v, bias, mask, scale, drop_rate, window_seeds(seeds, R // M2), y)
    parts = y.reshape(1, *heads.shape[1:])
    merge_rows(parts, index, rows_of(merged, parts), NO_TABLE[qkv.dtype])
    return merged, WindowAttentionCache(cache, index, qkv_bias is not None)


def window_attention_backward(dy, cache):
    windows, nh, M2, hd = cache.attention.q.shape
    nW = len(cache.index) // M2
    B, N, C = windows // nW, np.count_nonzero(cache.index >= 0), nh * hd
    check_shape("dy", dy, B, N, C)
    dheads, dqkv_heads = (np.empty((parts, B, nW, nh, M2, hd), dy.dtype) for parts in (1, 3))
    split_rows(rows_of(dy, dheads), np.zeros((1, nh, hd), dy.dtype), cache.index, dheads)      # 0 for the padding
    dq, dk, dv = dqkv_heads.reshape(3, windows, nh, M2, hd)
    dbias = attend_backward(dheads.reshape(windows, nh, M2, hd), cache.attention, dq, dk, dv)
    dqkv, dqkv_bias = np.empty((B, N, 3 * C), dy.dtype), np.zeros((3, nh, hd), dy.dtype)
    merge_rows(dqkv_heads, cache.index, rows_of(dqkv, dqkv_heads), dqkv_bias)
    return dqkv, dqkv_bias.reshape(-1) if cache.has_qkv_bias else None, dbias


def rows_of(x, heads):
    """x (B, N, parts · C) with the parts and heads of a row apart: (B, N, parts, nh, hd)"""
    parts, _, _, nh, _, hd = heads.shape
    return np.ascontiguousarray(x).reshape(*x.shape[:2], parts, nh, hd)


@njit(**LOOP)
def split_rows(x, bias, index, heads):
    """heads = gather(x) + bias.   x (B, N, parts, nh, hd)   bias (parts, nh, hd)   heads (parts, B, nW, nh, M², hd)"""
    parts, B, nW, nh, M2, hd = heads.shape
    for b in range(B):
        for w in range(nW):
            for i in range(M2):
                row = index[w * M2 + i]
                source = x[b, max(row, 0)]           # a view: numba does not vectorise an index that may be negative
                for p in range(parts):
                    for h in range(nh):
                        if row >= 0:
                            for c in range(hd):
                                heads[p, b, w, h, i, c] = source[p, h, c] + bias[p, h, c]
                        else:
                            for c in range(hd):
                                heads[p, b, w, h, i, c] = bias[p, h, c]      # a padded token


@njit(**LOOP)
def merge_rows(heads, index, x, total):
    """x = gather⁻¹(heads),   total += heads.sum(axis=(1, 2, 4)), the padding's rows too, unless total is empty"""
    parts, B, nW, nh, M2, hd = heads.shape
    for b in range(B):
        for w in range(nW):
            for i in range(M2):
                row = index[w * M2 + i]
                to = x[b, max(row, 0)]
                for p in range(parts):
                    for h in range(nh):
                        if total.size > 0:
                            for c in range(hd):
                                total[p, h, c] += heads[p, b, w, h, i, c]
                        if row >= 0:
                            for c in range(hd):
                                to[p, h, c] = heads[p, b, w, h, i, c]
