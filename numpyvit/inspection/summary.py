"""A model as a table of its layers: output shape, parameters, multiply-adds, activation bytes. Arithmetic alone: nothing runs
and no weight is allocated, so the largest preset takes a moment.

    multiply-adds   of the products and convolutions for one image: (m, k) · (k, n) is m·k·n. Norms, activations, softmax and
                    pooling are not counted. Twice as many FLOPs; a training step takes three times those.
    activations     bytes that the layer writes for one image: its output, and for attention the probabilities, too. Nearly all
                    of it is kept until the backward pass.
"""
import math
from dataclasses import dataclass, replace

from ..layers import AvgPool
from ..models import FAMILIES, model_config
from ..models.cvt import CvT
from ..models.swin import Swin
from ..models.vit import ViT
from ..module import Model, pair
from ..ops.avg_pool import window_cells
from ..ops.conv import output_size


@dataclass(frozen=True)
class Layer:
    """One row, or several added up. shape: the output's for one image, channels last."""
    name: str
    kind: str
    shape: tuple
    parameters: int = 0
    macs: int = 0
    activation_bytes: int = 0


def summary(model, dtype="float32", **overrides):
    """The layers of a model in the order of its forward pass.

    model: a Model, or the name of a preset or family, whose fields the overrides change.   dtype: of the activations of a name
    →   [Layer]
    Raises ValueError for an unknown name or field.
    """
    if not isinstance(model, Model):
        family, config = model_config(model, **overrides)
        model = FAMILIES[family][1](config, materialise=False)
    elif hasattr(model, "flat"):                                             # materialised
        dtype = model.dtype
    itemsize = 8 if str(dtype) == "float64" else 4
    rows = next(rows for cls, rows in ROWS.items() if isinstance(model, cls))(model)
    rows = [replace(row, activation_bytes=row.activation_bytes * itemsize) for row in rows]
    assert sum(row.parameters for row in rows) == model.num_parameters()
    return rows


def by_block(layers):
    """The same rows with those of one block (and of anything else of one name before the first dot) added up."""
    groups = {}
    for layer in layers:
        parts = layer.name.split(".")
        end = parts.index("blocks") + 2 if "blocks" in parts else 2 if parts[0].startswith(("layers", "stage")) else 1
        end += parts[0] == "layers" and "blocks" not in parts                # layers.1.downsample
        groups.setdefault(".".join(parts[:end]), []).append(layer)
    return [group[0] if len(group) == 1 else total(name, group) for name, group in groups.items()]


def total(name, layers):
    kind = "block" if "blocks" in name else "+".join(dict.fromkeys(layer.kind for layer in layers))
    sums = (sum(getattr(layer, field) for layer in layers) for field in ("parameters", "macs", "activation_bytes"))
    return Layer(name, kind, layers[-1].shape, *sums)


# --- the rows of a layer; sizes in elements

def size(module):
    return sum(p.size for _, p in module.named_parameters())


def linear(name, module, tokens):
    """module: a Linear or the Conv of a patch embedding, whose every patch is a row of its matrix."""
    c_out = module.weight.shape[0]
    return Layer(name, "linear", (*tokens, c_out), size(module), math.prod(tokens) * module.weight.size, math.prod(tokens) * c_out)


def norm(name, module, tokens, kind="layer norm"):
    C = module.weight.shape[0]
    return Layer(name, kind, (*tokens, C), size(module), 0, math.prod(tokens) * C)


def conv(name, module, out):
    """module: a Conv, depthwise where its weight says so; out: (H, W) of its output"""
    kind = "depthwise conv" if module.weight.shape[1] == 1 else "conv"
    return replace(linear(name, module, out), kind=kind)


def attention(name, N, S, C, nh, groups=1):
    """Two products, q · kᵀ and attn · v, in groups (windows) of N queries and S keys."""
    return Layer(name, "attention", (groups * N, C), 0, 2 * groups * N * S * C, groups * (nh * N * S + N * C))


def mlp(name, module, tokens):
    fc1, fc2 = (linear(f"{name}.{fc}", getattr(module, fc), tokens) for fc in ("fc1", "fc2"))
    return [fc1, Layer(f"{name}.act", module.act, fc1.shape, 0, 0, fc1.activation_bytes), fc2]


# --- the rows of a family

def vit_rows(model):
    config, N = model.config, (model.tokens,)
    patches = math.prod(config.grid)
    rows = stem_rows("patch_embed", model.patch_embed, pair(config.img_size)) if config.stem_widths else []
    rows += [replace(linear("patch_embed.proj" if rows else "patch_embed", model.patch_embed.proj, (patches,)), kind="patches")]
    added = {"class": model.cls_token, "positions": model.pos_embed or config.pos_embed != "none"}
    if any(added.values()):
        extra = sum(p.size for p in (model.cls_token, model.pos_embed) if p)
        kind = ", ".join(what for what, there in added.items() if there)
        rows += [Layer("tokens", kind, (*N, config.embed_dim), extra, 0, N[0] * config.embed_dim)]
    for i, block in enumerate(model.blocks):
        rows += self_attention_block(f"blocks.{i}", block, N, attention(f"blocks.{i}.attn", *N, *N, config.embed_dim, config.num_heads),
                                     config.norm_order == "pre")
    for name in ("norm", "fc_norm"):
        if getattr(model, name):
            rows += [norm(name, getattr(model, name), ())]                   # the pooled token alone
    return rows + [linear("head", model.head, ())]


def stem_rows(path, embed, size):
    """A convolutional stem, all but its last, 1×1 convolution. size: (H, W) of the images"""
    rows = []
    for i, layer in enumerate(embed.stem):
        size = tuple(output_size(n, 3, layer.stride, 1) for n in size)
        bn = norm(f"{path}.stem.{i}.bn", layer.bn, size, "batch norm")
        rows += [conv(f"{path}.stem.{i}.conv", layer.conv, size), bn, replace(bn, name=f"{path}.stem.{i}.act", kind=layer.act, parameters=0)]
    return rows


