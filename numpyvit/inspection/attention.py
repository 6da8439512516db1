"""What a model looks at, as arrays: attention by block and head, rollout, distances, positions, filters, biases, saliency.

    blocks = attention_blocks(model, images)                 # one forward pass
    attention_map(choose(blocks, "blocks.3"), head=1)        # (H, W): where the class token looks
    rollout(blocks); mean_attention_distance(blocks)

All three families come out alike: a block's attention is between the tokens of its map, row-major behind the class token where
there is one. Swin's windows are put back where they were cut (shift and padding undone); a key of CvT, which its convolution
made of several tokens, shares its weight among them. plots.py draws what these functions return.
"""
import math
from dataclasses import dataclass
from typing import Callable

import numpy as np

from ..errors import UserError
from ..layers import AvgPool
from ..models.cvt import CvT
from ..models.embed import ConvStem
from ..models.swin import Swin
from ..models.vit import ViT
from ..module import pair
from ..ops.avg_pool import window_cells
from ..ops.conv import output_size


@dataclass
class BlockAttention:
    """The attention of one block for the images of one forward pass.

    name: of the block in the model.   grid: (H, W) of its tokens.   pitch: pixels from token to token.   class_token: 0 or 1,
    how many tokens stand before the grid's.   stage: which one, from 0.   embed: (kernel, stride, padding), how a token of
    this stage was made of the tokens of the stage before, or of pixels.
    probs(b) → (nh, N, N) for image b, N = class_token + H·W. Rows sum to 1, but for what Swin's tokens give to padding.
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


def attention_blocks(model, images):
    """The attention of every block, from the first to the last.   images (B, C, H, W), normalised   →   [BlockAttention]

    (nh, N, N) is built when probs is called: at 224 pixels, a block of Swin's first stage takes over 100 MB.
    """
    _, cache = model.forward(images)
    maps, blocks, pitch = iter(model.attention_maps(cache)), [], 1
    for i, (prefix, modules, grid, class_token, embed) in enumerate(stages(model)):
        pitch *= embed[1]
        for j, module in enumerate(modules):
            attn = next(maps)
            place = in_image_of(model, module, attn, grid)
            blocks.append(BlockAttention(f"{prefix}.{j}", grid, pitch, class_token, i, embed, attn.shape[1], len(images), place))
    return blocks


def stages(model):
    """(name of the list of blocks, blocks, grid, class tokens, embed) of every stage; a ViT has one"""
    config = model.config
    if isinstance(model, ViT):
        P = config.patch_size
        yield "blocks", model.blocks, config.grid, int(model.cls_token is not None), (P, P, 0)
    elif isinstance(model, Swin):
        for i, (layer, (_, H, W, _, _)) in enumerate(zip(model.layers, config.stages())):
            side = 2 if i else config.patch_size
            yield f"layers.{i}.blocks", layer.blocks, (H, W), 0, (side, side, 0)
    else:
        embeds = zip(config.patch_sizes, config.patch_strides, config.patch_paddings)
        for i, (stage, embed) in enumerate(zip(model.stages, embeds)):
            yield f"stage{i}.blocks", stage.blocks, stage.size, int(stage.cls_token is not None), embed


def in_image_of(model, module, attn, grid):
    """How the probabilities of a block become those between the tokens of its map: a function of the image's number."""
    if isinstance(model, Swin):
        return lambda b: from_windows(attn, module.attn.index, math.prod(grid), b)
    if isinstance(model, CvT):
        return lambda b: from_keys(attn[b], module.attn.conv_proj_k, grid)
    return lambda b: attn[b]


def from_windows(attn, index, N, b):
    """Swin: windows (B·nW, nh, M², M²) and the token that stands in each of their places, −1 for padding   →   (nh, N, N)"""
    nh, M2 = attn.shape[1:3]
    places = index.reshape(-1, M2)                                           # (nW, M²)
    dense = np.zeros((nh, N + 1, N + 1), attn.dtype)                         # −1, the padding, is a last token for now
    windows = attn[b * len(places):(b + 1) * len(places)]
    dense[:, places[:, :, None], places[:, None, :]] = windows.transpose(1, 0, 2, 3)
    return dense[:, :N, :N]


