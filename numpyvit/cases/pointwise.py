"""What happens to every value alone: activations, dropout."""
import math

from .draw import Case, each

ACTIVATIONS = {                                                              # name: torch's function
    "gelu": lambda torch, x: torch.nn.functional.gelu(x),
    "gelu_tanh": lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda torch, x: x * torch.sigmoid(1.702 * x),
    "relu": lambda torch, x: torch.relu(x),
}


def activation_inputs(d):
    """x (B, N, E) of several scales"""
    B, N, E = d.size("B", 1, 3), d.size("N", 1, 9), d.size("E", 1, 70)
    return dict(x=d.array(B, N, E, scale=d.extreme(1.0, 3.0, 1e-3, 1e4))), {}


def bias_activation_inputs(d):
    """x (…, E), bias (E,), one of the activations by name"""
    B, N, E = d.size("B", 1, 3), d.size("N", 1, 9), d.size("E", 1, 70)
    act = d.choice(*ACTIVATIONS)
    x = d.array(*d.choice((B, N), (N,)), E, scale=d.extreme(1.0, 3.0, 1e-3, 1e4))
    return dict(x=x, bias=d.array(E)), dict(act=act)


def torch_bias_activation(torch, x, bias, act):
    """the two, one after the other"""
    return ACTIVATIONS[act](torch, x + bias)


def dropout_inputs(d):
    """x (B, …), a rate, and a seed an image or none"""
    B, N, C = d.size("B", 1, 3), d.size("N", 1, 9), d.size("C", 1, 37)
    return (dict(x=d.array(*d.choice((B, N), (B,), (B, 2, N)), C)),
            dict(rate=d.choice(0.1, 0.0, 0.5, 0.9), seeds=d.choice(d.seeds(B), None)))


def torch_dropout(torch, x, rate, seeds):
    """a bit a value"""
    return x * keep_factor(torch, x.shape, rate, seeds, math.prod(x.shape[1:]))


def torch_drop_path(torch, x, rate, seeds):
    """a bit an image"""
    return x * keep_factor(torch, (len(x), *[1] * (x.ndim - 1)), rate, seeds, None)


def keep_factor(torch, shape, rate, seeds, elements):
    """keep / (1 − rate), by SplitMix64 in Python's integers; elements of an image, or None for one bit an image"""
    if seeds is None or rate == 0:
        return torch.ones(shape, dtype=torch.float64)
    hashes = [splitmix(int(seed)) for seed in seeds]
    if elements is not None:
        hashes = [splitmix(h * 0x9E3779B97F4A7C15 + i) for h in hashes for i in range(elements)]
    kept = [float((h >> 11) * 2.0**-53 >= rate) / (1 - rate) for h in hashes]
    return torch.tensor(kept, dtype=torch.float64).view(shape)


def splitmix(part):
    """hash_combine's step from the state part: SplitMix64's finaliser of part + 1."""
    z = (part + 1) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


CASES = (
    Case("gelu", activation_inputs, ACTIVATIONS["gelu"], each("x", 25, 30), dict(B=16, N=65, E=768)),
    Case("gelu_tanh", activation_inputs, ACTIVATIONS["gelu_tanh"], each("x", 20, 25), dict(B=16, N=65, E=768)),
    Case("quick_gelu", activation_inputs, ACTIVATIONS["quick_gelu"], each("x", 15, 20), dict(B=16, N=65, E=768)),
    Case("relu", activation_inputs, ACTIVATIONS["relu"], each("x", 1, 1), dict(B=16, N=65, E=768)),
    Case("tanh", activation_inputs, lambda torch, x: torch.tanh(x), each("x", 12, 3), dict(B=16, N=1, E=768)),
    Case("bias_activation", bias_activation_inputs, torch_bias_activation, each("x", 26, 31), dict(B=16, N=65, E=768)),
    Case("dropout", dropout_inputs, torch_dropout, each("x", 20, 1), dict(B=16, N=65, C=192)),
    Case("drop_path", dropout_inputs, torch_drop_path, each("x", 1, 1), dict(B=16, N=65, C=192)),
)
