"""Attention with few copies: BLAS reads the heads as strided views of the packed projection.

A product A · Bᵀ of small matrices takes twice the time of A · B. The kernel therefore writes kᵀ (times scale) and vᵀ
into new arrays, once. All work between the products is done in place, one head at a time.
"""
import math

import numpy as np
from numba import njit

from ..ops.attention import AttentionCache, check_tables
from .dropout import dropout_backward, dropout_forward
from .fast_math import LOOP, exp

NO_TABLE = {np.dtype(t): np.zeros((0, 0, 0), t) for t in ("float32", "float64")}


def attention_forward(q, k, v, bias=None, mask=None, scale=None, drop_rate=0.0, seeds=None):
    B, nh, N, hd = q.shape
    y = np.empty((B, N, nh, hd), q.dtype).transpose(0, 2, 1, 3)              # merging the heads is then a reshape
    return y, attend(q, k, v, bias, mask, scale, drop_rate, seeds, y)


def attend(q, k, v, bias, mask, scale, drop_rate, seeds, y):
    """Write the attention into y and return the cache."""
    check_tables(q, k, bias, mask)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    attn = np.empty((*q.shape[:3], k.shape[2]), q.dtype)
    np.matmul(q, scaled_transpose(k, scale), out=attn)                       # scores = (q @ k.swapaxes) * scale
    none = NO_TABLE[q.dtype]
    softmax_rows(attn, *(none if table is None else np.ascontiguousarray(table) for table in (bias, mask)))
    dropped, drop_cache = dropout_forward(attn, drop_rate, seeds)
    np.matmul(dropped, v, out=y)
    return AttentionCache(q, k, v, attn, dropped, drop_cache, scale, bias is not None)


def attention_backward(dy, cache):
    q, k = cache.q, cache.k
    (B, nh, N, hd), S = q.shape, k.shape[2]
    dq = np.empty((B, N, nh, hd), q.dtype).transpose(0, 2, 1, 3)
    dk, dv = (np.empty((B, S, nh, hd), q.dtype).transpose(0, 2, 1, 3) for _ in "kv")
    return dq, dk, dv, attend_backward(dy, cache, dq, dk, dv)


def attend_backward(dy, cache, dq, dk, dv):
    """Write dq, dk and dv, and return dbias."""
    q, k, v, attn, dropped, drop_cache, scale, has_bias = cache
    np.matmul(dropped.swapaxes(-1, -2), dy, out=dv)
    dscores = dropout_backward(dy @ scaled_transpose(v, 1.0), drop_cache)    # dattn = dy @ v.swapaxes
    dbias = np.zeros(attn.shape[1:] if has_bias else (0, 0, 0), q.dtype)
    softmax_backward_rows(attn, dscores, q.dtype.type(scale), dbias)
    np.matmul(dscores, k, out=dq)                                            # dscores holds scale · dscores by now
    np.matmul(dscores.swapaxes(-1, -2), q, out=dk)
    return dbias if has_bias else None


def self_attention_forward(qkv, num_heads, bias=None, mask=None, scale=None, drop_rate=0.0, seeds=None):
    B, N, C3 = qkv.shape
    q, k, v = qkv.reshape(B, N, 3, num_heads, C3 // 3 // num_heads).transpose(2, 0, 3, 1, 4)
    y = np.empty((B, N, C3 // 3), qkv.dtype)
    heads = y.reshape(B, N, *q.shape[1::2]).transpose(0, 2, 1, 3)            # the product writes the merged heads
    return y, attend(q, k, v, bias, mask, scale, drop_rate, seeds, heads)


def self_attention_backward(dy, cache):
    B, nh, N, hd = cache.q.shape
    dqkv = np.empty((B, N, 3 * nh * hd), dy.dtype)
    dq, dk, dv = dqkv.reshape(B, N, 3, nh, hd).transpose(2, 0, 3, 1, 4)      # the products write the packed gradient
    dbias = attend_backward(dy.reshape(B, N, nh, hd).transpose(0, 2, 1, 3), cache, dq, dk, dv)
    return dqkv, dbias


def scaled_transpose(x, scale):
    """(x * scale).swapaxes(-1, -2), contiguous.   x (B, nh, S, hd), any strides   →   (B, nh, hd, S)"""
    B, nh, S, hd = x.shape
    out = np.empty((B, nh, hd, S), x.dtype)
    transpose_heads(x, x.dtype.type(scale), out)
    return out


@njit(**LOOP)
def transpose_heads(x, scale, out):
    """out = (x * scale).swapaxes(-1, -2)"""
    B, nh, S, hd = x.shape
    for b in range(B):
        for h in range(nh):
            for d in range(hd):
                for s in range(S):
                    out[b, h, d, s] = x[b, h, s, d] * scale


@njit(**LOOP)
def softmax_rows(scores, bias, mask):
    """scores = softmax(scores + bias + mask), in place.   scores (B, nh, N, S)   bias (nh, N, S)   mask (nW, N, S)

    Elementwise steps run over a whole head at once: rows are short, and a vectorised loop is slow in its last elements.
    """
    B, nh, N, S = scores.shape
    for b in range(B):
        for h in range(nh):
            head = scores[b, h].reshape(-1)
            if bias.shape[0] > 0:
                add(bias[h].reshape(-1), head)
            if mask.shape[0] > 0:
                add(mask[b % mask.shape[0]].reshape(-1), head)
            for i in range(N):                                               # x - x.max(axis=-1)
                row = scores[b, h, i]
                top = row[0]
                for j in range(S):                                           # skips a NaN, which exp keeps
                    top = row[j] if row[j] > top else top
                for j in range(S):
                    row[j] -= top
            for j in range(head.size):                                       # e = np.exp(x - max)
                head[j] = exp(head[j])
            for i in range(N):                                               # y = e / e.sum(axis=-1)
                row = scores[b, h, i]
                total = scores.dtype.type(0)
                for j in range(S):
                    total += row[j]
                factor = scores.dtype.type(1) / total
                for j in range(S):
                    row[j] *= factor


@njit(**LOOP)
def add(x, total):
    """total += x"""
    for j in range(x.size):
        total[j] += x[j]


@njit(**LOOP)
def softmax_backward_rows(attn, dattn, scale, dbias):
    """dscores = attn * (dattn - (dattn * attn).sum(axis=-1)),   dbias += dscores,   dattn = scale * dscores in place"""
    B, nh, N, S = attn.shape
    for b in range(B):
        for h in range(nh):
            for i in range(N):
                total = attn.dtype.type(0)
                for j in range(S):
                    total += dattn[b, h, i, j] * attn[b, h, i, j]
                if dbias.shape[0] > 0:
                    for j in range(S):
                        dbias[h, i, j] += attn[b, h, i, j] * (dattn[b, h, i, j] - total)
                for j in range(S):
                    dattn[b, h, i, j] = scale * attn[b, h, i, j] * (dattn[b, h, i, j] - total)
