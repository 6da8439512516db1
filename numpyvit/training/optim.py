"""Optimisers over a model's flat vector, with decay by segments, clipping by global norm and an average of the weights."""
import math
from dataclasses import dataclass

import numpy as np

from .. import functional as F
from ..errors import UserError
from .lanes import CHUNK

KINDS = ("adamw", "adam", "sgd")


@dataclass(frozen=True)
class OptimizerConfig:
    """kind: adamw, adam, or sgd with momentum.   clip_norm: the gradient is scaled down to this global norm (0: never).
    ema_decay: of the running average of the weights (0: none); early on it is min(ema_decay, (1 + t) / (10 + t)).
    """
    kind: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.05
    clip_norm: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"optimizer: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        for name in ("beta1", "beta2", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}: expected 0 to below 1, got {getattr(self, name)!r}")
        for name in ("eps", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)!r}")


class Optimizer:
    """The state that goes with model.flat: vectors m and (for Adam) v, and the average of the weights if there is one.

    Weight decay applies to the stretches of the flat vector whose Parameter.decay is set; they are found once.
    """

    def __init__(self, model, config):
        self.model, self.config = model, config
        self.m = np.zeros_like(model.flat)
        self.v = np.zeros_like(model.flat) if config.kind != "sgd" else None
        self.ema = model.flat.copy() if config.ema_decay else None
        self.ema_buffers = {name: b.copy() for name, b in model.named_buffers() if b.dtype.kind == "f"} if config.ema_decay else {}
        self.segments = decay_segments(model, config.weight_decay)
        self.sums = np.zeros(-(-model.flat.size // CHUNK))

    def grad_norm(self, each_range=None):
        """√Σ grad², from chunks of CHUNK elements summed in float64 and added in order; not finite if any element is not."""
        def fill(lo, hi):
            F.square_sums(self.model.flat_grad[lo:hi], self.sums[lo // CHUNK:-(-hi // CHUNK)], CHUNK)
        (each_range or whole)(fill, self.model.flat.size)
        return math.sqrt(float(self.sums.sum()))

    def step(self, lr, step, norm, each_range=None):
        """Change the weights. step: 1 for the first.   norm: that of the gradient.   each_range: Lanes.each_range"""
        config, flat, grad = self.config, self.model.flat, self.model.flat_grad
        scale = min(1.0, config.clip_norm / (norm + 1e-6)) if config.clip_norm else 1.0      # torch's clip_grad_norm_
        ema_decay = min(config.ema_decay, (1 + step) / (10 + step))

        def run(lo, hi):
            for start, end, decay in self.segments:
                a, b = max(lo, start), min(hi, end)
                if a < b:
                    ema = None if self.ema is None else self.ema[a:b]
                    self.update(flat[a:b], grad[a:b], a, b, lr, decay, step, scale, ema, ema_decay)

        (each_range or whole)(run, flat.size)
        buffers = dict(self.model.named_buffers()) if self.ema_buffers else {}
        for name, average in self.ema_buffers.items():
            average += (1 - ema_decay) * (buffers[name] - average)

    def update(self, data, grad, a, b, lr, decay, step, scale, ema, ema_decay):
        c = self.config
        if c.kind == "sgd":
            F.sgd_step(data, grad, self.m[a:b], lr, c.momentum, decay, scale, ema, ema_decay)
        else:
            fn = F.adamw_step if c.kind == "adamw" else F.adam_step
            fn(data, grad, self.m[a:b], self.v[a:b], lr, c.beta1, c.beta2, c.eps, decay, step, scale, ema, ema_decay)

    def state(self):
        """{name: the vector itself} of everything a later process needs to go on exactly."""
        state = {"optimizer/m": self.m, "optimizer/v": self.v, "ema": self.ema}
        state |= {f"ema/{name}": average for name, average in self.ema_buffers.items()}
        return {name: array for name, array in state.items() if array is not None}


def decay_segments(model, weight_decay):
    """[(start, end, decay)] that cover the flat vector in order; neighbours that decay alike are one segment."""
    segments = []
    for _, p, start, _ in model.layout():
        decay = weight_decay if p.decay else 0.0
        if segments and segments[-1][1] == decay:
            continue
        segments.append((start, decay))
    ends = [start for start, _ in segments[1:]] + [model.flat.size]
    return [(start, end, decay) for (start, decay), end in zip(segments, ends)]


def whole(fn, size):
    """each_range without lanes: the one range from 0 to size."""
    fn(0, size)
