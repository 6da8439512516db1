"""What a model looks at, as arrays: attention of blocks and heads, rollout, distances, positions, filters, saliency.

    blocks = attention_blocks(model, images)                 # one forward pass
    attention_map(choose(blocks, "blocks.3"), head=1)        # (H, W): where the class token looks
    rollout(blocks); mean_attention_distance(blocks)

All families look alike here: a block's attention is between the tokens of its map, row by row, behind the class token
where there is one. Each family sees to this itself, in in_image of its attention: windows are put back where they were
cut, and the weight of a key is spread over the tokens that a convolution made the key of.
plots.py draws what these functions return.
"""
import functools
import math
from dataclasses import dataclass
from typing import Callable

import numpy as np

from ..checks import check_number
from ..errors import UserError
from ..models.grids import spread_evenly
from ..module import Model, pair


@dataclass
class BlockAttention:
    """The attention of one block for the images of one forward pass.

    name: of the block in the model.   grid: (H, W) of its tokens.   pitch: pixels from token to token.
    class_token: 0 or 1, how many tokens stand before the grid's.   stage: its number, from 0.
    embed: (kernel, stride, padding), how a token of this stage was made of those of the stage before, or of pixels.
    probs(b) → (nh, N, N) for image b, N = class_token + H·W. Rows sum to 1, but for what Swin's tokens give to padding.
    image: (H, W) of the image in pixels, which need not be those of the grid times the pitch; None: they are
    """
    name: str
    grid: tuple
    pitch: int
    class_token: int
    stage: int
    embed: tuple
    num_heads: int
    batch: int
    probs: Callable
    image: tuple | None = None


def attention_blocks(model: Model, images: np.ndarray) -> list[BlockAttention]:
    """The attention of every block, from the first to the last.   images (B, C, H, W), normalised

    (nh, N, N) is built when probs is called: at 224 pixels, a block of Swin's first stage takes over 100 MB.
    """
    _, cache = model.forward(images)
    maps, blocks, pitch = iter(model.attention_maps(cache)), [], 1
    for i, stage in enumerate(model.stages()):
        pitch *= stage.embed[1]
        for j, block in enumerate(stage.blocks):
            probs = next(maps)
            of_image = functools.partial(block.attn.in_image, probs, stage.grid)
            blocks.append(BlockAttention(f"{stage.name}.{j}", stage.grid, pitch, stage.class_token, i, stage.embed,
                                         probs.shape[1], len(images), of_image, pair(model.config.img_size)))
    return blocks


# --- of one forward pass

def choose(blocks: list[BlockAttention], block: int | str | None = None) -> BlockAttention:
    """A block by its number (−1: the last) or name; the last unless given. UserError, which lists them, for others."""
    if block is None:
        return blocks[-1]
    for i, candidate in enumerate(blocks):
        if str(block) in (candidate.name, str(i), str(i - len(blocks))):
            return candidate
    raise UserError(f"block {block!r}: this model has {len(blocks)}, 0 to {len(blocks) - 1}, by name {blocks[0].name} "
                    f"to {blocks[-1].name}")


