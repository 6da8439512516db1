"""Test-time augmentation: a model's answer to an image is the mean of its answers to several views of the image."""
from typing import NamedTuple

import numpy as np

from ..errors import UserError


class View(NamedTuple):
    """One look at an image. down, right: by how many pixels the image moves; its reflection comes in at the border.

    weight: of this view's logits in the mean; the weights of all views add up to 1.
    """
    mirrored: bool = False
    down: int = 0
    right: int = 0
    weight: float = 1.0


# "shifts" is the evaluation of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds": half the weight belongs to an image and
# its mirror image, the other half to both of them moved by a pixel along the diagonal, up and left or down and right.
VIEWS = {
    "none": (View(),),
    "mirror": (View(weight=0.5), View(True, weight=0.5)),
    "shifts": tuple(View(mirrored, by, by, 0.125 if by else 0.25) for mirrored in (False, True) for by in (0, -1, 1)),
}


def look(images, view):
    """The view of each image.   images (n, C, H, W)   →   the same shape and dtype"""
    if view.mirrored:
        images = images[..., ::-1]
    if view.down or view.right:
        pad, (H, W) = max(abs(view.down), abs(view.right)), images.shape[-2:]
        padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
        images = padded[..., pad - view.down:pad - view.down + H, pad - view.right:pad - view.right + W]
    return np.ascontiguousarray(images)


class Looks:
    """The view of each image, made of a block of images when the block is asked for: looks[lo:hi], len(looks)."""

    def __init__(self, images, view):
        self.images, self.view = images, view

    def __len__(self):
        return len(self.images)

    def __getitem__(self, block):
        return look(self.images[block], self.view)


def mean_logits(logits_of, images, tta="none"):
    """Σ weight · logits of the view, over all views.

    images (n, C, H, W)   logits_of(Looks of n images) → (n, K)   tta: a name in VIEWS   →   (n, K)
    Images may be more than memory holds, where logits_of asks for a block at a time. Raises UserError for another name.
    """
    if tta not in VIEWS:
        raise UserError(f"tta: expected one of {', '.join(VIEWS)}, got {tta!r}")
    return sum(view.weight * logits_of(Looks(images, view)) for view in VIEWS[tta])
