"""Vision Transformer. Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; parameter names and layouts are timm's.

    tokens = [class; patches · W] + positions;   x ← x + Attention(LN(x));   x ← x + MLP(LN(x));   logits = head(LN(x)[0])
"""
import math
from dataclasses import dataclass

import numpy as np

from ..layers import (DropPath, Dropout, LayerNorm, Linear, Mlp, PatchEmbed, SelfAttention, normal, number_random_layers)
from ..module import Model, Module, Parameter, pair
from ..ops.attention import attention_probs
from ..ops.bias_activation import ACTIVATIONS
from ..ops.positions import sincos2d_table, sinusoidal_table
from .checks import check_choice, check_divides, check_positive, check_rates, fail
from .embed import ConvStem
from .heads import PreLogits


@dataclass(frozen=True)
class ViTConfig:
    """Everything that decides a ViT. timm's names and defaults.

    img_size, patch_size in pixels (img_size may be (H, W)).  stem_widths, stem_strides: of 3×3 convolutions in place of plain patches
    (none: plain patches); the strides multiply to patch_size.  embed_dim = num_heads · head width.  mlp_ratio: MLP width / embed_dim.
    global_pool: "token" classifies from a class token; "avg" has none and averages the tokens, then normalises (timm's fc_norm);
    "gap" normalises the tokens, then averages them (Google's, big_vision's).
    representation_size: width of a layer with tanh before the head, as in the paper's pre-training; 0: none.
    pos_embed: "learn" a table; "sincos2d", "sinusoidal": fixed tables; "none".
    norm_order: "pre" x + f(LN(x)), with a final norm; "post" LN(x + f(x)), without (Vaswani et al. 2017).
    drop_rate: dropout after the position table and after every projection of a block; attn_drop_rate: on the attention
    probabilities; drop_path_rate: stochastic depth, rising linearly from 0 in the first block to this in the last.
    """

    img_size: int | tuple = 224
    patch_size: int = 16
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    global_pool: str = "token"
    pos_embed: str = "learn"
    norm_order: str = "pre"
    act: str = "gelu"
    norm_eps: float = 1e-6
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    stem_widths: tuple = ()
    stem_strides: tuple = ()
    representation_size: int = 0

    def __post_init__(self):
        check_positive(self, "img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio",
                       "norm_eps", "stem_widths", "stem_strides")
        check_rates(self, "drop_rate", "attn_drop_rate", "drop_path_rate")
        check_divides(self, "patch_size", "img_size")
        check_divides(self, "num_heads", "embed_dim")
        check_choice(self, "global_pool", ("token", "avg", "gap"))
        if not isinstance(self.representation_size, int) or self.representation_size < 0:
            fail("representation_size", "a whole number from 0", self.representation_size)
        check_choice(self, "pos_embed", ("learn", "sincos2d", "sinusoidal", "none"))
        check_choice(self, "norm_order", ("pre", "post"))
        check_choice(self, "act", tuple(ACTIVATIONS))
        if len(self.stem_widths) != len(self.stem_strides):
            fail("stem_strides", f"a tuple of one stride a convolution, {len(self.stem_widths)} as in stem_widths", self.stem_strides)
        if self.stem_widths and math.prod(self.stem_strides) != self.patch_size:
            fail("stem_strides", f"strides whose product is patch_size {self.patch_size}", self.stem_strides)
        if self.pos_embed == "sinusoidal" and self.embed_dim % 2:
            raise ValueError(f"embed_dim: sinusoidal positions need an even number, got {self.embed_dim}")
        if self.pos_embed == "sincos2d" and (self.embed_dim % 4 or self.embed_dim < 8):
            raise ValueError(f"embed_dim: sincos2d positions need a multiple of 4 from 8 up, got {self.embed_dim}")

    @property
    def grid(self):
        """(rows, columns) of patches"""
        H, W = pair(self.img_size)
        return H // self.patch_size, W // self.patch_size


class Block(Module):
    """One encoder block.   x (B, N, C)   →   x (B, N, C)"""

    def __init__(self, config, drop_path):
        C = config.embed_dim
        self.norm1 = LayerNorm(C, config.norm_eps)
        self.attn = SelfAttention(C, config.num_heads, config.qkv_bias, config.attn_drop_rate, config.drop_rate)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = LayerNorm(C, config.norm_eps)
        self.mlp = Mlp(C, int(C * config.mlp_ratio), config.act, config.drop_rate)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x, seeds=None, *more):         # x ← x + Attention(LN(x));  x ← x + MLP(LN(x))
        h, c1 = self.norm1.forward(x)
        h, c2 = self.attn.forward(h, seeds, *more)   # more: what another family's attention needs besides
        h, c3 = self.drop_path1.forward(h, seeds)
        x = np.add(x, h, out=h)                      # x + h, over an h that nobody else has: 2 % of a step
        h, c4 = self.norm2.forward(x)
        h, c5 = self.mlp.forward(h, seeds)
        h, c6 = self.drop_path2.forward(h, seeds)
        return np.add(x, h, out=h), (c1, c2, c3, c4, c5, c6)

    def backward(self, dx, cache):                   # forward, read from the bottom
        c1, c2, c3, c4, c5, c6 = cache
        dh = self.drop_path2.backward(dx, c6)
        dh = self.mlp.backward(dh, c5)
        dh = self.norm2.backward(dh, c4)
        dx = np.add(dx, dh, out=dh)                  # both paths of x + h
        dh = self.drop_path1.backward(dx, c3)
        dh = self.attn.backward(dh, c2)
        dh = self.norm1.backward(dh, c1)
        return np.add(dx, dh, out=dh)


