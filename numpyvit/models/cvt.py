"""CvT. Wu et al. 2021, "CvT: Introducing Convolutions to Vision Transformers"; parameters as in microsoft/CvT.

    [stem:  3×3 convolutions of the images]
    stage:  map = LN(conv(map)), overlapping;   tokens = [class, in the last stage; pixels of the map]
    block:  x ← x + Attention(LN(x));   x ← x + MLP(LN(x));   logits = head(LN(x)[0])
    attention:  q, k, v = Linear([class; BN(depthwise(map))]), each with a convolution of its own

k and v have half the resolution of q. The model knows positions from the convolutions alone. The class token passes no
convolution and no batch norm: it joins the map's tokens before the Linear.
"""
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..checks import check_choice, check_numbers, check_types, fail, values
from ..flat import EVALUATION, Module, Parameter
from ..layers import Dropout, LayerNorm, Linear, conv_uniform, normal
from ..module import Model, Stage, pair
from ..ops.bias_activation import ACTIVATIONS
from ..ops.conv import output_size
from . import rows
from .block import Block
from .checks import check_heads, check_image_size, check_mlp, check_stages, check_stem, check_stem_batch
from .cvt_layers import METHODS, ConvAttention, join_class, split_class
from .embed import ConvEmbed
from .fold import fold_batch_norm
from .stem import seen_through_stem, stem_backward, stem_forward, stem_layers, stem_rows, stem_size

PER_STAGE = ("embed_dims", "depths", "num_heads", "patch_sizes", "patch_strides", "patch_paddings")


@dataclass(frozen=True)
class CvTConfig:
    """Everything that decides a CvT; the defaults are CvT-13's. Tuples have one value a stage.

    img_size in pixels, may be (H, W).
    patch_sizes, patch_strides, patch_paddings: of the convolution that embeds a stage's tokens.
    stem_widths, stem_strides, stem_pools: of 3×3 convolutions before the first stage, as in ViTConfig; () for none.
    qkv_method: "dw_bn", a depthwise convolution and batch norm before the Linear of q, k and v; "avg", average pooling
    before the Linear of k and v; "linear", neither.
    qkv_kernel, kv_stride: of these convolutions or poolings; q_stride must be 1, for the residual to fit.
    cls_token: classify from a class token, which lives in the last stage; without, from the mean of the tokens.
    drop_rate: dropout after the embeddings and every projection; attn_drop_rate: on the attention probabilities;
    drop_path_rate: stochastic depth, rising linearly from 0 within every stage, one number or one a stage.
    """

    img_size: int | tuple = 224
    in_chans: int = 3
    num_classes: int = 1000
    embed_dims: tuple = (64, 192, 384)
    depths: tuple = (1, 2, 10)
    num_heads: tuple = (1, 3, 6)
    patch_sizes: tuple = (7, 3, 3)
    patch_strides: tuple = (4, 2, 2)
    patch_paddings: tuple = (2, 1, 1)
    qkv_method: str = "dw_bn"
    qkv_kernel: int = 3
    q_stride: int = 1
    kv_stride: int = 2
    qkv_bias: bool = True
    mlp_ratio: float = 4.0
    cls_token: bool = True
    act: str = "quick_gelu"
    norm_eps: float = 1e-5
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float | tuple = 0.0
    stem_widths: tuple = ()
    stem_strides: tuple = ()
    stem_pools: tuple = ()

    def __post_init__(self):
        check_types(self)
        check_image_size(self)
        check_stages(self, *PER_STAGE)
        check_numbers(self, "in_chans", "num_classes", "qkv_kernel", "kv_stride", "mlp_ratio", "norm_eps", above=0)
        check_numbers(self, "embed_dims", "depths", "num_heads", "patch_sizes", "patch_strides", above=0)
        check_numbers(self, "patch_paddings", least=0)
        check_numbers(self, "drop_rate", "attn_drop_rate", "drop_path_rate", least=0, below=1)
        check_choice(self, "qkv_method", tuple(METHODS))
        check_choice(self, "act", tuple(ACTIVATIONS))
        check_choice(self, "q_stride", (1,))
        if self.qkv_kernel % 2 == 0:
            fail("qkv_kernel", "an odd number, so that the map keeps its size", self.qkv_kernel)
        if len(values(self, "drop_path_rate")) not in (1, len(self.depths)):
            fail("drop_path_rate", f"one number or {len(self.depths)}, one a stage", self.drop_path_rate)
        check_heads(self.embed_dims, self.num_heads)
        check_mlp(self, self.embed_dims)
        check_stem(self)
        before = stem_size(self)
        for i, (map_size, kernel, padding) in enumerate(zip(self.maps, self.patch_sizes, self.patch_paddings)):
            if min(map_size) < 1:
                fail("patch_strides", f"a map in stage {i}", f"an empty map: its kernel (patch_sizes) of {kernel} does "
                     f"not fit the {before[0]}×{before[1]} map of before, padded by {padding}; use smaller strides or "
                     "larger images")
            before = map_size

    @property
    def maps(self):
        """The (H, W) of every stage's map."""
        maps, size = [], stem_size(self)
        for embed in zip(self.patch_sizes, self.patch_strides, self.patch_paddings):
            size = tuple(output_size(n, *embed) for n in size)
            maps.append(size)
        return tuple(maps)

    def drop_paths(self, i):
        """The drop path rate of every block of stage i."""
        rates = values(self, "drop_path_rate")
        return np.linspace(0, rates[i % len(rates)], self.depths[i])


