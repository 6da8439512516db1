"""Batch norm folded into the convolution before it, for inference."""
import numpy as np

from ..flat import Parameter
from ..layers import ConvBatchNorm, PooledConv, zeros


def fold_batch_norm(model):
    """A copy for inference in which every batch norm is part of its convolution: the same logits up to rounding.
    The model itself where there is nothing to fold, as in a copy that this function made.

        w ← w · g,   b ← bias − running_mean · g,   g = weight/√(running_var + eps)

    It would be wrong to fold a batch norm into the Linear behind it: the class token passes the Linear alone. A batch
    norm behind max-pooling stays, too: a negative g would make the largest number of a window the smallest.
    """
    if model.folded:
        return model
    made = type(model)(model.config, materialise=False)
    foldable = [(path, module) for path, module in made.modules()
                if isinstance(module, ConvBatchNorm) and not isinstance(module.conv, PooledConv)]
    if not foldable:
        return model
    state = model.state_dict()
    for path, module in foldable:
        norm, module.bn = module.bn, None
        weight, bias, mean, var, _ = (state.pop(f"{path}.bn.{name}") for name in ("weight", "bias", *norm.buffers))
        gain = weight / np.sqrt(var + norm.eps)
        module.conv.bias = Parameter(bias.shape, zeros)
        state[f"{path}.conv.weight"] *= gain[:, None, None, None]
        state[f"{path}.conv.bias"] = bias - mean * gain
    made.materialise(None, model.dtype)
    made.load_state_dict(state)
    made.folded = True
    return made


class ForInference:
    """What model.for_inference() gives, made anew only where a weight or a running statistic has changed since."""

    def __init__(self, model):
        self.model, self.made, self.numbers = model, None, []

    def get(self):
        """The model to run forward with, in evaluation mode."""
        numbers = [self.model.flat, *(buffer for _, buffer in self.model.named_buffers())]
        if self.made is None or not all(map(np.array_equal, self.numbers, numbers)):
            self.made = self.model.for_inference()
            self.numbers = [] if self.made is self.model else [array.copy() for array in numbers]
        return self.made

    def forget(self):
        """Free the memory of the copy."""
        self.made, self.numbers = None, []