class PostNormBlock(Block):
    """The block of the original Transformer: the norm stands behind the sum."""

    def forward(self, x, seeds=None):                # x ← LN(x + Attention(x));  x ← LN(x + MLP(x))
        h, c1 = self.attn.forward(x, seeds)
        h, c2 = self.drop_path1.forward(h, seeds)
        x, c3 = self.norm1.forward(x + h)
        h, c4 = self.mlp.forward(x, seeds)
        h, c5 = self.drop_path2.forward(h, seeds)
        x, c6 = self.norm2.forward(x + h)
        return x, (c1, c2, c3, c4, c5, c6)

    def backward(self, dx, cache):
        c1, c2, c3, c4, c5, c6 = cache
        dx = self.norm2.backward(dx, c6)
        dh = self.drop_path2.backward(dx, c5)
        dx = dx + self.mlp.backward(dh, c4)
        dx = self.norm1.backward(dx, c3)
        dh = self.drop_path1.backward(dx, c2)
        return dx + self.attn.backward(dh, c1)


class ViT(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)"""

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        C, N, token = config.embed_dim, config.grid[0] * config.grid[1], config.global_pool == "token"
        self.cls_token = Parameter((1, 1, C), normal(1e-6)) if token else None
        self.pos_embed = Parameter((1, N + token, C), normal(0.02)) if config.pos_embed == "learn" else None
        stem = ConvStem(config.stem_widths, config.stem_strides, config.in_chans, C, config.act) if config.stem_widths else None
        self.patch_embed = stem or PatchEmbed(config.patch_size, config.in_chans, C)
        self.pos_drop = Dropout(config.drop_rate)
        rates = np.linspace(0, config.drop_path_rate, config.depth)
        block = Block if config.norm_order == "pre" else PostNormBlock
        self.blocks = [block(config, rate) for rate in rates]
        final = LayerNorm(C, config.norm_eps) if config.norm_order == "pre" else None
        self.norm, self.fc_norm = (None, final) if config.global_pool == "avg" else (final, None)
        self.pre_logits = PreLogits(C, config.representation_size) if config.representation_size else None
        self.head = Linear(config.representation_size or C, config.num_classes)
        self.stochastic = number_random_layers(self)
        if materialise:
            self.materialise(seed, dtype)
            self.fixed_positions = fixed_positions(config, self.dtype)

    def forward(self, images, train=False, rng=None):
        """logits and the cache that backward needs. train: with dropout and drop path, whose bits come from rng:
        an int, a numpy Generator, or one uint64 seed an image (B,)."""
        images = self.check_images(images)
        seeds, statistics = (self.check_seeds(rng, len(images)), []) if train else (None, None)
        x, c_embed = self.embed(images, seeds, statistics)
        c_blocks = []
        for block in self.blocks:
            x, cache = block.forward(x, seeds)
            c_blocks.append(cache)
        logits, c_head = self.classify(x)
        if train and not self.is_replica:
            self.update_buffers([statistics])
        return logits, (c_embed, c_blocks, c_head)

    def backward(self, dlogits, cache):
        """Adds into every parameter's .grad and returns dimages."""
        c_embed, c_blocks, c_head = cache
        dx = self.classify_backward(dlogits, c_head)
        for block, c in zip(reversed(self.blocks), reversed(c_blocks)):
            dx = block.backward(dx, c)
        return self.embed_backward(dx, c_embed)

    def embed(self, images, seeds, statistics):
        """x = dropout([class; patches · W] + positions).   images (B, in_chans, H, W)   →   x (B, N, C)"""
        x, c1 = self.patch_embed.forward(images, statistics) if self.config.stem_widths else self.patch_embed.forward(images)
        if self.cls_token:
            cls = np.broadcast_to(self.cls_token.data, (len(x), 1, x.shape[-1]))
            x = np.concatenate([cls, x], axis=1)
        if self.pos_embed:
            x = x + self.pos_embed.data
        elif self.fixed_positions is not None:
            x = x + self.fixed_positions
        x, c2 = self.pos_drop.forward(x, seeds)
        return x, (c1, c2, statistics)

    def embed_backward(self, dx, cache):
        c1, c2, _ = cache
        dx = self.pos_drop.backward(dx, c2)
        if self.pos_embed:
            self.pos_embed.grad += dx.sum(axis=0)
        if self.cls_token:
            self.cls_token.grad += dx[:, 0].sum(axis=0)
            dx = dx[:, 1:]
        return self.patch_embed.backward(dx, c1)

    def classify(self, x):
        """head(pooled tokens), with pre_logits before where there is one.   x (B, N, C)   →   logits (B, K)"""
        pooled, c1 = self.pool(x)
        pooled, c2 = self.pre_logits.forward(pooled) if self.pre_logits else (pooled, None)
        logits, c3 = self.head.forward(pooled)
        return logits, (c1, c2, c3, x.shape)

    def classify_backward(self, dlogits, cache):
        c1, c2, c3, shape = cache
        dlogits = self.check_logits_gradient(dlogits, shape[0])
        dpooled = self.head.backward(dlogits, c3)
        dpooled = self.pre_logits.backward(dpooled, c2) if self.pre_logits else dpooled
        return self.pool_backward(dpooled, c1, shape)

    def pool(self, x):
        """norm(x[0]), fc_norm(mean of x) or mean of norm(x).   x (B, N, C)   →   pooled (B, C), cache"""
        if self.config.global_pool == "gap":
            x, cache = self.norm.forward(x) if self.norm else (x, None)
            return x.mean(axis=1), cache
        norm = self.norm or self.fc_norm                                     # rows are normalised alone, so a row is enough
        pooled = x[:, 0] if self.cls_token else x.mean(axis=1)
        return norm.forward(pooled) if norm else (pooled, None)

    def pool_backward(self, dpooled, cache, shape):
        norm = self.norm or self.fc_norm
        if norm and self.config.global_pool != "gap":
            dpooled = norm.backward(dpooled, cache)
        if self.cls_token:
            dx = np.zeros(shape, dpooled.dtype)
            dx[:, 0] = dpooled
            return dx
        dx = np.repeat(dpooled[:, None] / shape[1], shape[1], axis=1)
        return self.norm.backward(dx, cache) if self.norm else dx            # "gap": the norm came first

    @property
    def tokens(self):
        """Tokens of one image."""
        return self.config.grid[0] * self.config.grid[1] + (self.cls_token is not None)

    @property
    def width(self):
        """Channels of those tokens."""
        return self.config.embed_dim

    def attention_maps(self, cache):
        """The attention probabilities of every block, from forward's cache: a list of (B, nh, N, N), rows summing to 1."""
        _, c_blocks, _ = cache
        attn = 1 if self.config.norm_order == "pre" else 0
        return [attention_probs(c[attn][1]) for c in c_blocks]

    def batch_statistics(self, cache):
        """[(mean, unbiased variance) of every batch norm], as a training forward measured them."""
        (_, _, statistics), _, _ = cache
        return statistics

    def update_buffers(self, statistics):
        """Average the batch_statistics of several training forwards into the running statistics, in the order given."""
        for of_forward in statistics:
            for layer, (mean, var) in zip(self.patch_embed.stem if self.config.stem_widths else [], of_forward):
                layer.bn.update(mean, var)


