"""Where a case gets its inputs from: sizes, options and arrays for property tests, for the benchmark, for gradcheck."""
from dataclasses import dataclass, field
from typing import Callable

import numpy as np

LAYOUTS = ("contiguous", "transposed", "reversed", "strided")


@dataclass(frozen=True, eq=False)
class Case:
    """One op: a row of the table.

    inputs(draw)             → ({array: values or None}, {other argument: value}), in forward's order
    torch(torch, **inputs)   → what forward has to return, by the torch module that is handed in
    flops(arrays, others)    → (forward, backward); a multiply-add counts two
    bench                    the sizes that the benchmark takes: a micro-batch of the models that train on 32×32 images
    """

    name: str
    inputs: Callable
    torch: Callable
    flops: Callable
    bench: dict = field(default_factory=dict)

    def __str__(self):
        return self.name


def each(array, forward, backward):
    """flops of a Case that computes so many operations an element of that array."""
    return lambda arrays, others: (forward * arrays[array].size, backward * arrays[array].size)


class Draw:
    """Draws sizes, options and layouts by pick(options) → one of them. degenerate: whether sometimes() may say yes."""

    def __init__(self, pick, seed, degenerate=True):
        self.pick, self.rng, self.degenerate = pick, np.random.default_rng(seed), degenerate
        self.used = set()

    def size(self, name, low, high):
        """A size from low to high: no multiple of 4, and different from all others of this draw unless it is 1.

        A transposition then never hides behind two equal sizes, nor a loop's tail behind a SIMD width.
        """
        size = self.pick([n for n in range(low, high + 1) if n == 1 or (n % 4 and n not in self.used)])
        self.used.add(size)
        return size

    def choice(self, *options):
        """One of the variants of an op."""
        return self.pick(options)

    def extreme(self, *values):
        """One of the values, of which the first is an ordinary one: scales, offsets."""
        return self.pick(values)

    def sometimes(self):
        """Whether to draw a degenerate input, one draw in three."""
        return self.choice(False, False, True) if self.degenerate else False

    def array(self, *shape, scale=1.0, offset=0.0):
        """Normal values in float64, laid out in memory in one of four ways."""
        return laid_out(np.asarray(self.rng.standard_normal(shape) * scale + offset), self.pick(LAYOUTS))

    def seeds(self, B):
        """(B,) seeds of 64 bits"""
        return self.rng.integers(0, 2**64, B, dtype=np.uint64)


class BenchDraw(Draw):
    """The sizes of the case's row, the first of all options, contiguous arrays."""

    def __init__(self, case):
        super().__init__(lambda options: options[0], 0, degenerate=False)
        self.sizes = case.bench

    def size(self, name, low, high):
        """The size that the row names."""
        return self.sizes[name]


class ExampleDraw(Draw):
    """Ordinary values for gradcheck: variant number `turn` of every option, small sizes above 1, nothing extreme.

    variants: after a draw, how many turns it takes to see every option
    """

    def __init__(self, turn):
        super().__init__(None, turn, degenerate=False)
        self.turn, self.variants = turn, 1
        self.pick = lambda options: options[self.rng.integers(len(options))]

    def size(self, name, low, high):
        """A size above 1 and below 12 that no other size of this draw has, where the case allows for it."""
        options = [n for n in range(max(low, 2), min(high, 11) + 1) if n % 4 and n not in self.used] or [low]
        self.used.add(size := self.pick(options))
        return size

    def choice(self, *options):
        """The option of this turn."""
        self.variants = max(self.variants, len(options))
        return options[self.turn % len(options)]

    def extreme(self, *values):
        """The ordinary value."""
        return values[0]


def examples(case):
    """(arrays, others) of the case, as many as it takes to see every variant: what gradcheck checks."""
    turn, variants = 0, 1
    while turn < variants:
        draw = ExampleDraw(turn)
        yield case.inputs(draw)
        turn, variants = turn + 1, max(variants, draw.variants)


def laid_out(values, layout):
    """The same values, as a view of a larger or differently ordered block of memory."""
    if values.ndim == 0 or layout == "contiguous":
        return values
    if layout == "transposed":
        return np.ascontiguousarray(values.T).T
    if layout == "reversed":
        return np.ascontiguousarray(np.flip(values))[(slice(None, None, -1),) * values.ndim]
    wide = np.full((*values.shape[:-1], 2 * values.shape[-1]), np.nan)
    wide[..., ::2] = values
    return wide[..., ::2]
