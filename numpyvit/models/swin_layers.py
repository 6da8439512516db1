"""Swin's own layers: attention inside windows, and the merging of 2×2 patches."""
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..flat import EVALUATION, Module, Parameter
from ..layers import Dropout, LayerNorm, Linear, normal
from ..ops.relative_position import relative_position_index
from ..ops.windows import merge_index
from . import rows


class AttentionCache(NamedTuple):
    """The caches of qkv, of the relative position bias, of window_attention, of proj and of its dropout."""

    qkv: tuple
    bias: tuple
    attention: Any
    proj: tuple
    proj_drop: tuple


class WindowAttention(Module):
    """qkv projection, attention inside (shifted) windows with a relative position bias, output projection.

    x (B, N, C)   →   y (B, N, C), both in the order of the map: only the attention itself sees windows.
    """

    def __init__(self, C, num_heads, M, index, inverse, mask, qkv_bias=True, attn_drop_rate=0.0, drop_rate=0.0):
        self.relative_position_bias_table = Parameter(((2 * M - 1)**2, num_heads), normal(0.02))
        self.qkv = Linear(C, 3 * C, bias=qkv_bias)
        self.attn_drop = Dropout(attn_drop_rate)
        self.proj, self.proj_drop = Linear(C, C), Dropout(drop_rate)
        self.num_heads, self.relative_position_index = num_heads, relative_position_index(M)
        self.index, self.inverse, self.mask = index, inverse, mask

    def forward(self, x, down=EVALUATION):
        qkv, c1 = F.linear_forward(x, self.qkv.weight.data)                  # window_attention adds the bias
        table = self.relative_position_bias_table.data
        bias, c2 = F.relative_position_bias_forward(table, self.relative_position_index)
        drop = dict(drop_rate=self.attn_drop.rate, seeds=self.attn_drop.seeds(down))
        qkv_bias = self.qkv.bias.data if self.qkv.bias else None
        y, c3 = F.window_attention_forward(qkv, qkv_bias, bias, self.index, self.inverse, self.num_heads, self.mask,
                                           **drop)
        y, c4 = self.proj.forward(y)
        y, c5 = self.proj_drop.forward(y, down)
        return y, AttentionCache(c1, c2, c3, c4, c5)

    def backward(self, dy, cache):
        dy = self.proj_drop.backward(dy, cache.proj_drop)
        dy = self.proj.backward(dy, cache.proj)
        dqkv, dqkv_bias, dbias = F.window_attention_backward(dy, cache.attention)
        self.relative_position_bias_table.grad += F.relative_position_bias_backward(dbias, cache.bias)
        if self.qkv.bias:
            self.qkv.bias.grad += dqkv_bias                                  # window_attention added the bias
        dx, dweight, _ = F.linear_backward(dqkv, cache.qkv)
        self.qkv.weight.grad += dweight
        return dx

    def probs(self, cache):
        """The probabilities, (B·nW, nh, M², M²): row b · nW + w is window w of image b, whose token t is token
        index[w · M² + t] of the map, −1 for padding."""
        return cache.attention.attention.attn

    def in_image(self, probs, grid, b):
        """The probabilities of image b between the tokens of the grid, (nh, N, N): 0 between two windows. A row sums
        to 1, less what its token gives to padding.
        """
        nh, M2 = probs.shape[1:3]
        places, N = self.index.reshape(-1, M2), grid[0] * grid[1]            # (nW, M²)
        dense = np.zeros((nh, N + 1, N + 1), probs.dtype)                    # padding, −1, is for now a last token
        windows = probs[b * len(places):(b + 1) * len(places)]
        dense[:, places[:, :, None], places[:, None, :]] = windows.transpose(1, 0, 2, 3)
        return dense[:, :N, :N]

    def rows(self, name, tokens):
        """The rows of a summary."""
        C, M2 = self.proj.weight.shape[0], len(self.relative_position_index)
        return [rows.linear(f"{name}.qkv", self.qkv, tokens),
                rows.attention(name, tokens, M2, M2, C, self.num_heads, len(self.index) // M2,
                               self.relative_position_bias_table.size),
                rows.linear(f"{name}.proj", self.proj, tokens)]


class PatchMerging(Module):
    """reduction(LN(2×2 neighbours side by side)).   x (B, H·W, C)   →   y (B, ⌈H/2⌉·⌈W/2⌉, 2·C)"""

    def __init__(self, C, H, W, norm_eps):
        self.norm = LayerNorm(4 * C, norm_eps)
        self.reduction = Linear(4 * C, 2 * C, bias=False)
        self.index, self.inverse = merge_index(H, W)

    def forward(self, x):
        B, _, C = x.shape
        y, c1 = F.gather_tokens_forward(x, self.index, self.inverse)         # four rows a merged token
        y, c2 = self.norm.forward(y.reshape(B, -1, 4 * C))
        y, c3 = self.reduction.forward(y)
        return y, (c1, c2, c3)

    def backward(self, dy, cache):
        c1, c2, c3 = cache
        dy = self.reduction.backward(dy, c3)
        dy = self.norm.backward(dy, c2)
        return F.gather_tokens_backward(dy.reshape(len(dy), len(self.index), -1), c1)

    def rows(self, name, tokens):
        """The rows of a summary.   tokens: (H, W) after merging"""
        return [rows.norm(f"{name}.norm", self.norm, tokens), rows.linear(f"{name}.reduction", self.reduction, tokens)]
