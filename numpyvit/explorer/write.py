"""numpyvit explore: a model and an image → one HTML file."""
import dataclasses
import os

import numpy as np

from ..checks import printable
from ..errors import UserError
from ..files.atomic import write_atomic
from ..models import count_parameters, list_models
from ..ops.softmax import softmax_forward
from .document import document
from .pack import keep_bits, on_grid, packed, planes_of, shortest
from .record import record

LARGEST = 10_000_000                                                         # bytes of the file
OVERHEAD = 800_000                                                           # of these for scripts and program
LEAST_OVERHEAD = 250_000                                                     # of these for the scripts alone
BITS = (24, 14, 12, 10, 9, 8, 7, 6, 5, 4)                                    # of on_grid, to be tried; 24 keeps all
SAMPLE = 200_000                                                             # weights that are packed for an estimate
MOST_NUMBERS = 99_000_000                                                    # that a page computes, 8 bytes each


def explore(model, pixels, classes, mean, std, label=None, image_name="image", model_name="model",
            update=None):
    """The page's text.

    model: of numpyvit, float32 or float64; not changed.   pixels (C, H, W) uint8   classes: names, one a class
    mean, std (C,): of pixels / 255, as in training.   label: number of a class, or None for the prediction.
    update: the UpdateStep of a run; left out where the page has no room for it.
    Raises UserError for a model that is too large for a page.
    """
    bits = bits_that_fit(model)
    if bits is None:
        refuse(model, f"does not fit into a page of {LARGEST // 10**6} MB, not even with {BITS[-1]} bits a weight")
    rounded = type(model)(model.config, dtype="float32")
    state = model.state_dict()
    rounded.load_state_dict({name: on_grid(a, bits) if a.ndim > 1 else a for name, a in state.items()})
    before = probabilities(model, pixels, mean, std)
    after = probabilities(rounded, pixels, mean, std)
    predicted = int(after.argmax())
    target = predicted if label is None else label
    about = {"model": printable(model_name), "family": type(model).__name__, "parameters": model.num_parameters(),
             "image": printable(image_name), "classes": list(map(printable, classes)), "label": target,
             "predicted": predicted, "label_given": label is not None, "bits": bits,
             "rounding": float(np.abs(before - after).max()), "config": dataclasses.asdict(model.config)}
    for state_bits in bits_of_state(model, update) if update and bits == BITS[0] else ():
        update.bits = state_bits
        r = record(rounded, pixels[None], [target], mean, std, optimizer=update)
        if numbers_of(r) > MOST_NUMBERS:                                     # Muon's products are most of them
            break
        text = document(r, about | {"update_left_out": False, "state_bits": state_bits})
        if len(text) < LARGEST:
            return text
    r = record(rounded, pixels[None], [target], mean, std)
    if numbers_of(r) > MOST_NUMBERS:
        refuse(model, f"computes {numbers_of(r):,} numbers for one image, and a page can hold {MOST_NUMBERS:,}")
    return document(r, about | {"update_left_out": bool(update), "state_bits": None})


def numbers_of(recording):
    """How many numbers the page computes."""
    return sum(int(np.prod(node.shape)) for node in recording.tape.nodes)


def probabilities(model, pixels, mean, std):
    """Of every class, float64 (K,)."""
    images = ((pixels[None] / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))).astype(model.dtype)
    return softmax_forward(model.forward(images)[0][0].astype(np.float64))[0]


def bits_that_fit(model):
    """To how many bits on_grid rounds matrices so that the file can hold them. 24 keeps all.

    None: the fewest bits are too many.
    """
    return next((bits for bits in BITS if bytes_of_weights(model, bits) + OVERHEAD < LARGEST), None)


def bits_of_state(model, update):
    """To how many bits keep_bits may round what the optimiser remembers: the numbers that are worth trying, most first.

    The weights are not rounded on a page with an update.
    """
    room = LARGEST - LEAST_OVERHEAD - bytes_of_weights(model, BITS[0])
    return [bits for bits in update.bits_to_try()
            if bytes_of(update.remembered(), lambda part: keep_bits(part, bits)) < room]


def bytes_of_weights(model, bits):
    """How many bytes of the file the weight matrices take, rounded to so many bits."""
    matrices = [p.data.reshape(-1) for _, p in model.named_parameters() if p.data.ndim > 1]
    of_matrices = bytes_of(matrices, lambda sample: on_grid(sample, bits))
    return of_matrices * model.num_parameters() / sum(matrix.size for matrix in matrices)


def bytes_of(vectors, rounded):
    """How many bytes of the file these vectors take, after a function that rounds them: estimated from a sample."""
    number = sum(vector.size for vector in vectors)
    samples = [vector[::-(-number // SAMPLE)] for vector in vectors]
    planes = [planes_of(shortest(np.float64(rounded(sample)))[0]) for sample in samples]
    return len(packed(b"".join(planes))) * number / sum(sample.size for sample in samples)


def refuse(model, why):
    """Raise a UserError that names a model that is small enough."""
    family = type(model).__name__.lower()
    smaller = min(list_models(f"{family}*_32"), key=count_parameters, default="vit_pico_patch4_32")
    raise UserError(f"explore: this {type(model).__name__} of {model.num_parameters():,} parameters {why}; "
                    f"train {smaller} and explore that")


def write_page(path, text):
    """Atomically; raises OSError where the file cannot be written."""
    write_atomic(os.fspath(path), [text.encode()])
