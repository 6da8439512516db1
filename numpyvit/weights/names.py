"""Names of tensors in one library's files and here: a table of rows for each, read in both directions.

    Row("blocks.{i}.norm1.*", "vit.encoder.layer.{i}.layernorm_before.*")
    Row("layers.{i+1}.downsample.*", "features.{2i+2}.*")
    Row("blocks.{i}.attn.qkv.*", "blocks.{i}.attn.{query|key|value}.*", ROWS)      three tensors there are one here
    Row("norm.*", "[vit.]layernorm.*")                                             written with vit., read also without

{i}, {j} stand for a number, * for the last part of a name (weight, bias, running_mean, …). Where two rows have the
same name here, the first is written and both are read.
"""
import functools
import re
from typing import Callable, NamedTuple

import numpy as np

from ..errors import UserError


class Transform(NamedTuple):
    """Between the arrays of a row there and the one array here.

    read(arrays) → array;  write(array, num_heads) → arrays. num_heads: of the attention the tensor belongs to.
    """
    read: Callable
    write: Callable


def split_rows(array, num_heads):
    """(3·C, …) → three of (C, …)"""
    return np.split(array, 3)


COPY = Transform(lambda arrays: arrays[0], lambda array, num_heads: [array])
ROWS = Transform(lambda arrays: np.concatenate(arrays), split_rows)          # [q; k; v], each (C, C) or (C,)


class Row(NamedTuple):
    """A tensor's name here and there, as patterns, and what is done to the values between."""
    here: str
    there: str
    transform: Transform = COPY


INDEX = re.compile(r"\{(\d*)([ij])\+?(\d*)\}")
PART = re.compile(r"\{(\w+(?:\|\w+)+)\}")
SPECIAL = re.compile(r"\{[^}]*\}|\[[^]]*\]|\*|[^{\[*]+")


@functools.cache
def matcher(pattern):
    """A pattern as a regular expression with the groups i, j, part and last, and {group: (factor, summand)} of the
    numbers.
    """
    expression, numbers = "", {}
    for token in SPECIAL.findall(pattern):
        if index := INDEX.fullmatch(token):
            numbers[index[2]] = int(index[1] or 1), int(index[3] or 0)
            expression += rf"(?P<{index[2]}>0|[1-9]\d{{0,3}})"
        elif part := PART.fullmatch(token):
            expression += f"(?P<part>{part[1]})"
        elif token == "*":
            expression += r"(?P<last>[a-z_]+)"
        else:
            expression += f"(?:{re.escape(token[1:-1])})?" if token.startswith("[") else re.escape(token)
    return re.compile(expression), numbers


def match(pattern, name):
    """{"i": …, "j": …, "last": …, "part": …} of a name that fits the pattern, or None."""
    expression, numbers = matcher(pattern)
    found = expression.fullmatch(name)
    if not found:
        return None
    values = found.groupdict()
    for group, (factor, summand) in numbers.items():
        values[group], rest = divmod(int(values[group]) - summand, factor)
        if rest or values[group] < 0:
            return None
    return values


def fill(pattern, values):
    """The name that a pattern stands for; with {a|b|c} in the pattern, values["part"] says which."""
    def replace(token):
        if index := INDEX.fullmatch(token):
            return str(int(index[1] or 1) * values[index[2]] + int(index[3] or 0))
        if PART.fullmatch(token):
            return values["part"]
        return values["last"] if token == "*" else token.strip("[]")
    return "".join(replace(token) for token in SPECIAL.findall(pattern))


def parts_of(pattern):
    """The names of the several tensors that a pattern stands for, [None] for the usual one."""
    found = PART.search(pattern)
    return found[1].split("|") if found else [None]


def find_row(rows, name, side):
    """(row, its values) of the first row whose pattern on that side ("here" or "there") fits the name, or (None,
    None).
    """
    for row in rows:
        values = match(getattr(row, side), name)
        if values is not None:
            return row, values
    return None, None


def count_matches(rows, names):
    """How many of a file's names some row knows."""
    return sum(find_row(rows, name, "there")[0] is not None for name in names)


def to_here(rows, tensors):
    """{name there: array} → {name here: array}; what no row knows keeps its name. The arrays are copied where they
    change. UserError for two tensors that are the same one here, and for one that has the name of a tensor here
    although that library calls it otherwise.
    """
    result, groups = {}, {}
    for name, array in tensors.items():
        row, values = find_row(rows, name, "there")
        if row is None:
            known, _ = find_row(rows, name, "here")
            if known:
                raise UserError(f"{name} is the name of a tensor here, which that library calls {known.there}; remove "
                                f"{name} or rename it")
            result[name] = array
            continue
        here = fill(row.here, values)
        if here in groups and groups[here][0] != row:
            raise UserError(f"{name} and {next(iter(groups[here][1].values()))[0]} are both {here}")
        groups.setdefault(here, (row, {}))[1][values.get("part")] = name, array
    for here, (row, found) in groups.items():
        parts = parts_of(row.there)
        if set(parts) != set(found):                                         # a part is missing: its name stays
            result |= dict(found.values())
            continue
        try:
            result[here] = row.transform.read([found[part][1] for part in parts])
        except (ValueError, IndexError) as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in found.values())
            raise UserError(f"{shapes}: not the shape that {here} is made of") from error
    return result


def to_there(rows, tensors, num_heads):
    """{name here: array} → {name there: array}.   num_heads(values of the row) → heads of the attention a tensor
    belongs to

    → the tensors, and the names that no row knows
    """
    result, unknown = {}, []
    for name, array in tensors.items():
        row, values = find_row(rows, name, "here")
        if row is None:
            unknown.append(name)
            continue
        parts = parts_of(row.there)
        for part, written in zip(parts, row.transform.write(array, num_heads(values)), strict=True):
            result[fill(row.there, values | {"part": part})] = np.array(written, order="C", copy=None)
    return result, unknown
