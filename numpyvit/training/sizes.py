"""A model at another image size, for the part of a run that trains on smaller images."""
import dataclasses

from ..errors import UserError


def at_size(model, side):
    """The model for images of side × side pixels: the weights, gradients and buffers are the model's own arrays.

    Raises UserError where a parameter's shape depends on the size of the images, as that of a learned position table.
    """
    twin = type(model)(dataclasses.replace(model.config, img_size=side), seed=None, dtype=model.dtype)
    for (name, p), (_, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        if p.shape != q.shape:
            raise UserError("small_size: expected a model whose parameters fit any size, got one whose "
                            f"{name} has shape {p.shape} for its own images and {q.shape} for {side} × {side}")
    twin.bind(model.flat, model.flat_grad)
    for (_, module), (_, copy) in zip(model.modules(), twin.modules(), strict=True):
        for name in getattr(module, "buffers", ()):
            setattr(copy, name, getattr(module, name))
    return twin
