"""The pixel loops of ops/augment.py, compiled. Serial, without the GIL: each lane augments its own micro-batch."""
import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def augment_views(images, drawn, table):
    """One pass over the output: the padded image never exists."""
    count, (_, channels, height, width) = len(drawn.indices), images.shape
    out = np.empty((count, channels, height, width), dtype=table.dtype)
    columns = np.empty(width, dtype=np.int64)
    cut, erase = drawn.cut, drawn.erase
    for i in range(count):
        for x in range(width):                                  # columns = reflect(arange(W) + left), mirrored if flip
            column = abs(x + drawn.left[i])
            if column >= width:
                column = 2 * (width - 1) - column
            if drawn.flip[i]:
                columns[width - 1 - x] = column
            else:
                columns[x] = column
        image = images[drawn.indices[i]]
        for c in range(channels):
            for y in range(height):                             # rows = reflect(arange(H) + top)
                row = abs(y + drawn.top[i])
                if row >= height:
                    row = 2 * (height - 1) - row
                for x in range(width):                          # out = table[channel, image[:, rows, columns]]
                    out[i, c, y, x] = table[c, image[c, row, columns[x]]]
            for y in range(erase[i, 0], erase[i, 1]):           # out[:, t:b, l:r] = table[channel, noise[:, t:b, l:r]]
                for x in range(erase[i, 2], erase[i, 3]):
                    out[i, c, y, x] = table[c, drawn.noise[drawn.noise_row[i], c, y, x]]
            for y in range(cut[i, 0], cut[i, 1]):               # out[:, t:b, l:r] = 0
                for x in range(cut[i, 2], cut[i, 3]):
                    out[i, c, y, x] = 0
    return out


@njit(nogil=True, cache=True)
def augment_mixtures(images, others, drawn):
    """One pass over the pixels, then the boxes."""
    count, channels, height, width = images.shape
    mixed, boxes = np.empty_like(images), drawn.boxes
    for i in range(count):
        own, other = drawn.weight[i], drawn.other_weight[i]
        for c in range(channels):
            for y in range(height):                             # y = weight · image + other_weight · other
                for x in range(width):
                    mixed[i, c, y, x] = own * images[i, c, y, x] + other * others[i, c, y, x]
            for y in range(boxes[i, 0], boxes[i, 1]):           # y[:, t:b, l:r] = other[:, t:b, l:r]
                for x in range(boxes[i, 2], boxes[i, 3]):
                    mixed[i, c, y, x] = others[i, c, y, x]
    return mixed
