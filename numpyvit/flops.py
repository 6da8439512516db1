"""Floating-point operations of a model's matrix products, from its config alone.

    a product (m, k) · (k, n) is 2·m·k·n;   a training step is three forward passes: y, dx and dweight

Norms, activations and softmax are not counted: this is the work that BLAS does, to compare with a machine's peak.
"""
from .module import pair


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


FAMILIES = {"vit": vit_flops}
