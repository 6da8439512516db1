"""Parameters, modules, and the module that keeps all parameters of a model in one flat vector."""
import copy
import math
from typing import Callable, Iterator, NamedTuple

import numpy as np

from .checks import check_number, check_tensors, fail
from .errors import UserError

ALIGN = 16                                                                   # in float32 a tensor starts on 64 bytes


class Parameter:
    """A named tensor of the model. .data and .grad are views of the model's two flat vectors once it is materialised.

    shape; init(rng, shape) → values; decay: whether weight decay applies (never to biases, norms, position tables and
    class tokens). Until materialise() there is only the shape, so counting the largest preset costs nothing.
    Assignment to .data or .grad copies the values into the view: p.data = array and p.data[...] = array do the same.
    """

    def __init__(self, shape: tuple, init: Callable, decay: bool = False):
        self.shape, self.init, self.decay = tuple(int(n) for n in shape), init, decay
        self.data = self.grad = None

    def __setattr__(self, name, value):
        view = vars(self).get(name) if name in ("data", "grad") else None
        if view is None:
            vars(self)[name] = value
        elif value is not view:                                              # p.grad += d assigns the view itself
            if np.shape(value) != self.shape:
                raise UserError(f"{name}: expected an array of shape {self.shape}, got {np.shape(value)}")
            view[...] = value

    def attach(self, data: np.ndarray, grad: np.ndarray):
        """Make these two arrays, views of the flat vectors, the parameter's .data and .grad."""
        vars(self).update(data=data, grad=grad)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __repr__(self):
        return f"Parameter({'×'.join(map(str, self.shape))}{', decay' if self.decay else ''})"


class ReadOnce(list):
    """The caches of layers, in their order, for one backward: reversed() takes each out, so that its memory is free."""

    read = False

    def __reversed__(self):
        if self.read:
            fail("cache", "one that backward has not read yet", "one whose arrays are freed; run forward again")
        self.read = True
        return (self.pop() for _ in range(len(self)))


class Pass(NamedTuple):
    """What goes down with a forward pass, to every layer.

    seeds: (B,) uint64, one an image, of which dropout and drop path draw their bits; None where nothing is random.
    statistics: in training a dictionary, in which every batch norm leaves what it measured, {its name: (mean, unbiased
    variance)}; None in evaluation, where batch norms use their running statistics.
    keep: False where only the logits are wanted, in evaluation: the caches of blocks are dropped.
    once: True where backward will read the caches once, and is to free them on its way.
    """

    seeds: np.ndarray | None = None
    statistics: dict | None = None
    keep: bool = True
    once: bool = False

    def caches(self):
        """An empty list for the caches of layers, which backward reads from its end."""
        return ReadOnce() if self.once else []

    def kept(self, cache):
        """The cache, or None where none is kept."""
        return cache if self.keep else None


EVALUATION, LOGITS_ALONE = Pass(), Pass(keep=False)


class Module:
    """Something with parameters: its own, its submodules' and those of its lists of submodules, in order of assignment.

    A module owns no activation: forward returns (y, cache), backward(dy, cache) returns dx and adds into .grad.
    name: dotted, within the model.   buffers: names of arrays that are saved but not trained.
    number: of a layer that draws random bits (a layer with a rate), so that no two layers share bits; None for others.
    """

    name = ""
    buffers = ()
    number = None

    def __setattr__(self, name, value):
        if isinstance(vars(self).get(name), Parameter) and not isinstance(value, Parameter):
            raise UserError(f"{name} is a parameter: assign its values to .{name}.data, an array of shape "
                            f"{vars(self)[name].shape}")
        vars(self)[name] = value

    def __repr__(self):
        own = [f"{name} {value.shape}" for name, value in vars(self).items() if isinstance(value, Parameter)]
        within = [f"{name} {type(child).__name__}" for name, child in self.children()]
        return f"<{type(self).__name__} {self.name}: {', '.join(own + within) or 'no parameters'}>"

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, Module) pairs; the i-th of a list called blocks is "blocks.i"."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Module) for v in value):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value))

    def modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(dotted name, Module) pairs of the whole tree, parents first."""
        yield prefix.rstrip("."), self
        for name, child in self.children():
            yield from child.modules(f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter) pairs, in the order of the flat vector."""
        for path, module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield (f"{path}.{name}" if path else name), value

    def named_buffers(self) -> Iterator[tuple[str, np.ndarray]]:
        """(dotted name, ndarray) pairs: state that is saved but not trained (BatchNorm's running statistics)."""
        for path, module in self.modules():
            for name in module.buffers:
                yield (f"{path}.{name}" if path else name), getattr(module, name)


