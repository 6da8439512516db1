"""What the tests and the benchmark do with the rows of the table of ops, which is numpyvit/cases/.

Under hypothesis a case draws its sizes, options, layouts and extremes; in the benchmark it has fixed sizes.
"""
import math

import hypothesis.strategies as st
import numpy as np
import torch

import torch_models
from numpyvit.cases import CASES, LAYOUTS, BenchDraw, Draw, laid_out

__all__ = ["CASES", "LAYOUTS", "laid_out"]


@st.composite
def draws(draw, case, **options):
    """hypothesis: (arrays, others) of the case and the Draw that made them."""
    d = Draw(lambda choices: draw(st.sampled_from(choices)), draw(st.integers(0, 2**32 - 1)), **options)
    return *case.inputs(d), d


def bench_inputs(case, dtype="float32"):
    """(arrays, others) of the case at the benchmark's sizes."""
    arrays, others = case.inputs(BenchDraw(case))
    return as_dtype(arrays, dtype), as_dtype(others, dtype)


def as_dtype(inputs, dtype):
    """The dict with its float arrays as dtype, laid out as before."""
    return {name: same_layout(a, dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
            for name, a in inputs.items()}


def same_layout(a, dtype):
    owner = a
    while owner.base is not None:
        owner = owner.base
    item, new = a.itemsize, np.dtype(dtype).itemsize
    start = (a.__array_interface__["data"][0] - owner.__array_interface__["data"][0]) // item
    return np.ndarray(a.shape, dtype, owner.astype(dtype, order="C"), start * new, [s // item * new for s in a.strides])


def error(got, want, floor=0.0):
    """Normwise relative error; below floor, want counts as zero and the error is relative to floor."""
    if got is None or want is None:
        return 0.0 if got is want else math.inf
    if np.shape(got) != np.shape(want):
        return math.inf
    distance = np.linalg.norm((np.asarray(got, np.float64) - want).ravel())
    return float(distance / max(np.linalg.norm(np.ravel(want)), floor, 1e-300))


def floor_of(name, arrays, others, dy):
    """The size below which a gradient counts as zero: 1e-5 of Σ|dy|, times the largest entries of the other arrays, times 1/√eps.

    A softmax of one dominant logit or over one key, and the weight of a norm that only sees constant rows, have gradients
    that are 0 but for rounding: no digits to compare. (Σ|dy|, for a mean's rounding error is the same in all rows.)
    """
    largest = [max(1.0, float(np.abs(a).max())) for other, a in arrays.items() if a is not None and other != name]
    return 1e-5 * float(np.abs(dy).sum()) * math.prod(largest) / math.sqrt(others.get("eps", 1.0))


def torch_gradients(case, arrays, others, dy):
    """y and the gradients of the arrays, in float64, by autograd. dy: a function of y's shape, or the array."""
    tensors = {name: None if a is None else torch.tensor(a.copy(), dtype=torch.float64, requires_grad=True)
               for name, a in arrays.items()}
    y = case.torch(torch, **tensors, **others)
    dy = dy(y.shape) if callable(dy) else dy
    y.backward(torch.tensor(np.array(dy), dtype=torch.float64))
    grads = [None if t is None else torch.zeros_like(t).numpy() if t.grad is None else t.grad.numpy() for t in tensors.values()]
    return y.detach().numpy(), grads, dy


def model_errors(model, images, dlogits, train=False):
    """{what: relative error} of logits, dimages, every parameter's gradient and every buffer, against autograd on the twin."""
    twin, torch_images = torch_models.twin_of(model, train), torch.tensor(np.array(images), requires_grad=True)
    torch_logits = twin(torch_images)
    torch_logits.backward(torch.from_numpy(dlogits))
    logits, cache = model.forward(images, train=train)
    dimages = model.backward(dlogits, cache)
    model.update_buffers([model.batch_statistics(cache)])
    grads = {name: p.grad.numpy() for name, p in twin.named_parameters()}
    buffers = {name: value.numpy() for name, value in twin.state_dict().items() if name not in grads}
    zero = 1e-4 * max(np.linalg.norm(g) for g in grads.values())             # a key's bias moves all scores of a row alike, a norm
    errors = {"logits": error(logits, torch_logits.detach().numpy()),        # of one value has no slope: 0 but for rounding
              "images": error(dimages, torch_images.grad.numpy(), zero)}
    errors |= {name: error(p.grad, grads.pop(name), zero) for name, p in model.named_parameters()}
    errors |= {name: error(buffer, buffers.pop(name)) for name, buffer in model.named_buffers()}
    assert not grads and not buffers
    return errors


def gradients(backward, dy, cache):
    """backward's result as a list, one gradient an array."""
    result = backward(dy, cache)
    return list(result) if isinstance(result, tuple) else [result]
