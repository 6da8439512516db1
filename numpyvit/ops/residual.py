"""The sum of a residual connection."""


def residual(x, h):
    """A branch adds its result to the stream:   y = x + h

    x, h (..., C)   →   y (..., C).   The compiled version may overwrite h: nobody else may read that array.
    Backward: dy goes down both paths unchanged, dx = dy and dh = dy. The stream was read twice, by the sum and by the
    branch. Its gradient is therefore such a sum, too: dx = residual(dy, the result of the branch's backward).
    He et al. 2016, eq. 1
    """
    return x + h
