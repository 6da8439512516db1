"""Window attention whose copies do something besides: the one to the windows adds the bias, the one back sums its gradient."""
import numpy as np
from numba import njit

from ..ops.attention import attention_probs
from ..ops.window_attention import window_seeds
from .attention import self_attention_backward, self_attention_forward
from .fast_math import LOOP
from .windows import gather


def window_attention_forward(qkv, qkv_bias, bias, index, inverse, num_heads, mask=None, scale=None, drop_rate=0.0, seeds=None):
    B, N, C3 = qkv.shape
    M2, R = bias.shape[1], len(index)
    windows = np.empty((B, R, C3), qkv.dtype)
    gather_rows_add(np.ascontiguousarray(qkv), np.zeros(C3, qkv.dtype) if qkv_bias is None else qkv_bias, index, windows)
    y, c1 = self_attention_forward(windows.reshape(-1, M2, C3), num_heads, bias, mask, scale, drop_rate, window_seeds(seeds, R // M2))
    return gather(y.reshape(B, R, C3 // 3), inverse), (c1, index, qkv_bias is not None)


def window_attention_backward(dy, cache):
    c1, index, has_qkv_bias = cache
    B, N, C = dy.shape
    dy = gather(dy, index)                                                   # (B, nW·M², C)
    dwindows, dbias = self_attention_backward(dy.reshape(-1, c1[0].shape[2], C), c1)
    dqkv, dqkv_bias = np.empty((B, N, 3 * C), dy.dtype), np.zeros(3 * C, dy.dtype)
    scatter_rows_sum(dwindows.reshape(B, len(index), 3 * C), index, dqkv, dqkv_bias)
    return dqkv, dqkv_bias if has_qkv_bias else None, dbias


def window_attention_probs(cache):
    return attention_probs(cache[0])


@njit(**LOOP)
def gather_rows_add(x, bias, index, y):
    """y = gather(x) + bias"""
    for b in range(y.shape[0]):
        for r in range(y.shape[1]):
            row, to = index[r], y[b, r]                                      # views: an index that may be negative is not vectorised
            if row >= 0:
                source = x[b, row]
                for c in range(to.size):
                    to[c] = source[c] + bias[c]
            else:
                for c in range(to.size):
                    to[c] = bias[c]                                          # the gather puts zeros there


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
