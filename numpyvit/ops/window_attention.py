"""Self-attention inside the windows of a map."""
from typing import NamedTuple

import numpy as np

from .attention import AttentionCache, self_attention_backward, self_attention_forward
from .random_bits import hash_combine
from .windows import gather_tokens_backward, gather_tokens_forward


class WindowAttentionCache(NamedTuple):
    """The caches of the three steps, to the windows, attention, back to the map; and whether there was a qkv_bias.

    attention.attn (B·nW, nh, M², M²): the probabilities, rows summing to one.
    """

    to_windows: tuple
    attention: AttentionCache
    to_map: tuple
    has_qkv_bias: bool


def window_attention_forward(qkv, qkv_bias, bias, index, inverse, num_heads, mask=None, scale=None, drop_rate=0.0,
                             seeds=None):
    """Every token attends to the tokens of its own window.

        windows = gather(qkv) + qkv_bias,   y = gather⁻¹(self_attention(windows; bias, mask))

    qkv (B, N, 3·C), tokens in map order, before its bias   qkv_bias (3·C,) or None
    bias (nh, M², M²), by relative position
    index (nW·M²,), inverse (N,) of window_index   mask (nW, M², M²) of shifted_window_mask or None   →   y (B, N, C)
    drop_rate, seeds (B,), one an image: dropout on attn, each window with a seed of its own.

    A projection treats every token alone and commutes with the permutation. The projections therefore stay outside, in
    map order, and only the attention sees windows. A padded token is a zero vector before the projection, and qkv_bias
    after it. The other tokens attend to padded tokens as to any token; their gradient goes to qkv_bias alone.
    Raises ValueError for tables of another number of tokens.
    cache: a WindowAttentionCache.
    Liu et al. 2021, eqs. 3–4
    """
    B, N, C3 = qkv.shape
    nh, M2, _ = bias.shape
    check_index(index, inverse, N, M2)
    windows, c1 = gather_tokens_forward(qkv, index, inverse)                 # (B, nW·M², 3·C)
    windows = windows.reshape(-1, M2, C3)                                    # (B·nW, M², 3·C)
    if qkv_bias is not None:
        windows = windows + qkv_bias
    seeds = window_seeds(seeds, len(index) // M2)
    y, c2 = self_attention_forward(windows, num_heads, bias, mask, scale, drop_rate, seeds)
    y, c3 = gather_tokens_forward(y.reshape(B, len(index), C3 // 3), inverse, index)
    return y, WindowAttentionCache(c1, c2, c3, qkv_bias is not None)


def window_attention_backward(dy, cache):
    """dwindows, dbias = self_attention_backward(gather(dy)),   dqkv = gather⁻¹(dwindows),   dqkv_bias = Σ dwindows

    The sum includes the padded tokens. dqkv_bias is None without a qkv_bias.
    """
    dy = gather_tokens_backward(dy, cache.to_map)                            # (B, nW·M², C)
    B, R, C = dy.shape
    M2 = cache.attention.q.shape[2]
    dwindows, dbias = self_attention_backward(dy.reshape(-1, M2, C), cache.attention)   # (B·nW, M², 3·C)
    dqkv_bias = dwindows.sum(axis=(0, 1)) if cache.has_qkv_bias else None    # windows = … + qkv_bias
    dqkv = gather_tokens_backward(dwindows.reshape(B, R, 3 * C), cache.to_windows)
    return dqkv, dqkv_bias, dbias


def window_seeds(seeds, nW):
    """One seed an image (B,) → one a window (B·nW,)"""
    return None if seeds is None else hash_combine(seeds[:, None], np.arange(nW)).ravel()


def check_index(index, inverse, N, M2):
    """The tables gather every one of N tokens once, into windows of M² tokens."""
    if len(index) % M2 or not len(inverse) == np.count_nonzero(index >= 0) == index.max(initial=-1) + 1 == N:
        raise ValueError(f"index, inverse: expected the tables of window_index for {N} tokens in windows of {M2}, got "
                         f"tables for {len(inverse)} tokens, of {len(index)} rows")