def self_attention_block(path, block, tokens, attend, pre=True, table=0):
    """ViT's block and Swin's. attend: the row of the attention itself; table: parameters that belong to it."""
    attn = [linear(f"{path}.attn.qkv", block.attn.qkv, tokens), replace(attend, shape=(*tokens, attend.shape[-1]), parameters=table),
            linear(f"{path}.attn.proj", block.attn.proj, tokens)]
    norm1, norm2 = (norm(f"{path}.{name}", getattr(block, name), tokens) for name in ("norm1", "norm2"))
    branches = [norm1, *attn, norm2, *mlp(f"{path}.mlp", block.mlp, tokens)]
    return branches if pre else [*branches[1:4], norm1, *branches[5:], norm2]


def swin_rows(model):
    config = model.config
    _, H, W, _, _ = next(config.stages())
    rows = [replace(linear("patch_embed.proj", model.patch_embed.proj, (H, W)), kind="patches"),
            norm("patch_embed.norm", model.patch_embed.norm, (H, W))]
    for i, (layer, (C, H, W, M, _)) in enumerate(zip(model.layers, config.stages())):
        if layer.downsample:
            merged = norm(f"layers.{i}.downsample.norm", layer.downsample.norm, (H, W))
            rows += [merged, linear(f"layers.{i}.downsample.reduction", layer.downsample.reduction, (H, W))]
        for j, block in enumerate(layer.blocks):
            path, windows = f"layers.{i}.blocks.{j}", len(block.attn.index) // M**2
            attend = attention(f"{path}.attn", M**2, M**2, C, config.num_heads[i], windows)
            rows += self_attention_block(path, block, (H, W), attend, table=block.attn.relative_position_bias_table.size)
    return rows + [norm("norm", model.norm, (H, W)), linear("head", model.head.fc, ())]


def cvt_rows(model):
    config, rows = model.config, []
    for i, stage in enumerate(model.stages):
        C, token = config.embed_dims[i], int(stage.cls_token is not None)
        N = (math.prod(stage.size) + token,)
        rows += [conv(f"stage{i}.patch_embed.proj", stage.patch_embed.proj, stage.size),
                 norm(f"stage{i}.patch_embed.norm", stage.patch_embed.norm, stage.size)]
        if token:
            rows += [Layer(f"stage{i}.cls_token", "class", (*N, C), stage.cls_token.size, 0, N[0] * C)]
        for j, block in enumerate(stage.blocks):
            rows += conv_attention_block(f"stage{i}.blocks.{j}", block, stage.size, token)
    tokens = () if config.cls_token else N
    return rows + [norm("norm", model.norm, tokens), linear("head", model.head, ())]


def conv_attention_block(path, block, grid, token):
    attn, N, rows = block.attn, (math.prod(grid) + token,), []
    for name in "qkv":
        before, out = getattr(attn, f"conv_proj_{name}"), grid
        if isinstance(before, AvgPool):
            out = tuple(window_cells(n, before.kernel, before.stride, before.kernel // 2)[0] for n in grid)
            rows += [Layer(f"{path}.attn.conv_proj_{name}", "average pool", (*out, attn.proj_q.weight.shape[1]), 0, 0,
                           math.prod(out) * attn.proj_q.weight.shape[1])]
        elif before:
            out = tuple(output_size(n, before.conv.weight.shape[-1], before.conv.stride, before.conv.padding) for n in grid)
            rows += [conv(f"{path}.attn.conv_proj_{name}.conv", before.conv, out)]
            if before.bn:
                rows += [norm(f"{path}.attn.conv_proj_{name}.bn", before.bn, out, "batch norm")]
        rows += [linear(f"{path}.attn.proj_{name}", getattr(attn, f"proj_{name}"), (math.prod(out) + token,))]
        S = math.prod(out) + token
    rows += [attention(f"{path}.attn", *N, S, attn.proj.weight.shape[0], attn.num_heads), linear(f"{path}.attn.proj", attn.proj, N)]
    return [norm(f"{path}.norm1", block.norm1, N), *rows, norm(f"{path}.norm2", block.norm2, N), *mlp(f"{path}.mlp", block.mlp, N)]


ROWS = {ViT: vit_rows, Swin: swin_rows, CvT: cvt_rows}


# --- on the screen

def run(name, overrides=None, console=None, every_layer=False):
    """Print the table of a preset or family, a row a block, or a row a layer.   overrides: {field: value}"""
    from .trace import new_table, show
    layers = summary(name, **(overrides or {}))
    table = new_table("layer", "kind", "output", "parameters", "multiply-adds", "activations")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in layers if every_layer else by_block(layers):
        table.add_row(row.name, row.kind, "×".join(map(str, row.shape)), *numbers(row))
    table.columns[0].footer = name
    for column, number in zip(table.columns[3:], numbers(total(name, layers))):
        column.footer = number
    table.show_footer = True
    show(table, console)


def numbers(row):
    """The three columns of numbers; nothing where there is nothing."""
    return (f"{row.parameters:,}" if row.parameters else "", amount(row.macs, 1000, "", "k", "M", "G", "T"),
            amount(row.activation_bytes, 1024, "B", "KiB", "MiB", "GiB", "TiB"))


def amount(n, base, *units):
    """1234567 → "1.23 M": three digits and a unit"""
    if not n:
        return ""
    power = min(int(math.log(n, base)), len(units) - 1)
    value = n / base**power
    return f"{value:.{max(0, 2 - int(math.log10(max(value, 1))))}f} {units[power]}".strip()
