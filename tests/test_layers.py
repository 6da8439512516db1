"""Every layer alone, by differences: dx and the gradient of each parameter, and that gradients add to what is there."""
import inspect

import numpy as np
import pytest

from numpyvit import gradcheck, layers
from numpyvit.flat import FlatModule, Module, Pass
from numpyvit.models import block, cvt_layers, embed, stem, swin_layers
from numpyvit.models.block import Block, PostNormBlock, SelfAttention
from numpyvit.models.vit import ViTConfig
from numpyvit.ops.windows import window_index

TOKENS, MAP, IMAGES = (3, 5, 6), (3, 7, 6, 4), (3, 2, 9, 6)


def turning(attention):
    """The attention with angles for 5 places, of heads of width 4."""
    angles = np.random.default_rng(3).normal(size=(5, 2))
    attention.cos, attention.sin = np.cos(angles), np.sin(angles)
    return attention


BLOCK = ViTConfig(img_size=9, embed_dim=6, num_heads=2, depth=1, patch_size=3, drop_rate=0.2, attn_drop_rate=0.2)
SEEDS = dict(down=Pass(seeds=np.arange(7, 10, dtype=np.uint64)))
TRAINING = dict(down=Pass(statistics={}))
LAYERS = {  # what it is, the shape of x, what else forward takes
    "linear": (lambda: layers.Linear(6, 11), TOKENS, {}),
    "linear without bias": (lambda: layers.Linear(6, 11, bias=False), TOKENS, {}),
    "layer norm": (lambda: layers.LayerNorm(6, 1e-6), TOKENS, {}),
    "batch norm, training": (lambda: layers.BatchNorm(4), MAP, TRAINING),
    "batch norm, evaluation": (lambda: layers.BatchNorm(4), MAP, {}),
    "dropout": (lambda: layers.Dropout(0.3), TOKENS, SEEDS),
    "drop path": (lambda: layers.DropPath(0.5), TOKENS, SEEDS),
    "mlp": (lambda: layers.Mlp(6, 13, "quick_gelu"), TOKENS, {}),
    "mlp, dropout": (lambda: layers.Mlp(6, 13, drop_rate=0.3), TOKENS, SEEDS),
    "self-attention": (lambda: SelfAttention(6, 2), TOKENS, {}),
    "self-attention, dropout": (lambda: SelfAttention(6, 3, False, 0.3, 0.3), TOKENS, SEEDS),
    "self-attention, rotary positions": (lambda: turning(SelfAttention(8, 2, rotary=True)), (2, 5, 8), {}),
    "patch embedding": (lambda: embed.PatchEmbed(3, 2, 5), IMAGES, {}),
    "patch embedding with a norm": (lambda: embed.SwinPatchEmbed(4, 2, 5, 1e-5), IMAGES, {}),
    "convolution": (lambda: layers.Conv(5, 4, 3, 2, 1), MAP, {}),
    "convolution without bias": (lambda: layers.Conv(5, 4, 3, 2, 1, bias=False), MAP, {}),
    "convolution with max-pooling": (lambda: layers.PooledConv(5, 4, 3, 1, 1, 2, bias=False), MAP, {}),
    "depthwise convolution": (lambda: layers.DepthwiseConv(4, 3, 2, 1), MAP, {}),
    "depthwise convolution without bias": (lambda: layers.DepthwiseConv(4, 3, 1, 1, bias=False), MAP, {}),
    "convolutional embedding": (lambda: embed.ConvEmbed(4, 5, 3, 2, 1, 1e-5), MAP, {}),
    "convolution and batch norm": (lambda: layers.ConvBatchNorm(layers.Conv(3, 4, 3, 2, 1, bias=False), 3), MAP, TRAINING),
    "depthwise convolution and batch norm": (lambda: layers.DepthwiseBatchNorm(4, 3, 2), MAP, TRAINING),
    "convolution, batch norm, activation": (lambda: stem.ConvNormAct(4, 5, 2), MAP, TRAINING),
    "convolutional stem, training": (lambda: stem.ConvStem((4, 5), (3, 1), (), 2, 6), IMAGES, TRAINING),
    "convolutional stem with max-pooling": (lambda: stem.ConvStem((4, 5), (1, 1), (3, 1), 2, 6), IMAGES, TRAINING),
    "convolutional stem, evaluation": (lambda: stem.ConvStem((4, 5), (1, 3), (1, 1), 2, 6, "relu"), IMAGES, {}),
    "convolutional stem with a norm": (lambda: stem.SwinConvStem((4, 5), (1, 3), (), 2, 6), IMAGES, TRAINING),
    "average pooling": (lambda: layers.AvgPool(4, 3, 2), MAP, {}),
    "window attention": (lambda: swin_layers.WindowAttention(6, 2, 2, *window_index(2, 3, 2, 1), None), (3, 6, 6), {}),
    "patch merging": (lambda: swin_layers.PatchMerging(6, 3, 5, 1e-5), (3, 15, 6), {}),
    "convolutional attention": (lambda: cvt_layers.ConvAttention(6, 2, (3, 5)), (3, 16, 6), TRAINING),
    "pooled attention": (lambda: cvt_layers.ConvAttention(6, 2, (3, 5), "avg"), (3, 15, 6), {}),
    "block": (lambda: Block(6, SelfAttention(6, 2, True, 0.2, 0.2), BLOCK, 0.5), TOKENS, SEEDS),
    "post-norm block": (lambda: PostNormBlock(6, SelfAttention(6, 2, True, 0.2, 0.2), BLOCK, 0.5), TOKENS, SEEDS),
}


def test_every_layer_is_here():
    classes = {c for file in (layers, block, embed, stem, swin_layers, cvt_layers) for _, c in inspect.getmembers(file, inspect.isclass)
               if issubclass(c, Module) and hasattr(c, "backward")}
    assert classes - {type(make()) for make, _, _ in LAYERS.values()} == set()


class Alone(FlatModule):
    """One layer as a model, so that its parameters have their flat vectors."""

    def __init__(self, layer):
        self.layer = layer
        self.finish(0, "float64")


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, shape, options = LAYERS[name]
    model, rng = Alone(make()), np.random.default_rng(1)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.5, p.shape)
    parameters = dict(model.named_parameters())
    earlier = rng.standard_normal(model.flat_grad.size)

    def forward(x, **values):
        for key, p in parameters.items():
            p.data[...] = values[key]
        return model.layer.forward(x, **options)

    def backward(dy, cache):
        model.flat_grad[...] = earlier
        before = {key: p.grad.copy() for key, p in parameters.items()}
        dx = model.layer.backward(dy, cache)
        return dx, *(p.grad - before[key] for key, p in parameters.items())

    x = rng.standard_normal(shape)
    report = gradcheck.check(forward, backward, x, *(p.data for p in parameters.values()), names=["x", *parameters])
    assert report, str(report)
