"""CvT. Wu et al. 2021, "CvT: Introducing Convolutions to Vision Transformers"; parameter names and layouts are microsoft/CvT's.

    stage:  map = LN(conv(map)), overlapping;   tokens = [class, in the last stage; pixels of the map]
    block:  x ← x + Attention(LN(x));   x ← x + MLP(LN(x));   logits = head(LN(x)[0])
    attention:  q, k, v = Linear([class; BN(depthwise(map))]), each with its own convolution, k and v at half the resolution

Positions come from the convolutions alone. The class token passes no convolution and no batch norm, it joins before the Linear.
"""
from dataclasses import dataclass

import numpy as np

from .. import functional as F
from ..layers import (AvgPool, BatchNorm, ConvBatchNorm, ConvEmbed, DropPath, Dropout, LayerNorm, Linear, Mlp, conv_uniform,
                      merge_heads, normal, number_random_layers, split_heads)
from ..module import Model, Module, Parameter, pair
from ..ops.attention import attention_probs
from ..ops.bias_activation import ACTIVATIONS
from ..ops.conv import output_size
from .checks import check_choice, check_positive, check_rates, check_stages, fail, values
from .fold import fold_batch_norm                                             # noqa: F401, offered from here
from .vit import Block

PER_STAGE = ("embed_dims", "depths", "num_heads", "patch_sizes", "patch_strides", "patch_paddings")


@dataclass(frozen=True)
class CvTConfig:
    """Everything that decides a CvT; the defaults are CvT-13's. Tuples have one value a stage.

    img_size in pixels, may be (H, W).  patch_sizes, patch_strides, patch_paddings: of the convolution that embeds a stage's tokens.
    qkv_method: "dw_bn", a depthwise convolution and batch norm before the Linear of q, k and v; "avg", average pooling before those
    of k and v; "linear", neither.  qkv_kernel, kv_stride: of these; q_stride must be 1, for the residual to fit.
    cls_token: classify from a class token, which lives in the last stage; without, from the mean of the tokens.
    drop_rate: dropout after the embeddings and every projection; attn_drop_rate: on the attention probabilities; drop_path_rate:
    stochastic depth, rising linearly from 0 within every stage, one number or one a stage.
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

    def __post_init__(self):
        stages = check_stages(self, *PER_STAGE)
        check_positive(self, *"img_size in_chans num_classes qkv_kernel kv_stride mlp_ratio norm_eps".split(), *PER_STAGE[:-1])
        check_rates(self, "drop_rate", "attn_drop_rate", "drop_path_rate")
        check_choice(self, "qkv_method", tuple(METHODS))
        check_choice(self, "act", tuple(ACTIVATIONS))
        check_choice(self, "q_stride", (1,))
        check_choice(self, "cls_token", (True, False))
        if self.qkv_kernel % 2 == 0:
            fail("qkv_kernel", "an odd number, so that the map keeps its size", self.qkv_kernel)
        if len(values(self, "drop_path_rate")) not in (1, stages):
            fail("drop_path_rate", f"one number or {stages}, one a stage", self.drop_path_rate)
        for i, (C, nh, padding) in enumerate(zip(self.embed_dims, self.num_heads, self.patch_paddings)):
            if C % nh:
                fail("num_heads", f"in stage {i} a divisor of its embed_dims {C}", nh)
            if not isinstance(padding, int) or padding < 0:
                fail("patch_paddings", f"in stage {i} a whole number from 0", padding)
        self.maps                                                            # a ValueError where one is empty

    @property
    def maps(self):
        """The (H, W) of every stage's map."""
        maps, size = [], pair(self.img_size)
        for i, embed in enumerate(zip(self.patch_sizes, self.patch_strides, self.patch_paddings)):
            before, size = size, tuple(output_size(n, *embed) for n in size)
            if min(size) < 1:
                raise ValueError(f"patch_strides: stage {i} gets an empty map: its kernel (patch_sizes) of {embed[0]} does not fit the "
                                 f"{before[0]}×{before[1]} map of before, padded by {embed[2]}; use smaller strides or larger images")
            maps.append(size)
        return tuple(maps)


