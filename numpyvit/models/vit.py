"""Vision Transformer. Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; parameter names and layouts are timm's.

    tokens = [class; patches · W] + positions;   logits = head(LN(x)[0])
    blocks:  x ← x + Attention(LN(x));   x ← x + MLP(LN(x))
"""
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..checks import check_choice, check_numbers, check_types, fail
from ..layers import Dropout, LayerNorm, Linear, normal
from ..module import Model, Parameter, PositionTable, Stage, pair
from ..ops.bias_activation import ACTIVATIONS
from . import rows
from .block import Block, PostNormBlock, SelfAttention
from .checks import check_divisor, check_image_size, check_mlp, check_stem_batch, check_stem_makes_patches
from .embed import PatchEmbed
from .fold import fold_batch_norm
from .heads import PreLogits
from .positions import fixed_positions, rotary_tables
from .stem import ConvStem


@dataclass(frozen=True)
class ViTConfig:
    """Everything that decides a ViT. timm's names and defaults.

    img_size, patch_size in pixels (img_size may be (H, W)).
    stem_widths, stem_strides: of 3×3 convolutions in place of plain patches; stem_pools: the sides of the windows of
    max-pooling behind them, 1 for none, () for none at all. Strides and pools multiply to patch_size.
    embed_dim = num_heads · head width.  mlp_ratio: MLP width / embed_dim.
    global_pool: "token" classifies from a class token; "avg" has none and averages the tokens, then normalises (timm's
    fc_norm); "gap" normalises the tokens, then averages them (Google's, big_vision's).
    representation_size: width of a layer with tanh before the head, as in the paper's pre-training; 0: none.
    pos_embed: "learn" a table; "sincos2d", "sinusoidal": fixed tables; "rotary": queries and keys are turned by angles
    that grow with their places (Heo et al. 2024); "sincos2d+rotary": both; "none".
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
    stem_pools: tuple = ()
    representation_size: int = 0

    def __post_init__(self):
        check_types(self)
        check_image_size(self)
        check_numbers(self, "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio",
                      "norm_eps", above=0)
        check_numbers(self, "drop_rate", "attn_drop_rate", "drop_path_rate", least=0, below=1)
        check_divisor(self, "patch_size", "img_size")
        check_divisor(self, "num_heads", "embed_dim")
        check_mlp(self, [self.embed_dim])
        check_choice(self, "global_pool", ("token", "avg", "gap"))
        check_numbers(self, "representation_size", least=0)
        check_choice(self, "pos_embed", ("learn", "sincos2d", "sinusoidal", "rotary", "sincos2d+rotary", "none"))
        check_choice(self, "norm_order", ("pre", "post"))
        check_choice(self, "act", tuple(ACTIVATIONS))
        check_stem_makes_patches(self)
        if self.pos_embed == "sinusoidal" and self.embed_dim % 2:
            fail("embed_dim", "an even number, for sinusoidal positions", self.embed_dim)
        if "sincos2d" in self.pos_embed and (self.embed_dim % 4 or self.embed_dim < 8):
            fail("embed_dim", "a multiple of 4 from 8 up, for sincos2d positions", self.embed_dim)
        if "rotary" in self.pos_embed and self.embed_dim // self.num_heads % 4:
            fail("embed_dim", f"{self.num_heads} heads of a width that is a multiple of 4, for rotary positions",
                 self.embed_dim)

    @property
    def grid(self):
        """(rows, columns) of patches"""
        H, W = pair(self.img_size)
        return H // self.patch_size, W // self.patch_size


class ViTCache(NamedTuple):
    """What forward_pass hands to backward_pass: the caches of embed, of every block and of classify."""

    embed: tuple
    blocks: list
    head: tuple


class ViT(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)"""

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        C, N, token = config.embed_dim, math.prod(config.grid), config.global_pool == "token"
        self.cls_token = Parameter((1, 1, C), normal(1e-6)) if token else None
        self.pos_embed = Parameter((1, N + token, C), normal(0.02)) if config.pos_embed == "learn" else None
        if config.stem_widths:
            convolutions = config.stem_widths, config.stem_strides, config.stem_pools
            self.patch_embed = ConvStem(*convolutions, config.in_chans, C, config.act)
        else:
            self.patch_embed = PatchEmbed(config.patch_size, config.in_chans, C)
        self.pos_drop = Dropout(config.drop_rate)
        block = Block if config.norm_order == "pre" else PostNormBlock
        rates = np.linspace(0, config.drop_path_rate, config.depth)
        self.blocks = [block(C, self.attention(), config, rate) for rate in rates]
        final = LayerNorm(C, config.norm_eps) if config.norm_order == "pre" else None
        self.norm, self.fc_norm = (None, final) if config.global_pool == "avg" else (final, None)
        self.pre_logits = PreLogits(C, config.representation_size) if config.representation_size else None
        self.head = Linear(config.representation_size or C, config.num_classes)
        self.finish(seed, dtype, materialise)

    def materialise(self, seed=0, dtype="float32"):
        """As every model, and the tables of positions that are not learned."""
        super().materialise(seed, dtype)
        self.fixed_positions = fixed_positions(self.config, self.dtype)
        cos, sin = rotary_tables(self.config, self.dtype)
        for block in self.blocks:
            block.attn.cos, block.attn.sin = cos, sin
        return self

    def attention(self):
        """The attention of one block."""
        c = self.config
        rates, rotary = (c.attn_drop_rate, c.drop_rate), "rotary" in c.pos_embed
        return SelfAttention(c.embed_dim, c.num_heads, c.qkv_bias, *rates, rotary)

    def for_inference(self):
        return fold_batch_norm(self) if self.config.stem_widths else self

    def forward_pass(self, images, down):
        x, c_embed = self.embed(images, down)
        c_blocks = down.caches()
        for block in self.blocks:
            if block is self.blocks[-1] and self.cls_token and not down.keep:
                x, cache = block.first_token(x), None                        # classify reads no other token
            else:
                x, cache = block.forward(x, down)
            c_blocks.append(down.kept(cache))
        logits, c_head = self.classify(x)
        return logits, ViTCache(c_embed, c_blocks, c_head)

    def backward_pass(self, dlogits, cache):
        dx = self.classify_backward(dlogits, cache.head)
        for block, c in zip(reversed(self.blocks), reversed(cache.blocks)):
            dx = block.backward(dx, c)
        return self.embed_backward(dx, cache.embed)

    def embed(self, images, down):
        """x = dropout([class; patches · W] + positions).   images (B, in_chans, H, W)   →   x (B, N, C)"""
        x, c1 = self.patch_embed.forward(images, down)
        if self.cls_token:
            cls = np.broadcast_to(self.cls_token.data, (len(x), 1, x.shape[-1]))
            x = np.concatenate([cls, x], axis=1)
        if self.pos_embed:
            x = x + self.pos_embed.data
        elif self.fixed_positions is not None:
            x = x + self.fixed_positions
        x, c2 = self.pos_drop.forward(x, down)
        return x, (c1, c2)

    def embed_backward(self, dx, cache):
        c1, c2 = cache
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
        dpooled = self.head.backward(dlogits, c3)
        dpooled = self.pre_logits.backward(dpooled, c2) if self.pre_logits else dpooled
        return self.pool_backward(dpooled, c1, shape)

    def pool(self, x):
        """norm(x[0]), fc_norm(mean of x) or mean of norm(x).   x (B, N, C)   →   pooled (B, C), cache"""
        if self.config.global_pool == "gap":
            x, cache = self.norm.forward(x) if self.norm else (x, None)
            return x.mean(axis=1), cache
        norm = self.norm or self.fc_norm                                     # a norm treats every row alone
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

    def check_batch(self, batch):
        check_stem_batch(self.config, batch)

    # --- what the figures and the files of weights ask

    def stages(self):
        P = self.config.patch_size
        return [Stage("blocks", self.blocks, self.config.grid, int(self.cls_token is not None), (P, P, 0))]

    def block_caches(self, cache):
        return cache.parts.blocks

    def position_table(self):
        table = self.pos_embed.data if self.pos_embed else self.fixed_positions
        return None if table is None else table[0, int(self.cls_token is not None):].reshape(*self.config.grid, -1)

    @property
    def first_and_last(self):
        """With a stem, its first convolution reads the pixels."""
        return "patch_embed.stem.0." if self.config.stem_widths else "patch_embed.", "head."

    @property
    def positions_from(self):
        turned = "the angles by which queries and keys are turned"
        others = {"none": 'nothing, pos_embed is "none"', "rotary": turned,
                  "sincos2d+rotary": f"a table, and from {turned}"}
        return others.get(self.config.pos_embed, "a table")

    def position_tables(self):
        return {"pos_embed": PositionTable(self.config.grid, int(self.cls_token is not None))} if self.pos_embed else {}

    @property
    def reads_pixels(self):
        return self.patch_embed.reads_pixels

    def rows(self):
        config, N = self.config, (self.tokens,)
        found = self.patch_embed.rows("patch_embed", (math.prod(config.grid),), pair(config.img_size))
        added = {"class": self.cls_token, "positions": config.pos_embed not in ("rotary", "none")}
        if any(added.values()):
            kind = ", ".join(what for what, there in added.items() if there)
            extra = sum(p.size for p in (self.cls_token, self.pos_embed) if p)
            found += [rows.Row("tokens", kind, (*N, config.embed_dim), extra, 0, N[0] * config.embed_dim)]
        found += [row for i, block in enumerate(self.blocks) for row in block.rows(f"blocks.{i}", N)]
        pooled = N if config.global_pool == "gap" else ()                    # "gap" normalises every token, then pools
        norms = (("norm", self.norm), ("fc_norm", self.fc_norm))
        found += [rows.norm(name, norm, pooled) for name, norm in norms if norm]
        if self.pre_logits:
            found += [rows.linear("pre_logits.fc", self.pre_logits.fc, ())]
        return found + [rows.linear("head", self.head, ())]


