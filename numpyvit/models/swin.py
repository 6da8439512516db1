"""Swin Transformer. Liu et al. 2021, "Hierarchical Vision Transformer using Shifted Windows"; parameter names and layouts are timm's.

    a stage:  [merge 2×2 patches];   x ← x + WindowAttention(LN(x));   x ← x + MLP(LN(x));   every second block shifts its windows
    logits = head(mean of LN(x))
"""
from dataclasses import dataclass

import numpy as np

from .. import functional as F
from ..layers import (DropPath, Dropout, LayerNorm, Linear, Mlp, PatchEmbed, normal, number_random_layers)
from ..module import Model, Module, Parameter, pair
from ..ops.bias_activation import ACTIVATIONS
from ..ops.relative_position import relative_position_index
from ..ops.windows import merge_index, shifted_window_mask, window_index
from .checks import check_choice, check_positive, check_rates, fail
from .vit import Block


@dataclass(frozen=True)
class SwinConfig:
    """Everything that decides a Swin. timm's names and defaults.

    img_size, patch_size in pixels (img_size may be (H, W); an image that is no multiple of the patch is padded with zeros).
    embed_dim: width of the first stage, doubled by every further one.   depths, num_heads: one number a stage.
    window_size: side of a window in tokens.   mlp_ratio: MLP width / width of the stage.
    drop_rate: dropout after the patch embedding and after every projection of a block; attn_drop_rate: on the attention
    probabilities; drop_path_rate: stochastic depth, rising linearly from 0 in the first block of all to this in the last.
    """

    img_size: int | tuple = 224
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 96
    depths: tuple = (2, 2, 6, 2)
    num_heads: tuple = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    act: str = "gelu"
    norm_eps: float = 1e-5
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self):
        check_positive(self, "img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depths", "num_heads",
                       "window_size", "mlp_ratio", "norm_eps")
        check_rates(self, "drop_rate", "attn_drop_rate", "drop_path_rate")
        check_choice(self, "act", tuple(ACTIVATIONS))
        for field in ("depths", "num_heads"):
            if not isinstance(getattr(self, field), (tuple, list)) or not getattr(self, field):
                fail(field, "one number a stage", getattr(self, field))
        if len(self.depths) != len(self.num_heads):
            fail("num_heads", f"one number for each of the {len(self.depths)} stages of depths {self.depths}", self.num_heads)
        for i, nh in enumerate(self.num_heads):
            if self.embed_dim * 2**i % nh:
                fail("num_heads", f"a divisor of the width {self.embed_dim * 2**i} of stage {i}", nh)
        if min(pair(self.img_size)) < self.patch_size:
            fail("img_size", f"at least one patch of {self.patch_size} pixels a side", self.img_size)

    def stages(self):
        """(C, H, W, M, shift) of every stage: width, map, side of a window, and by how much every second block shifts it.

        A map that is no larger than the window is one window, unshifted, with a bias table of its own size (the official rule).
        """
        H, W = (-(-side // self.patch_size) for side in pair(self.img_size))
        for i in range(len(self.depths)):
            whole = min(H, W) <= self.window_size
            yield self.embed_dim * 2**i, H, W, min(H, W, self.window_size), 0 if whole else self.window_size // 2
            H, W = (H + 1) // 2, (W + 1) // 2                                # an odd map is padded before it is merged


class WindowAttention(Module):
    """qkv projection, attention inside (shifted) windows with a relative position bias, output projection.

    x (B, N, C)   →   y (B, N, C), both in the order of the map: only attention itself sees windows (see window_attention).
    """

    def __init__(self, config, C, num_heads, M, index, inverse, mask):
        self.relative_position_bias_table = Parameter(((2 * M - 1)**2, num_heads), normal(0.02))
        self.qkv = Linear(C, 3 * C, bias=config.qkv_bias)
        self.attn_drop = Dropout(config.attn_drop_rate)
        self.proj, self.proj_drop = Linear(C, C), Dropout(config.drop_rate)
        self.num_heads, self.relative_position_index = num_heads, relative_position_index(M)
        self.index, self.inverse, self.mask = index, inverse, mask

    def forward(self, x, seeds=None):
        qkv, c1 = F.linear_forward(x, self.qkv.weight.data)                  # the bias joins the attention
        bias, c2 = F.relative_position_bias_forward(self.relative_position_bias_table.data, self.relative_position_index)
        y, c3 = F.window_attention_forward(qkv, self.qkv.bias.data if self.qkv.bias else None, bias, self.index, self.inverse,
                                           self.num_heads, self.mask, drop_rate=self.attn_drop.rate,
                                           seeds=self.attn_drop.seeds(seeds))
        y, c4 = self.proj.forward(y)
        y, c5 = self.proj_drop.forward(y, seeds)
        return y, (c1, c2, c3, c4, c5)

    def backward(self, dy, cache):
        c1, c2, c3, c4, c5 = cache
        dy = self.proj_drop.backward(dy, c5)
        dy = self.proj.backward(dy, c4)
        dqkv, dqkv_bias, dbias = F.window_attention_backward(dy, c3)
        self.relative_position_bias_table.grad += F.relative_position_bias_backward(dbias, c2)
        if self.qkv.bias:
            self.qkv.bias.grad += dqkv_bias
        dx, dweight, _ = F.linear_backward(dqkv, c1)
        self.qkv.weight.grad += dweight
        return dx


class SwinBlock(Block):
    """ViT's block, its forward and its backward, with attention in windows.   x (B, N, C)   →   x (B, N, C)"""

    def __init__(self, config, C, num_heads, M, windows, drop_path):
        self.norm1 = LayerNorm(C, config.norm_eps)
        self.attn = WindowAttention(config, C, num_heads, M, *windows)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = LayerNorm(C, config.norm_eps)
        self.mlp = Mlp(C, int(C * config.mlp_ratio), config.act, config.drop_rate)
        self.drop_path2 = DropPath(drop_path)


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


class Stage(Module):
    """[PatchMerging, then] blocks with plain and shifted windows in turn.   (B, N, C)   →   (B, N, C), or (B, N', 2·C)"""

    def __init__(self, config, i, drop_paths):
        C, H, W, M, shift = list(config.stages())[i]
        self.downsample = None
        if i > 0:
            before, H_before, W_before, _, _ = list(config.stages())[i - 1]
            self.downsample = PatchMerging(before, H_before, W_before, config.norm_eps)
        plain = (*window_index(H, W, M), None)
        shifted = (*window_index(H, W, M, shift), shifted_window_mask(H, W, M, shift)) if shift else plain
        self.blocks = [SwinBlock(config, C, config.num_heads[i], M, shifted if j % 2 else plain, rate)
                       for j, rate in enumerate(drop_paths)]

    def forward(self, x, seeds=None):
        c_merge, c_blocks = None, []
        if self.downsample:
            x, c_merge = self.downsample.forward(x)
        for block in self.blocks:
            x, cache = block.forward(x, seeds)
            c_blocks.append(cache)
        return x, (c_merge, c_blocks)

    def backward(self, dx, cache):
        c_merge, c_blocks = cache
        for block, c in zip(reversed(self.blocks), reversed(c_blocks)):
            dx = block.backward(dx, c)
        return self.downsample.backward(dx, c_merge) if self.downsample else dx


class SwinPatchEmbed(PatchEmbed):
    """LN(patches · W + b).   images (B, in_chans, H, W), padded to whole patches   →   y (B, N, C)"""

    def __init__(self, config):
        super().__init__(config.patch_size, config.in_chans, config.embed_dim)
        self.norm = LayerNorm(config.embed_dim, config.norm_eps)
        self.patch_size = config.patch_size

    def forward(self, images):
        H, W = images.shape[2:]
        bottom, right = -H % self.patch_size, -W % self.patch_size
        if bottom or right:
            images = np.pad(images, ((0, 0), (0, 0), (0, bottom), (0, right)))
        y, c1 = super().forward(images)
        y, c2 = self.norm.forward(y)
        return y, (c1, c2, H, W)

    def backward(self, dy, cache):
        c1, c2, H, W = cache
        dy = self.norm.backward(dy, c2)
        return super().backward(dy, c1)[:, :, :H, :W]


class Head(Module):
    """fc(mean of the tokens).   x (B, N, C)   →   logits (B, K)"""

    def __init__(self, C, num_classes):
        self.fc = Linear(C, num_classes)

    def forward(self, x):
        logits, cache = self.fc.forward(x.mean(axis=1))
        return logits, (cache, x.shape)

    def backward(self, dlogits, cache):
        c, (B, N, C) = cache
        dpooled = self.fc.backward(dlogits, c)
        return np.broadcast_to((dpooled / N)[:, None], (B, N, C))


class Swin(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)"""

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        C = config.embed_dim * 2**(len(config.depths) - 1)
        rates = np.linspace(0, config.drop_path_rate, sum(config.depths))    # over the whole net
        rates = np.split(rates, np.cumsum(config.depths)[:-1])               # a list a stage
        self.patch_embed = SwinPatchEmbed(config)
        self.pos_drop = Dropout(config.drop_rate)
        self.layers = [Stage(config, i, rates[i]) for i in range(len(config.depths))]
        self.norm = LayerNorm(C, config.norm_eps)
        self.head = Head(C, config.num_classes)
        self.stochastic = number_random_layers(self)
        if materialise:
            self.materialise(seed, dtype)

    def forward(self, images, train=False, rng=None):
        """logits and the cache that backward needs. train: with dropout and drop path, whose bits come from rng:
        an int, a numpy Generator, or one uint64 seed an image (B,)."""
        images = self.check_images(images)
        seeds = self.check_seeds(rng, len(images)) if train else None
        x, c1 = self.patch_embed.forward(images)
        x, c2 = self.pos_drop.forward(x, seeds)
        c_layers = []
        for layer in self.layers:
            x, cache = layer.forward(x, seeds)
            c_layers.append(cache)
        x, c3 = self.norm.forward(x)
        logits, c4 = self.head.forward(x)
        return logits, (c1, c2, c_layers, c3, c4)

    def backward(self, dlogits, cache):
        """Adds into every parameter's .grad and returns dimages."""
        c1, c2, c_layers, c3, c4 = cache
        dlogits = self.check_logits_gradient(dlogits, len(c4[0][0]))
        dx = self.head.backward(dlogits, c4)
        dx = self.norm.backward(dx, c3)
        for layer, c in zip(reversed(self.layers), reversed(c_layers)):
            dx = layer.backward(dx, c)
        dx = self.pos_drop.backward(dx, c2)
        return self.patch_embed.backward(dx, c1)

    @property
    def tokens(self):
        """Tokens of one image in the stage that has most of the blocks."""
        return len(self.busiest.blocks[0].attn.inverse)

    @property
    def width(self):
        """Channels of those tokens."""
        return self.busiest.blocks[0].norm1.weight.shape[0]

    @property
    def busiest(self):
        return max(self.layers, key=lambda stage: len(stage.blocks))

    def attention_maps(self, cache):
        """The attention probabilities of every block, from forward's cache: a list of (B·nW, nh, M², M²), rows summing to 1.

        Row b · nW + w is window w of image b. Its token t is token index[w · M² + t] of the map, −1 for padding, where index
        is model.layers[i].blocks[j].attn.index.
        """
        _, _, c_layers, _, _ = cache
        return [F.window_attention_probs(block[1][2]) for _, c_blocks in c_layers for block in c_blocks]


# Liu et al. 2021, section 3.3.
PRESETS = {
    "swin_tiny_patch4_window7_224": SwinConfig(drop_path_rate=0.2),
    "swin_small_patch4_window7_224": SwinConfig(depths=(2, 2, 18, 2), drop_path_rate=0.3),
    "swin_base_patch4_window7_224": SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path_rate=0.5),
    "swin_large_patch4_window7_224": SwinConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48),
                                                drop_path_rate=0.2),
    # for 32×32 images; the first is the one of Lee et al. 2021 ("Vision Transformer for Small-Size Datasets")
    "swin_mini_patch2_window4_32": SwinConfig(img_size=32, patch_size=2, num_classes=10, depths=(2, 6, 4), num_heads=(3, 6, 12),
                                              window_size=4, mlp_ratio=2.0),
    "swin_nano_patch2_window4_32": SwinConfig(img_size=32, patch_size=2, num_classes=10, embed_dim=64, depths=(2, 4),
                                              num_heads=(2, 4), window_size=4, mlp_ratio=2.0),
    "swin_nano_patch4_window4_32": SwinConfig(img_size=32, patch_size=4, num_classes=10, embed_dim=96, depths=(4, 2),
                                              num_heads=(3, 6), window_size=4, mlp_ratio=2.0),     # a quarter of the tokens
}