METHODS = {"dw_bn": (ConvBatchNorm, ConvBatchNorm), "avg": (None, AvgPool), "linear": (None, None)}   # before q; before k and v


class ConvAttention(Module):
    """Attention whose q, k and v each see a neighbourhood of the map.   x (B, [1 +] H·W, C)   →   y (B, [1 +] H·W, C)"""

    def __init__(self, config, i):
        C, kernel, (of_q, of_kv) = config.embed_dims[i], config.qkv_kernel, METHODS[config.qkv_method]
        self.conv_proj_q = of_q(C, kernel, config.q_stride) if of_q else None
        self.conv_proj_k = of_kv(C, kernel, config.kv_stride) if of_kv else None
        self.conv_proj_v = of_kv(C, kernel, config.kv_stride) if of_kv else None
        self.proj_q, self.proj_k, self.proj_v = (Linear(C, C, config.qkv_bias) for _ in range(3))
        self.proj = Linear(C, C)
        self.attn_drop, self.proj_drop = Dropout(config.attn_drop_rate), Dropout(config.drop_rate)
        self.num_heads, self.size = config.num_heads[i], config.maps[i]
        self.scale = C ** -0.5                       # of the whole width, not of a head: the official code's choice

    def forward(self, x, seeds=None, statistics=None):
        q, c1 = self.project(x, self.conv_proj_q, self.proj_q, statistics)
        k, c2 = self.project(x, self.conv_proj_k, self.proj_k, statistics)
        v, c3 = self.project(x, self.conv_proj_v, self.proj_v, statistics)
        y, c4 = F.attention_forward(q, k, v, scale=self.scale, drop_rate=self.attn_drop.rate, seeds=self.attn_drop.seeds(seeds))
        y, c5 = self.proj.forward(merge_heads(y))
        y, c6 = self.proj_drop.forward(y, seeds)
        return y, (c1, c2, c3, c4, c5, c6)

    def backward(self, dy, cache):
        c1, c2, c3, c4, c5, c6 = cache
        dy = self.proj_drop.backward(dy, c6)
        dy = self.proj.backward(dy, c5)
        dq, dk, dv, _ = F.attention_backward(split_heads(dy, self.num_heads), c4)
        dx = self.project_backward(dv, c3, self.conv_proj_v, self.proj_v)
        dx += self.project_backward(dk, c2, self.conv_proj_k, self.proj_k)   # x went three ways
        dx += self.project_backward(dq, c1, self.conv_proj_q, self.proj_q)
        return dx

    def project(self, x, conv, linear, statistics):
        """heads(Linear([class; conv(map)])).   x (B, [1 +] H·W, C)   →   q, k or v (B, nh, [1 +] Ho·Wo, hd)"""
        cls, grid = split_class(x, self.size)                                # the class token passes the Linear alone
        grid, c1 = conv.forward(grid, statistics) if conv else (grid, None)
        h, c2 = linear.forward(join_class(cls, grid))
        return split_heads(h, self.num_heads), (c1, c2, grid.shape[1:3])

    def project_backward(self, dheads, cache, conv, linear):
        c1, c2, size = cache
        dh = linear.backward(merge_heads(dheads), c2)
        dcls, dgrid = split_class(dh, size)
        return join_class(dcls, conv.backward(dgrid, c1) if conv else dgrid)


def split_class(x, size):
    """x (B, [1 +] H·W, C)   →   class token (B, 1 or 0, C), map (B, H, W, C)"""
    B, N, C = x.shape
    tokens = N - size[0] * size[1]
    return x[:, :tokens], x[:, tokens:].reshape(B, *size, C)


def join_class(cls, grid):
    """split_class's inverse, and so its adjoint: (B, 1 or 0, C), (B, H, W, C)   →   (B, [1 +] H·W, C)"""
    tokens = grid.reshape(len(grid), -1, grid.shape[-1])
    return np.concatenate([cls, tokens], axis=1) if cls.shape[1] else tokens