def from_keys(attn, conv, grid):
    """CvT: (nh, N, S) on keys that a strided convolution (or pooling) made   →   (nh, N, N) on the tokens it made them of"""
    if conv is None:
        return attn
    tokens = attn.shape[1] - math.prod(grid)
    rows, columns = (key_sources(conv, n) for n in grid)                     # (Ho, H), (Wo, W)
    keys = attn[..., tokens:].reshape(*attn.shape[:2], len(rows), len(columns))
    spread = (rows.T @ keys @ columns).reshape(*attn.shape[:2], -1)
    return np.concatenate([attn[..., :tokens], spread], axis=-1)


def key_sources(conv, n):
    """Along one axis: the share of every token in every key   →   (keys, n)"""
    if isinstance(conv, AvgPool):
        kernel, stride, padding = conv.kernel, conv.stride, conv.kernel // 2
        return sources(n, window_cells(n, kernel, stride, padding)[0], kernel, stride, padding)
    kernel, stride, padding = conv.conv.weight.shape[-1], conv.conv.stride, conv.conv.padding
    return sources(n, output_size(n, kernel, stride, padding), kernel, stride, padding)


def sources(n, count, kernel, stride, padding):
    """Equal shares of the cells that each of count windows covers, of n along an axis   →   (count, n), rows summing to 1"""
    start = np.arange(count)[:, None] * stride - padding
    covers = (np.arange(n) >= start) & (np.arange(n) < start + kernel)
    return covers / np.maximum(covers.sum(axis=1, keepdims=True), 1)


# --- of one forward pass

def choose(blocks, block=None):
    """A block by its number (−1: the last) or name; the last unless given. UserError, with what there is, for any other."""
    if block is None:
        return blocks[-1]
    for i, candidate in enumerate(blocks):
        if str(block) in (candidate.name, str(i), str(i - len(blocks))):
            return candidate
    raise UserError(f"block {block!r}: this model has {len(blocks)}, 0 to {len(blocks) - 1}, by name {blocks[0].name} to {blocks[-1].name}")


def attention_map(block, image=0, head=None, query=None):
    """Where one query looks.   head: the mean of all unless given   query: (y, x) of a pixel; unless given the class token, or
    where there is none, the mean of all queries   →   (H, W) on the block's grid

    Raises UserError for a head or pixel that is not there.
    """
    H, W = block.grid
    attn = block.probs(checked("image", image, block.batch))                 # (nh, N, N)
    attn = attn.mean(axis=0) if head is None else attn[checked("head", head, block.num_heads, f"{block.name} has")]
    if query is not None:
        y, x = (checked(f"query {axis}", at, n * block.pitch, "the image has", "pixels") // block.pitch
                for axis, at, n in zip("yx", query, block.grid))
        row = attn[block.class_token + y * W + x]
    else:
        row = attn[0] if block.class_token else attn.mean(axis=0)
    return row[block.class_token:].reshape(H, W)


def checked(what, number, count, where="there are", things=""):
    if not (isinstance(number, (int, np.integer)) and 0 <= number < count):
        raise UserError(f"{what} {number}: {where} {count}{' ' + things if things else ''}, 0 to {count - 1}")
    return number


def rollout(blocks, residual=0.5):
    """How much of each patch has reached what is classified, if every block only mixed tokens by attention.

        r ← e · Π from the last block to the first of (residual · 1 + (1 − residual) · mean over heads of attn)

    e picks the class token, or takes the mean of the tokens. Between two stages a token's share is divided among those it was
    made of.   →   (B, H, W) on the grid of the first stage, each summing to 1
    Abnar, Zuidema 2020, "Quantifying attention flow in transformers", section 3
    """
    return np.stack([rollout_of_image(blocks, b, residual) for b in range(blocks[0].batch)])


def rollout_of_image(blocks, b, residual):
    last = blocks[-1]
    N = last.class_token + math.prod(last.grid)
    r = np.eye(1, N)[0] if last.class_token else np.full(N, 1 / N)
    for i, block in reversed(list(enumerate(blocks))):
        attn = block.probs(b).mean(axis=0, dtype=np.float64)
        r = residual * r + (1 - residual) * (r @ (attn / attn.sum(axis=1, keepdims=True)))
        if i and blocks[i - 1].stage < block.stage:
            rows, columns = (sources(n, count, *block.embed) for n, count in zip(blocks[i - 1].grid, block.grid))
            shares = (rows.T @ r[block.class_token:].reshape(block.grid) @ columns).ravel()
            r = np.concatenate([np.zeros(blocks[i - 1].class_token), shares])
    shares = r[blocks[0].class_token:].reshape(blocks[0].grid)
    return shares / shares.sum()


