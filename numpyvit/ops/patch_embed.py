"""An image is cut into patches, and each is projected: a convolution whose stride is the size of its kernel."""


def patches_of(images, patch):
    """(B, C, H, W) → (B, N, C·P·P): patches in row-major order, each flattened with its channels first"""
    B, C, H, W = images.shape
    gh, gw = H // patch, W // patch                                          # the grid
    x = images.reshape(B, C, gh, patch, gw, patch)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(B, gh * gw, C * patch * patch)


def images_of(patches, shape, patch):
    """The inverse of patches_of, and so its adjoint: (B, N, C·P·P) → (B, C, H, W)"""
    B, C, H, W = shape
    gh, gw = H // patch, W // patch
    x = patches.reshape(B, gh, gw, C, patch, patch)
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(B, C, H, W)


def patch_embed_forward(images, weight, bias):
    """Every patch becomes one token.

        y[n] = weight · flatten(patch n) + bias,   N = (H / P) · (W / P)

    images (B, C, H, W), H and W multiples of P   weight (D, C, P, P)   bias (D,)   →   y (B, N, D)
    cache: the patches, a permuted copy of the images.
    Dosovitskiy et al. 2021, eq. 1.  torch.nn.functional.conv2d with stride = kernel
    """
    patches = patches_of(images, weight.shape[-1])                           # (B, N, CPP)
    y = patches @ weight.reshape(weight.shape[0], -1).T + bias
    return y, (patches, weight, images.shape)


def patch_embed_backward(dy, cache, needs_dx=True):
    """linear_backward with the patches as x:  dimages = images_of(dy · W),   dweight = dyᵀ · patches,   dbias = Σ dy

    needs_dx: False where nobody uses dimages, which is None then
    """
    patches, weight, image_shape = cache
    rows = dy.reshape(-1, dy.shape[-1])                                      # (tokens, D)
    dbias = rows.sum(axis=0)
    dweight = (rows.T @ patches.reshape(len(rows), -1)).reshape(weight.shape)
    if not needs_dx:
        return None, dweight, dbias
    dpatches = dy @ weight.reshape(weight.shape[0], -1)                      # (B, N, CPP)
    return images_of(dpatches, image_shape, weight.shape[-1]), dweight, dbias
