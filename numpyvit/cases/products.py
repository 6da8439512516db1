"""Linear maps: products, convolutions, pooling."""
from .draw import Case, each


def linear_inputs(d):
    """y (…, Cout) = x (…, Cin) · weightᵀ + bias, with none to three leading axes"""
    B, N, Cin, Cout = d.size("B", 1, 3), d.size("N", 1, 9), d.size("Cin", 1, 37), d.size("Cout", 1, 37)
    shape = d.choice((B, N), (N,), (), (B, 2, N))
    return dict(x=d.array(*shape, Cin), weight=d.array(Cout, Cin), bias=d.choice(d.array(Cout), None)), {}


def torch_linear(torch, x, weight, bias):
    """torch's own"""
    return torch.nn.functional.linear(x, weight, bias)


def patch_embed_inputs(d):
    """images (B, C, gh·P, gw·P), one kernel of P × P a channel of the output"""
    P, C, D = d.size("P", 1, 5), d.size("C", 1, 3), d.size("D", 1, 21)
    gh, gw = d.size("gh", 1, 5), d.size("gw", 1, 7)
    B = d.size("B", 1, 3)
    return dict(images=d.array(B, C, gh * P, gw * P), weight=d.array(D, C, P, P), bias=d.array(D)), {}


def torch_patch_embed(torch, images, weight, bias):
    """a convolution whose stride is its kernel"""
    y = torch.nn.functional.conv2d(images, weight, bias, stride=weight.shape[-1])
    return y.flatten(2).transpose(1, 2)


def map_inputs(d, largest=9):
    """A map (B, H, W, C), a kernel, a stride and a padding that fit each other."""
    B, H, W, C = d.size("B", 1, 3), d.size("H", 1, largest), d.size("W", 1, largest), d.size("C", 1, 19)
    padding = d.choice(1, 0, 2)
    least = min(H, W) + 2 * padding
    kernel = d.choice(*([3] if least >= 3 else []), 1, *([2] if least >= 2 else []))
    return d.array(B, H, W, C), kernel, d.choice(1, 2, 3), min(padding, kernel // 2 + 1)


def conv2d_inputs(d):
    """x (B, H, W, C), weight (Cout, C, k, k or 1)"""
    x, k, stride, padding = map_inputs(d)
    Cout = d.size("Cout", 1, 13)
    kw = d.choice(k, 1)
    return (dict(x=x, weight=d.array(Cout, x.shape[-1], k, kw), bias=d.choice(d.array(Cout), None)),
            dict(stride=stride, padding=min(padding, k)))


def torch_conv2d(torch, x, weight, bias, stride, padding):
    """torch's own, whose channels come first"""
    return torch.nn.functional.conv2d(x.movedim(-1, 1), weight, bias, stride, padding).movedim(1, -1)


def depthwise_conv_inputs(d):
    """x (B, H, W, C), weight (C, 1, k, k or 1)"""
    x, k, stride, padding = map_inputs(d)
    C = x.shape[-1]
    return (dict(x=x, weight=d.array(C, 1, k, d.choice(k, 1)), bias=d.choice(None, d.array(C))),
            dict(stride=stride, padding=padding))


def torch_depthwise_conv(torch, x, weight, bias, stride, padding):
    """a convolution of as many groups as channels; contiguous, for torch gets some strides of a batch of 1 wrong"""
    x = x.movedim(-1, 1).contiguous()
    return torch.nn.functional.conv2d(x, weight, bias, stride, padding, groups=len(weight)).movedim(1, -1)


def avg_pool_inputs(d):
    """x (B, H, W, C), padded where the kernel would not fit"""
    x, kernel, stride, _ = map_inputs(d)
    fits = min(x.shape[1:3]) >= kernel
    return dict(x=x), dict(kernel=kernel, stride=stride, padding=d.choice(kernel // 2, 0 if fits else kernel // 2))


def torch_avg_pool(torch, x, kernel, stride, padding):
    """torch's own, which counts a last window that begins inside the map"""
    x = x.movedim(-1, 1).contiguous()
    return torch.nn.functional.avg_pool2d(x, kernel, stride, padding, ceil_mode=True).movedim(1, -1)


def max_pool_inputs(d):
    """x (B, H, W, C), at least as large as one window, as a rule with cells at its end that fill none"""
    kernel = d.choice(2, 3, 1)
    B, H, W, C = d.size("B", 1, 3), d.size("H", kernel, 9), d.size("W", kernel, 9), d.size("C", 1, 70)
    return dict(x=d.array(B, H, W, C)), dict(kernel=kernel)


def torch_max_pool(torch, x, kernel):
    """torch's own"""
    return torch.nn.functional.max_pool2d(x.movedim(-1, 1), kernel).movedim(1, -1)


def product_flops(arrays, rows):
    """Of y = x Wᵀ, dx = dy W and dW = dyᵀ x, where x has so many rows and W is (out, …)."""
    forward = 2 * rows * arrays["weight"].size
    return forward, 2 * forward


def linear_flops(arrays, others):
    """a row a token"""
    return product_flops(arrays, arrays["x"].size // arrays["x"].shape[-1])


def patch_embed_flops(arrays, others):
    """a row a patch"""
    return product_flops(arrays, arrays["images"][:, 0].size // arrays["weight"].shape[-1] ** 2)


def conv_flops(arrays, others):
    """a row a place of the kernel"""
    B, H, W, _ = arrays["x"].shape
    kh, kw = arrays["weight"].shape[2:]
    s, p = others["stride"], others["padding"]
    return product_flops(arrays, B * ((H + 2 * p - kh) // s + 1) * ((W + 2 * p - kw) // s + 1))


CASES = (
    Case("linear", linear_inputs, torch_linear, linear_flops, dict(B=16, N=65, Cin=192, Cout=768)),
    Case("patch_embed", patch_embed_inputs, torch_patch_embed, patch_embed_flops,
         dict(B=16, P=4, C=3, D=192, gh=8, gw=8)),
    Case("conv2d", conv2d_inputs, torch_conv2d, conv_flops, dict(B=16, H=16, W=16, C=64, Cout=128)),
    Case("depthwise_conv", depthwise_conv_inputs, torch_depthwise_conv, conv_flops, dict(B=16, H=16, W=16, C=64)),
    Case("avg_pool", avg_pool_inputs, torch_avg_pool, each("x", 9, 9), dict(B=16, H=16, W=16, C=64)),
    Case("max_pool", max_pool_inputs, torch_max_pool, each("x", 1, 1), dict(B=16, H=32, W=32, C=64)),
)