def mean_attention_distance(blocks):
    """How far each head looks: the distance from a query's token to its keys', weighted by attention, in pixels; the mean over
    the queries of all images. The class token is left out.   →   {name of the block: (nh,)}
    Dosovitskiy et al. 2021, figure 7 (right)
    """
    return {block.name: np.mean([distance_of_heads(block, b) for b in range(block.batch)], axis=0) for block in blocks}


def distance_of_heads(block, b):
    place = np.stack(np.mgrid[:block.grid[0], :block.grid[1]], axis=-1).reshape(-1, 2) * block.pitch
    far = np.sqrt(((place[:, None] - place) ** 2).sum(axis=-1))              # (H·W, H·W) pixels
    attn = block.probs(b)[:, block.class_token:, block.class_token:]
    return ((attn * far).sum(axis=-1) / attn.sum(axis=-1)).mean(axis=-1)


# --- of the weights alone

def position_similarity(model):
    """Cosine of every two rows of the position table, learned or fixed, class token left out.   →   (H, W, H, W)
    Dosovitskiy et al. 2021, figure 7 (centre).   UserError for a model without a table.
    """
    table = None
    if isinstance(model, ViT):
        table = model.pos_embed.data if model.pos_embed else model.fixed_positions
    if table is None:
        instead = {Swin: "relative position biases", CvT: "its convolutions alone"}.get(type(model), "none (pos_embed)")
        raise UserError(f"this {type(model).__name__} has no position table: it knows positions from {instead}")
    table = table[0, int(model.cls_token is not None):].astype(np.float64)
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-30)
    return (unit @ unit.T).reshape(*model.config.grid, *model.config.grid)


def patch_filters(model, count=28):
    """The principal components of the patch embedding's filters: the patterns that they are mixtures of.

    →   components (n, in_chans, P, P) of unit norm, and their shares of the variance (n,), largest first; n ≤ count.
    A convolutional stem's filters are those of its first convolution, P = 3.
    Dosovitskiy et al. 2021, figure 7 (left)
    """
    embed = model.stages[0].patch_embed if isinstance(model, CvT) else model.patch_embed
    weight = (embed.stem[0].conv if isinstance(embed, ConvStem) else embed.proj).weight.data
    filters = weight.reshape(len(weight), -1).astype(np.float64)
    _, sizes, components = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)
    share = sizes**2 / max((sizes**2).sum(), 1e-300)
    return components[:count].reshape(-1, *weight.shape[1:]), share[:count]


def relative_position_bias(model):
    """Swin's tables, laid out by offset: [h, Δy + M − 1, Δx + M − 1] is what head h adds to the score of a key that is Δy rows
    above and Δx columns left of its query.   →   {name of the block: (nh, 2M − 1, 2M − 1)}.   UserError for other families.
    """
    if not isinstance(model, Swin):
        raise UserError(f"this {type(model).__name__} has no relative position biases: only Swin models do")
    tables = {f"{prefix}.{j}": block.attn.relative_position_bias_table.data
              for prefix, blocks, *_ in stages(model) for j, block in enumerate(blocks)}
    return {name: table.T.reshape(table.shape[1], *[math.isqrt(len(table))] * 2) for name, table in tables.items()}


# --- of the gradient

def saliency(model, images, classes=None):
    """The largest change of a class's logit that one pixel can cause, per unit of change: max over channels of |∂logit/∂image|.

    images (B, C, H, W)   classes (B,), those predicted unless given   →   (B, H, W).   The model's gradients are left alone.
    Simonyan, Vedaldi, Zisserman 2014, section 3
    """
    twin = model.replica()                                                   # the same weights, gradients of its own
    logits, cache = twin.forward(images)
    classes = logits.argmax(axis=1) if classes is None else np.asarray(classes)
    if classes.shape != (len(logits),) or not ((0 <= classes) & (classes < logits.shape[1])).all():
        raise UserError(f"classes: expected {len(logits)} numbers from 0 to {logits.shape[1] - 1}, got {classes.tolist()}")
    dlogits = np.eye(logits.shape[1], dtype=logits.dtype)[classes]
    return np.abs(twin.backward(dlogits, cache)).max(axis=1)


def image_size(model):
    return pair(model.config.img_size)