def fixed_positions(config, dtype):
    """The table that is added but not learned, (1, N(+1), C), or None."""
    token = config.global_pool == "token"
    if config.pos_embed == "sinusoidal":             # the class token is position 0
        table = sinusoidal_table(config.grid[0] * config.grid[1] + token, config.embed_dim)
    elif config.pos_embed == "sincos2d":             # the class token has no place on the grid: zeros
        table = sincos2d_table(*config.grid, config.embed_dim)
        table = np.concatenate([np.zeros((int(token), config.embed_dim)), table])
    else:
        return None
    return table[None].astype(dtype)


# Dosovitskiy et al. 2021, table 1; tiny and small from Touvron et al. 2021 (DeiT), table 1.
CIFAR = dict(img_size=32, patch_size=4, num_classes=10, mlp_ratio=2.0, global_pool="avg", pos_embed="sincos2d")
STEM = dict(stem_strides=(2, 1, 2, 1, 1))
PRESETS = {
    "vit_tiny_patch16_224": ViTConfig(embed_dim=192, num_heads=3),
    "vit_small_patch16_224": ViTConfig(embed_dim=384, num_heads=6),
    "vit_base_patch16_224": ViTConfig(),
    "vit_base_patch32_224": ViTConfig(patch_size=32),
    "vit_large_patch16_224": ViTConfig(embed_dim=1024, depth=24, num_heads=16),
    "vit_huge_patch14_224": ViTConfig(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
    # for 32×32 images
    "vit_tiny_patch4_32": ViTConfig(img_size=32, patch_size=4, num_classes=10, embed_dim=192, num_heads=3),
    "vit_pico_patch4_32": ViTConfig(embed_dim=64, depth=4, num_heads=2, **CIFAR),
    "vit_nano_patch4_32": ViTConfig(embed_dim=128, depth=4, num_heads=4, **CIFAR),
    "vit_nano_conv_32": ViTConfig(embed_dim=128, depth=2, num_heads=4, stem_widths=(64, 64, 128, 128, 128), **STEM, **CIFAR),
    "vit_mini_conv_32": ViTConfig(embed_dim=192, depth=3, num_heads=6, stem_widths=(64, 64, 192, 192, 192), **STEM, **CIFAR),
}