class CvTBlock(Block):
    """ViT's block, its forward and its backward, with convolutional attention.   x (B, [1 +] N, C)   →   x (B, [1 +] N, C)"""

    def __init__(self, config, i, drop_path):
        C = config.embed_dims[i]
        self.norm1, self.attn = LayerNorm(C, config.norm_eps), ConvAttention(config, i)
        self.drop_path1 = DropPath(drop_path)
        self.norm2, self.mlp = LayerNorm(C, config.norm_eps), Mlp(C, int(C * config.mlp_ratio), config.act, config.drop_rate)
        self.drop_path2 = DropPath(drop_path)


class Stage(Module):
    """Embed a map as tokens, and the blocks.   x (B, H, W, Cin)   →   tokens (B, [1 +] Ho·Wo, C)"""

    def __init__(self, config, i, in_chans, cls_token):
        C, self.size = config.embed_dims[i], config.maps[i]
        self.patch_embed = ConvEmbed(in_chans, C, config.patch_sizes[i], config.patch_strides[i], config.patch_paddings[i],
                                     config.norm_eps)
        self.cls_token = Parameter((1, 1, C), normal(0.02)) if cls_token else None
        self.pos_drop = Dropout(config.drop_rate)
        rate = values(config, "drop_path_rate")[i % len(values(config, "drop_path_rate"))]
        self.blocks = [CvTBlock(config, i, r) for r in np.linspace(0, rate, config.depths[i])]

    def forward(self, x, seeds=None, statistics=None):
        x, c_embed = self.patch_embed.forward(x)
        cls = self.cls_token.data if self.cls_token else np.empty((1, 0, x.shape[-1]), x.dtype)
        x = join_class(np.broadcast_to(cls, (len(x), *cls.shape[1:])), x)
        x, c_drop = self.pos_drop.forward(x, seeds)
        c_blocks = []
        for block in self.blocks:
            x, cache = block.forward(x, seeds, statistics)
            c_blocks.append(cache)
        return x, (c_embed, c_drop, c_blocks)

    def backward(self, dx, cache):
        c_embed, c_drop, c_blocks = cache
        for block, c in zip(reversed(self.blocks), reversed(c_blocks)):
            dx = block.backward(dx, c)
        dcls, dx = split_class(self.pos_drop.backward(dx, c_drop), self.size)
        if self.cls_token:
            self.cls_token.grad += dcls.sum(axis=0)
        return self.patch_embed.backward(dx, c_embed)


