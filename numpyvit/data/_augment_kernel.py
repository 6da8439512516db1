"""The pixel loops of augment.py, compiled. Serial, without the GIL: each lane augments its own micro-batch."""
import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def views(images, indices, top, left, flip, cut, erase, noise, noise_row, table, out):
    """Crop, mirror, erase and normalise in one pass over the output; the padded image never exists."""
    count, channels, height, width = out.shape
    columns = np.empty(width, dtype=np.int64)
    for i in range(count):
        for x in range(width):                                  # columns = reflect(arange(W) + left), mirrored if flip
            column = abs(x + left[i])
            if column >= width:
                column = 2 * (width - 1) - column
            if flip[i]:
                columns[width - 1 - x] = column
            else:
                columns[x] = column
        image = images[indices[i]]
        for c in range(channels):
            for y in range(height):                             # rows = reflect(arange(H) + top)
                row = abs(y + top[i])
                if row >= height:
                    row = 2 * (height - 1) - row
                for x in range(width):                          # out = table[channel, image[:, rows, columns]]
                    out[i, c, y, x] = table[c, image[c, row, columns[x]]]
            for y in range(erase[i, 0], erase[i, 1]):           # out[:, t:b, l:r] = table[channel, noise[:, t:b, l:r]]
                for x in range(erase[i, 2], erase[i, 3]):
                    out[i, c, y, x] = table[c, noise[noise_row[i], c, y, x]]
            for y in range(cut[i, 0], cut[i, 1]):               # out[:, t:b, l:r] = 0
                for x in range(cut[i, 2], cut[i, 3]):
                    out[i, c, y, x] = 0


@njit(nogil=True, cache=True)
def mix_views(images, others, weight, other_weight, boxes):
    """In place: blend the two views, then paste the partner's box."""
    count, channels, height, width = images.shape
    for i in range(count):
        own, other = weight[i], other_weight[i]
        for c in range(channels):
            for y in range(height):                             # images = weight · images + other_weight · others
                for x in range(width):
                    images[i, c, y, x] = own * images[i, c, y, x] + other * others[i, c, y, x]
            for y in range(boxes[i, 0], boxes[i, 1]):           # images[:, t:b, l:r] = others[:, t:b, l:r]
                for x in range(boxes[i, 2], boxes[i, 3]):
                    images[i, c, y, x] = others[i, c, y, x]
