"""Rotary positions: queries and keys are turned by angles that grow with their places, so that scores see offsets."""
import numpy as np


def rotary_angles(gh, gw, hd, temperature=100.0):
    """The angles of a gh × gw grid in row-major order: half of a head's pairs of channels turn with x, half with y.

        omegaᵢ = temperature^(−i/(hd/4)),   angle[y·gw + x] = [x·omega | y·omega]

    hd: the width of a head, a multiple of 4, else a ValueError   →   (gh·gw, hd/2) float64, in radians
    Heo et al. 2024, "Rotary Position Embedding for Vision Transformer", section 3.2, axial frequencies
    """
    if hd % 4 or hd < 4:
        raise ValueError(f"hd: expected a multiple of 4, got {hd}")
    omega = temperature ** -(np.arange(hd // 4) / (hd // 4))                 # (hd/4,)
    y, x = np.mgrid[:gh, :gw].reshape(2, -1, 1) * omega                      # each (gh·gw, hd/4)
    return np.concatenate([x, y], axis=1)


def rotary_forward(qkv, cos, sin):
    """Every query and every key is turned by the angles of its place; values stay as they are.

        head = [a | b],   turn(head) = [a cos − b sin | a sin + b cos],   y = [turn(q) | turn(k) | v]

    A score then depends on two places p and r by their offset alone: turn(q, p) · turn(k, r) = q · turn(k, r − p).
    qkv (B, N, 3·C), head-major inside each third   cos, sin (N, hd/2): of the angles, constants   →   y (B, N, 3·C)
    Raises ValueError for angles of another shape or number of places, and for heads that do not divide C.
    Su et al. 2021 (RoFormer), eq. 34; here channel i of a head is paired with channel i + hd/2.
    """
    return turn(qkv, cos, sin), (cos, sin)


def rotary_backward(dy, cache):
    """dqkv = [turn⁻¹(dq) | turn⁻¹(dk) | dv]:  the transpose of a rotation is the rotation by −angle."""
    cos, sin = cache
    return turn(dy, cos, -sin)


def turn(qkv, cos, sin):
    """The first two thirds of the channels turned, the last third as it is.   (B, N, 3·C)   →   (B, N, 3·C)"""
    check_angles(qkv, cos, sin)
    (B, N, C3), half = qkv.shape, cos.shape[1]
    parts = qkv.reshape(B, N, 3, C3 // (6 * half), 2, half)                  # query, key or value; head; a or b
    a, b = parts[:, :, :2, :, 0], parts[:, :, :2, :, 1]                      # each (B, N, 2, nh, hd/2)
    cos, sin = cos[:, None, None], sin[:, None, None]                        # one angle for q, k and all heads
    turned = np.stack([a * cos - b * sin, a * sin + b * cos], axis=-2)       # (B, N, 2, nh, 2, hd/2)
    return np.concatenate([turned, parts[:, :, 2:]], axis=2).reshape(qkv.shape)


def check_angles(qkv, cos, sin):
    """There is a row of angles for every token, and the heads that they are made for divide the channels."""
    if cos.ndim != 2 or cos.shape != sin.shape or len(cos) != qkv.shape[1] or qkv.shape[2] % (6 * cos.shape[1]):
        raise ValueError(f"cos, sin: expected shape ({qkv.shape[1]}, hd/2), with heads of hd channels that make up the "
                         f"{qkv.shape[2]} = 3·C channels of qkv; got {cos.shape} and {sin.shape}")