class FlatModule(Module):
    """A Module whose parameters live in one flat vector (.flat) and whose gradients live in another (.flat_grad).

    The optimiser, the gradient norm, zero_grad and the sum over threads are then one operation each. A subclass builds
    its layers in __init__ and calls finish() last.
    """

    stochastic = False                                                       # whether any layer has a rate above 0

    def finish(self, seed: int = 0, dtype: str = "float32", materialise: bool = True):
        """The last line of __init__: every module gets its name, every random layer its number; then materialise()."""
        for name, module in self.modules():
            module.name = name
        random = [module for _, module in self.modules() if module.number is not None]
        for i, layer in enumerate(random):
            layer.number = i
        self.stochastic = any(layer.rate > 0 for layer in random)
        if materialise:
            self.materialise(seed, dtype)

    def materialise(self, seed: int = 0, dtype: str = "float32"):
        """Allocate the flat vectors and initialise every parameter from (seed, its position); seed None: all zeros."""
        if seed is not None:
            check_number("seed", seed, whole=True, least=0)
        if dtype not in ("float32", "float64", np.float32, np.float64):
            fail("dtype", "float32 or float64", dtype)
        dtype = np.dtype(dtype)
        self.bind(np.zeros(self.flat_size(), dtype), np.zeros(self.flat_size(), dtype))
        for i, (_, p) in enumerate(self.named_parameters()):
            if seed is not None:
                p.data[...] = p.init(np.random.default_rng([seed, i]), p.shape)
        for _, module in self.modules():
            for name in module.buffers:
                if getattr(module, name).dtype.kind == "f":
                    setattr(module, name, getattr(module, name).astype(dtype))
        return self

    def layout(self) -> Iterator[tuple[str, Parameter, int, int]]:
        """Where every parameter lies in the flat vectors: (name, Parameter, start, end), in order.

        Every start is a multiple of ALIGN; the few elements between an end and the next start are always 0.
        """
        start = 0
        for name, p in self.named_parameters():
            yield name, p, start, start + p.size
            start += -(-p.size // ALIGN) * ALIGN

    def flat_size(self) -> int:
        """Elements of each flat vector, padding included."""
        return sum(-(-p.size // ALIGN) * ALIGN for _, p in self.named_parameters())

    def bind(self, flat: np.ndarray, flat_grad: np.ndarray):
        """Make every parameter's .data and .grad a view of these vectors. The few padding elements between stay 0."""
        self.flat, self.flat_grad = flat, flat_grad
        for _, p, start, end in self.layout():
            p.attach(flat[start:end].reshape(p.shape), flat_grad[start:end].reshape(p.shape))

    def replica(self, flat_grad: np.ndarray | None = None):
        """The same weights and buffers (shared, not copied) with gradients of its own: one for each gradient shard."""
        shared = [value for _, m in self.modules() for value in vars(m).values() if isinstance(value, np.ndarray)]
        shared += [array for _, p in self.named_parameters() for array in (p.data, p.grad)]
        twin = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo={id(array): array for array in shared}))
        twin.bind(self.flat, np.zeros_like(self.flat_grad) if flat_grad is None else flat_grad)
        return twin

    def __getstate__(self):
        """For copy.deepcopy and pickle: the parameters hold all values, the flat vectors are made anew."""
        return {name: value for name, value in vars(self).items() if name not in ("flat", "flat_grad")}

    def __setstate__(self, state):
        vars(self).update(state)
        own = [(p, p.data, p.grad) for _, p in self.named_parameters()]
        if own and own[0][1] is not None:
            self.bind(np.zeros(self.flat_size(), own[0][1].dtype), np.zeros(self.flat_size(), own[0][1].dtype))
            for p, data, grad in own:
                p.data[...], p.grad[...] = data, grad

    def update_buffers(self, statistics: list[dict]):
        """Fold in the batch statistics of several training passes, in the order given. A statistic goes to update() of
        the module whose name it has.
        """
        modules = dict(self.modules())
        for of_pass in statistics:
            for name, measured in of_pass.items():
                modules[name].update(*measured)

    @property
    def dtype(self) -> np.dtype:
        return self.flat.dtype

    def num_parameters(self) -> int:
        """Number of trained scalars; works before materialise()."""
        return sum(p.size for _, p in self.named_parameters())

    def zero_grad(self):
        """Set every gradient to 0."""
        self.flat_grad[...] = 0

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: copy of the array}, parameters then buffers, in the reference implementation's names and layouts."""
        state = {name: p.data.copy() for name, p in self.named_parameters()}
        return state | {name: buffer.copy() for name, buffer in self.named_buffers()}

    def load_state_dict(self, state: dict):
        """Copy {name: array} into the model. Unknown, missing or misshaped names: UserError, and nothing is written."""
        targets = {name: p.data for name, p in self.named_parameters()} | dict(self.named_buffers())
        check_tensors(targets, state, type(self).__name__)
        for name, target in targets.items():
            target[...] = state[name]
