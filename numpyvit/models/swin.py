"""Swin Transformer. Liu et al. 2021, "Hierarchical Vision Transformer using Shifted Windows"; parameters as in timm.

    a stage:  [merge 2×2 patches];   blocks:  x ← x + WindowAttention(LN(x));   x ← x + MLP(LN(x))
    logits = head(mean of LN(x)).   Every second block shifts its windows.
"""
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..checks import check_choice, check_numbers, check_types, fail
from ..flat import EVALUATION, Module
from ..layers import Dropout, LayerNorm, Linear
from ..module import Model, PositionTable, Stage, pair
from ..ops.bias_activation import ACTIVATIONS
from ..ops.windows import shifted_window_mask, window_index
from . import rows
from .block import Block
from .checks import check_heads, check_image_size, check_mlp, check_stages, check_stem_batch, check_stem_makes_patches
from .embed import SwinPatchEmbed
from .fold import fold_batch_norm
from .stem import SwinConvStem
from .swin_layers import PatchMerging, WindowAttention


@dataclass(frozen=True)
class SwinConfig:
    """Everything that decides a Swin. timm's names and defaults.

    img_size, patch_size in pixels. img_size may be (H, W); zeros pad an image to whole patches.
    embed_dim: width of the first stage, doubled by every further one.   depths, num_heads: one number a stage.
    stem_widths, stem_strides, stem_pools: of 3×3 convolutions in place of plain patches, as in ViTConfig; patch_size
    divides img_size then.
    window_size: side of a window in tokens.   mlp_ratio: MLP width / width of the stage.
    drop_rate: dropout after the patch embedding and after every projection of a block; attn_drop_rate: on the attention
    probabilities; drop_path_rate: stochastic depth, rising linearly from 0 in the model's first block to its last.
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
    stem_widths: tuple = ()
    stem_strides: tuple = ()
    stem_pools: tuple = ()

    def __post_init__(self):
        check_types(self)
        check_image_size(self)
        check_stages(self, "depths", "num_heads")
        check_numbers(self, "patch_size", "in_chans", "num_classes", "embed_dim", "depths", "num_heads", "window_size",
                      "mlp_ratio", "norm_eps", above=0)
        check_numbers(self, "drop_rate", "attn_drop_rate", "drop_path_rate", least=0, below=1)
        check_choice(self, "act", tuple(ACTIVATIONS))
        check_heads([self.embed_dim * 2**i for i in range(len(self.depths))], self.num_heads)
        check_mlp(self, [self.embed_dim])
        check_stem_makes_patches(self)
        if min(pair(self.img_size)) < self.patch_size:
            fail("img_size", f"at least one patch of {self.patch_size} pixels a side", self.img_size)

    def stages(self):
        """(C, H, W, M, shift) of every stage: width, map, side of a window, and the shift of every second block.

        Where a side of the map is no longer than the window, windows are as long as the shorter side and are not
        shifted: a square map is then one window, and a map of 5 × 20 has four windows of 5 × 5. The bias table is made
        for this window. The official code does the same.
        """
        H, W = (-(-side // self.patch_size) for side in pair(self.img_size))
        for i in range(len(self.depths)):
            whole = min(H, W) <= self.window_size
            yield self.embed_dim * 2**i, H, W, min(H, W, self.window_size), 0 if whole else self.window_size // 2
            H, W = (H + 1) // 2, (W + 1) // 2                                # an odd map is padded before it is merged


class LayerCache(NamedTuple):
    """The cache of downsample, None without, and those of the blocks."""

    downsample: tuple | None
    blocks: list


class Layer(Module):
    """[PatchMerging, then] blocks, every second of them shifted.   (B, N, C)   →   (B, N, C) or (B, N', 2·C)"""

    def __init__(self, config, i, drop_paths):
        stages = list(config.stages())
        C, H, W, M, shift = stages[i]
        self.downsample = PatchMerging(*stages[i - 1][:3], config.norm_eps) if i else None
        plain = (*window_index(H, W, M), None)
        shifted = (*window_index(H, W, M, shift), shifted_window_mask(H, W, M, shift)) if shift else plain
        self.blocks = []
        for j, rate in enumerate(drop_paths):
            attn = WindowAttention(C, config.num_heads[i], M, *(shifted if j % 2 else plain), config.qkv_bias,
                                   config.attn_drop_rate, config.drop_rate)
            self.blocks.append(Block(C, attn, config, rate))

    def forward(self, x, down=EVALUATION):
        c_merge, c_blocks = None, down.caches()
        if self.downsample:
            x, c_merge = self.downsample.forward(x)
        for block in self.blocks:
            x, cache = block.forward(x, down)
            c_blocks.append(down.kept(cache))
        return x, LayerCache(c_merge, c_blocks)

    def backward(self, dx, cache):
        for block, c in zip(reversed(self.blocks), reversed(cache.blocks)):
            dx = block.backward(dx, c)
        return self.downsample.backward(dx, cache.downsample) if self.downsample else dx


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


class SwinCache(NamedTuple):
    """What forward_pass hands to backward_pass: a cache for each of the model's parts, one a stage in layers."""

    patch_embed: tuple
    pos_drop: tuple
    layers: list
    norm: tuple
    head: tuple


class Swin(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)"""

    positions_from = "relative position biases"

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        C = config.embed_dim * 2**(len(config.depths) - 1)
        rates = np.linspace(0, config.drop_path_rate, sum(config.depths))    # over the whole net
        rates = np.split(rates, np.cumsum(config.depths)[:-1])               # a list a stage
        if config.stem_widths:
            convolutions = config.stem_widths, config.stem_strides, config.stem_pools
            self.patch_embed = SwinConvStem(*convolutions, config.in_chans, config.embed_dim, config.act,
                                            config.norm_eps)
        else:
            self.patch_embed = SwinPatchEmbed(config.patch_size, config.in_chans, config.embed_dim, config.norm_eps)
        self.pos_drop = Dropout(config.drop_rate)
        self.layers = [Layer(config, i, rates[i]) for i in range(len(config.depths))]
        self.norm = LayerNorm(C, config.norm_eps)
        self.head = Head(C, config.num_classes)
        self.finish(seed, dtype, materialise)

    def for_inference(self):
        return fold_batch_norm(self) if self.config.stem_widths else self

    def forward_pass(self, images, down):
        x, c1 = self.patch_embed.forward(images, down)
        x, c2 = self.pos_drop.forward(x, down)
        c_layers = down.caches()
        for layer in self.layers:
            x, cache = layer.forward(x, down)
            c_layers.append(down.kept(cache))
        x, c3 = self.norm.forward(x)
        logits, c4 = self.head.forward(x)
        return logits, SwinCache(c1, c2, c_layers, c3, c4)

    def backward_pass(self, dlogits, cache):
        dx = self.head.backward(dlogits, cache.head)
        dx = self.norm.backward(dx, cache.norm)
        for layer, c in zip(reversed(self.layers), reversed(cache.layers)):
            dx = layer.backward(dx, c)
        dx = self.pos_drop.backward(dx, cache.pos_drop)
        return self.patch_embed.backward(dx, cache.patch_embed)

    def check_batch(self, batch):
        check_stem_batch(self.config, batch)

    # --- what the figures and the files of weights ask

    def stages(self):
        sides = [self.config.patch_size] + [2] * (len(self.layers) - 1)
        return [Stage(f"layers.{i}.blocks", layer.blocks, (H, W), 0, (side, side, 0))
                for i, (layer, (_, H, W, _, _), side) in enumerate(zip(self.layers, self.config.stages(), sides))]

    def block_caches(self, cache):
        return [c for layer in cache.parts.layers for c in layer.blocks]

    @property
    def first_and_last(self):
        """With a stem, its first convolution reads the pixels."""
        return "patch_embed.stem.0." if self.config.stem_widths else "patch_embed.", "head."

    def position_tables(self):
        tables = {}
        for stage, (_, _, _, M, _) in zip(self.stages(), self.config.stages()):
            for j in range(len(stage.blocks)):
                place = PositionTable((2 * M - 1, 2 * M - 1), of_offsets=True)
                tables[f"{stage.name}.{j}.attn.relative_position_bias_table"] = place
        return tables

    def relative_position_tables(self):
        tables = {f"{stage.name}.{j}": block.attn.relative_position_bias_table.data
                  for stage in self.stages() for j, block in enumerate(stage.blocks)}
        return {name: table.T.reshape(table.shape[1], *[math.isqrt(len(table))] * 2) for name, table in tables.items()}

    @property
    def reads_pixels(self):
        return self.patch_embed.reads_pixels

    def rows(self):
        found = self.patch_embed.rows("patch_embed", self.stages()[0].grid, pair(self.config.img_size))
        for i, (layer, stage) in enumerate(zip(self.layers, self.stages())):
            if layer.downsample:
                found += layer.downsample.rows(f"layers.{i}.downsample", stage.grid)
            for j, block in enumerate(layer.blocks):
                found += block.rows(f"{stage.name}.{j}", stage.grid)
        return found + [rows.norm("norm", self.norm, stage.grid), rows.linear("head", self.head.fc, ())]


# Liu et al. 2021, section 3.3.
PRESETS = {
    "swin_tiny_patch4_window7_224": SwinConfig(drop_path_rate=0.2),
    "swin_small_patch4_window7_224": SwinConfig(depths=(2, 2, 18, 2), drop_path_rate=0.3),
    "swin_base_patch4_window7_224": SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32),
                                               drop_path_rate=0.5),
    "swin_large_patch4_window7_224": SwinConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48),
                                                drop_path_rate=0.2),
    # for 32×32 images; the first is the one of Lee et al. 2021 ("Vision Transformer for Small-Size Datasets")
    "swin_mini_patch2_window4_32": SwinConfig(img_size=32, patch_size=2, num_classes=10, depths=(2, 6, 4),
                                              num_heads=(3, 6, 12), window_size=4, mlp_ratio=2.0),
    "swin_nano_patch2_window4_32": SwinConfig(img_size=32, patch_size=2, num_classes=10, embed_dim=64, depths=(2, 4),
                                              num_heads=(2, 4), window_size=4, mlp_ratio=2.0),
    # a quarter of the tokens
    "swin_nano_patch4_window4_32": SwinConfig(img_size=32, patch_size=4, num_classes=10, embed_dim=96, depths=(4, 2),
                                              num_heads=(3, 6), window_size=4, mlp_ratio=2.0),
    # five convolutions in place of patches: the first stage has 8×8 tokens, as that of the one above
    "swin_mini_convpool_32": SwinConfig(img_size=32, patch_size=4, num_classes=10, embed_dim=128, depths=(2, 2),
                                        num_heads=(4, 8), window_size=4, mlp_ratio=2.0,
                                        stem_widths=(32, 64, 64, 128, 128), stem_strides=(1,) * 5,
                                        stem_pools=(1, 2, 1, 2, 1)),
}