class LevelCache(NamedTuple):
    """The caches of patch_embed, of its dropout and of every block."""

    patch_embed: tuple
    pos_drop: tuple
    blocks: list


class Level(Module):
    """A stage: embed a map as tokens, then blocks.   x (B, H, W, Cin)   →   tokens (B, [1 +] Ho·Wo, C)"""

    def __init__(self, config, i, in_chans, cls_token):
        C, self.size = config.embed_dims[i], config.maps[i]
        self.patch_embed = ConvEmbed(in_chans, C, config.patch_sizes[i], config.patch_strides[i],
                                     config.patch_paddings[i], config.norm_eps)
        self.cls_token = Parameter((1, 1, C), normal(0.02)) if cls_token else None
        self.pos_drop = Dropout(config.drop_rate)
        self.blocks = [Block(C, self.attention(config, i), config, rate) for rate in config.drop_paths(i)]

    def attention(self, config, i):
        """The attention of one block."""
        return ConvAttention(config.embed_dims[i], config.num_heads[i], config.maps[i], config.qkv_method,
                             config.qkv_kernel, config.q_stride, config.kv_stride, config.qkv_bias,
                             config.attn_drop_rate, config.drop_rate)

    def forward(self, x, down=EVALUATION):
        x, c_embed = self.patch_embed.forward(x)
        cls = self.cls_token.data if self.cls_token else np.empty((1, 0, x.shape[-1]), x.dtype)
        x = join_class(np.broadcast_to(cls, (len(x), *cls.shape[1:])), x)
        x, c_drop = self.pos_drop.forward(x, down)
        c_blocks = down.caches()
        for block in self.blocks:
            x, cache = block.forward(x, down)
            c_blocks.append(down.kept(cache))
        return x, LevelCache(c_embed, c_drop, c_blocks)

    def backward(self, dx, cache):
        for block, c in zip(reversed(self.blocks), reversed(cache.blocks)):
            dx = block.backward(dx, c)
        dcls, dx = split_class(self.pos_drop.backward(dx, cache.pos_drop), self.size)
        if self.cls_token:
            self.cls_token.grad += dcls.sum(axis=0)
        return self.patch_embed.backward(dx, cache.patch_embed)


class CvTCache(NamedTuple):
    """What forward_pass hands to backward_pass: a cache a convolution of the stem, a cache a level, and classify's."""

    stem: list
    levels: list
    head: tuple


