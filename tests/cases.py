"""THE TABLE OF OPS: for each, how its inputs are drawn, the torch function that is its oracle, and its arithmetic.

test_ops.py, test_kernels.py and the benchmark all read CASES. A case's inputs are made by a Draw: under hypothesis it picks
sizes (pairwise different, no multiple of 4, so off every SIMD width), memory layouts and extremes; in the benchmark the same
function gets the fixed sizes of the case's last column.
"""
import math
from dataclasses import dataclass, field
from typing import Callable

import hypothesis.strategies as st
import numpy as np
import torch
from torch.nn import functional as TF

import torch_models

LAYOUTS = ("contiguous", "transposed", "reversed", "strided")


class Draw:
    """Where a case gets its inputs from. pick(options) → one of them. degenerate: whether sometimes() may say yes."""

    def __init__(self, pick, seed, sizes=None, degenerate=True):
        self.pick, self.rng, self.fixed, self.degenerate = pick, np.random.default_rng(seed), sizes, degenerate
        self.used = set()

    def size(self, name, low, high):
        """A size from low to high, different from all others of this draw, except that several may be 1."""
        if self.fixed is not None:
            return self.fixed[name]
        size = self.pick([n for n in range(low, high + 1) if n == 1 or (n % 4 and n not in self.used)])
        self.used.add(size)
        return size

    def choice(self, *options):
        return options[0] if self.fixed is not None else self.pick(options)

    def sometimes(self):
        """Whether to draw a degenerate input, one draw in three."""
        return self.choice(False, False, True) if self.degenerate else False

    def array(self, *shape, scale=1.0, offset=0.0):
        """Normal values in float64, laid out in memory in one of four ways."""
        values = np.asarray(self.rng.standard_normal(shape) * scale + offset)
        return values if self.fixed is not None else laid_out(values, self.pick(LAYOUTS))

    def seeds(self, B):
        return self.rng.integers(0, 2**64, B, dtype=np.uint64)


@st.composite
def draws(draw, case, **options):
    """hypothesis: (arrays, others) of the case and the Draw that made them."""
    d = Draw(lambda choices: draw(st.sampled_from(choices)), draw(st.integers(0, 2**32 - 1)), **options)
    return *case.inputs(d), d


def bench_inputs(case, dtype="float32"):
    """(arrays, others) of the case at the benchmark's sizes."""
    arrays, others = case.inputs(Draw(None, 0, case.bench))
    return as_dtype(arrays, dtype), as_dtype(others, dtype)


def laid_out(values, layout):
    """The same values, as a view of a larger or differently ordered block of memory."""
    if values.ndim == 0 or layout == "contiguous":
        return values
    if layout == "transposed":
        return np.ascontiguousarray(values.T).T
    if layout == "reversed":
        return np.ascontiguousarray(np.flip(values))[(slice(None, None, -1),) * values.ndim]
    wide = np.full((*values.shape[:-1], 2 * values.shape[-1]), np.nan)
    wide[..., ::2] = values
    return wide[..., ::2]


