"""Which library's names a file has, and the file's tensors under the names here."""
import math
import re
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..models import FAMILIES
from ..ops.relative_position import relative_position_index
from ..ops.windows import shifted_window_mask
from .names import count_matches, find_row, to_here, to_there
from .tables import TABLES

TITLES = {"timm": "timm", "google": "Google", "big_vision": "big_vision", "huggingface": "Hugging Face",
          "torchvision": "torchvision", "microsoft": "microsoft"}
FAMILY_TITLES = {name: family.model.__name__ for name, family in FAMILIES.items()}
FLAX_PREFIXES = ("opt/target/", "params/img/", "params/")
SWIN_BUFFERS = ("relative_position_index", "attn_mask")
STEM = re.compile(r"(patch_embed\.)?stem\.\d+\.")                           # names of this library alone


class Recognised(NamedTuple):
    """format and family of a file, its tensors under the names here, and what the shapes there tell of the config."""
    format: str
    family: str
    tensors: dict
    known: dict

    @property
    def title(self):
        return f"{FAMILY_TITLES[self.family]} in {TITLES.get(self.format, self.format)}'s names"


def recognise(tensors):
    """{name: array} as it stands in a file → Recognised. UserError where hardly a name is known, or a buffer is
    wrong.
    """
    tensors = unstack_blocks(remove_flax_prefix(tensors))
    names = [name for name in tensors if not name.endswith(SWIN_BUFFERS) and not STEM.match(name)]
    matches = {key: count_matches(rows, names) for key, rows in TABLES.items()}
    format, family = max(matches, key=matches.get)
    if matches[format, family] <= len(names) / 2:
        some = ", ".join(name[:60] for name in names[:3]) or "none"
        raise UserError(f"names of no library that is known here, such as {some}; expected those of "
                        f"{', '.join(TITLES.values())}, for ViT, Swin or CvT")
    rows, known = TABLES[format, family], {}
    if format in ("google", "big_vision"):                                   # (C, nh, hd)
        known = {"num_heads": a.shape[1] for n, a in tensors.items() if n.endswith("/query/kernel") and a.ndim == 3}
    if family == "swin":
        tensors = without_buffers(tensors, rows)
    here = to_here(rows, tensors)
    if format == "big_vision" and "cls_token" in here and np.ndim(here.get("pos_embed")) == 3:
        table = here["pos_embed"]                                            # big_vision's class token has no position
        here["pos_embed"] = np.concatenate([np.zeros_like(table[:, :1]), table], axis=1)
    return Recognised(format, family, here, known)


# --- Google and big_vision

def remove_flax_prefix(tensors):
    """Google's and big_vision's trees may stand inside another: opt/target/… → …; what stands beside is dropped."""
    for prefix in FLAX_PREFIXES:
        if any(name.startswith(f"{prefix}Transformer/") or name.startswith(f"{prefix}embedding/") for name in tensors):
            return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    return tensors


def unstack_blocks(tensors):
    """big_vision may keep all blocks as one, with the depth as the first axis: Transformer/encoderblock/… →
    encoderblock_0/… …
    """
    stacked, result = "Transformer/encoderblock/", {}
    for name, array in tensors.items():
        if name.startswith(stacked) and np.ndim(array) > 0:
            rest = name.removeprefix(stacked)
            result |= {f"Transformer/encoderblock_{i}/{rest}": layer for i, layer in enumerate(array[:1000])}
        else:
            result[name] = array
    return result


# --- the buffers of Swin: constants that older files hold

