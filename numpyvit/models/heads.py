"""What stands between the pooled tokens and the head."""
from .. import functional as F
from ..flat import Module
from ..layers import Linear, normal


class PreLogits(Module):
    """tanh(fc(x)), the first layer of ViT's pre-training head.   x (..., C)   →   y (..., representation_size)"""

    def __init__(self, C, representation_size):
        self.fc = Linear(C, representation_size)
        self.fc.weight.init = normal(C ** -0.5)

    def forward(self, x):
        h, c1 = self.fc.forward(x)
        y, c2 = F.tanh_forward(h)
        return y, (c1, c2)

    def backward(self, dy, cache):
        c1, c2 = cache
        return self.fc.backward(F.tanh_backward(dy, c2), c1)
