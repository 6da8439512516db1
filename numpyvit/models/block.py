"""The residual block of every family, with its layer norms before or behind the branches; and plain self-attention."""
import math
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..flat import EVALUATION, Module
from ..layers import DropPath, Dropout, LayerNorm, Linear, Mlp, merge_heads, split_heads
from . import rows


class BlockCache(NamedTuple):
    """The caches of a block's layers, under the names of the layers."""

    norm1: tuple
    attn: Any
    drop_path1: tuple
    norm2: tuple
    mlp: tuple
    drop_path2: tuple


class Block(Module):
    """x ← x + Attention(LN(x));   x ← x + MLP(LN(x)).   x (B, N, C)   →   x (B, N, C)

    attn: a Module with forward(x, down) and backward(dy, cache); for the figures it has probs(cache), in_image(probs,
    grid, b) and rows(name, tokens).
    config: of any family, for mlp_ratio, act, norm_eps and drop_rate.   drop_path: the rate of both branches
    """

    def __init__(self, C, attn, config, drop_path):
        self.norm1, self.attn, self.drop_path1 = LayerNorm(C, config.norm_eps), attn, DropPath(drop_path)
        self.norm2 = LayerNorm(C, config.norm_eps)
        self.mlp = Mlp(C, int(C * config.mlp_ratio), config.act, config.drop_rate)
        self.drop_path2 = DropPath(drop_path)

    @property
    def width(self):
        """C"""
        return self.norm1.weight.shape[0]

    def forward(self, x, down=EVALUATION):
        h, c1 = self.norm1.forward(x)
        h, c2 = self.attn.forward(h, down)
        h, c3 = self.drop_path1.forward(h, down)
        x = F.residual(x, h)
        h, c4 = self.norm2.forward(x)
        h, c5 = self.mlp.forward(h, down)
        h, c6 = self.drop_path2.forward(h, down)
        return F.residual(x, h), BlockCache(c1, c2, c3, c4, c5, c6)

    def backward(self, dx, cache):                   # forward, read from the bottom
        dh = self.drop_path2.backward(dx, cache.drop_path2)
        dh = self.mlp.backward(dh, cache.mlp)
        dh = self.norm2.backward(dh, cache.norm2)
        dx = F.residual(dx, dh)                      # both paths of x + h
        dh = self.drop_path1.backward(dx, cache.drop_path1)
        dh = self.attn.backward(dh, cache.attn)
        dh = self.norm1.backward(dh, cache.norm1)
        return F.residual(dx, dh)

    def first_token(self, x):
        """forward in evaluation, of the first token alone, which attends to all.   x (B, N, C)   →   (B, 1, C)"""
        h, _ = self.norm1.forward(x)
        x = F.residual(x[:, :1], self.attn.first_token(h))
        h, _ = self.norm2.forward(x)
        h, _ = self.mlp.forward(h)
        return F.residual(x, h)

    def rows(self, name, tokens):
        """The rows of a summary, in the order of forward.   tokens: (N,) or (H, W)"""
        return [rows.norm(f"{name}.norm1", self.norm1, tokens), *self.attn.rows(f"{name}.attn", tokens),
                rows.norm(f"{name}.norm2", self.norm2, tokens), *rows.mlp(f"{name}.mlp", self.mlp, tokens)]


class PostNormBlock(Block):
    """x ← LN(x + Attention(x));   x ← LN(x + MLP(x)): the block of the original Transformer (Vaswani et al. 2017)."""

    def forward(self, x, down=EVALUATION):
        h, c1 = self.attn.forward(x, down)
        h, c2 = self.drop_path1.forward(h, down)
        x, c3 = self.norm1.forward(F.residual(x, h))
        h, c4 = self.mlp.forward(x, down)
        h, c5 = self.drop_path2.forward(h, down)
        x, c6 = self.norm2.forward(F.residual(x, h))
        return x, BlockCache(norm1=c3, attn=c1, drop_path1=c2, norm2=c6, mlp=c4, drop_path2=c5)

    def backward(self, dx, cache):                   # forward, read from the bottom
        dx = self.norm2.backward(dx, cache.norm2)
        dh = self.drop_path2.backward(dx, cache.drop_path2)
        dx = F.residual(dx, self.mlp.backward(dh, cache.mlp))
        dx = self.norm1.backward(dx, cache.norm1)
        dh = self.drop_path1.backward(dx, cache.drop_path1)
        return F.residual(dx, self.attn.backward(dh, cache.attn))

    def first_token(self, x):
        """forward in evaluation, of the first token alone, which attends to all.   x (B, N, C)   →   (B, 1, C)"""
        x, _ = self.norm1.forward(F.residual(x[:, :1], self.attn.first_token(x)))
        h, _ = self.mlp.forward(x)
        return self.norm2.forward(F.residual(x, h))[0]

    def rows(self, name, tokens):
        """The rows of a summary, in the order of forward."""
        norm1, *attn = super().rows(name, tokens)[:-4]
        norm2, *mlp = super().rows(name, tokens)[-4:]
        return [*attn, norm1, *mlp, norm2]


