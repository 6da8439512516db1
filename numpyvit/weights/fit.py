"""Which tensors may have another size in a file than in the model, and how they are resized: tables of positions on a
grid.
"""
import math

import numpy as np

from ..errors import UserError


def resize_grid(table, grid, mode="bicubic"):
    """A table on a grid, sampled at the centres of another grid's cells; rows and columns alike.

        y[i] = Σₖ w(k − s) x[clip(k)],   s = (i + ½) · n_in / n_out − ½

    mode "bilinear": two neighbours, as torch's interpolate(mode="bilinear", align_corners=False), timm's .npz loader.
    mode "bicubic": Keys' kernel with A = −0.75 over four neighbours, as torch's interpolate(mode="bicubic",
    align_corners=False) without antialias, Hugging Face's ViT. (timm's own resize has antialias on and thereby A =
    −0.5.) table (gh, gw, C), grid (gh2, gw2)   →   (gh2, gw2, C) in the table's dtype Keys 1981, eq. 15
    """
    rows, columns = (interpolation_matrix(n_in, n_out, mode) for n_in, n_out in zip(table.shape, grid))
    return np.einsum("ih,jw,hwc->ijc", rows, columns, table.astype(np.float64), optimize=True).astype(table.dtype)


CUBIC_A = {"bicubic": -0.75, "bilinear": None}


def interpolation_matrix(n_in, n_out, mode):
    """The weights of resize_grid along one axis: (n_out, n_in) float64, rows summing to 1."""
    A, rows = CUBIC_A[mode], np.arange(n_out)
    source = (rows + 0.5) * n_in / n_out - 0.5
    if A is None:
        source = np.maximum(source, 0)
    first = np.floor(source).astype(int)
    matrix = np.zeros((n_out, n_in))
    for k in (0, 1) if A is None else (-1, 0, 1, 2):
        t = np.abs(source - (first + k))                                     # distance to the neighbour
        if A is None:
            weight = 1 - t
        else:
            weight = np.where(t <= 1, ((A + 2) * t - (A + 3)) * t * t + 1, ((A * t - 5 * A) * t + 8 * A) * t - 4 * A)
        np.add.at(matrix, (rows, np.clip(first + k, 0, n_in - 1)), weight)   # beyond the border: the border's value
    return matrix


def resize_table(name, table, shape, mode, place, config):
    """A file's table of positions for the model's resolution.

    place: the model's PositionTable of that name   shape: of the model's table   config: of the file, a dict
    →   the table, a list of one sentence where it was resized
    """
    return (resize_offsets if place.of_offsets else resize_positions)(name, table, shape, mode, place, config)


def resize_positions(name, table, shape, mode, place, config):
    """A table (1, [class +] gh·gw, C) for another grid; the class token's row is taken as it is."""
    prefix, (gh2, gw2) = place.class_token, place.grid
    cells = table.shape[1] - prefix if table.ndim == 3 and table.shape[0] == 1 else 0
    said, square = stored_grid(config, cells), square_grid(cells)
    grid = said or (place.grid if table.shape == shape else square)
    if cells < 1 or grid is None or table.shape[2] != shape[2]:
        raise UserError(f"{name} has shape {table.shape}, expected {shape}, and it is no table of a square grid")
    if grid == place.grid:
        unsure = not said and square not in (None, grid)
        return table, [f"took the {cells} positions of {name} for the model's grid of {gh2} × {gw2}: the file does not "
                       "say what their grid is"] if unsure else []
    resized = resize_grid(table[0, prefix:].reshape(*grid, -1), place.grid, mode)
    resized = np.concatenate([table[:, :prefix], resized.reshape(1, -1, shape[2])], axis=1)
    return resized, [f"resized {name} from a grid of {grid[0]} × {grid[1]} to {gh2} × {gw2} ({mode})"]


def stored_grid(config, cells):
    """(rows, columns) of the file's grid by its config, None where that does not say it or has another number of cells.
    """
    try:
        size, patch = config["img_size"], config["patch_size"]
        H, W = size if isinstance(size, (list, tuple)) else (size, size)
        if H // patch * (W // patch) == cells:
            return H // patch, W // patch
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        pass
    return None


def square_grid(cells):
    """(side, side) of the square with so many cells, None where there is none."""
    side = math.isqrt(max(cells, 0))
    return (side, side) if side * side == cells else None


def resize_offsets(name, table, shape, mode, place, config):
    """A table of biases ((2·M − 1)², nh) for another window: the offsets are a grid of 2·M − 1 a side."""
    side, side2 = math.isqrt(len(table)) if table.ndim == 2 else 0, place.grid[0]
    if side % 2 == 0 or side * side != len(table) or table.shape[1] != shape[1]:
        raise UserError(f"{name} has shape {table.shape}, expected {shape}, and it is no table of a window's offsets, "
                        f"(2·M − 1)² rows for {shape[1]} heads")
    if side == side2:
        return table, []
    resized = resize_grid(table.reshape(side, side, -1), (side2, side2), mode).reshape(shape)
    M, M2 = (side + 1) // 2, (side2 + 1) // 2
    return resized, [f"resized {name} from windows of {M} × {M} to {M2} × {M2} ({mode})"]
