"""Multiply-adds and floating-point operations of a model's matrix products and convolutions, from its config alone.

    a product (m, k) · (k, n) takes m·k·n multiply-adds, which are 2·m·k·n operations
    a training step takes three forward passes: for y, for dx and for dweight

Norms, activations and softmax are not counted: this is the work that BLAS does, to compare with a machine's peak.
"""
from ..models import FAMILIES


def multiply_adds(family: str, config) -> int:
    """Multiply-adds of one image's forward pass: those of summary's rows."""
    return sum(row.macs for row in FAMILIES[family].model(config, materialise=False).rows())


def forward_flops(family: str, config) -> int:
    """FLOPs of one image's forward pass."""
    return 2 * multiply_adds(family, config)


def training_flops(family: str, config) -> int:
    """FLOPs of one image's forward and backward pass."""
    return 3 * forward_flops(family, config)
