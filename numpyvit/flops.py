"""Floating-point operations of a model's matrix products, from its config alone.

    a product (m, k) · (k, n) is 2·m·k·n;   a training step is three forward passes: y, dx and dweight

Norms, activations and softmax are not counted: this is the work that BLAS does, to compare with a machine's peak.
"""
import math

from .module import pair
from .ops.avg_pool import window_cells
from .ops.conv import output_size


def forward_flops(family, config):
    """FLOPs of one image's forward pass; 0 for a family that has no formula here."""
    return FAMILIES[family](config) if family in FAMILIES else 0


def training_flops(family, config):
    """FLOPs of one image's forward and backward pass."""
    return 3 * forward_flops(family, config)


def vit_flops(config):
    C, E = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
    patches = config.grid[0] * config.grid[1]
    N = patches + (config.global_pool == "token")
    embed = linear_flops(patches, config.in_chans * config.patch_size**2, C)
    attention = linear_flops(N, C, 3 * C) + attention_flops(N, N, C) + linear_flops(N, C, C)
    mlp = linear_flops(N, C, E) + linear_flops(N, E, C)
    return embed + config.depth * (attention + mlp) + linear_flops(1, C, config.num_classes)


def cvt_flops(config):
    """Depthwise convolutions count, average pooling does not."""
    total, c_in = 0, config.in_chans
    for i, (C, depth, (H, W)) in enumerate(zip(config.embed_dims, config.depths, config.maps)):
        E, token = int(C * config.mlp_ratio), config.cls_token and i == len(config.depths) - 1
        k, s = config.qkv_kernel, config.kv_stride
        keys = {"dw_bn": lambda n: output_size(n, k, s, k // 2), "avg": lambda n: window_cells(n, k, s, k // 2)[0],
                "linear": lambda n: n}[config.qkv_method]
        kv_map = keys(H), keys(W)
        N, S = H * W + token, math.prod(kv_map) + token
        block = 2 * linear_flops(N, C, C) + 2 * linear_flops(S, C, C) + attention_flops(N, S, C)
        block += linear_flops(N, C, E) + linear_flops(N, E, C)
        if config.qkv_method == "dw_bn":
            block += conv_flops((H, W), 1, C, config.qkv_kernel) + 2 * conv_flops(kv_map, 1, C, config.qkv_kernel)
        total += conv_flops((H, W), c_in, C, config.patch_sizes[i]) + depth * block
        c_in = C
    return total + linear_flops(1, C, config.num_classes)


def linear_flops(tokens, c_in, c_out):
    return 2 * tokens * c_in * c_out


def attention_flops(queries, keys, C):
    """q · kᵀ and attn · v, all heads together."""
    return 2 * (2 * queries * keys * C)


def conv_flops(out_size, c_in, c_out, kernel):
    """A convolution over a whole feature map of out_size (H, W); a depthwise one has c_in = 1."""
    H, W = pair(out_size)
    kh, kw = pair(kernel)
    return 2 * H * W * c_in * kh * kw * c_out


FAMILIES = {"vit": vit_flops, "cvt": cvt_flops}
