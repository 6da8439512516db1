"""One transformer block, forward and then backward, every intermediate printed; each gradient held against a finite difference.

    python examples/01_one_block.py                 a second
    python -m pdb examples/01_one_block.py          then `b forward`, `c`, and s (step) into numpyvit/ops/, n (next) over it

What you will see: names, shapes and first values of x, norm1, qkv, attention, …, y; then their gradients in the opposite order.
Beside each gradient stand two numbers: ⟨d, dNAME⟩, by which the gradient predicts the change of the loss for a small step of NAME in
a random direction d, and the change that is measured when the rest of the block runs again.
"""
import numpy as np

from numpyvit.ops.attention import self_attention_backward, self_attention_forward
from numpyvit.ops.gelu import gelu_backward, gelu_forward
from numpyvit.ops.layer_norm import layer_norm_backward, layer_norm_forward
from numpyvit.ops.linear import linear_backward, linear_forward

B, N, C, nh, E = 2, 5, 12, 3, 24
rng = np.random.default_rng(0)
p = {"norm1.weight": 1 + 0.1 * rng.standard_normal(C), "norm1.bias": rng.standard_normal(C),
     "qkv.weight": rng.standard_normal((3 * C, C)) / 3, "qkv.bias": rng.standard_normal(3 * C),
     "proj.weight": rng.standard_normal((C, C)) / 3, "proj.bias": rng.standard_normal(C),
     "norm2.weight": 1 + 0.1 * rng.standard_normal(C), "norm2.bias": rng.standard_normal(C),
     "fc1.weight": rng.standard_normal((E, C)) / 3, "fc1.bias": rng.standard_normal(E),
     "fc2.weight": rng.standard_normal((C, E)) / 5, "fc2.bias": rng.standard_normal(C)}
x = rng.standard_normal((B, N, C))
u = rng.standard_normal((B, N, C))                                           # the loss is Σ u ⊙ y: so dy = u


def forward(p, x, note):
    """x ← x + Attention(LN(x));   y = x + MLP(LN(x)).   note(name, value) prints, or changes, the value on its way"""
    x = note("x", x)
    h, c1 = layer_norm_forward(x, p["norm1.weight"], p["norm1.bias"])
    h = note("norm1", h)
    h, c2 = linear_forward(h, p["qkv.weight"], p["qkv.bias"])
    h = note("qkv", h)
    h, c3 = self_attention_forward(h, nh)
    h = note("attention", h)
    h, c4 = linear_forward(h, p["proj.weight"], p["proj.bias"])
    h = note("proj", h)
    x = note("x + proj", x + h)
    h, c5 = layer_norm_forward(x, p["norm2.weight"], p["norm2.bias"])
    h = note("norm2", h)
    h, c6 = linear_forward(h, p["fc1.weight"], p["fc1.bias"])
    h = note("fc1", h)
    h, c7 = gelu_forward(h)
    h = note("gelu", h)
    h, c8 = linear_forward(h, p["fc2.weight"], p["fc2.bias"])
    h = note("fc2", h)
    return note("y", x + h), (c1, c2, c3, c4, c5, c6, c7, c8)


def backward(dy, cache, note):
    """forward, read from the bottom"""
    c1, c2, c3, c4, c5, c6, c7, c8 = cache
    d = {}
    note("y", dy)
    dh = note("fc2", dy)                                                     # y = x + h: both get dy
    dh, d["fc2.weight"], d["fc2.bias"] = linear_backward(dh, c8)
    note("gelu", dh)
    dh = note("fc1", gelu_backward(dh, c7))
    dh, d["fc1.weight"], d["fc1.bias"] = linear_backward(dh, c6)
    note("norm2", dh)
    dh, d["norm2.weight"], d["norm2.bias"] = layer_norm_backward(dh, c5)
    dx = note("x + proj", dy + dh)                                           # two paths lead here: they add up
    dh, d["proj.weight"], d["proj.bias"] = linear_backward(note("proj", dx), c4)
    dqkv, _ = self_attention_backward(note("attention", dh), c3)
    dh, d["qkv.weight"], d["qkv.bias"] = linear_backward(note("qkv", dqkv), c2)
    note("norm1", dh)
    dh, d["norm1.weight"], d["norm1.bias"] = layer_norm_backward(dh, c1)
    return note("x", dx + dh), d


def loss(p, x, note=lambda name, value: value):
    return (u * forward(p, x, note)[0]).sum()


def show(name, value, extra=""):
    values = "  ".join(f"{v:8.4f}" for v in value.ravel()[:4])
    print(f"{name:<16}{'×'.join(map(str, value.shape)):<10}{values} …   {extra}")
    return value


def check(predicted, measured):
    assert abs(predicted - measured) <= 1e-6 * (1 + abs(measured)), (predicted, measured)
    return f"predicted {predicted:9.5f}, measured {measured:9.5f}"


def show_gradient(name, dvalue):
    """Step NAME itself by ±h·d while the block runs, and let everything behind it follow."""
    d, h = np.random.default_rng(1).standard_normal(dvalue.shape), 1e-5
    up, down = (loss(p, x, lambda n, value: value + s * h * d if n == name else value) for s in (1, -1))
    return show("d " + name, dvalue, check((d * dvalue).sum(), (up - down) / (2 * h)))


print("forward         shape      first values")
y, cache = forward(p, x, show)
print("\nbackward        shape      first values                                  ⟨d, gradient⟩ beside (loss(+h) − loss(−h)) / 2h")
dx, gradients = backward(u, cache, show_gradient)
print("\nparameters")
for name, dvalue in gradients.items():
    d, h = rng.standard_normal(dvalue.shape), 1e-5
    up, down = (loss({**p, name: p[name] + s * h * d}, x) for s in (1, -1))
    show("d " + name, dvalue, check((d * dvalue).sum(), (up - down) / (2 * h)))
print("\nEvery gradient agrees with what the loss does.")
