"""THE TABLE OF OPS: for each, how its inputs are drawn, the torch function that it has to equal, and its arithmetic.

`numpyvit gradcheck`, the gradient tests, the kernel tests and the benchmark all read CASES. A new op is a file in ops/,
a line in functional.py and a row in one of the files here; a row is a Case, see draw.py. torch is handed to a row's
function as an argument, so that the package never imports it: gradcheck works where torch is not installed.
"""
from . import attention, normalisation, pointwise, products, windows
from .draw import LAYOUTS, BenchDraw, Case, Draw, ExampleDraw, examples, laid_out

__all__ = ["BenchDraw", "CASES", "Case", "Draw", "ExampleDraw", "LAYOUTS", "case_of", "examples", "laid_out"]

CASES = (*products.CASES, *normalisation.CASES, *pointwise.CASES, *attention.CASES, *windows.CASES)


def case_of(name):
    """The row of an op. Raises KeyError."""
    return {case.name: case for case in CASES}[name]
