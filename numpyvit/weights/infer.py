"""The config of a model whose file holds nothing but tensors: most of it is in their shapes, the rest is the
library's habit.
"""
import math
import re

from ..errors import UserError
from .huggingface import ratio

# what the libraries compute with these weights, which no shape tells
HABITS = {
    ("timm", "vit"): {}, ("torchvision", "vit"): {}, ("huggingface", "vit"): {"norm_eps": 1e-12},
    ("google", "vit"): {"act": "gelu_tanh"}, ("big_vision", "vit"): {"act": "gelu_tanh"},
}
WIDE_HEADS = {1280: 16, 1408: 16, 1664: 16}                                  # ViT-H, g, G; all others have heads of 64
SWIN_MAPS = {7: 56, 8: 64, 12: 96}                                           # window → first map, of published models
CVT_EMBEDDINGS = {7: (4, 2), 3: (2, 1)}                                      # kernel → stride and padding


def infer_config(format, family, tensors, given):
    """Tensors under the names here, fields that are known better   →   fields of the family's config, sentences on what
    was assumed. UserError where the tensors are not those of a whole model, or do not tell enough.
    """
    if any("stem.0.conv." in name for name in tensors):
        raise UserError("it holds no config, and shapes do not tell the strides and the max-pooling of a convolutional "
                        "stem; create the model and call numpyvit.load_weights(model, path)")
    try:
        fields, guesses = {"vit": infer_vit, "swin": infer_swin, "cvt": infer_cvt}[family](tensors, given)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"its tensors are not those of a whole {family}: {str(error)[:60]} is missing or has another "
                        "shape") from error
    if format == "big_vision" and fields["pos_embed"] == "none":             # its ViT always has positions
        fields["pos_embed"] = "sincos2d"
        guesses["pos_embed"] = "fixed positions (sincos2d), as the file has no table of them"
    guesses = {name: guess for name, guess in guesses.items() if name not in given}
    return fields | HABITS.get((format, family), {}), describe_guesses(guesses)


def describe_guesses(guesses):
    """{field: what was assumed, in words}   →   a list of one sentence, or of none"""
    if not guesses:
        return []
    return [f"no whole config came with the weights: assumed {listed(guesses.values())}; give {listed(guesses)} if "
            "that is wrong"]


def listed(texts):
    """One text, or several as in "a, b and c"."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def blocks_in(tensors, pattern):
    """How many blocks there are: the largest number in the pattern's place, and one."""
    found = [int(m[1]) for name in tensors if (m := re.match(pattern, name))]
    return max(found) + 1


def classes_in(tensors, name, given):
    """num_classes by the rows of the head called name. UserError where there is none and the caller gave none."""
    if name not in tensors and "num_classes" not in given:
        raise UserError("it has no head; give num_classes")
    return {"num_classes": len(tensors[name])} if name in tensors else {}