class SelfAttentionCache(NamedTuple):
    """The caches of qkv, of rotary positions, of the attention itself, of proj and of its dropout."""

    qkv: tuple
    rotary: tuple | None
    attention: Any
    proj: tuple
    proj_drop: tuple


class SelfAttention(Module):
    """qkv projection, scaled dot-product attention over heads, output projection.   x (B, N, C)   →   y (B, N, C)

    rotary: whether queries and keys are turned; then the model gives cos and sin (N, hd/2) of the angles.
    """

    def __init__(self, C, num_heads, qkv_bias=True, attn_drop_rate=0.0, drop_rate=0.0, rotary=False):
        self.qkv = Linear(C, 3 * C, bias=qkv_bias)
        self.attn_drop = Dropout(attn_drop_rate)
        self.proj, self.proj_drop = Linear(C, C), Dropout(drop_rate)
        self.num_heads, self.rotary = num_heads, rotary
        self.cos = self.sin = None

    def forward(self, x, down=EVALUATION):
        qkv, c1 = self.qkv.forward(x)
        qkv, c2 = F.rotary_forward(qkv, self.cos, self.sin) if self.rotary else (qkv, None)
        drop = dict(drop_rate=self.attn_drop.rate, seeds=self.attn_drop.seeds(down))
        y, c3 = F.self_attention_forward(qkv, self.num_heads, **drop)
        y, c4 = self.proj.forward(y)
        y, c5 = self.proj_drop.forward(y, down)
        return y, SelfAttentionCache(c1, c2, c3, c4, c5)

    def backward(self, dy, cache):
        dy = self.proj_drop.backward(dy, cache.proj_drop)
        dy = self.proj.backward(dy, cache.proj)
        dqkv, _ = F.self_attention_backward(dy, cache.attention)
        dqkv = F.rotary_backward(dqkv, cache.rotary) if self.rotary else dqkv
        return self.qkv.backward(dqkv, cache.qkv)

    def first_token(self, x):
        """forward in evaluation, of the first token alone.   x (B, N, C)   →   y (B, 1, C)"""
        C, weight, bias = x.shape[-1], self.qkv.weight.data, self.qkv.bias
        bias_q, bias_kv = (bias.data[:C], bias.data[C:]) if bias else (None, None)
        q, _ = F.linear_forward(x[:, :1], weight[:C], bias_q)
        kv, _ = F.linear_forward(x, weight[C:], bias_kv)
        if self.rotary:                              # the class token's angles are 0: its query stays
            kv = F.rotary_forward(np.concatenate([kv[..., :C], kv], axis=-1), self.cos, self.sin)[0][..., C:]
        y, _ = F.attention_forward(*(split_heads(part, self.num_heads) for part in (q, kv[..., :C], kv[..., C:])))
        return self.proj.forward(merge_heads(y))[0]

    def probs(self, cache):
        """The probabilities, (B, nh, N, N)."""
        return cache.attention.attn

    def in_image(self, probs, grid, b):
        """The probabilities of image b between the tokens of the grid, (nh, N, N): plain attention has them already."""
        return probs[b]

    def rows(self, name, tokens):
        """The rows of a summary."""
        N, C = math.prod(tokens), self.proj.weight.shape[0]
        found = [rows.linear(f"{name}.qkv", self.qkv, tokens)]
        if self.rotary:
            found += [rows.Row(f"{name}.rotary", "rotary positions", (*tokens, 3 * C), 0, 0, N * 3 * C)]
        return found + [rows.attention(name, tokens, N, N, C, self.num_heads),
                        rows.linear(f"{name}.proj", self.proj, tokens)]
