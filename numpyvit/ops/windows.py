"""Windows of a feature map, shifted windows, and the merging of 2×2 patches: permutations of tokens, padded with zeros.

A permutation is linear and orthogonal: its backward is the inverse permutation. shifted_windows and merge_patches
define what happens to a map. window_index and merge_index apply them once, to the numbers of the tokens. The models
then only gather rows by these index tables: gather_tokens is the operation that they run.
"""
import numpy as np


def pad_map(x, multiple):
    """Zeros at the bottom and the right until H and W are multiples.   (B, H, W, C) → (B, H', W', C)"""
    _, H, W, _ = x.shape
    return np.pad(x, ((0, 0), (0, -H % multiple), (0, -W % multiple), (0, 0)))


def windows_of(x, M):
    """(B, H, W, C) → (B·nW, M², C): windows in row-major order, tokens in row-major order inside each."""
    B, H, W, C = x.shape
    x = x.reshape(B, H // M, M, W // M, M, C)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, M * M, C)


def map_of(windows, M, H, W):
    """The inverse of windows_of, and so its adjoint: (B·nW, M², C) → (B, H, W, C)"""
    C = windows.shape[-1]
    x = windows.reshape(-1, H // M, W // M, M, M, C)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, H, W, C)


def shifted_windows_forward(x, M, shift=0):
    """Cut the map into windows of M × M tokens, after moving it up and left by shift.

        y = partition(roll(pad(x), −shift, −shift))

    x (B, H, W, C)   →   y (B·nW, M², C),   nW = ⌈H/M⌉ · ⌈W/M⌉
    Pad comes first: the roll then turns the padded map, for which shifted_window_mask is made. If the map were rolled
    first and padded afterwards, a window could hold tokens of opposite edges that the mask does not part.
    cache: the sizes.
    Liu et al. 2021, section 3.2.  torch.nn.functional.pad, torch.roll, view and permute
    """
    _, H, W, _ = x.shape
    x = pad_map(x, M)
    padded_H, padded_W = x.shape[1:3]
    x = np.roll(x, (-shift, -shift), axis=(1, 2))
    return windows_of(x, M), (M, shift, H, W, padded_H, padded_W)


def shifted_windows_backward(dy, cache):
    """dx = crop(roll(partition⁻¹(dy), +shift, +shift)): each step undone, from the last to the first.

    The models do all these steps with one gather, gather_tokens, whose index window_index makes with forward's steps.
    """
    M, shift, H, W, padded_H, padded_W = cache
    dx = map_of(dy, M, padded_H, padded_W)                                   # windows_of, undone
    dx = np.roll(dx, (shift, shift), axis=(1, 2))                            # roll by −shift, undone
    return dx[:, :H, :W]                                                     # pad, undone


def merge_patches_forward(x):
    """Put the channels of 2×2 neighbours into one token: half the rows, half the columns, four times the channels.

        y[r, c] = [x[2r, 2c] | x[2r+1, 2c] | x[2r, 2c+1] | x[2r+1, 2c+1]]

    x (B, H, W, C), an odd map padded with zeros at the bottom and right   →   y (B, ⌈H/2⌉, ⌈W/2⌉, 4·C)
    The second block is the neighbour below, not the one to the right: the order of every published checkpoint.
    cache: the shape.
    Liu et al. 2021, section 3.1, without the linear layer
    """
    shape = x.shape
    x = pad_map(x, 2)
    y = np.concatenate([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], axis=-1)
    return y, (shape,)


def merge_patches_backward(dy, cache):
    """dx[2r, 2c], dx[2r+1, 2c], dx[2r, 2c+1], dx[2r+1, 2c+1] = the four quarters of dy[r, c],   cropped to the map"""
    ((B, H, W, C),) = cache
    dx = np.empty((B, H + H % 2, W + W % 2, C), dy.dtype)
    dx[:, 0::2, 0::2], dx[:, 1::2, 0::2], dx[:, 0::2, 1::2], dx[:, 1::2, 1::2] = np.split(dy, 4, axis=-1)
    return dx[:, :H, :W]


def gather_tokens_forward(x, index, inverse):
    """Tokens in another order, zeros where the index is −1: padding, shift and partition in one copy.

        y[r] = x[index[r]]  if index[r] ≥ 0 else 0

    x (B, N, C)   index (R,)   inverse (N,) of window_index or merge_index   →   y (B, R, C)
    With index and inverse exchanged it leads back, and drops what stood in the padding.
    cache: the two index tables.
    x[:, index] in NumPy and torch
    """
    y = np.take(x, index, axis=1)                                            # −1 takes the last token, for now
    if len(index) != len(inverse):
        y[:, index < 0] = 0
    return y, (index, inverse)


def gather_tokens_backward(dy, cache):
    """dx = dy[inverse]: every token went to one place, so the adjoint of the gather is a gather, no scatter-add"""
    index, inverse = cache
    return gather_tokens_forward(dy, inverse, index)[0]


def window_index(H, W, M, shift=0):
    """index (nW·M²,), inverse (H·W,) with which gather_tokens does what shifted_windows does to an H × W map."""
    numbers = 1 + np.arange(H * W).reshape(1, H, W, 1)                       # 0 is left for the padding
    return with_inverse(shifted_windows_forward(numbers, M, shift)[0].ravel() - 1)


def merge_index(H, W):
    """index (4·⌈H/2⌉·⌈W/2⌉,), inverse (H·W,) with which gather_tokens does what merge_patches does to an H × W map."""
    numbers = 1 + np.arange(H * W).reshape(1, H, W, 1)
    return with_inverse(merge_patches_forward(numbers)[0].ravel() - 1)


def with_inverse(index):
    """index (R,) with −1 for padding   →   index, and inverse (N,): in which row every token stands"""
    rows = np.flatnonzero(index >= 0)                                        # in the order of the gathered rows
    return index, rows[np.argsort(index[rows])]                              # the row of token 0, of token 1, …


def shifted_window_mask(H, W, M, shift):
    """Which pairs of one window may attend to each other: 0, or −∞ where they are neighbours only through the roll.

        mask[w, i, j] = 0  if came_round(i) = came_round(j) on both axes, else −∞

    H, W of the map, padded here to multiples of M as shifted_windows pads   →   (nW, M², M²) float32
    After the roll, the last shift rows and columns are those that came round the edge. Two labels an axis, four in all,
    tell every region apart; the usual nine labels give the same masks. −∞ makes a weight exactly 0; the customary −100
    makes it a subnormal number, which is slow and not 0. No row is all −∞: a token may always attend to itself.
    Liu et al. 2021, section 3.2, "efficient batch computation for shifted configuration"
    """
    padded_H, padded_W = H + -H % M, W + -W % M
    row, column = np.arange(padded_H) >= padded_H - shift, np.arange(padded_W) >= padded_W - shift
    label = 2 * row[:, None] + column                                        # (H', W')
    label = windows_of(label[None, :, :, None], M)[:, :, 0]                  # (nW, M²)
    return np.where(label[:, :, None] == label[:, None, :], np.float32(0), np.float32(-np.inf))
