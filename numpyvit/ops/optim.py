"""One step of an optimiser over a stretch of the flat vector. Ops change their arguments here, and in muon.py, alone.

A step reads and writes every parameter, gradient and moment once; fresh arrays for each would double the traffic. Every
formula is torch.optim's, operation for operation. Common arguments:

    data, grad (n,)   the weights and the gradient of the mean loss
    m, v (n,)         the optimiser's memory, at first zero
    update            an Update: learning rate, number of the step, weight decay, scale of the gradient

OPTIMIZERS, at the end, is the table of all optimisers.
"""
import math
from typing import NamedTuple

import numpy as np


class Update(NamedTuple):
    """What one step is told.

    lr      learning rate of this step
    step    1 for the first
    decay   weight decay of this stretch (0 for biases, norms, position tables)
    scale   the gradient is multiplied by it first (clipping by global norm)
    """
    lr: float
    step: int = 1
    decay: float = 0.0
    scale: float = 1.0


def adamw_step(data, grad, m, v, update, beta1, beta2, eps):
    """Adam with decoupled weight decay. In place: data, m, v.

        data ← data · (1 − lr · decay)
        m ← m + (1 − β₁) · (grad − m),   v ← β₂ · v + (1 − β₂) · grad²
        data ← data − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)

    Loshchilov, Hutter 2019, algorithm 2.  torch.optim.AdamW
    """
    lr, step, decay, scale = update
    data *= 1 - lr * decay
    adam_update(data, grad * scale, m, v, lr, beta1, beta2, eps, step)


def adam_step(data, grad, m, v, update, beta1, beta2, eps):
    """Adam with weight decay as a part of the gradient, grad ← grad + decay · data. In place: data, m, v.

    Kingma, Ba 2015, algorithm 1.  torch.optim.Adam
    """
    lr, step, decay, scale = update
    adam_update(data, grad * scale + decay * data, m, v, lr, beta1, beta2, eps, step)


def sgd_step(data, grad, m, update, momentum):
    """Gradient descent with momentum. In place: data, m.

        m ← momentum · m + grad + decay · data,   data ← data − lr · m

    torch.optim.SGD (dampening 0, not Nesterov)
    """
    lr, _, decay, scale = update
    m *= momentum
    m += grad * scale + decay * data
    data -= lr * m


def adam_update(data, grad, m, v, lr, beta1, beta2, eps, step):
    """The last two lines of adamw_step's formula."""
    m += (1 - beta1) * (grad - m)
    v *= beta2
    v += (1 - beta2) * grad * grad
    data -= (lr / (1 - beta1**step)) * m / (np.sqrt(v) / math.sqrt(1 - beta2**step) + eps)


def average_step(data, ema, ema_decay):
    """The running average of the weights: ema ← ema + (1 − ema_decay) · (data − ema). In place: ema (n,)."""
    ema += (1 - ema_decay) * (data - ema)


def square_sums(grad, sums, chunk):
    """sums[i] ← Σ grad² over the i-th chunk of grad, in float64. A chunk has `chunk` elements.

    grad (n,)   sums (⌈n / chunk⌉,) float64, written in place
    """
    for i in range(len(sums)):
        part = grad[i * chunk:(i + 1) * chunk].astype(np.float64)
        sums[i] = (part * part).sum()


class Rule(NamedTuple):
    """A row of the table of optimisers.

    step      the name in functional.py of the function that makes one step
    state     the names of the vectors that it remembers, in the order of its arguments
    settings  its further arguments, by name, with their defaults
    matrices  whether it takes weight matrices one at a time, as (rows, columns), and not any stretch of the flat vector
    """
    step: str
    state: tuple
    settings: dict
    matrices: bool = False


ADAM_SETTINGS = {"beta1": 0.9, "beta2": 0.98, "eps": 1e-8}
ADAMW = Rule("adamw_step", ("m", "v"), ADAM_SETTINGS)

# {name: its rules}. A parameter follows the first rule that takes it: a rule of matrices needs another one behind it.
OPTIMIZERS = {
    "adamw": (ADAMW,),
    "adam": (Rule("adam_step", ("m", "v"), ADAM_SETTINGS),),
    "sgd": (Rule("sgd_step", ("m",), {"momentum": 0.9}),),
    "muon": (Rule("muon_step", ("m",), {"momentum": 0.95}, matrices=True), ADAMW),
}


def optimizer_settings(kind):
    """{name: default} of the settings that the optimiser's rules take; a name in two rules has the first's default."""
    return {name: value for rule in reversed(OPTIMIZERS[kind]) for name, value in rule.settings.items()}
