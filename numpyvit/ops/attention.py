"""Scaled dot-product attention, heads already split; and self-attention from a packed projection."""
import math
from typing import NamedTuple

import numpy as np

from .dropout import dropout_backward, dropout_forward
from .softmax import softmax_backward, softmax_forward


class AttentionCache(NamedTuple):
    """What attention_backward needs, of the definition and of the kernel alike.

    q (B, nh, N, hd)   k, v (B, nh, S, hd)
    attn, dropped (B, nh, N, S): the probabilities, whose rows sum to 1, before and after dropout
    dropout: the cache of dropout   scale   has_bias: whether a bias was added
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    attn: np.ndarray
    dropped: np.ndarray
    dropout: tuple
    scale: float
    has_bias: bool


def attention_forward(q, k, v, bias=None, mask=None, scale=None, drop_rate=0.0, seeds=None):
    """Every query takes a mean of the values, weighted by how well it matches their keys.

        scores = scale · q kᵀ + bias + mask,   attn = softmax(scores),   y = attn v

    q (B, nh, N, hd)   k, v (B, nh, S, hd)   →   y (B, nh, N, hd);   scale = 1/√hd unless given
    bias (nh, N, S): learned, one table a head, shared by the batch (Swin's relative positions).
    mask (nW, N, S): constant, 0 or −inf, shared by the heads; batch row b uses mask[b mod nW] (Swin's shifted windows).
    Raises ValueError for a bias or a mask of another shape.
    drop_rate, seeds (B,): dropout on attn in training (see dropout_forward).
    cache: an AttentionCache. New in it are attn, (B, nh, N, S), and with dropout two more arrays of that shape: attn
    after dropout, and the factor by which dropout multiplied each element.
    Vaswani et al. 2017, eq. 1.  torch.nn.functional.scaled_dot_product_attention
    """
    B, nh, N, hd = q.shape
    scale = 1 / math.sqrt(hd) if scale is None else float(scale)
    check_tables(q, k, bias, mask)
    scores = (q @ k.swapaxes(-1, -2)) * scale                                # (B, nh, N, S)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = (scores.reshape(-1, len(mask), *scores.shape[1:]) + mask[:, None]).reshape(scores.shape)
    attn, _ = softmax_forward(scores)
    dropped, drop_cache = dropout_forward(attn, drop_rate, seeds)
    y = dropped @ v                                                          # (B, nh, N, hd)
    return y, AttentionCache(q, k, v, attn, dropped, drop_cache, scale, bias is not None)


def attention_backward(dy, cache):
    """ddropped = dy vᵀ,   dattn = ddropped ⊙ factor,   dscores = attn ⊙ (dattn − Σⱼ dattn ⊙ attn)
    dq = scale · dscores k,   dk = scale · dscoresᵀ q,   dv = droppedᵀ dy
    dbias = Σ_batch dscores  (None without a bias)

    factor is dropout's, 1 without. With dropout and without, Σⱼ dattn ⊙ attn = Σ dy ⊙ y: the sum over the keys equals a
    sum over the channels (Dao et al. 2022, FlashAttention, appendix B.2).
    """
    q, k, v, attn, dropped, drop_cache, scale, has_bias = cache
    dv = dropped.swapaxes(-1, -2) @ dy                                       # y = dropped v
    ddropped = dy @ v.swapaxes(-1, -2)                                       # (B, nh, N, S)
    dattn = dropout_backward(ddropped, drop_cache)
    dscores = softmax_backward(dattn, (attn,))
    dbias = dscores.sum(axis=0) if has_bias else None                        # scores = … + bias
    dq = (dscores @ k) * scale                                               # scores = scale · q kᵀ
    dk = (dscores.swapaxes(-1, -2) @ q) * scale
    return dq, dk, dv, dbias


def self_attention_forward(qkv, num_heads, bias=None, mask=None, scale=None, drop_rate=0.0, seeds=None):
    """Attention of a sequence to itself, from one projection that packs queries, keys and values.

        [q | k | v] = qkv,  each split into heads;   y = merge(attention(q, k, v))

    qkv (B, N, 3·C), head-major inside each third (timm's layout)   →   y (B, N, C);   the rest as in attention_forward.
    cache: attention_forward's.
    Dosovitskiy et al. 2021, eqs. 5–8
    """
    B, N, C3 = qkv.shape
    hd = C3 // 3 // num_heads
    q, k, v = qkv.reshape(B, N, 3, num_heads, hd).transpose(2, 0, 3, 1, 4)   # each (B, nh, N, hd), a view
    y, cache = attention_forward(q, k, v, bias, mask, scale, drop_rate, seeds)
    return y.transpose(0, 2, 1, 3).reshape(B, N, C3 // 3), cache


def self_attention_backward(dy, cache):
    """Split dy into heads, call attention_backward, pack: dqkv = [dq | dk | dv].   Also dbias (None without one)."""
    B, nh, N, hd = cache.q.shape
    dy = dy.reshape(B, N, nh, hd).transpose(0, 2, 1, 3)                      # merge, undone
    dq, dk, dv, dbias = attention_backward(dy, cache)
    dqkv = np.stack([dq, dk, dv], axis=2)                                    # (B, nh, 3, N, hd)
    return dqkv.transpose(0, 3, 2, 1, 4).reshape(B, N, 3 * nh * hd), dbias


def check_tables(q, k, bias, mask):
    """The bias and the mask, where they are given, fit the scores of these queries and keys."""
    (B, nh, N, _), S = q.shape, k.shape[2]
    if bias is not None and bias.shape != (nh, N, S):
        raise ValueError(f"bias: expected shape {(nh, N, S)}, got {bias.shape}")
    if mask is not None and (mask.shape[1:] != (N, S) or not len(mask) or B % len(mask) or mask.dtype.kind != "f"):
        raise ValueError(f"mask: expected numbers (nW, {N}, {S}), nW a divisor of the batch {B}, got {mask.dtype} "
                         f"{mask.shape}")
