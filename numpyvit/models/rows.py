"""The rows of a summary: a layer's output shape, parameters, multiply-adds and the numbers it writes, for one image.

    multiply-adds   of products and convolutions: (m, k) · (k, n) takes m·k·n. Norms, activations, softmax and pooling
                    are not counted. A multiply-add is two FLOPs; a training step takes three forward passes.
    activations     numbers that the layer writes: its output, and for attention the probabilities, too. Nearly all of
                    them are kept until the backward pass.
"""
import math
from dataclasses import dataclass

from ..layers import DepthwiseConv


@dataclass(frozen=True)
class Row:
    """One layer, or several added up. shape: the output's for one image, channels last; itemsize: bytes a number."""

    name: str
    kind: str
    shape: tuple
    parameters: int = 0
    macs: int = 0
    activations: int = 0
    itemsize: int = 1

    @property
    def activation_bytes(self):
        """Bytes that the layer writes."""
        return self.activations * self.itemsize


def size(module):
    """Parameters of a module and of all below it."""
    return sum(p.size for _, p in module.named_parameters())


def linear(name, module, tokens, kind="linear"):
    """A Linear, or a Conv as a product with one row a token.   tokens: (N,), (H, W), or () for a single one"""
    c_out, rows = module.weight.shape[0], math.prod(tokens)
    return Row(name, kind, (*tokens, c_out), size(module), rows * module.weight.size, rows * c_out)


def conv(name, module, out):
    """module: a Conv, which may be depthwise; out: (H, W) of its output"""
    return linear(name, module, out, "depthwise conv" if isinstance(module, DepthwiseConv) else "conv")


def norm(name, module, tokens, kind="layer norm"):
    """module: a LayerNorm or BatchNorm over so many tokens"""
    C = module.weight.shape[0]
    return Row(name, kind, (*tokens, C), size(module), 0, math.prod(tokens) * C)


def attention(name, tokens, N, S, C, nh, windows=1, parameters=0):
    """Two products, q · kᵀ and attn · v, of N queries and S keys in each window.

    tokens: (N,) or (H, W) of the output, fewer than the queries where windows hold padding
    parameters: of a table of biases
    """
    return Row(name, "attention", (*tokens, C), parameters, 2 * windows * N * S * C, windows * (nh * N * S + N * C))


def mlp(name, module, tokens):
    """The three rows of an Mlp."""
    fc1, fc2 = (linear(f"{name}.{fc}", getattr(module, fc), tokens) for fc in ("fc1", "fc2"))
    return [fc1, Row(f"{name}.act", module.act, fc1.shape, 0, 0, fc1.activations), fc2]


def added(rows, name):
    """Several rows as one."""
    kind = "block" if "blocks" in name else "+".join(dict.fromkeys(row.kind for row in rows))
    sums = (sum(getattr(row, field) for row in rows) for field in ("parameters", "macs", "activations"))
    return Row(name, kind, rows[-1].shape, *sums, rows[-1].itemsize)
