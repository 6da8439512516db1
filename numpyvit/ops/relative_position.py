"""A learned bias for every offset between two tokens of a window."""
import numpy as np


def relative_position_index(M):
    """The row of the table that belongs to query i and key j, two tokens of an M × M window.

        index[i, j] = (rowᵢ − rowⱼ + M − 1) · (2M − 1) + (columnᵢ − columnⱼ + M − 1)

    → (M², M²) integers from 0 to (2M − 1)² − 1.   M = 2:  [[4,3,1,0], [5,4,2,1], [7,6,4,3], [8,7,5,4]]
    A row of the table stands for an offset (Δrow, Δcolumn), each from 1 − M to M − 1; pairs of one offset share it.
    """
    row, column = np.meshgrid(np.arange(M), np.arange(M), indexing="ij")     # the default, "xy", would swap the two
    row, column = row.ravel(), column.ravel()                                # (M²,), tokens in row-major order
    return (row[:, None] - row + M - 1) * (2 * M - 1) + (column[:, None] - column + M - 1)


def relative_position_bias_forward(table, index):
    """Look the bias of every pair up in the table of offsets.

        bias[h, i, j] = table[index[i, j], h]

    table ((2M−1)², nh)   index (M², M²) of relative_position_index   →   bias (nh, M², M²)
    cache: the index and the table's shape.
    Liu et al. 2021, eq. 4
    """
    bias = table[index].transpose(2, 0, 1)                                   # (M², M², nh) → (nh, M², M²)
    return np.ascontiguousarray(bias), (index, table.shape)


def relative_position_bias_backward(dbias, cache):
    """dtable[o, h] = Σ dbias[h, i, j] over the pairs with index[i, j] = o

    An offset (Δrow, Δcolumn) is shared by (M − |Δrow|)(M − |Δcolumn|) pairs, so the adjoint of the look-up adds:
    bincount for each head. (np.add.at does the same more slowly; dtable[index] += … would keep one pair an offset.)
    """
    index, (offsets, _) = cache
    pairs = index.ravel()                                                    # (M⁴,)
    dtable = [np.bincount(pairs, weights=head.ravel(), minlength=offsets) for head in dbias]
    return np.stack(dtable, axis=1).astype(dbias.dtype)                      # ((2M−1)², nh)