class CvT(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)

    Batch norm is exact over the images of one forward(train=True), which also updates the running statistics. Replicas do not, they
    share them: batch_statistics(cache) is for update_buffers. So training in lanes normalises over a micro-batch (as gradient
    accumulation does elsewhere) and averages those in order; one shard and a micro-batch as large as the batch make it exact again.
    """

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        in_chans, last = config.in_chans, len(config.depths) - 1
        for i, C in enumerate(config.embed_dims):
            setattr(self, f"stage{i}", Stage(config, i, in_chans, config.cls_token and i == last))
            in_chans = C
        self.norm, self.head = LayerNorm(C, config.norm_eps), Linear(C, config.num_classes)
        self.head.bias.init = conv_uniform(C)        # torch's default for a Linear: the official code leaves it at that
        self.stochastic = number_random_layers(self)
        if materialise:
            self.materialise(seed, dtype)

    @property
    def stages(self):
        return [getattr(self, f"stage{i}") for i in range(len(self.config.depths))]

    def forward(self, images, train=False, rng=None):
        """logits and the cache that backward needs. train: batch norm over these images, dropout and drop path, whose bits come
        from rng: an int, a numpy Generator, or one uint64 seed an image (B,)."""
        images = self.check_images(images)
        seeds, statistics = (self.check_seeds(rng, len(images)), []) if train else (None, None)
        if train:
            self.check_batch(len(images))
        x, c_stages = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), []
        for stage in self.stages:
            tokens, cache = stage.forward(x, seeds, statistics)
            _, x = split_class(tokens, stage.size)                           # the next stage's map
            c_stages.append(cache)
        logits, c_head = self.classify(tokens)
        if train and not self.is_replica:
            self.update_buffers([statistics])
        return logits, (c_stages, c_head, statistics)

    def backward(self, dlogits, cache):
        """Adds into every parameter's .grad and returns dimages."""
        c_stages, c_head, _ = cache
        dx = self.classify_backward(dlogits, c_head)
        for stage, c in zip(reversed(self.stages), reversed(c_stages)):
            dx = stage.backward(dx.reshape(len(dx), -1, dx.shape[-1]), c)
        return dx.transpose(0, 3, 1, 2)

    def classify(self, x):
        """head(norm(x)[0]), or head(mean of the tokens of norm(x)).   x (B, [1 +] N, C)   →   logits (B, K)"""
        used, c1 = self.norm.forward(x[:, :1] if self.config.cls_token else x)   # rows are normalised alone
        logits, c2 = self.head.forward(used.mean(axis=1))
        return logits, (c1, c2, x.shape)

    def classify_backward(self, dlogits, cache):
        c1, c2, shape = cache
        dlogits = self.check_logits_gradient(dlogits, shape[0])
        dpooled = self.head.backward(dlogits, c2)
        used = 1 if self.config.cls_token else shape[1]                      # tokens that the pooling saw
        dx = np.zeros(shape, dlogits.dtype)
        dx[:, :used] = self.norm.backward(np.repeat(dpooled[:, None] / used, used, axis=1), c1)
        return dx

    def check_batch(self, B):
        """A ValueError where a batch norm would see one value a channel, which has no variance."""
        for i, (H, W) in enumerate(self.config.maps):
            if self.config.qkv_method == "dw_bn" and B == 1 and max(H, W) <= self.config.kv_stride:
                raise ValueError(f"images: training on a batch of 1 leaves batch norm a single value a channel in stage {i}, where "
                                 f"k and v are 1×1 maps (kv_stride {self.config.kv_stride} on {H}×{W}); use 2 images or more")

    @property
    def tokens(self):
        """Tokens of one image in the last stage, which has most of the blocks."""
        H, W = self.config.maps[-1]
        return H * W + self.config.cls_token

    @property
    def width(self):
        """Channels of those tokens."""
        return self.config.embed_dims[-1]

    def attention_maps(self, cache):
        """The attention probabilities of every block, from forward's cache: a list of (B, nh, N, S), rows summing to 1; S keys."""
        c_stages, _, _ = cache
        return [attention_probs(c_attn[3]) for _, _, c_blocks in c_stages for _, c_attn, *_ in c_blocks]

    def batch_statistics(self, cache):
        """[(mean, unbiased variance) of every batch norm], as a training forward measured them."""
        return cache[-1]

    def update_buffers(self, statistics):
        """Average the batch_statistics of several training forwards into the running statistics, in the order given."""
        norms = [module for _, module in self.modules() if isinstance(module, BatchNorm)]     # in forward's order
        for of_forward in statistics:
            for norm, (mean, var) in zip(norms, of_forward):
                norm.update(mean, var)


# 32×32 images: 16×16, then 8×8 tokens, whose mean is classified
CIFAR = dict(img_size=32, num_classes=10, patch_sizes=(3, 3), patch_strides=(2, 2), patch_paddings=(1, 1), cls_token=False)
# Wu et al. 2021, table 2, with the official strides and paddings. They train with drop path (0, 0, 0.1), cvt_w24 with (0, 0, 0.3).
PRESETS = {
    "cvt_13": CvTConfig(),
    "cvt_21": CvTConfig(depths=(1, 4, 16)),
    "cvt_w24": CvTConfig(img_size=384, embed_dims=(192, 768, 1024), depths=(2, 2, 20), num_heads=(3, 12, 16)),
    "cvt_nano_32": CvTConfig(embed_dims=(64, 128), depths=(1, 4), num_heads=(1, 4), mlp_ratio=2.0, **CIFAR),
    "cvt_tiny_32": CvTConfig(embed_dims=(64, 192), depths=(2, 8), num_heads=(2, 6), mlp_ratio=3.0, **CIFAR),
}
