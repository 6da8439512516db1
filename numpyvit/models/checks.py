"""What the configurations of all families check: one ValueError that names the field, what was expected and what came."""
import typing

from ..module import pair


def values(config, field):
    value = getattr(config, field)
    return value if isinstance(value, (tuple, list)) else (value,)


def fail(field, expected, got):
    raise ValueError(f"{field}: expected {expected}, got {got}")


def check_type(field, value):
    """A dataclass field's value is of the kind that its annotation says; a tuple's parts are numbers, all of one kind."""
    kinds = typing.get_args(field.type) or (field.type,)
    plain = tuple(kind for kind in kinds if kind is not tuple) or (int,)
    plain += (int,) if float in plain else ()
    if field.name == "img_size" and isinstance(value, tuple) and len(value) != 2:
        fail(field.name, "a number of pixels or (height, width)", f"{len(value)} numbers")
    for part in value if isinstance(value, tuple) and tuple in kinds else (value,):
        if not isinstance(part, plain) or isinstance(part, bool) != (bool in plain):
            fail(field.name, " or ".join(kind.__name__ for kind in kinds), repr(value)[:80])


def check_positive(config, *fields):
    """Every value (of every stage) is a number above 0, and whole where the field's annotation says int."""
    for field in fields:
        whole = "float" not in str(type(config).__annotations__[field])
        stages = type(config).__annotations__[field] is tuple
        for i, value in enumerate(values(config, field)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not value > 0 or (whole and value != int(value)) or value == float("inf"):
                what = "a positive whole number" if whole else "a positive number"
                fail(field, what + (f" in stage {i}" if stages else ""), getattr(config, field))


def check_rates(config, *fields):
    for field in fields:
        for value in values(config, field):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
                fail(field, "a rate from 0 to below 1", value)


def check_choice(config, field, choices):
    if getattr(config, field) not in choices:
        fail(field, "one of " + ", ".join(map(repr, choices)), repr(getattr(config, field)))


def check_divides(config, divisor, field):
    for value in pair(getattr(config, field)):
        if value % getattr(config, divisor):
            fail(divisor, f"a divisor of {field} {getattr(config, field)}", getattr(config, divisor))


def check_stages(config, first, *others):
    """Every field is a tuple of one value a stage, as many as the first has.   →   number of stages"""
    stages = len(values(config, first))
    for field in (first, *others):
        if not isinstance(getattr(config, field), tuple) or len(getattr(config, field)) != max(stages, 1):
            fail(field, f"a tuple of one value a stage, {max(stages, 1)} as in {first}", getattr(config, field))
    return stages