def without_buffers(tensors, rows):
    """The tensors without relative_position_index and attn_mask, which are computed here; UserError if theirs differ.
    """
    windows = {}                                                             # (i, j) → M, from the tables of biases
    for name, array in tensors.items():
        if name.endswith("relative_position_bias_table"):
            _, values = find_row(rows, name, "there")
            side = round(np.sqrt(len(array))) if array.ndim == 2 else 0
            windows[name.removesuffix("relative_position_bias_table")] = (side + 1) // 2
            windows |= {(values["i"], values["j"]): (side + 1) // 2} if values else {}
    kept = {}
    for name, array in tensors.items():
        if name.endswith("relative_position_index"):
            M = windows.get(name.removesuffix("relative_position_index"), 0)
            fits = 0 < M < 100 and array.size == M**4                        # before so large an index is made
            if not fits or not np.array_equal(array.reshape(-1), relative_position_index(M).reshape(-1)):
                raise UserError(f"{name} {array.shape} is not the index of windows of {M} × {M}, as its table")
        elif name.endswith("attn_mask"):
            check_mask(name, array)
        else:
            kept[name] = array
    return kept


def check_mask(name, mask):
    """microsoft's mask (nW, M², M²): 0 and −100, as for a map of nW windows that are shifted by half their side."""
    nW, M = (len(mask), math.isqrt(mask.shape[1])) if mask.ndim == 3 else (0, 0)
    fits = 0 < M < 100 and mask.shape == (nW, M * M, M * M) and bool(np.isin(mask, (0, -100)).all())
    maps = [(rows, nW // rows) for rows in range(1, nW + 1) if nW % rows == 0]
    if not fits or not any(np.array_equal(mask == 0, shifted_window_mask(rows * M, columns * M, M, M // 2) == 0)
                           for rows, columns in maps):
        raise UserError(f"{name} {mask.shape} is not the mask of shifted windows, −100 between regions that only the "
                        "shift joins")


# --- the other way

def rename(model, family, format):
    """The model's state_dict under a library's names, with the buffers that the library keeps. UserError where a name
    is missing.
    """
    if (format, family) not in TABLES:
        others = [f for f, of in TABLES if of == family and f != "big_vision"]
        raise UserError(f"format: {TITLES[format]} has no {FAMILY_TITLES[family]}; expected numpyvit, "
                        f"{', '.join(others)}")
    state, config = model.state_dict(), model.config
    if family == "vit":
        if config.norm_order != "pre":
            raise UserError(f"format: {TITLES[format]}'s ViT normalises before each branch, this model after them")
        if "rotary" in config.pos_embed:
            raise UserError(f"format: {TITLES[format]}'s ViT does not turn queries and keys by their places, this "
                            f"model does (pos_embed {config.pos_embed}); numpyvit's own format holds it")
        if "pos_embed" not in state:                 # what they learn may as well be fixed
            fixed, N = model.fixed_positions, math.prod(config.grid) + (config.global_pool == "token")
            state["pos_embed"] = fixed if fixed is not None else np.zeros((1, N, config.embed_dim), model.dtype)

    def num_heads(values):
        return config.num_heads                                              # only flax's tables ask, which are of ViT
    tensors, unknown = to_there(TABLES[format, family], state, num_heads)
    if unknown:
        raise UserError(f"format: {TITLES[format]}'s {FAMILY_TITLES[family]} has no {', '.join(unknown[:3])}")
    if family == "swin" and format in ("microsoft", "torchvision"):
        tensors |= swin_buffers(model, format)
    return tensors


def swin_buffers(model, format):
    """relative_position_index and attn_mask of every block, as that library stores them."""
    buffers = {}
    for i, stage in enumerate(model.layers):
        for j, block in enumerate(stage.blocks):
            prefix = f"layers.{i}.blocks.{j}." if format == "microsoft" else f"features.{2 * i + 1}.{j}."
            attn = block.attn
            index = attn.relative_position_index.astype(np.int64)
            buffers[f"{prefix}attn.relative_position_index"] = index if format == "microsoft" else index.reshape(-1)
            if format == "microsoft" and attn.mask is not None:
                buffers[f"{prefix}attn_mask"] = np.where(attn.mask == 0, np.float32(0), np.float32(-100))
    return buffers


def differences(format, family, config):
    """Where that library computes something else from the same weights, in sentences: for images of the model's size.
    """
    if family == "cvt" and format == "huggingface" and config.act != "gelu":
        return [f"transformers computes GELU by erf in every CvT, this model computes {config.act}: the logits differ"]
    if family != "swin" or format not in ("timm", "torchvision", "huggingface"):
        return []
    sentences = []
    for i, (_, H, W, M, shift) in enumerate(config.stages()):
        if shift and (H % M or W % M) and format == "timm":
            sentences.append(f"timm shifts before it pads, so its windows cross the border of the {H} × {W} map of "
                             f"stage {i} (its issue 2438); here padding comes first, as in the official code: the "
                             "logits differ")
        if not shift and max(H, W) > M and config.depths[i] > 1 and format != "huggingface":
            sentences.append(f"{TITLES[format]} shifts the windows of stage {i} along the longer side of its {H} × {W} "
                             "map; here nothing is shifted, as in the official code: the logits differ")
        if min(H, W) < config.window_size and format != "timm":
            sentences.append(f"{TITLES[format]} has no windows smaller than {config.window_size}; those of stage {i} "
                             f"here are {M} × {M}, as in the official code: the logits differ")
    return sentences
