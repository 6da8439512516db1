"""A ten-class set of small colour images, generated: for a machine without CIFAR-10.

One shape an image, at a random place, size and angle, on a background of another colour. Colours say nothing about the
class and the shape is as often darker than its background as brighter, so the average image of every class is flat grey
and a linear model is lost; a network has to find edges and put them together.

The same (seed, index) gives the same bytes on every machine and NumPy version: randomness is a hash of integers, and
the drawing uses only +, −, ×, ÷ and √, which IEEE 754 defines to the last bit (angles are rational points on the
circle).
"""
import numpy as np

from ..errors import UserError
from ..ops.random_bits import hash_combine, mix, uniform
from .dataset import Dataset, ImageSet, records_checksum

CLASSES = ("disc", "ring", "square", "frame", "triangle", "plus", "star", "crescent", "stripes", "checkerboard")
TRAIN, TEST = 0, 1
CHUNK = 250                                                                  # images drawn at a time, to stay in cache
RADIUS = 0.28, 0.42                                                          # of the image's side
TILT = 0.1                                                                   # tangent of half the largest angle, 11°
CONTRAST = 0.35, 0.5                                                         # of full brightness, in each channel
NOISE = 0.16                                                                 # uniform in ±NOISE/2 of full brightness


# Signed distance to each shape's outline, negative inside. u, v: the pixel in the shape's own frame, where the shape
# about fills the unit disc.

def box(u, v, half_u, half_v):
    """A rectangle around the middle."""
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def bars(u, period):
    """Parallel bars across u, each half a period wide."""
    u = u / period
    return (np.abs(u - np.floor(u) - 0.5) - 0.25) * period


def disc(u, v, radius=0.85):
    """A disc around the middle."""
    return np.sqrt(u * u + v * v) - radius


def ring(u, v):
    """A circle with a thick line."""
    return np.abs(disc(u, v, 0.75)) - 0.17


def square(u, v):
    """A filled square."""
    return box(u, v, 0.75, 0.75)


def frame(u, v):
    """A square with a thick line."""
    return np.abs(box(u, v, 0.65, 0.65)) - 0.16


def triangle(u, v):
    """A triangle with equal sides."""
    return np.maximum(np.abs(u) * 0.8660254 + v * 0.5, -v) - 0.5             # three half-planes, normals 120° apart


def plus(u, v):
    """A cross of two bars."""
    return np.minimum(box(u, v, 0.95, 0.27), box(u, v, 0.27, 0.95))


def star(u, v):
    """A pentagram is where at least four of its five half-planes hold: the second largest of five distances."""
    largest = second = np.full_like(u, -np.inf)
    for normal_u, normal_v in ((0.0, 1.0), (0.95105652, 0.30901699), (-0.95105652, 0.30901699),
                               (0.58778525, -0.80901699), (-0.58778525, -0.80901699)):
        distance = u * normal_u + v * normal_v
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return second - 0.34


def crescent(u, v):
    """A disc without a smaller disc at its right."""
    return np.maximum(disc(u, v, 0.92), -disc(u - 0.5, v, 0.72))


def stripes(u, v):
    """Upright bars, cut to a disc."""
    return np.maximum(disc(u, v, 0.95), bars(u, 0.62))


def checkerboard(u, v):
    """Squares in two directions, cut to a disc."""
    a, b = bars(u, 0.95), bars(v, 0.95)
    return np.maximum(disc(u, v, 0.95), np.maximum(np.minimum(a, b), -np.maximum(a, b)))   # inside exactly one of both


SIGNED_DISTANCE = (disc, ring, square, frame, triangle, plus, star, crescent, stripes, checkerboard)


