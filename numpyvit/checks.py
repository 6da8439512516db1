"""The one helper that validates settings: every check raises one UserError line, "NAME: expected …, got …".

    @dataclass(frozen=True)
    class Settings:
        depth: int = 4
        rate: float = 0.0
        act: str = "gelu"

        def __post_init__(self):
            check_types(self)                                    # as the annotations say; NumPy's numbers pass, too
            check_numbers(self, "depth", above=0)
            check_numbers(self, "rate", least=0, below=1)
            check_choice(self, "act", ("gelu", "relu"))

A record is any dataclass. A field may hold a tuple, one number a stage of a model: every number is then checked, and
the message names the stage. A field whose value is None is not checked further where its annotation allows None.
"""
import dataclasses
import math
import numbers
import typing

import numpy as np

from .errors import UserError

PIECE = 1 << 20                                                              # numbers looked at together
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", tuple: "a tuple of numbers",
         list: "a list", dict: "a table of names and values", type(None): "None"}


def fail(name, expected, got):
    """Raise the UserError of every check here."""
    raise UserError(f"{name}: expected {expected}, got {got}")


def shown(value):
    """A value as a message shows it: repr, at most 80 characters."""
    text = repr(plain(value))
    return text if len(text) <= 80 else text[:79] + "…"


def printable(name):
    """A name as text that any file can hold: bytes of a file's name that are not UTF-8 become question marks."""
    return str(name).encode("utf-8", "replace").decode()


def plain(value):
    """A NumPy scalar as the Python number that it is, lists and tuples as tuples; anything else as it is."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(part) for part in value)
    return value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value


def is_number(value, whole=False):
    """Whether value is a finite number, and a whole one (an int, not 4.0) if asked. True and False are no numbers."""
    if isinstance(value, numbers.Integral):
        return not isinstance(value, bool)
    return not whole and isinstance(value, numbers.Real) and math.isfinite(value)


def values(record, name):
    """The numbers of a field: those of a tuple, or the one that is there."""
    value = getattr(record, name)
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def is_kind(value, kind):
    """Whether value is of the kind that an annotation names: int takes NumPy's integers, float whole numbers, too."""
    if kind in (int, float):
        return is_number(value, whole=kind is int)
    return isinstance(value, (tuple, list) if kind is tuple else kind)


def check_type(name, annotation, value):
    """value is of the kind that a dataclass's annotation says.   annotation: int, float, str, bool, tuple, dict, or A
    | B
    """
    kinds = typing.get_args(annotation) or (annotation,)
    if not any(is_kind(value, typing.get_origin(kind) or kind) for kind in kinds):
        fail(name, " or ".join(NAMES.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds), shown(value))
    if isinstance(value, (tuple, list)) and tuple in kinds:
        for i, part in enumerate(value):
            if not is_number(part):
                fail(name, f"a number in stage {i}", shown(part))


def check_types(record):
    """Every field of a dataclass is of the kind that its annotation says."""
    for field in dataclasses.fields(record):
        check_type(field.name, field.type, getattr(record, field.name))


def check_number(name, value, whole=False, above=None, least=None, below=None, most=None, where=""):
    """above < value < below, least ≤ value ≤ most, whichever are given; where: what the message adds, such as "in
    stage 2".
    """
    too_low = is_number(value) and ((above is not None and value <= above) or (least is not None and value < least))
    too_high = is_number(value) and ((below is not None and value >= below) or (most is not None and value > most))
    if not is_number(value, whole) or too_low or too_high:
        fail(name, f"{span(whole, above, least, below, most)}{where and ' ' + where}", shown(value))


def span(whole, above, least, below, most):
    """The words for a range of numbers: "a number from 0 to below 1"."""
    kind = "whole number" if whole else "number"
    low = None if above is None and least is None else f"from {least}" if above is None else f"above {above}"
    high = None if below is None and most is None else f"{most}" if below is None else f"below {below}"
    if low and high:
        return f"a {kind} {low} to {high}"
    if high:
        return f"a {kind} {high if most is None else f'of at most {most}'}"
    if above == 0:
        return f"a positive {kind}"
    return f"a {kind} {low}{' up' if above is None else ''}" if low else f"a {kind}"


def check_numbers(record, *names, **limits):
    """Every number of these fields lies within the limits of check_number; whole where the annotation says int."""
    annotations = {field.name: field.type for field in dataclasses.fields(record)}
    for name in names:
        kinds = typing.get_args(annotations[name]) or (annotations[name],)
        value = getattr(record, name)
        if value is None and type(None) in kinds:
            continue
        for i, number in enumerate(values(record, name)):
            where = f"in stage {i}" if isinstance(value, (tuple, list)) else ""
            check_number(name, number, float not in kinds, where=where, **limits)


def check_choice(record, name, choices):
    """The field's value is one of the choices."""
    value = getattr(record, name)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        fail(name, "one of " + ", ".join(map(repr, choices)), shown(value))


def check_shape(name, array, *shape):
    """The array has this shape. A compiled loop does not check its indices: another array would be read beyond its end.
    """
    if array.shape != shape:
        fail(name, f"shape {shape}", array.shape)


def check_tensors(targets, tensors, what):
    """Raise one UserError unless {name: array} tensors has every name of targets and no other, with the shape and
    kind of dtype of each, and only values that are finite in that dtype.

    what: the kind of thing that targets are of, as in "the weights do not fit this ViT"; up to five tensors are named.
    """
    problems = [f"{name} is missing" for name in targets if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in targets]
    for name in targets.keys() & tensors.keys():
        target, tensor = targets[name], np.asarray(tensors[name])
        if tensor.shape != target.shape:
            hint = " (drop_head=True keeps the model's own)" if name.split(".")[0] == "head" else ""
            problems.append(f"{name} has shape {tensor.shape}, expected {target.shape}{hint}")
        elif tensor.dtype.kind != target.dtype.kind:
            problems.append(f"{name} has dtype {tensor.dtype}, expected {target.dtype}")
        elif not is_finite(tensor, target.dtype):
            problems.append(f"{name} holds values that are not finite in {target.dtype}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"the weights do not fit this {what}: {'; '.join(sorted(problems)[:5])}{more}")


def is_finite(tensor, dtype):
    """Whether every value is a finite number once it is converted to dtype; piece by piece, without a copy of it all.
    """
    if tensor.dtype.kind != "f":
        return True
    flat = tensor.reshape(-1) if tensor.flags.c_contiguous else tensor.T.reshape(-1)
    pieces = (flat[start:start + PIECE] for start in range(0, flat.size, PIECE))
    with np.errstate(over="ignore"):
        return all(bool(np.isfinite(piece.astype(dtype, copy=False)).all()) for piece in pieces)
