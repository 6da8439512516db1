"""Convolution as one matrix product: the pixels under each position of the kernel become a row (im2col)."""
import numpy as np


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """The same affine map for every window of the padded input. Windows may overlap.

        y[h, w] = Σᵢⱼ weight[:, :, i, j] · padded x[s·h + i, s·w + j] + bias

    x (B, H, W, Cin)   weight (Cout, Cin, kh, kw)   bias (Cout,) or None   stride s   padding p zeros on every side
    →   y (B, Ho, Wo, Cout),   Ho = ⌊(H + 2p − kh)/s⌋ + 1
    cache: weight, and the rows, which are kh·kw/s² times the size of x.
    torch.nn.functional.conv2d, there with the channels first
    """
    rows = im2col(x, weight.shape[2:], stride, padding)                      # (B, Ho, Wo, kh·kw·Cin)
    y = rows @ kernel_matrix(weight).T                                       # (B, Ho, Wo, Cout)
    if bias is not None:
        y = y + bias
    return y, (rows, weight, bias is not None, x.shape, stride, padding)


def conv2d_backward(dy, cache, needs_dx=True):
    """linear_backward with the rows as x:  dx = col2im(dy · W),   dweight = dyᵀ · rows,   dbias = Σ dy

    needs_dx: False where x are images, whose gradient nobody uses: dx is None
    """
    rows, weight, has_bias, x_shape, stride, padding = cache
    Cout, Cin, kh, kw = weight.shape
    dy_flat = dy.reshape(-1, Cout)                                           # (B·Ho·Wo, Cout)
    dbias = dy_flat.sum(axis=0) if has_bias else None                        # y = … + bias
    dmatrix = dy_flat.T @ rows.reshape(len(dy_flat), Cin * kh * kw)          # y = rows · Wᵀ
    dweight = dmatrix.reshape(Cout, kh, kw, Cin).transpose(0, 3, 1, 2)
    if not needs_dx:
        return None, dweight, dbias
    drows = dy @ kernel_matrix(weight)                                       # (B, Ho, Wo, kh·kw·Cin)
    return col2im(drows, x_shape, (kh, kw), stride, padding), dweight, dbias


def kernel_matrix(weight):
    """(Cout, Cin, kh, kw) → (Cout, kh·kw·Cin), in the order of im2col's rows

    Channels come last there, so that im2col copies whole runs of memory.
    """
    return weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)


def im2col(x, kernel, stride, padding):
    """The windows of the padded x, each flattened.   x (B, H, W, C)   →   (B, Ho, Wo, kh·kw·C)"""
    B, H, W, C = x.shape
    Ho, Wo = (output_size(n, k, stride, padding) for n, k in zip((H, W), kernel))
    padded = pad_map(x, padding)
    rows = np.empty((B, Ho, Wo, *kernel, C), x.dtype)
    for i, j in np.ndindex(*kernel):
        rows[:, :, :, i, j] = shifted(padded, i, j, Ho, Wo, stride)
    return rows.reshape(B, Ho, Wo, kernel[0] * kernel[1] * C)


def col2im(rows, shape, kernel, stride, padding):
    """The adjoint of im2col: every element is added to the pixel that it was copied from."""
    B, H, W, C = shape
    _, Ho, Wo, _ = rows.shape
    rows = rows.reshape(B, Ho, Wo, *kernel, C)
    padded = np.zeros((B, H + 2 * padding, W + 2 * padding, C), rows.dtype)
    for i, j in np.ndindex(*kernel):
        shifted(padded, i, j, Ho, Wo, stride)[...] += rows[:, :, :, i, j]
    return padded[:, padding:padding + H, padding:padding + W]


def output_size(size, kernel, stride, padding):
    """How many kernel positions fit along an axis: ⌊(size + 2p − k)/s⌋ + 1"""
    return (size + 2 * padding - kernel) // stride + 1


def pad_map(x, padding):
    """Zeros around the map.   (B, H, W, C)   →   (B, H + 2p, W + 2p, C)"""
    return np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def shifted(padded, i, j, Ho, Wo, stride):
    """The view that kernel element (i, j) sees: padded[:, s·h + i, s·w + j] for every output (h, w)."""
    return padded[:, i:i + stride * (Ho - 1) + 1:stride, j:j + stride * (Wo - 1) + 1:stride]
