"""Every layer alone, by differences: dx and the gradient of each parameter, and that gradients add to what is there."""
import inspect

import numpy as np
import pytest

from numpyvit import gradcheck, layers
from numpyvit.models.embed import ConvNormAct, ConvStem
from numpyvit.models.vit import Block, PostNormBlock, ViTConfig
from numpyvit.module import Model, Module

SEEDS = np.arange(7, 10, dtype=np.uint64)
TOKENS, MAP, IMAGES = (3, 5, 6), (3, 7, 6, 4), (3, 2, 9, 6)
BLOCK = ViTConfig(img_size=9, embed_dim=6, num_heads=2, depth=1, patch_size=3, drop_rate=0.2, attn_drop_rate=0.2)
LAYERS = {  # what it is, the shape of x, what else forward takes
    "linear": (lambda: layers.Linear(6, 11), TOKENS, {}),
    "linear without bias": (lambda: layers.Linear(6, 11, bias=False), TOKENS, {}),
    "layer norm": (lambda: layers.LayerNorm(6, 1e-6), TOKENS, {}),
    "batch norm, training": (lambda: layers.BatchNorm(4), MAP, dict(statistics=[])),
    "batch norm, evaluation": (lambda: layers.BatchNorm(4), MAP, {}),
    "dropout": (lambda: layers.Dropout(0.3), TOKENS, dict(seeds=SEEDS)),
    "drop path": (lambda: layers.DropPath(0.5), TOKENS, dict(seeds=SEEDS)),
    "mlp": (lambda: layers.Mlp(6, 13, "quick_gelu"), TOKENS, {}),
    "mlp, dropout": (lambda: layers.Mlp(6, 13, drop_rate=0.3), TOKENS, dict(seeds=SEEDS)),
    "self-attention": (lambda: layers.SelfAttention(6, 2), TOKENS, {}),
    "self-attention, dropout": (lambda: layers.SelfAttention(6, 3, False, 0.3, 0.3), TOKENS, dict(seeds=SEEDS)),
    "patch embedding": (lambda: layers.PatchEmbed(3, 2, 5), IMAGES, {}),
    "depthwise convolution": (lambda: layers.DepthwiseConv(4, 3, 2, 1), MAP, {}),
    "depthwise convolution without bias": (lambda: layers.DepthwiseConv(4, 3, 1, 1, bias=False), MAP, {}),
    "convolutional embedding": (lambda: layers.ConvEmbed(4, 5, 3, 2, 1, 1e-5), MAP, {}),
    "convolution and batch norm": (lambda: layers.ConvBatchNorm(4, 3, 2), MAP, dict(statistics=[])),
    "convolution, batch norm, activation": (lambda: ConvNormAct(4, 5, 2), MAP, dict(statistics=[])),
    "convolutional stem, training": (lambda: ConvStem((4, 5), (3, 1), 2, 6), IMAGES, dict(statistics=[])),
    "convolutional stem, evaluation": (lambda: ConvStem((4, 5), (1, 3), 2, 6, "relu"), IMAGES, {}),
    "average pooling": (lambda: layers.AvgPool(4, 3, 2), MAP, {}),
    "block": (lambda: Block(BLOCK, 0.5), TOKENS, dict(seeds=SEEDS)),
    "post-norm block": (lambda: PostNormBlock(BLOCK, 0.5), TOKENS, dict(seeds=SEEDS)),
}


def test_every_layer_is_here():
    classes = {c for _, c in inspect.getmembers(layers, inspect.isclass) if issubclass(c, Module) and hasattr(c, "backward")}
    assert classes - {type(make()) for make, _, _ in LAYERS.values()} == set()


class Alone(Model):
    """One layer as a model, so that its parameters have their flat vectors."""

    def __init__(self, layer):
        self.layer = layer
        layers.number_random_layers(self)
        self.materialise(0, "float64")


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
