"""Softmax, attention and the loss."""
import numpy as np

from .draw import Case, each
from .pointwise import keep_factor


def softmax_inputs(d):
    """x (B, N, S); sometimes every key but one is masked"""
    B, N, S = d.size("B", 1, 3), d.size("N", 1, 9), d.size("S", 1, 70)
    x = d.array(B, N, S, scale=d.extreme(1.0, 5.0, 1e4))
    if d.sometimes():
        x[:, :, 1:] = -np.inf
    return dict(x=x), {}


def torch_softmax(torch, x):
    """torch's own"""
    return x.softmax(-1)


def mask_of(d, nW, N, S):
    """(nW, N, S) of 0 and −inf with a finite entry in each row, or None; sometimes with no more than that entry"""
    kept = d.choice(None, 0.6, 0.0)
    if kept is None:
        return None
    mask = np.where(d.rng.random((nW, N, S)) < kept, 0.0, -np.inf)
    np.put_along_axis(mask, d.rng.integers(0, S, (nW, N, 1)), 0.0, axis=2)
    return mask


def attention_options(d, B, nW, nh, N, S, hd):
    """bias, and the other arguments of attention_forward"""
    drop = d.choice((0.0, None), (0.3, None), (0.3, d.seeds(B)))
    return (d.choice(None, d.array(nh, N, S)),
            dict(mask=mask_of(d, nW, N, S), scale=d.choice(None, 0.3 / hd), drop_rate=drop[0], seeds=drop[1]))


def attention_inputs(d):
    """q (B, nh, N, hd), k and v (B, nh, S, hd); scores up to ±1e4 and beyond"""
    nh, hd, N, S = d.size("nh", 1, 3), d.size("hd", 1, 19), d.size("N", 1, 9), d.size("S", 1, 38)
    nW = d.choice(1, 3)
    B = nW * d.size("B", 1, 2)
    bias, others = attention_options(d, B, nW, nh, N, S, hd)
    q = d.array(B, nh, N, hd, scale=d.extreme(1.0, 1.0, 1e4))
    return dict(q=q, k=d.array(B, nh, S, hd), v=d.array(B, nh, S, hd), bias=bias), others


def torch_attention(torch, q, k, v, bias, mask, scale, drop_rate, seeds):
    """softmax(q kᵀ · scale + bias + mask) v, written out"""
    B, nh, N, hd = q.shape
    scores = torch.einsum("bhnc,bhsc->bhns", q, k) * (hd**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + torch.tensor(np.array(mask))[torch.arange(B) % len(mask)][:, None]
    attn = scores.softmax(-1)
    attn = attn * keep_factor(torch, attn.shape, drop_rate, seeds, attn[0].numel())
    return torch.einsum("bhns,bhsc->bhnc", attn, v)


def attention_flops(arrays, others):
    """two products forward, q kᵀ and attn v, and four backward"""
    q, k = arrays["q"], arrays["k"]
    product = 2 * q.size * k.shape[2]
    return 2 * product, 4 * product


def self_attention_inputs(d):
    """qkv (B, N, 3·nh·hd)"""
    nh, hd, N = d.size("nh", 1, 3), d.size("hd", 1, 19), d.size("N", 1, 38)
    nW = d.choice(1, 3)
    B = nW * d.size("B", 1, 2)
    bias, others = attention_options(d, B, nW, nh, N, N, hd)
    qkv = d.array(B, N, 3 * nh * hd, scale=d.extreme(1.0, 1.0, 60.0))
    return dict(qkv=qkv, bias=bias), dict(num_heads=nh) | others


def torch_self_attention(torch, qkv, bias, num_heads, **others):
    """qkv parted into heads, attention, and the heads side by side again"""
    q, k, v = (part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return torch_attention(torch, q, k, v, bias, **others).transpose(1, 2).flatten(2)


def self_attention_flops(arrays, others):
    """as attention_flops"""
    B, N, C3 = arrays["qkv"].shape
    product = 2 * B * N * N * C3 // 3
    return 2 * product, 4 * product


def rotary_inputs(d):
    """qkv (B, N, 3·nh·hd), and cos and sin (N, hd/2) of any angles"""
    B, nh, half, N = d.size("B", 1, 3), d.size("nh", 1, 3), d.size("half", 1, 18), d.size("N", 1, 38)
    angles = d.array(N, half, scale=d.extreme(1.0, 100.0))
    return dict(qkv=d.array(B, N, 6 * nh * half)), dict(cos=np.cos(angles), sin=np.sin(angles))


def torch_rotary(torch, qkv, cos, sin):
    """a pair of channels as a complex number, times exp(i · angle)"""
    q, k, v = qkv.chunk(3, dim=2)
    turn = torch.complex(torch.tensor(np.array(cos)), torch.tensor(np.array(sin))).to(torch.complex128)[:, None]
    turned = []
    for part in (q, k):
        pairs = part.unflatten(2, (-1, 2, cos.shape[1]))                     # (B, N, nh, 2, hd/2)
        z = torch.complex(pairs[..., 0, :], pairs[..., 1, :]) * turn
        turned.append(torch.stack([z.real, z.imag], dim=3).flatten(2))
    return torch.cat([*turned, v], dim=2)


def cross_entropy_inputs(d):
    """logits (B, K); labels, or targets (B, K) that sum to 1 or do not"""
    B, K = d.size("B", 1, 9), d.size("K", 2, 70)
    logits = d.array(B, K, scale=d.extreme(1.0, 5.0, 1e4))
    soft = d.rng.random((B, K))
    targets = d.choice(d.rng.integers(0, K, B), soft / soft.sum(axis=1, keepdims=True), soft)
    return dict(logits=logits), dict(targets=targets, label_smoothing=d.choice(0.0, 0.1))


def torch_cross_entropy(torch, logits, targets, label_smoothing):
    """torch's own"""
    return torch.nn.functional.cross_entropy(logits, torch.tensor(targets), label_smoothing=label_smoothing)


CASES = (
    Case("softmax", softmax_inputs, torch_softmax, each("x", 15, 4), dict(B=48, N=65, S=65)),
    Case("attention", attention_inputs, torch_attention, attention_flops, dict(B=16, nh=3, N=65, S=65, hd=64)),
    Case("self_attention", self_attention_inputs, torch_self_attention, self_attention_flops,
         dict(B=16, nh=3, N=65, hd=64)),
    Case("rotary", rotary_inputs, torch_rotary, each("qkv", 2, 2), dict(B=16, nh=3, N=65, half=32)),
    Case("cross_entropy", cross_entropy_inputs, torch_cross_entropy, each("logits", 18, 3), dict(B=128, K=1000)),
)
