"""Numerical trouble: a loss or gradient that is not finite stops the run, and its error says where it began."""
import math

import numpy as np

from ..errors import UserError


class NotFinite(UserError):
    """The loss or the gradient of a step is not finite; the weights are still those before the step."""


def not_finite(trainer, step, loss, load, model):
    """The NotFinite of this step: where it began, the last good checkpoint, what to try.   load: of the lanes"""
    B, micro = trainer.recipe.batch_size, trainer.lanes.micro_batch
    for lo in range(0, B, micro):
        images, _, seeds = load(lo, min(lo + micro, B))
        place = first_not_finite(model, images, seeds)
        if place != "the loss":
            break
    checkpoints = trainer.run.checkpoints()
    last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
    what = "gradient is not finite" if math.isfinite(loss) else f"loss is {loss}"
    return NotFinite(f"step {step + 1}: the {what}; the first values that are not finite are in {place}; {last}; "
                     "try a smaller --lr, a longer --warmup or --clip-norm 1 in a new run")


def first_not_finite(model, images, seeds):
    """Where values stop being finite, in words: in a weight, in the output of a layer, or only on the way back.

    Runs a forward pass of a replica whose layers look at their own outputs, and names the innermost layer whose output
    is the first that is not finite.
    """
    for name, p in model.named_parameters():
        if not np.isfinite(p.data).all():
            return f"the weights {name}"
    found, twin = [], model.replica()                                        # found: the first path, once there is one
    for path, module in twin.modules():
        if path and hasattr(module, "forward"):
            module.forward = watched(module.forward, path, found)
    with np.errstate(all="ignore"):
        logits, _ = twin.forward(images, train=True, rng=seeds)
    if not found and not np.isfinite(logits).all():
        found.append("the model")
    if found:
        sizes = {name: float(np.abs(p.data).max()) for name, p in model.named_parameters()}
        name, largest = max(sizes.items(), key=lambda item: item[1])
        return f"the output of {found[0]} (the largest weight is {largest:.1e}, in {name})"
    gradients = [name for name, p in model.named_parameters() if not np.isfinite(p.grad).all()]
    return f"the gradient of {gradients[-1]}" if gradients else "the loss"


def watched(forward, path, found):
    """forward, which also puts path into found if it is the first whose output is not finite."""
    def run(*args, **kwargs):
        y, cache = forward(*args, **kwargs)
        if not found and not np.isfinite(y).all():
            found.append(path)
        return y, cache
    return run
