"""The sum of a residual connection."""


def residual(x, h):
    """A branch adds its result to the stream:   y = x + h

    x, h (..., C)   →   y (..., C).   The compiled version may overwrite h, so h must be an array that nobody else
    reads. Backward: dy goes down both paths unchanged, dx = dy and dh = dy. The stream was read twice, by the sum and
    by the branch, so the gradient of the stream is again such a sum: dx = residual(dy, what the branch's backward
    returned). He et al. 2016, eq. 1
    """
    return x + h
