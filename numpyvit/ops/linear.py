"""y = x Wᵀ + b"""


def linear_forward(x, weight, bias=None):
    """The same affine map for every token. The weight has torch's layout.

        y = x · weightᵀ + bias

    x (..., Cin)   weight (Cout, Cin)   bias (Cout,) or None   →   y (..., Cout)
    cache: x and weight, which are alive anyway.
    torch.nn.functional.linear
    """
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    return y, (x, weight, bias is not None)


def linear_backward(dy, cache):
    """dx = dy · weight,   dweight = dyᵀ · x (summed over the tokens),   dbias = Σ dy"""
    x, weight, has_bias = cache
    dy_rows = dy.reshape(-1, dy.shape[-1])                                   # (tokens, Cout)
    x_rows = x.reshape(-1, x.shape[-1])                                      # (tokens, Cin)
    dbias = dy_rows.sum(axis=0) if has_bias else None                        # y = … + bias
    dweight = dy_rows.T @ x_rows                                             # y = x · weightᵀ
    dx = dy @ weight
    return dx, dweight, dbias