# Dosovitskiy et al. 2021, table 1; tiny and small from Touvron et al. 2021 (DeiT), table 1.
CIFAR = dict(img_size=32, patch_size=4, num_classes=10, mlp_ratio=2.0, global_pool="avg", pos_embed="sincos2d")
ROTARY = dict(pos_embed="sincos2d+rotary")
STEM = dict(stem_strides=(2, 1, 2, 1, 1))
POOLED = dict(stem_strides=(1,) * 7, stem_pools=(1, 2, 1, 2, 1, 2, 1))
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
    "vit_nano_patch4_rope_32": ViTConfig(embed_dim=128, depth=4, num_heads=4, **CIFAR | ROTARY),
    "vit_nano_conv_32": ViTConfig(embed_dim=128, depth=2, num_heads=4, stem_widths=(64, 64, 128, 128, 128),
                                  **STEM, **CIFAR),
    "vit_mini_conv_32": ViTConfig(embed_dim=192, depth=3, num_heads=6, stem_widths=(64, 64, 192, 192, 192),
                                  **STEM, **CIFAR),
    "vit_mini_convpool_32": ViTConfig(embed_dim=256, depth=2, num_heads=8, stem_widths=(32, 64, 64, 128, 128, 256, 256),
                                      **POOLED, **CIFAR | dict(patch_size=8)),
}