def as_dtype(inputs, dtype):
    """The dict with its float arrays as dtype, laid out as before."""
    return {name: same_layout(a, dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
            for name, a in inputs.items()}


def same_layout(a, dtype):
    owner = a
    while owner.base is not None:
        owner = owner.base
    item, new = a.itemsize, np.dtype(dtype).itemsize
    start = (a.__array_interface__["data"][0] - owner.__array_interface__["data"][0]) // item
    return np.ndarray(a.shape, dtype, owner.astype(dtype, order="C"), start * new, [s // item * new for s in a.strides])


def error(got, want, floor=0.0):
    """Normwise relative error; below floor, want counts as zero and the error is relative to floor."""
    if got is None or want is None:
        return 0.0 if got is want else math.inf
    if np.shape(got) != np.shape(want):
        return math.inf
    distance = np.linalg.norm((np.asarray(got, np.float64) - want).ravel())
    return float(distance / max(np.linalg.norm(np.ravel(want)), floor, 1e-300))


def floor_of(name, arrays, others, dy):
    """The size below which a gradient counts as zero: 1e-5 of Σ|dy|, times the largest entries of the other arrays, times 1/√eps.

    A softmax of one dominant logit or over one key, and the weight of a norm that only sees constant rows, have gradients
    that are 0 but for rounding: no digits to compare. (Σ|dy|, for a mean's rounding error is the same in all rows.)
    """
    largest = [max(1.0, float(np.abs(a).max())) for other, a in arrays.items() if a is not None and other != name]
    return 1e-5 * float(np.abs(dy).sum()) * math.prod(largest) / math.sqrt(others.get("eps", 1.0))


def torch_gradients(case, arrays, others, dy):
    """y and the gradients of the arrays, in float64, by autograd. dy: a function of y's shape, or the array."""
    tensors = {name: None if a is None else torch.tensor(a.copy(), dtype=torch.float64, requires_grad=True)
               for name, a in arrays.items()}
    y = case.torch(**tensors, **others)
    dy = dy(y.shape) if callable(dy) else dy
    y.backward(torch.tensor(np.array(dy), dtype=torch.float64))
    grads = [None if t is None else torch.zeros_like(t).numpy() if t.grad is None else t.grad.numpy() for t in tensors.values()]
    return y.detach().numpy(), grads, dy


def model_errors(model, images, dlogits, train=False):
    """{what: relative error} of logits, dimages, every parameter's gradient and every buffer, against autograd on the twin."""
    twin, torch_images = torch_models.twin_of(model, train), torch.tensor(np.array(images), requires_grad=True)
    torch_logits = twin(torch_images)
    torch_logits.backward(torch.from_numpy(dlogits))
    logits, cache = model.forward(images, train=train)
    dimages = model.backward(dlogits, cache)
    grads = {name: p.grad.numpy() for name, p in twin.named_parameters()}
    buffers = {name: value.numpy() for name, value in twin.state_dict().items() if name not in grads}
    zero = 1e-4 * max(np.linalg.norm(g) for g in grads.values())             # a key's bias moves all scores of a row alike, a norm
    errors = {"logits": error(logits, torch_logits.detach().numpy()),        # of one value has no slope: 0 but for rounding
              "images": error(dimages, torch_images.grad.numpy(), zero)}
    errors |= {name: error(p.grad, grads.pop(name), zero) for name, p in model.named_parameters()}
    errors |= {name: error(buffer, buffers.pop(name)) for name, buffer in model.named_buffers()}
    assert not grads and not buffers
    return errors


def gradients(backward, dy, cache):
    """backward's result as a list, one gradient an array."""
    result = backward(dy, cache)
    return list(result) if isinstance(result, tuple) else [result]


@dataclass(frozen=True, eq=False)
class Case:
    """One op. inputs(draw) → ({array: values or None}, {other argument: value}), both in forward's order; the arrays have
    gradients. flops(arrays, others) → (forward, backward), a multiply-add counting two."""

    name: str
    inputs: Callable
    torch: Callable
    flops: Callable
    bench: dict = field(default_factory=dict)

    def __str__(self):
        return self.name


# --- linear maps


def linear_inputs(d):
    B, N, Cin, Cout = d.size("B", 1, 3), d.size("N", 1, 9), d.size("Cin", 1, 37), d.size("Cout", 1, 37)
    shape = d.choice((B, N), (N,), (), (B, 2, N))
    return dict(x=d.array(*shape, Cin), weight=d.array(Cout, Cin), bias=d.choice(d.array(Cout), None)), {}


def patch_embed_inputs(d):
    P, C, D = d.size("P", 1, 5), d.size("C", 1, 3), d.size("D", 1, 21)
    gh, gw = d.size("gh", 1, 5), d.size("gw", 1, 7)
    B = d.size("B", 1, 3)
    return dict(images=d.array(B, C, gh * P, gw * P), weight=d.array(D, C, P, P), bias=d.array(D)), {}


def torch_patch_embed(images, weight, bias):
    return TF.conv2d(images, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)


def product_flops(rows, arrays, others):
    """Of y = x Wᵀ, dx = dy W and dW = dyᵀ x, where W is (out, …)."""
    forward = 2 * rows(arrays, others) * arrays["weight"].size
    return forward, 2 * forward


def map_inputs(d, largest=9):
    """A map (B, H, W, C), a kernel, a stride and a padding that fit each other."""
    B, H, W, C = d.size("B", 1, 3), d.size("H", 1, largest), d.size("W", 1, largest), d.size("C", 1, 19)
    padding = d.choice(1, 0, 2)
    kernel = d.choice(*([3] if min(H, W) + 2 * padding >= 3 else []), 1, *([2] if min(H, W) + 2 * padding >= 2 else []))
    return d.array(B, H, W, C), kernel, d.choice(1, 2, 3), min(padding, kernel // 2 + 1)


def conv2d_inputs(d):
    x, k, stride, padding = map_inputs(d)
    Cout = d.size("Cout", 1, 13)
    kw = d.choice(k, 1)
    return (dict(x=x, weight=d.array(Cout, x.shape[-1], k, kw), bias=d.choice(d.array(Cout), None)),
            dict(stride=stride, padding=min(padding, k)))


def torch_conv2d(x, weight, bias, stride, padding):
    return TF.conv2d(x.movedim(-1, 1), weight, bias, stride, padding).movedim(1, -1)


def depthwise_conv_inputs(d):
    x, k, stride, padding = map_inputs(d)
    C = x.shape[-1]
    return (dict(x=x, weight=d.array(C, 1, k, d.choice(k, 1)), bias=d.choice(None, d.array(C))),
            dict(stride=stride, padding=padding))


def torch_depthwise_conv(x, weight, bias, stride, padding):
    x = x.movedim(-1, 1).contiguous()                                        # torch gets some strides of a batch of 1 wrong
    return TF.conv2d(x, weight, bias, stride, padding, groups=len(weight)).movedim(1, -1)


def positions_of_conv(arrays, others):
    B, H, W, _ = arrays["x"].shape
    kh, kw = arrays["weight"].shape[2:]
    s, p = others["stride"], others["padding"]
    return B * ((H + 2 * p - kh) // s + 1) * ((W + 2 * p - kw) // s + 1)


def avg_pool_inputs(d):
    x, kernel, stride, _ = map_inputs(d)
    fits = min(x.shape[1:3]) >= kernel
    return dict(x=x), dict(kernel=kernel, stride=stride, padding=d.choice(kernel // 2, 0 if fits else kernel // 2))


def torch_avg_pool(x, kernel, stride, padding):
    return TF.avg_pool2d(x.movedim(-1, 1).contiguous(), kernel, stride, padding, ceil_mode=True).movedim(1, -1)


# --- normalisation


def layer_norm_inputs(d):
    B, N, C = d.size("B", 1, 3), d.size("N", 1, 9), d.size("C", 3, 70)
    x = d.array(*d.choice((B, N), (B,), (B, 2, N)), C, scale=d.choice(1.0, 30.0, 0.1), offset=d.choice(0.0, 5.0))
    if d.sometimes():                                         # a constant row: var = 0, rstd = 1/√eps
        x[0] = 3.7
    return dict(x=x, weight=d.array(C), bias=d.array(C)), dict(eps=d.choice(1e-6, 1e-5))


def torch_layer_norm(x, weight, bias, eps):
    return TF.layer_norm(x, x.shape[-1:], weight, bias, eps)


def batch_norm_inputs(d):
    B, H, W, C = d.size("B", 2, 7), d.size("H", 2, 7), d.size("W", 2, 7), d.size("C", 1, 37)     # often more rows than a block
    x = d.array(*d.choice((B, H, W), (B, H * W)), C, scale=d.choice(1.0, 30.0), offset=d.choice(0.0, 5.0))
    running = d.choice((None, None), (d.array(C), np.abs(d.array(C)) + 0.1))
    if d.sometimes():                                         # a channel that is constant over the batch
        x[..., 0] = 3.7
    return (dict(x=x, weight=d.array(C), bias=d.array(C)),
            dict(running_mean=running[0], running_var=running[1], eps=d.choice(1e-5, 1e-3)))


def torch_batch_norm(x, weight, bias, running_mean, running_var, eps):
    training = running_mean is None
    running = (None, None) if training else (torch.tensor(running_mean.copy()), torch.tensor(running_var.copy()))
    return TF.batch_norm(x.reshape(-1, x.shape[-1]), *running, weight, bias, training, eps=eps).view(x.shape)


# --- pointwise


def gelu_inputs(d):
    B, N, E = d.size("B", 1, 3), d.size("N", 1, 9), d.size("E", 1, 70)
    return dict(x=d.array(B, N, E, scale=d.choice(1.0, 3.0, 1e-3, 1e4))), {}


def bias_activation_inputs(d):
    B, N, E = d.size("B", 1, 3), d.size("N", 1, 9), d.size("E", 1, 70)
    act = d.choice("gelu", "gelu_tanh", "quick_gelu", "relu")
    return (dict(x=d.array(*d.choice((B, N), (N,)), E, scale=d.choice(1.0, 3.0, 1e-3, 1e4)), bias=d.array(E)), dict(act=act))


def torch_bias_activation(x, bias, act):
    return torch_models.ACTIVATIONS[act](x + bias)


def dropout_inputs(d):
    B, N, C = d.size("B", 1, 3), d.size("N", 1, 9), d.size("C", 1, 37)
    return (dict(x=d.array(*d.choice((B, N), (B,), (B, 2, N)), C)),
            dict(rate=d.choice(0.1, 0.0, 0.5, 0.9), seeds=d.choice(d.seeds(B), None)))


def torch_dropout(x, rate, seeds):
    return x * keep_factor(x.shape, rate, seeds, math.prod(x.shape[1:]))


def torch_drop_path(x, rate, seeds):
    return x * keep_factor((len(x), *[1] * (x.ndim - 1)), rate, seeds, None)


def keep_factor(shape, rate, seeds, elements):
    """keep / (1 − rate), from SplitMix64 in Python's integers; elements of an image, or None for one bit an image."""
    if seeds is None or rate == 0:
        return torch.ones(shape, dtype=torch.float64)
    hashes = [splitmix(int(seed)) for seed in seeds]
    if elements is not None:
        hashes = [splitmix(h * 0x9E3779B97F4A7C15 + i) for h in hashes for i in range(elements)]
    return torch.tensor([float((h >> 11) * 2.0**-53 >= rate) / (1 - rate) for h in hashes], dtype=torch.float64).view(shape)


def splitmix(part):
    """hash_combine's step from the state part: SplitMix64's finaliser of part + 1."""
    z = (part + 1) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


# --- softmax, attention, loss


def softmax_inputs(d):
    B, N, S = d.size("B", 1, 3), d.size("N", 1, 9), d.size("S", 1, 70)
    x = d.array(B, N, S, scale=d.choice(1.0, 5.0, 1e4))
    if d.sometimes():
        x[:, :, 1:] = -np.inf                                                # every key but one masked
    return dict(x=x), {}


def mask_of(d, nW, N, S):
    """(nW, N, S) of 0 and −inf with a finite entry in each row, or None; sometimes with no more than that one."""
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
    nh, hd, N, S = d.size("nh", 1, 3), d.size("hd", 1, 19), d.size("N", 1, 9), d.size("S", 1, 38)
    nW = d.choice(1, 3)
    B = nW * d.size("B", 1, 2)
    bias, others = attention_options(d, B, nW, nh, N, S, hd)
    q = d.array(B, nh, N, hd, scale=d.choice(1.0, 1.0, 1e4))                 # scores up to ±1e4 and beyond
    return dict(q=q, k=d.array(B, nh, S, hd), v=d.array(B, nh, S, hd), bias=bias), others


def torch_attention(q, k, v, bias, mask, scale, drop_rate, seeds):
    B, nh, N, hd = q.shape
    scores = torch.einsum("bhnc,bhsc->bhns", q, k) * (hd**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + torch.tensor(np.array(mask))[torch.arange(B) % len(mask)][:, None]
    attn = scores.softmax(-1)
    attn = attn * keep_factor(attn.shape, drop_rate, seeds, attn[0].numel())
    return torch.einsum("bhns,bhsc->bhnc", attn, v)


def attention_flops(arrays, others):
    q, k = arrays["q"], arrays["k"]
    product = 2 * q.size * k.shape[2]                                        # one of q kᵀ, attn v
    return 2 * product, 4 * product


def self_attention_inputs(d):
    nh, hd, N = d.size("nh", 1, 3), d.size("hd", 1, 19), d.size("N", 1, 38)
    nW = d.choice(1, 3)
    B = nW * d.size("B", 1, 2)
    bias, others = attention_options(d, B, nW, nh, N, N, hd)
    return (dict(qkv=d.array(B, N, 3 * nh * hd, scale=d.choice(1.0, 1.0, 60.0)), bias=bias),
            dict(num_heads=nh) | others)


def torch_self_attention(qkv, bias, num_heads, **others):
    q, k, v = (part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return torch_attention(q, k, v, bias, **others).transpose(1, 2).flatten(2)


def self_attention_flops(arrays, others):
    B, N, C3 = arrays["qkv"].shape
    product = 2 * B * N * N * C3 // 3
    return 2 * product, 4 * product


def cross_entropy_inputs(d):
    B, K = d.size("B", 1, 9), d.size("K", 2, 70)
    logits = d.array(B, K, scale=d.choice(1.0, 5.0, 1e4))
    soft = d.rng.random((B, K))
    targets = d.choice(d.rng.integers(0, K, B), soft / soft.sum(axis=1, keepdims=True), soft)
    return dict(logits=logits), dict(targets=targets, label_smoothing=d.choice(0.0, 0.1))


def torch_cross_entropy(logits, targets, label_smoothing):
    return TF.cross_entropy(logits, torch.tensor(targets), label_smoothing=label_smoothing)


# --- windows


def placed(d, N, R):
    """index (R,), inverse (N,): N tokens put into R ≥ N rows, −1 where a row is padding."""
    inverse = d.rng.permutation(R)[:N]
    index = np.full(R, -1)
    index[inverse] = np.arange(N)
    return index, inverse


def gather_tokens_inputs(d):
    B, N, C = d.size("B", 1, 3), d.size("N", 1, 18), d.size("C", 1, 37)
    index, inverse = placed(d, N, N + d.choice(0, 3, 7))
    if d.choice(False, True):                                                # the way back: rows are dropped
        return dict(x=d.array(B, len(index), C)), dict(index=inverse, inverse=index)
    return dict(x=d.array(B, N, C)), dict(index=index, inverse=inverse)


def torch_gather_tokens(x, index, inverse):
    with_zero = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)            # row −1
    return with_zero[:, torch.tensor(index)]


def window_attention_inputs(d):
    nh, hd, B = d.size("nh", 1, 3), d.size("hd", 1, 11), d.size("B", 1, 3)
    nW, M2 = d.size("nW", 1, 6), d.size("M2", 1, 19)
    N = nW * M2 if d.fixed is not None else d.pick(range(max(1, nW * M2 - 5), nW * M2 + 1))
    index, inverse = placed(d, N, nW * M2)
    bias, others = attention_options(d, B, nW, nh, M2, M2, hd)
    return (dict(qkv=d.array(B, N, 3 * nh * hd), qkv_bias=d.choice(d.array(3 * nh * hd), None),
                 bias=d.array(nh, M2, M2) if bias is None else bias),
            dict(index=index, inverse=inverse, num_heads=nh) | others)


def torch_window_attention(qkv, qkv_bias, bias, index, inverse, num_heads, seeds, **others):
    B, _, C3 = qkv.shape
    windows = torch_gather_tokens(qkv, index, inverse).reshape(-1, bias.shape[1], C3)
    if qkv_bias is not None:
        windows = windows + qkv_bias
    if seeds is not None:                                                    # one seed a window
        hashes = [splitmix(splitmix(int(seed)) * 0x9E3779B97F4A7C15 + w) for seed in seeds for w in range(len(windows) // B)]
        seeds = np.array(hashes, dtype=np.uint64)
    y = torch_self_attention(windows, bias, num_heads, seeds=seeds, **others)
    return y.reshape(B, len(index), -1)[:, torch.tensor(inverse)]


def window_attention_flops(arrays, others):
    B, _, C3 = arrays["qkv"].shape
    product = 2 * B * len(others["index"]) * arrays["bias"].shape[1] * C3 // 3
    return 2 * product, 4 * product


def relative_position_bias_inputs(d):
    M, nh = d.size("M", 1, 5), d.size("nh", 1, 7)
    return (dict(table=d.array((2 * M - 1) ** 2, nh)), dict(index=torch_models.relative_position_index(M).numpy()))


def torch_relative_position_bias(table, index):
    return table[torch.tensor(index)].permute(2, 0, 1)


def shifted_windows_inputs(d):
    M = d.choice(3, 1, 2, 5)
    B, H, W, C = d.size("B", 1, 3), d.size("H", 1, 11), d.size("W", 1, 11), d.size("C", 1, 19)
    return dict(x=d.array(B, H, W, C)), dict(M=M, shift=d.choice(M // 2, 0))


def padded(x, M):
    """(B, H, W, C) with zeros at the bottom and the right, to multiples of M"""
    return TF.pad(x, (0, 0, 0, -x.shape[2] % M, 0, -x.shape[1] % M))


def torch_shifted_windows(x, M, shift):
    rows = padded(x, M).roll((-shift, -shift), (1, 2)).split(M, dim=1)
    windows = [window for row in rows for window in row.split(M, dim=2)]     # nW times (B, M, M, C)
    return torch.stack(windows, dim=1).flatten(2, 3).flatten(0, 1)


def merge_patches_inputs(d):
    B, H, W, C = d.size("B", 1, 3), d.size("H", 1, 9), d.size("W", 1, 9), d.size("C", 1, 19)
    return dict(x=d.array(B, H, W, C)), {}


def torch_merge_patches(x):
    x = padded(x, 2)
    return torch.cat([x[:, r::2, c::2] for c in (0, 1) for r in (0, 1)], dim=-1)


def each(array, forward, backward):
    """So many operations an element of that array."""
    return lambda arrays, others: (forward * arrays[array].size, backward * arrays[array].size)


# The last column: the sizes the benchmark takes, those of a micro-batch of the models that train on 32×32 images.
CASES = (
    Case("linear", linear_inputs, TF.linear,
         lambda a, o: product_flops(lambda a, o: a["x"].size // a["x"].shape[-1], a, o), dict(B=16, N=65, Cin=192, Cout=768)),
    Case("patch_embed", patch_embed_inputs, torch_patch_embed,
         lambda a, o: product_flops(lambda a, o: a["images"][:, 0].size // a["weight"].shape[-1] ** 2, a, o),
         dict(B=16, P=4, C=3, D=192, gh=8, gw=8)),
    Case("conv2d", conv2d_inputs, torch_conv2d, lambda a, o: product_flops(positions_of_conv, a, o),
         dict(B=16, H=16, W=16, C=64, Cout=128)),
    Case("depthwise_conv", depthwise_conv_inputs, torch_depthwise_conv,
         lambda a, o: product_flops(positions_of_conv, a, o), dict(B=16, H=16, W=16, C=64)),
    Case("avg_pool", avg_pool_inputs, torch_avg_pool, each("x", 9, 9), dict(B=16, H=16, W=16, C=64)),
    Case("layer_norm", layer_norm_inputs, torch_layer_norm, each("x", 8, 14), dict(B=16, N=65, C=192)),
    Case("batch_norm", batch_norm_inputs, torch_batch_norm, each("x", 8, 14), dict(B=16, H=16, W=16, C=64)),
    Case("gelu", gelu_inputs, TF.gelu, each("x", 25, 30), dict(B=16, N=65, E=768)),
    Case("gelu_tanh", gelu_inputs, torch_models.ACTIVATIONS["gelu_tanh"], each("x", 20, 25), dict(B=16, N=65, E=768)),
    Case("quick_gelu", gelu_inputs, torch_models.ACTIVATIONS["quick_gelu"], each("x", 15, 20), dict(B=16, N=65, E=768)),
    Case("relu", gelu_inputs, torch.relu, each("x", 1, 1), dict(B=16, N=65, E=768)),
    Case("bias_activation", bias_activation_inputs, torch_bias_activation, each("x", 26, 31), dict(B=16, N=65, E=768)),
    Case("dropout", dropout_inputs, torch_dropout, each("x", 20, 1), dict(B=16, N=65, C=192)),
    Case("drop_path", dropout_inputs, torch_drop_path, each("x", 1, 1), dict(B=16, N=65, C=192)),
    Case("softmax", softmax_inputs, lambda x: x.softmax(-1), each("x", 15, 4), dict(B=48, N=65, S=65)),
    Case("attention", attention_inputs, torch_attention, attention_flops, dict(B=16, nh=3, N=65, S=65, hd=64)),
    Case("self_attention", self_attention_inputs, torch_self_attention, self_attention_flops, dict(B=16, nh=3, N=65, hd=64)),
    Case("window_attention", window_attention_inputs, torch_window_attention, window_attention_flops,
         dict(B=16, nh=3, nW=16, M2=16, hd=32)),
    Case("cross_entropy", cross_entropy_inputs, torch_cross_entropy, each("logits", 18, 3), dict(B=128, K=1000)),
    Case("gather_tokens", gather_tokens_inputs, torch_gather_tokens, each("x", 0, 0), dict(B=16, N=256, C=96)),
    Case("relative_position_bias", relative_position_bias_inputs, torch_relative_position_bias, each("table", 0, 1),
         dict(M=7, nh=3)),
    Case("shifted_windows", shifted_windows_inputs, torch_shifted_windows, each("x", 0, 0), dict(B=16, H=15, W=15, C=96)),
    Case("merge_patches", merge_patches_inputs, torch_merge_patches, each("x", 0, 0), dict(B=16, H=16, W=16, C=96)),
)
