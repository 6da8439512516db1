"""Two traces held against each other, tensor by tensor."""
from dataclasses import dataclass

import numpy as np

from ..checks import fail
from .tensors import Key, Rows, Trace, check_trace, shown_kind


@dataclass
class Difference:
    """shape: of both, or None where they differ.   difference: max |a − b|; NaN if only one has a NaN.
    magnitude: max |a|, to judge it by.   note: "", or why there is no number."""
    key: Key
    shape: tuple | None
    difference: float | None
    magnitude: float | None
    note: str = ""

    def __str__(self):
        what = self.note if self.difference is None else f"{self.difference:.2e} of {self.magnitude:.4g}"
        return f"{self.key}: {what}"


class Comparison(Rows):
    """Differences in the order of the first trace, then of what only the second one has."""

    def differing(self):
        """The Comparison of those tensors that both have and that differ, in a number or in their shape."""
        return Comparison(row for row in self if not row.note.startswith("only") and row.difference != 0)

    def show(self, console=None):
        """Print a row a tensor.   console: a rich.console.Console, standard output unless given"""
        from .tables import print_comparison
        print_comparison(self, console)

    def sentence(self):
        """How many differ, and where the first one is."""
        both, differing = sum(not row.note.startswith("only") for row in self), self.differing()
        first = f", the first at {differing[0].key}; .differing() chooses them" if differing else ""
        alone = f"; {len(self) - both:,} more are in one of the two only" if both < len(self) else ""
        return f"{len(differing):,} of {both:,} tensors differ{first}{alone}; a row is max |a − b| of max |a|"


def compare(a: Trace, b: Trace) -> Comparison:
    """Tensor by tensor, in the order of a, then what only b has. Raises UserError for what is no trace."""
    check_trace("compare: a", a)
    others = {t.key: t for t in check_trace("compare: b", b)}
    rows = [difference(t, others.pop(t.key)) if t.key in others
            else Difference(t.key, t.shape, None, None, "only in the first") for t in a]
    return Comparison(rows + [Difference(t.key, t.shape, None, None, "only in the second") for t in others.values()])


def difference(a, b):
    """Difference of two tensors."""
    if a.shape != b.shape:
        return Difference(a.key, None, None, None, f"{a.shape} and {b.shape}")
    x, y = (np.asarray(t.array, np.float64) for t in (a, b))
    with np.errstate(invalid="ignore"):                  # ∞ − ∞, and NaN, which are equal to themselves here
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, np.abs(x - y))
    finite = np.abs(x[np.isfinite(x)])
    return Difference(a.key, a.shape, float(gap.max(initial=0)), float(finite.max(initial=0)))


def check_differences(who, rows):
    """The rows, a Comparison or another list of Differences. UserError for anything else, with what to do."""
    if type(rows) in (Comparison, list, tuple) and all(isinstance(row, Difference) for row in rows):
        return rows
    hint = "; print_trace prints a Trace" if isinstance(rows, Trace) else "; compare(a, b) makes one of two traces"
    fail(who, "a Comparison", shown_kind(rows) + hint)
