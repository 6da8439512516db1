"""The one validation helper: what passes, and the line that a wrong value gets."""
from dataclasses import dataclass, field

import numpy as np
import pytest

from numpyvit.checks import check_choice, check_number, check_numbers, check_types
from numpyvit.errors import UserError


@dataclass(frozen=True)
class Settings:
    depth: int = 4
    rate: float = 0.0
    act: str = "gelu"
    depths: tuple = (1, 2)
    rates: float | tuple = 0.0
    limit: int | None = None
    bias: bool = True
    fields: dict = field(default_factory=dict)

    def __post_init__(self):
        check_types(self)
        check_numbers(self, "depth", "depths", "limit", above=0)
        check_numbers(self, "rate", "rates", least=0, below=1)
        check_choice(self, "act", ("gelu", "relu"))


@pytest.mark.parametrize("good", [
    dict(depth=np.int64(3)), dict(rate=np.float32(0.5)), dict(rate=0), dict(depths=[1, np.int8(2)]), dict(rates=(0, 0.5)),
    dict(limit=7), dict(limit=None), dict(bias=False), dict(fields={"a": 1}), dict(depth=10**400)])
def test_good(good):
    Settings(**good)


@pytest.mark.parametrize("bad, line", [
    (dict(depth=0), "depth: expected a positive whole number, got 0"),
    (dict(depth=4.0), "depth: expected a whole number, got 4.0"),
    (dict(depth=True), "depth: expected a whole number, got True"),
    (dict(depth="4"), "depth: expected a whole number, got '4'"),
    (dict(depth=None), "depth: expected a whole number, got None"),
    (dict(rate=float("nan")), "rate: expected a number, got nan"),
    (dict(rate=1), "rate: expected a number from 0 to below 1, got 1"),
    (dict(rate=np.float64(2)), "rate: expected a number from 0 to below 1, got 2.0"),
    (dict(act="tanh"), "act: expected one of 'gelu', 'relu', got 'tanh'"),
    (dict(act=3), "act: expected a text, got 3"),
    (dict(depths=3), "depths: expected a tuple of numbers, got 3"),
    (dict(depths=(3, "4")), "depths: expected a number in stage 1, got '4'"),
    (dict(depths=(3, 0)), "depths: expected a positive whole number in stage 1, got 0"),
    (dict(rates=(0, 1.5)), "rates: expected a number from 0 to below 1 in stage 1, got 1.5"),
    (dict(limit=-1), "limit: expected a positive whole number, got -1"),
    (dict(limit="x" * 200), "limit: expected a whole number or None, got '" + "x" * 78 + "…"),
    (dict(bias=1), "bias: expected True or False, got 1"),
    (dict(fields=[]), "fields: expected a table of names and values, got ()"),
])
def test_bad(bad, line):
    with pytest.raises(UserError) as caught:
        Settings(**bad)
    assert str(caught.value) == line


@pytest.mark.parametrize("limits, words", [
    (dict(least=0), "a number from 0 up"), (dict(above=3), "a number above 3"), (dict(most=4), "a number of at most 4"),
    (dict(below=4), "a number below 4"), (dict(least=0, most=4), "a number from 0 to 4"), (dict(above=0, most=4), "a number above 0 to 4"),
    (dict(whole=True, least=0, most=9), "a whole number from 0 to 9"), (dict(), "a number")])
def test_words_of_a_range(limits, words):
    with pytest.raises(UserError, match=f"^x: expected {words} in stage 2, got 'a'$"):
        check_number("x", "a", where="in stage 2", **limits)