def attention_map(block: BlockAttention, image: int = 0, head: int | None = None,
                  query: tuple | None = None) -> np.ndarray:
    """Where one query looks.   →   (H, W) on the block's grid

    head: the mean of all heads unless given   query: (y, x) of a pixel, whose token looks; pixels beyond the last
    token count as its own. Without a query, the class token looks; a model without one gives the mean of all queries

    Raises UserError for a head or pixel that is not there.
    """
    H, W = block.grid
    attn = block.probs(checked("image", image, block.batch))                 # (nh, N, N)
    attn = attn.mean(axis=0) if head is None else attn[checked("head", head, block.num_heads, f"{block.name} has")]
    if query is not None:
        size = block.image or (H * block.pitch, W * block.pitch)
        y, x = (min(checked(f"query {axis}", at, pixels, "the image has", "pixels") // block.pitch, n - 1)
                for axis, at, pixels, n in zip("yx", query, size, block.grid))
        row = attn[block.class_token + y * W + x]
    else:
        row = attn[0] if block.class_token else attn.mean(axis=0)
    return row[block.class_token:].reshape(H, W)


def checked(what, number, count, where="there are", things=""):
    """The number, if it is one of count; else a UserError that says how many there are."""
    if not (isinstance(number, (int, np.integer)) and 0 <= number < count):
        raise UserError(f"{what} {number}: {where} {count}{' ' + things if things else ''}, 0 to {count - 1}")
    return number


def rollout(blocks: list[BlockAttention], residual: float = 0.5) -> np.ndarray:
    """How much of each patch has reached what is classified, if every block only mixed tokens by attention.

        r ← e · Π from the last block to the first of (residual · 1 + (1 − residual) · mean over heads of attn)

    e picks the class token, or takes the mean of the tokens. Between two stages a token's share is spread over the
    tokens that it was made of (spread_evenly).   →   (B, H, W) on the grid of the first stage, each summing to 1
    Raises UserError for a residual that is not from 0 to below 1.
    Abnar, Zuidema 2020, "Quantifying attention flow in transformers", section 3
    """
    check_number("residual", residual, least=0, below=1)
    return np.stack([rollout_of_image(blocks, b, residual) for b in range(blocks[0].batch)])


def rollout_of_image(blocks, b, residual):
    """rollout of image b, (H, W)."""
    last = blocks[-1]
    N = last.class_token + math.prod(last.grid)
    r = np.eye(1, N)[0] if last.class_token else np.full(N, 1 / N)
    for i, block in reversed(list(enumerate(blocks))):
        attn = block.probs(b).mean(axis=0, dtype=np.float64)
        r = residual * r + (1 - residual) * (r @ (attn / attn.sum(axis=1, keepdims=True)))
        if i and blocks[i - 1].stage < block.stage:
            shares = spread_evenly(r[block.class_token:].reshape(block.grid), blocks[i - 1].grid, *block.embed)
            r = np.concatenate([np.zeros(blocks[i - 1].class_token), shares.ravel()])
    shares = r[blocks[0].class_token:].reshape(blocks[0].grid)
    return shares / shares.sum()


def mean_attention_distance(blocks: list[BlockAttention]) -> dict[str, np.ndarray]:
    """How far each head looks: the distance from a query's token to its keys' tokens, weighted by attention, in pixels.

    The mean over the queries of all images, without the class token.   →   {name of the block: (nh,)}
    Dosovitskiy et al. 2021, figure 7 (right)
    """
    return {block.name: np.mean([distance_of_heads(block, b) for b in range(block.batch)], axis=0) for block in blocks}


def distance_of_heads(block, b):
    """mean_attention_distance of one block and image b, (nh,)."""
    place = np.stack(np.mgrid[:block.grid[0], :block.grid[1]], axis=-1).reshape(-1, 2) * block.pitch
    far = np.sqrt(((place[:, None] - place) ** 2).sum(axis=-1))              # (H·W, H·W) pixels
    attn = block.probs(b)[:, block.class_token:, block.class_token:]
    return ((attn * far).sum(axis=-1) / attn.sum(axis=-1)).mean(axis=-1)


# --- of the weights alone

def position_similarity(model: Model) -> np.ndarray:
    """Cosine of every two rows of the position table, learned or fixed, class token left out.   →   (H, W, H, W)
    Dosovitskiy et al. 2021, figure 7 (centre).   UserError for a model without a table.
    """
    table = model.position_table()
    if table is None:
        raise UserError(f"this {type(model).__name__} has no position table: it knows positions from "
                        f"{model.positions_from}")
    rows = table.reshape(-1, table.shape[-1]).astype(np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return (unit @ unit.T).reshape(*table.shape[:2], *table.shape[:2])


def patch_filters(model: Model, count: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """The principal components of the filters that look at the pixels: the patterns that the filters are mixtures of.

    →   components (n, in_chans, P, P) of unit norm, and their shares of the variance (n,), largest first; n ≤ count.
    A convolutional stem's filters are those of its first convolution, P = 3.
    Dosovitskiy et al. 2021, figure 7 (left)
    """
    weight = model.embed_filters()
    filters = weight.reshape(len(weight), -1).astype(np.float64)
    _, sizes, components = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)
    share = sizes**2 / max((sizes**2).sum(), 1e-300)
    return components[:count].reshape(-1, *weight.shape[1:]), share[:count]


def relative_position_bias(model: Model) -> dict[str, np.ndarray]:
    """Tables of biases, laid out by offset.   →   {name of the block: (nh, 2M − 1, 2M − 1)}

    Element [h, Δy + M − 1, Δx + M − 1] is what head h adds to the score of a key that lies Δy rows above and Δx columns
    to the left of its query. UserError for a model without such tables.
    """
    tables = model.relative_position_tables()
    if not tables:
        raise UserError(f"this {type(model).__name__} has no relative position biases: it knows positions from "
                        f"{model.positions_from}")
    return tables


# --- of the gradient

def saliency(model: Model, images: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """How much a class's logit changes with each pixel: the maximum over the channels of |∂logit/∂image|.

    images (B, C, H, W)   classes (B,), those predicted unless given   →   (B, H, W).   The model's gradients stay.
    Simonyan, Vedaldi, Zisserman 2014, section 3
    """
    twin = model.replica()                                                   # the same weights, gradients of its own
    logits, cache = twin.forward(images)
    classes = logits.argmax(axis=1) if classes is None else np.asarray(classes)
    numbers = classes.shape == (len(logits),) and classes.dtype.kind in "iu"
    if not numbers or not ((0 <= classes) & (classes < logits.shape[1])).all():
        raise UserError(f"classes: expected {len(logits)} numbers from 0 to {logits.shape[1] - 1}, got "
                        f"{classes.tolist()}")
    dlogits = np.eye(logits.shape[1], dtype=logits.dtype)[classes]
    return np.abs(twin.backward(dlogits, cache)).max(axis=1)
