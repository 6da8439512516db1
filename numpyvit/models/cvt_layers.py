"""CvT's own layer: attention whose queries, keys and values pass a convolution first."""
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..flat import EVALUATION, Module
from ..layers import AvgPool, DepthwiseBatchNorm, Dropout, Linear, merge_heads, split_heads
from . import rows
from .grids import spread_evenly

# qkv_method → what stands before the Linear of q, and before those of k and v
METHODS = {"dw_bn": (DepthwiseBatchNorm, DepthwiseBatchNorm), "avg": (None, AvgPool), "linear": (None, None)}


class ConvAttentionCache(NamedTuple):
    """The caches of the three projections, of the attention itself, of proj and of its dropout."""

    q: Any
    k: Any
    v: Any
    attention: Any
    proj: tuple
    proj_drop: tuple


class ProjectCache(NamedTuple):
    """The caches of the convolution, None without, and of the Linear; and the (Ho, Wo) of the map between them."""

    conv: tuple | None
    linear: tuple
    size: tuple


class ConvAttention(Module):
    """Attention whose q, k and v each see a neighbourhood of the map.   x (B, [1 +] H·W, C)   →   y (B, [1 +] H·W, C)

    size: (H, W) of the map.   method, kernel, q_stride, kv_stride: CvTConfig's qkv_method, qkv_kernel and strides
    """

    def __init__(self, C, num_heads, size, method="dw_bn", kernel=3, q_stride=1, kv_stride=2, qkv_bias=True,
                 attn_drop_rate=0.0, drop_rate=0.0):
        of_q, of_kv = METHODS[method]
        self.conv_proj_q = of_q(C, kernel, q_stride) if of_q else None
        self.conv_proj_k = of_kv(C, kernel, kv_stride) if of_kv else None
        self.conv_proj_v = of_kv(C, kernel, kv_stride) if of_kv else None
        self.proj_q, self.proj_k, self.proj_v = (Linear(C, C, qkv_bias) for _ in range(3))
        self.proj = Linear(C, C)
        self.attn_drop, self.proj_drop = Dropout(attn_drop_rate), Dropout(drop_rate)
        self.num_heads, self.size = num_heads, size
        self.scale = C ** -0.5                       # by the whole width, not by a head's: the official code's choice

    def forward(self, x, down=EVALUATION):
        q, c1 = self.project(x, self.conv_proj_q, self.proj_q, down)
        k, c2 = self.project(x, self.conv_proj_k, self.proj_k, down)
        v, c3 = self.project(x, self.conv_proj_v, self.proj_v, down)
        drop = dict(drop_rate=self.attn_drop.rate, seeds=self.attn_drop.seeds(down))
        y, c4 = F.attention_forward(q, k, v, scale=self.scale, **drop)
        y, c5 = self.proj.forward(merge_heads(y))
        y, c6 = self.proj_drop.forward(y, down)
        return y, ConvAttentionCache(c1, c2, c3, c4, c5, c6)

    def backward(self, dy, cache):
        dy = self.proj_drop.backward(dy, cache.proj_drop)
        dy = self.proj.backward(dy, cache.proj)
        dq, dk, dv, _ = F.attention_backward(split_heads(dy, self.num_heads), cache.attention)
        dx = self.project_backward(dv, cache.v, self.conv_proj_v, self.proj_v)
        dx += self.project_backward(dk, cache.k, self.conv_proj_k, self.proj_k)     # x was read three times
        dx += self.project_backward(dq, cache.q, self.conv_proj_q, self.proj_q)
        return dx

    def project(self, x, conv, linear, down=EVALUATION):
        """heads(Linear([class; conv(map)])).   x (B, [1 +] H·W, C)   →   q, k or v (B, nh, [1 +] Ho·Wo, hd)"""
        cls, grid = split_class(x, self.size)                                # the class token passes the Linear alone
        grid, c1 = conv.forward(grid, down) if conv else (grid, None)
        h, c2 = linear.forward(join_class(cls, grid))
        return split_heads(h, self.num_heads), ProjectCache(c1, c2, grid.shape[1:3])

    def project_backward(self, dheads, cache, conv, linear):
        dh = linear.backward(merge_heads(dheads), cache.linear)
        dcls, dgrid = split_class(dh, cache.size)
        return join_class(dcls, conv.backward(dgrid, cache.conv) if conv else dgrid)

    def probs(self, cache):
        """The probabilities, (B, nh, N, S), of N queries and S keys."""
        return cache.attention.attn

    def in_image(self, probs, grid, b):
        """The probabilities of image b between the tokens of the grid, (nh, N, N).

        A convolution or pooling makes a key of several tokens: the key's weight is spread over these tokens, so that
        even attention stays even. Rows sum to 1.
        """
        probs, conv = probs[b], self.conv_proj_k
        if conv is None:
            return probs
        tokens = probs.shape[1] - grid[0] * grid[1]                          # 1 with a class token
        keys = probs[..., tokens:].reshape(*probs.shape[:2], *(conv.windows(n) for n in grid))
        spread = spread_evenly(keys, grid, *conv.window).reshape(*probs.shape[:2], -1)
        return np.concatenate([probs[..., :tokens], spread], axis=-1)

    def rows(self, name, tokens):
        """The rows of a summary.   tokens: ([1 +] H·W,)"""
        C, cls, found = self.proj.weight.shape[0], tokens[0] - self.size[0] * self.size[1], []
        for of in "qkv":
            conv, linear, out = getattr(self, f"conv_proj_{of}"), getattr(self, f"proj_{of}"), self.size
            if conv:
                out = tuple(conv.windows(n) for n in self.size)
                found += conv_rows(f"{name}.conv_proj_{of}", conv, C, out)
            S = out[0] * out[1] + cls
            found += [rows.linear(f"{name}.proj_{of}", linear, (S,))]
        found += [rows.attention(name, tokens, *tokens, S, C, self.num_heads)]
        return [*found, rows.linear(f"{name}.proj", self.proj, tokens)]


def conv_rows(name, conv, C, out):
    """The rows of a convolution with its batch norm, where that is not folded, or of a pooling.   out: (Ho, Wo)"""
    if isinstance(conv, AvgPool):
        return [rows.Row(name, "average pool", (*out, C), 0, 0, out[0] * out[1] * C)]
    found = [rows.conv(f"{name}.conv", conv.conv, out)]
    return found + ([rows.norm(f"{name}.bn", conv.bn, out, "batch norm")] if conv.bn else [])


def split_class(x, size):
    """x (B, [1 +] H·W, C)   →   class token (B, 1 or 0, C), map (B, H, W, C)"""
    B, N, C = x.shape
    tokens = N - size[0] * size[1]
    return x[:, :tokens], x[:, tokens:].reshape(B, *size, C)


def join_class(cls, grid):
    """split_class's inverse, and so its adjoint: (B, 1 or 0, C), (B, H, W, C)   →   (B, [1 +] H·W, C)"""
    tokens = grid.reshape(len(grid), -1, grid.shape[-1])
    return np.concatenate([cls, tokens], axis=1) if cls.shape[1] else tokens