def draw(labels, keys, img_size=32):
    """Draw one image a label.

    labels (n,) ints 0…9   keys (n,) uint64, all randomness of an image   →   images (n, 3, S, S) uint8
    """
    number = iter(range(64))

    def rand(low, high):                                                     # (n,) in [low, high), fresh at each call
        return (low + (high - low) * uniform(hash_combine(keys, next(number)))).astype(np.float32)

    radius = img_size * rand(*RADIUS)
    room = 0.5 * img_size - 0.9 * radius                                     # nine tenths of the shape stay inside
    centre_x = 0.5 * img_size + room * rand(-1, 1)
    centre_y = 0.5 * img_size + room * rand(-1, 1)
    half_tan = rand(-TILT, TILT)                                             # t = tan(angle / 2)
    cos = (1 - half_tan * half_tan) / (1 + half_tan * half_tan)
    sin = 2 * half_tan / (1 + half_tan * half_tan)
    background = np.stack([rand(0, 0.5) for _ in range(3)], axis=1)          # (n, 3)
    foreground = background + np.stack([rand(*CONTRAST) for _ in range(3)], axis=1)
    swap = (rand(0, 1) < 0.5)[:, None]                                       # a dark shape on a light background
    background = np.where(swap, 1 - background, background)
    foreground = np.where(swap, 1 - foreground, foreground)

    pixel = np.arange(img_size, dtype=np.float32) + np.float32(0.5)
    images = np.empty((len(labels), 3, img_size, img_size), dtype=np.uint8)
    by_class = np.argsort(labels, kind="stable")
    for label, distance in enumerate(SIGNED_DISTANCE):
        mine = by_class[labels[by_class] == label]
        for start in range(0, len(mine), CHUNK):
            i = mine[start:start + CHUNK]
            r, c, s = radius[i, None, None], cos[i, None, None], sin[i, None, None]
            x = (pixel[None, None, :] - centre_x[i, None, None]) / r         # (m, 1, S)
            y = (centre_y[i, None, None] - pixel[None, :, None]) / r         # (m, S, 1), upwards
            mask = np.clip(np.float32(0.5) - distance(c * x + s * y, c * y - s * x) * r, 0, 1)   # soft over one pixel
            bg, fg = background[i, :, None, None], foreground[i, :, None, None]
            image = bg + (fg - bg) * mask[:, None]                           # (m, 3, S, S)
            image = image + (noise(keys[i], image.shape[1:]) - np.float32(0.5)) * np.float32(NOISE)
            images[i] = np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)
    return images


def noise(keys, shape):
    """Bytes of a counter hash, as float32 in [0, 1): (m,) keys → (m, *shape)"""
    size = int(np.prod(shape))
    words = mix(hash_combine(keys, -1)[:, None] + np.arange(1, -(-size // 8) + 1, dtype=np.uint64)
                * np.uint64(0x9E3779B97F4A7C15))                             # SplitMix64's sequence, eight bytes a step
    return words.astype("<u8").view(np.uint8)[:, :size].reshape(len(keys), *shape) / np.float32(256)


def generate(num, seed=0, split=TRAIN, img_size=32):
    """num images, classes in turn, as ImageSet. A longer set begins with the shorter one."""
    index = np.arange(num)
    labels = index % len(CLASSES)
    return ImageSet(draw(labels, hash_combine(seed, split, index), img_size), labels)


def load(img_size=None, num_train=20_000, num_test=2_000, seed=0, data_dir=None, download=True, progress=None):
    """The built-in set: 20,000 training and 2,000 test images of 3 × S × S.  Raises UserError if S is out of 16 … 512.

    data_dir, download and progress are what every data set's load takes; nothing is read or fetched here.
    """
    img_size = 32 if img_size is None else img_size
    if not 16 <= img_size <= 512:
        raise UserError(f"shapes: expected an image size of 16 to 512, got {img_size}; choose another img_size")
    train = generate(num_train, seed, TRAIN, img_size)
    test = generate(num_test, seed, TEST, img_size)
    return Dataset("shapes", CLASSES, train, test, records_checksum(train, test),
                   source=f"generated, seed {seed}, {img_size} × {img_size}")