def infer_vit(tensors, given):
    """Fields of a ViT, and which are guesses. The image is taken to be square, heads to be 64 wide but for the widest
    models.
    """
    C, in_chans, P, _ = tensors["patch_embed.proj.weight"].shape
    token = "cls_token" in tensors
    table = tensors.get("pos_embed")
    cells = table.shape[1] - token if table is not None else 0
    side = math.isqrt(cells)
    if "img_size" not in given:
        if table is None:
            raise UserError("it has no table of positions, which would tell the size of its images; give img_size")
        if side * side != cells or cells == 0:
            raise UserError(f"its {cells} positions are not those of a square image; give img_size")
    pool = "token" if token else ("avg" if "fc_norm.weight" in tensors else "gap")
    num_heads = max(WIDE_HEADS.get(C) or C // 64, 1)
    if C % 64 and C not in WIDE_HEADS and "num_heads" not in given:
        raise UserError(f"the width {C} does not tell the number of heads; give num_heads")
    guesses = {"num_heads": f"{num_heads} head{'s' * (num_heads > 1)} of width {C // num_heads}",
               "img_size": f"images of {side * P} × {side * P}"}
    if table is None:
        guesses["pos_embed"] = "no positions, as the file has no table of them"
    return {"img_size": side * P, "patch_size": P, "in_chans": in_chans, "embed_dim": C, "num_heads": num_heads,
            "depth": blocks_in(tensors, r"blocks\.(\d{1,3})\."),
            "mlp_ratio": ratio(C, len(tensors["blocks.0.mlp.fc1.weight"])),
            "qkv_bias": "blocks.0.attn.qkv.bias" in tensors, "global_pool": pool,
            "pos_embed": "none" if table is None else "learn",
            "representation_size": len(tensors.get("pre_logits.fc.weight", ())),
            **classes_in(tensors, "head.weight", given)}, guesses


def infer_swin(tensors, given):
    """Fields of a Swin, and which are guesses. The image's size is that of the published models with these windows."""
    C, in_chans, P, _ = tensors["patch_embed.proj.weight"].shape
    stages = blocks_in(tensors, r"layers\.(\d{1,2})\.")
    depths = tuple(blocks_in(tensors, rf"layers\.{i}\.blocks\.(\d{{1,3}})\.") for i in range(stages))
    table = "layers.{}.blocks.{}.attn.relative_position_bias_table"
    tables = [[tensors[table.format(i, j)] for j in range(depth)] for i, depth in enumerate(depths)]
    windows = [(math.isqrt(len(stage[0])) + 1) // 2 for stage in tables]
    M = max(windows)
    small = next((i for i, side in enumerate(windows) if side < M), None)
    if small is not None:                                                    # a map smaller than the window
        side = windows[small] * 2**small
    else:
        side = max(SWIN_MAPS.get(M, 0), M * 2**(stages - 1))
    check_windows(windows, tables, side)
    return {"img_size": side * P, "patch_size": P, "in_chans": in_chans, "embed_dim": C, "window_size": M,
            "depths": depths, "num_heads": tuple(stage[0].shape[1] for stage in tables),
            "mlp_ratio": ratio(C, len(tensors["layers.0.blocks.0.mlp.fc1.weight"])),
            "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in tensors,
            **classes_in(tensors, "head.fc.weight", given)}, {"img_size": f"images of {side * P} × {side * P}"}


def check_windows(windows, tables, side):
    """UserError unless the windows are those of one window_size: as long as the map where that is smaller.

    windows: one side a stage   tables: of biases, a list a stage   side: of the first map
    """
    for i, (M, stage) in enumerate(zip(windows, tables)):
        if M != min(side, max(windows)) or any(len(table) != len(stage[0]) for table in stage):
            raise UserError(f"its windows have sides of {', '.join(map(str, windows))} in its stages; expected one "
                            f"window_size in all blocks, smaller only where the map is; stage {i} has another")
        side = (side + 1) // 2


def infer_cvt(tensors, given):
    """Fields of a CvT, and which are guesses. Strides and paddings are those of the published models with these
    kernels.
    """
    stages = blocks_in(tensors, r"stage(\d)\.")
    embeds = [tensors[f"stage{i}.patch_embed.proj.weight"].shape for i in range(stages)]
    widths, kernels = tuple(shape[0] for shape in embeds), tuple(shape[2] for shape in embeds)
    if "patch_strides" not in given and not all(kernel in CVT_EMBEDDINGS for kernel in kernels):
        raise UserError(f"kernels of {kernels} do not tell their strides; give patch_strides and patch_paddings")
    strides, paddings = zip(*(CVT_EMBEDDINGS.get(kernel, (1, 0)) for kernel in kernels))
    if any(C % 64 for C in widths) and "num_heads" not in given:
        raise UserError(f"the widths {widths} do not tell the numbers of heads; give num_heads")
    num_heads = tuple(max(C // 64, 1) for C in widths)
    guesses = {"num_heads": f"{listed(map(str, num_heads))} heads", "img_size": "images of 224 × 224",
               "patch_strides": f"strides of {listed(map(str, strides))}"}
    conv = tensors.get("stage0.blocks.0.attn.conv_proj_q.conv.weight")
    return {"img_size": 224, "in_chans": embeds[0][1], "embed_dims": widths, "num_heads": num_heads,
            "patch_sizes": kernels, "patch_strides": strides, "patch_paddings": paddings,
            "depths": tuple(blocks_in(tensors, rf"stage{i}\.blocks\.(\d{{1,3}})\.") for i in range(stages)),
            "cls_token": f"stage{stages - 1}.cls_token" in tensors,
            "qkv_kernel": conv.shape[2] if conv is not None else 3,
            "mlp_ratio": ratio(widths[0], len(tensors["stage0.blocks.0.mlp.fc1.weight"])),
            "qkv_bias": "stage0.blocks.0.attn.proj_q.bias" in tensors,
            **classes_in(tensors, "head.weight", given)}, guesses
