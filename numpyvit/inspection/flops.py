"""Floating-point operations of a model's matrix products and convolutions, from its config alone: summary's, added up.

    a product (m, k) · (k, n) is 2·m·k·n;   a training step is three forward passes: y, dx and dweight

Norms, activations and softmax are not counted: this is the work that BLAS does, to compare with a machine's peak.
"""


def forward_flops(family, config):
    """FLOPs of one image's forward pass."""
    from ..models import FAMILIES
    from .summary import summary
    return 2 * sum(layer.macs for layer in summary(FAMILIES[family][1](config, materialise=False)))


def training_flops(family, config):
    """FLOPs of one image's forward and backward pass."""
    return 3 * forward_flops(family, config)