class CvT(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)

    Batch norm is exact over the images of one forward(train=True). Training in lanes therefore normalises over a
    micro-batch, as gradient accumulation does elsewhere, and the running statistics average all micro-batches in
    order. With one shard, and a micro-batch as large as the batch, batch norm is exact over the whole batch.
    """

    positions_from = "its convolutions alone"

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        convolutions = config.stem_widths, config.stem_strides, config.stem_pools
        self.stem = stem_layers(*convolutions, config.in_chans, config.act)
        widths = ((config.in_chans, *config.stem_widths)[-1], *config.embed_dims)
        for i in range(len(config.depths)):
            cls_token = config.cls_token and i == len(config.depths) - 1
            setattr(self, f"stage{i}", Level(config, i, widths[i], cls_token))
        self.norm, self.head = LayerNorm(widths[-1], config.norm_eps), Linear(widths[-1], config.num_classes)
        self.head.bias.init = conv_uniform(widths[-1])       # torch's default for a Linear, as in the official code
        self.finish(seed, dtype, materialise)

    @property
    def levels(self):
        """[stage0, stage1, …]"""
        return [getattr(self, f"stage{i}") for i in range(len(self.config.depths))]

    def for_inference(self):
        return fold_batch_norm(self)

    def forward_pass(self, images, down):
        x, c_stem = stem_forward(self.stem, images, down)
        c_levels = down.caches()
        for level in self.levels:
            tokens, cache = level.forward(x, down)
            _, x = split_class(tokens, level.size)           # the next level's map
            c_levels.append(down.kept(cache))
        logits, c_head = self.classify(tokens)
        return logits, CvTCache(c_stem, c_levels, c_head)

    def backward_pass(self, dlogits, cache):
        dtokens = self.classify_backward(dlogits, cache.head)
        for level, c in zip(reversed(self.levels), reversed(cache.levels)):
            dx = level.backward(dtokens, c)
            if level is not self.stage0:
                dtokens = dx.reshape(len(dx), -1, dx.shape[-1])              # map back to tokens of the level before
        return stem_backward(self.stem, dx, cache.stem)

    def classify(self, x):
        """head(norm(x)[0]), or head(mean of the tokens of norm(x)).   x (B, [1 +] N, C)   →   logits (B, K)"""
        used, c1 = self.norm.forward(x[:, :1] if self.config.cls_token else x)   # a norm treats every row alone
        logits, c2 = self.head.forward(used.mean(axis=1))
        return logits, (c1, c2, x.shape)

    def classify_backward(self, dlogits, cache):
        c1, c2, shape = cache
        dpooled = self.head.backward(dlogits, c2)
        used = 1 if self.config.cls_token else shape[1]      # tokens that the pooling saw
        dx = np.zeros(shape, dlogits.dtype)
        dx[:, :used] = self.norm.backward(np.repeat(dpooled[:, None] / used, used, axis=1), c1)
        return dx

    def check_batch(self, batch):
        """A batch norm that sees one value a channel has no variance."""
        check_stem_batch(self.config, batch)
        for i, (H, W) in enumerate(self.config.maps):
            if self.config.qkv_method == "dw_bn" and batch == 1 and max(H, W) <= self.config.kv_stride:
                fail("images", "2 or more to train on", "a batch of 1, which leaves batch norm one value a channel "
                     f"in stage {i}, where k and v are 1×1 maps (kv_stride {self.config.kv_stride} on {H}×{W})")

    # --- what the figures and the files of weights ask

    def stages(self):
        first, *others = zip(self.config.patch_sizes, self.config.patch_strides, self.config.patch_paddings)
        embeds = (seen_through_stem(self.config, first), *others)
        return [Stage(f"stage{i}.blocks", level.blocks, level.size, int(level.cls_token is not None), embed)
                for i, (level, embed) in enumerate(zip(self.levels, embeds))]

    def busiest(self):
        """The last stage, which has most of the blocks of every preset."""
        return self.stages()[-1]

    def block_caches(self, cache):
        return [c for level in cache.parts.levels for c in level.blocks]

    @property
    def first_and_last(self):
        """With a stem, its first convolution reads the pixels."""
        return "stem.0." if self.stem else "stage0.patch_embed.", "head."

    @property
    def reads_pixels(self):
        return self.stem[0].conv if self.stem else self.stage0.patch_embed.proj

    def rows(self):
        found, _ = stem_rows(self.stem, "stem", pair(self.config.img_size))
        for i, (level, stage) in enumerate(zip(self.levels, self.stages())):
            N, C = (math.prod(stage.grid) + stage.class_token,), self.config.embed_dims[i]
            found += level.patch_embed.rows(f"stage{i}.patch_embed", stage.grid)
            if level.cls_token:
                found += [rows.Row(f"stage{i}.cls_token", "class", (*N, C), level.cls_token.size, 0, N[0] * C)]
            found += [row for j, block in enumerate(level.blocks) for row in block.rows(f"{stage.name}.{j}", N)]
        used = () if self.config.cls_token else N                            # tokens that norm and pooling see
        return found + [rows.norm("norm", self.norm, used), rows.linear("head", self.head, ())]


# 32×32 images: 16×16, then 8×8 tokens, whose mean is classified
CIFAR = dict(img_size=32, num_classes=10, patch_sizes=(3, 3), patch_strides=(2, 2), patch_paddings=(1, 1),
             cls_token=False)
# Wu et al. 2021, table 2, with the official strides and paddings. The paper trains with drop path (0, 0, 0.1), and
# cvt_w24 with (0, 0, 0.3).
PRESETS = {
    "cvt_13": CvTConfig(),
    "cvt_21": CvTConfig(depths=(1, 4, 16)),
    "cvt_w24": CvTConfig(img_size=384, embed_dims=(192, 768, 1024), depths=(2, 2, 20), num_heads=(3, 12, 16)),
    "cvt_nano_32": CvTConfig(embed_dims=(64, 128), depths=(1, 4), num_heads=(1, 4), mlp_ratio=2.0, **CIFAR),
    "cvt_tiny_32": CvTConfig(embed_dims=(64, 192), depths=(2, 8), num_heads=(2, 6), mlp_ratio=3.0, **CIFAR),
    # six convolutions first, which leave one stage of 4×4 tokens
    "cvt_mini_convpool_32": CvTConfig(img_size=32, num_classes=10, embed_dims=(256,), depths=(2,), num_heads=(8,),
                                      mlp_ratio=2.0, patch_sizes=(3,), patch_strides=(1,), patch_paddings=(1,),
                                      cls_token=False, stem_widths=(32, 64, 64, 128, 128, 256), stem_strides=(1,) * 6,
                                      stem_pools=(1, 2, 1, 2, 1, 2)),
}
