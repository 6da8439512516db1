"""Windows: tokens moved to and fro, attention inside windows, the table of relative positions."""
import numpy as np

from ..ops.relative_position import relative_position_index as pair_index
from .attention import attention_options, torch_self_attention
from .draw import Case, each
from .pointwise import splitmix


def placed(d, N, R):
    """index (R,), inverse (N,): N tokens put into R ≥ N rows, −1 where a row is padding"""
    inverse = d.rng.permutation(R)[:N]
    index = np.full(R, -1)
    index[inverse] = np.arange(N)
    return index, inverse


def gather_tokens_inputs(d):
    """tokens into more rows than there are tokens, and the way back, where rows are dropped"""
    B, N, C = d.size("B", 1, 3), d.size("N", 1, 18), d.size("C", 1, 37)
    index, inverse = placed(d, N, N + d.choice(0, 3, 7))
    if d.choice(False, True):
        return dict(x=d.array(B, len(index), C)), dict(index=inverse, inverse=index)
    return dict(x=d.array(B, N, C)), dict(index=index, inverse=inverse)


def torch_gather_tokens(torch, x, index, inverse):
    """rows of x by index, from an x whose last row, number −1, is zero"""
    with_zero = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    return with_zero[:, torch.tensor(index)]


def window_attention_inputs(d):
    """qkv (B, N, 3·nh·hd) of N tokens in nW windows of M² rows; the last rows may be padding"""
    nh, hd, B = d.size("nh", 1, 3), d.size("hd", 1, 11), d.size("B", 1, 3)
    nW, M2 = d.size("nW", 1, 6), d.size("M2", 1, 19)
    N = max(1, nW * M2 - d.choice(0, 1, 5))
    index, inverse = placed(d, N, nW * M2)
    bias, others = attention_options(d, B, nW, nh, M2, M2, hd)
    return (dict(qkv=d.array(B, N, 3 * nh * hd), qkv_bias=d.choice(d.array(3 * nh * hd), None),
                 bias=d.array(nh, M2, M2) if bias is None else bias),
            dict(index=index, inverse=inverse, num_heads=nh) | others)


def torch_window_attention(torch, qkv, qkv_bias, bias, index, inverse, num_heads, seeds, **others):
    """gather, add the bias, self-attention a window with a seed of its own, and back"""
    B, _, C3 = qkv.shape
    windows = torch_gather_tokens(torch, qkv, index, inverse).reshape(-1, bias.shape[1], C3)
    if qkv_bias is not None:
        windows = windows + qkv_bias
    if seeds is not None:
        starts = [splitmix(int(seed)) * 0x9E3779B97F4A7C15 for seed in seeds]
        seeds = np.array([splitmix(start + w) for start in starts for w in range(len(windows) // B)], dtype=np.uint64)
    y = torch_self_attention(torch, windows, bias, num_heads, seeds=seeds, **others)
    return y.reshape(B, len(index), -1)[:, torch.tensor(inverse)]


def window_attention_flops(arrays, others):
    """as attention_flops, a window"""
    B, _, C3 = arrays["qkv"].shape
    product = 2 * B * len(others["index"]) * arrays["bias"].shape[1] * C3 // 3
    return 2 * product, 4 * product


def relative_position_bias_inputs(d):
    """table ((2M−1)², nh), looked up for every pair of a window"""
    M, nh = d.size("M", 1, 5), d.size("nh", 1, 7)
    return dict(table=d.array((2 * M - 1) ** 2, nh)), dict(index=pair_index(M))


def torch_relative_position_bias(torch, table, index):
    """rows of the table, heads first"""
    return table[torch.tensor(index)].permute(2, 0, 1)


def shifted_windows_inputs(d):
    """x (B, H, W, C), whose sides need not be multiples of M"""
    M = d.choice(3, 1, 2, 5)
    B, H, W, C = d.size("B", 1, 3), d.size("H", 1, 11), d.size("W", 1, 11), d.size("C", 1, 19)
    return dict(x=d.array(B, H, W, C)), dict(M=M, shift=d.choice(M // 2, 0))


def padded(torch, x, M):
    """(B, H, W, C) with zeros at the bottom and the right, to multiples of M"""
    return torch.nn.functional.pad(x, (0, 0, 0, -x.shape[2] % M, 0, -x.shape[1] % M))


def torch_shifted_windows(torch, x, M, shift):
    """pad, roll, and cut into nW windows (B, M, M, C), row by row"""
    rows = padded(torch, x, M).roll((-shift, -shift), (1, 2)).split(M, dim=1)
    windows = [window for row in rows for window in row.split(M, dim=2)]
    return torch.stack(windows, dim=1).flatten(2, 3).flatten(0, 1)


def merge_patches_inputs(d):
    """x (B, H, W, C), whose sides may be odd"""
    B, H, W, C = d.size("B", 1, 3), d.size("H", 1, 9), d.size("W", 1, 9), d.size("C", 1, 19)
    return dict(x=d.array(B, H, W, C)), {}


def torch_merge_patches(torch, x):
    """the four tokens of a 2 × 2 neighbourhood side by side, column by column"""
    x = padded(torch, x, 2)
    return torch.cat([x[:, r::2, c::2] for c in (0, 1) for r in (0, 1)], dim=-1)


CASES = (
    Case("window_attention", window_attention_inputs, torch_window_attention, window_attention_flops,
         dict(B=16, nh=3, nW=16, M2=16, hd=32)),
    Case("gather_tokens", gather_tokens_inputs, torch_gather_tokens, each("x", 0, 0), dict(B=16, N=256, C=96)),
    Case("relative_position_bias", relative_position_bias_inputs, torch_relative_position_bias, each("table", 0, 1),
         dict(M=7, nh=3)),
    Case("shifted_windows", shifted_windows_inputs, torch_shifted_windows, each("x", 0, 0),
         dict(B=16, H=15, W=15, C=96)),
    Case("merge_patches", merge_patches_inputs, torch_merge_patches, each("x", 0, 0), dict(B=16, H=16, W=16, C=96)),
)
