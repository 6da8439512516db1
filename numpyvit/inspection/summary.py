"""A model as a table of its layers: output shape, parameters, multiply-adds, activation bytes.

This is arithmetic alone: no weight is allocated and nothing runs, so that the largest preset takes a moment.
models/rows.py says what is counted.
"""
from dataclasses import replace

import numpy as np

from ..models import FAMILIES, model_config
from ..models.rows import Row, added
from ..module import Model

COUNTED = "multiply-adds: of products and convolutions, one image forward; each two FLOPs"


def summary(model: Model | str, dtype: str = "float32", **overrides) -> list[Row]:
    """The layers of a model in the order of its forward pass.

    model: a Model, or the name of a preset or family, whose fields the overrides change
    dtype: of the activations, where a name is given   →   [Row]
    Raises ValueError for an unknown name or field.
    """
    if not isinstance(model, Model):
        family, config = model_config(model, **overrides)
        model = FAMILIES[family].model(config, materialise=False)
    elif hasattr(model, "flat"):                                             # materialised
        dtype = model.dtype
    rows = model.rows()
    assert sum(row.parameters for row in rows) == model.num_parameters()
    return [replace(row, itemsize=np.dtype(dtype).itemsize) for row in rows]


def by_block(rows: list[Row]) -> list[Row]:
    """The rows, with those of a block added up, and others added up whose names differ in the last part alone."""
    groups = {}
    for row in rows:
        parts = row.name.split(".")
        end = parts.index("blocks") + 2 if "blocks" in parts else max(1, len(parts) - 1)
        groups.setdefault(tuple(parts[:end]), []).append(row)
    return [group[0] if len(group) == 1 else added(group, ".".join(parts)) for parts, group in groups.items()]


# --- on the screen

def run(name, overrides=None, console=None, every_layer=False):
    """Print the table of a preset or family, a row a block, or a row a layer.   overrides: {field: value}"""
    from .tables import new_table, show
    layers = summary(name, **(overrides or {}))
    table = new_table("layer", "kind", "output", "parameters", "multiply-adds", "activations")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in layers if every_layer else by_block(layers):
        table.add_row(row.name, row.kind, "×".join(map(str, row.shape)), *numbers(row))
    table.columns[0].footer = name
    for column, number in zip(table.columns[3:], numbers(added(layers, name))):
        column.footer = number
    table.show_footer, table.caption, table.caption_justify = True, COUNTED, "left"
    show(table, console)


def numbers(row):
    """The three columns of numbers; nothing where there is nothing."""
    return (f"{row.parameters:,}" if row.parameters else "", amount(row.macs, 1000, "", "k", "M", "G", "T"),
            amount(row.activation_bytes, 1024, "B", "KiB", "MiB", "GiB", "TiB"))


def amount(n, base, *units):
    """1234567 → "1.23 M": three digits and a unit"""
    if not n:
        return ""
    while round(n) >= base and len(units) > 1:
        n, units = n / base, units[1:]
    digits = 2 if n < 9.995 else 1 if n < 99.95 else 0                       # 9.999 is rounded to 10.0
    return f"{n:.{digits}f} {units[0]}".strip()
