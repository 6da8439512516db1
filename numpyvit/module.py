"""Parameters, modules, and the model that keeps all its parameters in one flat vector."""
import copy
import math

import numpy as np

from .checks import check_tensors
from .errors import UserError
from .ops.random_bits import image_seeds
from .ops.softmax import softmax_forward

ALIGN = 16                                                                   # tensors start on a 64-byte boundary in float32


class Parameter:
    """A named tensor of the model. .data and .grad are views of the model's two flat vectors once it is materialised.

    shape; init(rng, shape) → values; decay: whether weight decay applies (never to biases, norms, position tables and
    class tokens). Until materialise() there is only the shape, so counting the largest preset costs nothing.
    """

    def __init__(self, shape, init, decay=False):
        self.shape, self.init, self.decay = tuple(int(n) for n in shape), init, decay
        self.data = self.grad = None

    @property
    def size(self):
        return math.prod(self.shape)


class Module:
    """Something with parameters: its own, its submodules' and those of its lists of submodules, in order of assignment.

    A module owns no activation: forward returns (y, cache), backward(dy, cache) returns dx and adds into .grad.
    """

    def children(self):
        """(name, Module) pairs; the i-th of a list called blocks is "blocks.i"."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Module) for v in value):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value))

    def modules(self, prefix=""):
        """(dotted name, Module) pairs of the whole tree, parents first."""
        yield prefix.rstrip("."), self
        for name, child in self.children():
            yield from child.modules(f"{prefix}{name}.")

    def named_parameters(self):
        """(dotted name, Parameter) pairs, in the order of the flat vector."""
        for path, module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield (f"{path}.{name}" if path else name), value

    def named_buffers(self):
        """(dotted name, ndarray) pairs: state that is saved but not trained (BatchNorm's running statistics)."""
        for path, module in self.modules():
            for name in getattr(module, "buffers", ()):
                yield (f"{path}.{name}" if path else name), getattr(module, name)


class Model(Module):
    """A Module whose parameters live in one flat vector (.flat) and whose gradients live in another (.flat_grad).

    The optimiser, the gradient norm, zero_grad and the sum over threads are then one operation each. A subclass builds
    its layers in __init__ and calls materialise() last. Subclasses define forward(images, train, rng) and
    backward(dlogits, cache).
    """

    def materialise(self, seed=0, dtype="float32"):
        """Allocate the flat vectors and initialise every parameter from (seed, its position); seed None: all zeros."""
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype: expected float32 or float64, got {dtype}")
        self.bind(np.zeros(self.flat_size(), dtype), np.zeros(self.flat_size(), dtype))
        for i, (_, p) in enumerate(self.named_parameters()):
            if seed is not None:
                p.data[...] = p.init(np.random.default_rng([seed, i]), p.shape)
        for _, module in self.modules():
            for name in getattr(module, "buffers", ()):
                if getattr(module, name).dtype.kind == "f":
                    setattr(module, name, getattr(module, name).astype(dtype))
        return self

    def layout(self):
        """Where every parameter lies in the flat vectors: (name, Parameter, start, end), in order.

        Every start is a multiple of ALIGN; the few elements between an end and the next start are always 0.
        """
        start = 0
        for name, p in self.named_parameters():
            yield name, p, start, start + p.size
            start += -(-p.size // ALIGN) * ALIGN

    def flat_size(self):
        """Elements of each flat vector, padding included."""
        return sum(-(-p.size // ALIGN) * ALIGN for _, p in self.named_parameters())

    def bind(self, flat, flat_grad):
        """Make every parameter's .data and .grad a view of these vectors. The few padding elements between stay 0."""
        self.flat, self.flat_grad = flat, flat_grad
        for _, p, start, end in self.layout():
            p.data = flat[start:end].reshape(p.shape)
            p.grad = flat_grad[start:end].reshape(p.shape)

    def replica(self, flat_grad=None):
        """The same weights and buffers (shared, not copied) with gradients of its own: one for each gradient shard."""
        arrays = {id(array): array for array in (self.flat, self.flat_grad)}
        arrays |= {id(p.data): p.data for _, p in self.named_parameters()}
        arrays |= {id(p.grad): p.grad for _, p in self.named_parameters()}
        arrays |= {id(value): value for _, m in self.modules() for value in vars(m).values()
                   if isinstance(value, np.ndarray)}                         # buffers and constant tables
        twin = copy.deepcopy(self, memo=dict(arrays))
        twin.bind(self.flat, np.zeros_like(self.flat_grad) if flat_grad is None else flat_grad)
        twin.is_replica = True
        return twin

    is_replica = False                               # a replica's forward leaves the shared buffers alone

    def batch_statistics(self, cache):
        """What a training forward of a replica measured and update_buffers is to fold in (BatchNorm); None without."""

    def update_buffers(self, statistics):
        """Fold in the batch statistics of several training forwards, in the order given. Nothing without buffers."""

    @property
    def dtype(self):
        return self.flat.dtype

    def num_parameters(self):
        """Number of trained scalars; works before materialise()."""
        return sum(p.size for _, p in self.named_parameters())

    def zero_grad(self):
        self.flat_grad[...] = 0

    def state_dict(self):
        """{name: copy of the array}, parameters then buffers, in the reference implementation's names and layouts."""
        state = {name: p.data.copy() for name, p in self.named_parameters()}
        return state | {name: buffer.copy() for name, buffer in self.named_buffers()}

    def load_state_dict(self, state):
        """Copy {name: array} into the model. Unknown, missing or misshaped names: UserError, and nothing is written."""
        targets = {name: p.data for name, p in self.named_parameters()} | dict(self.named_buffers())
        check_tensors(targets, state, type(self).__name__)
        for name, target in targets.items():
            target[...] = state[name]

    # --- what came with published weights

    classes = None                                   # the names of the classes
    preprocessing = None                             # image → (C, H, W), a function whose str() says what it does
    notes = ()                                       # what was done to the weights, in sentences

    def predict(self, image, top=5):
        """[(class, probability), …] of one image, the most probable first; for a model that load_model made.

        image: a path, a Pillow image or an array of pixels. Classes without names are numbers.
        """
        if self.preprocessing is None:
            raise UserError("this model does not know how its images are prepared: build it with numpyvit.load_model, or "
                            "call it with normalised images")
        logits = self.forward(self.preprocessing(image, self.dtype)[None])[0][0].astype(np.float64)
        probabilities, _ = softmax_forward(logits)
        best = (-probabilities).argsort(kind="stable")[:top]
        return [(self.classes[k] if self.classes else int(k), float(probabilities[k])) for k in best]

    def check_images(self, images):
        """images, as the model's dtype, or a ValueError that says what was expected. (B, in_chans, H, W)"""
        images = np.asarray(images)
        H, W = pair(self.config.img_size)
        expected = (self.config.in_chans, H, W)
        if images.ndim != 4 or images.shape[1:] != expected or len(images) == 0:
            raise ValueError(f"images: expected shape (B, {', '.join(map(str, expected))}), got {images.shape}; "
                             "resize the images or create the model with img_size")
        if images.dtype.kind != "f":
            raise ValueError(f"images: expected normalised floats, got {images.dtype}")
        return images.astype(self.dtype, copy=False)

    def check_seeds(self, rng, batch):
        """One uint64 seed an image for a training forward, or None where no layer is stochastic."""
        if not self.stochastic:
            return None
        if rng is None:
            raise ValueError("rng: train=True with dropout or drop path needs an int, a numpy Generator or one uint64 "
                             "seed an image")
        return image_seeds(rng, batch)

    def check_logits_gradient(self, dlogits, batch):
        """dlogits, as the model's dtype, or a ValueError. (B, num_classes)"""
        dlogits = np.asarray(dlogits)
        if dlogits.shape != (batch, self.config.num_classes):
            raise ValueError(f"dlogits: expected shape {(batch, self.config.num_classes)}, got {dlogits.shape}")
        return dlogits.astype(self.dtype, copy=False)


def pair(size):
    """n or (h, w) → (h, w)"""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)
