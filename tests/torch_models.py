"""ViT, Swin and CvT in plain PyTorch: the models ours are compared with.

They serve twice: in float64 their autograd is the oracle for our hand-written gradients, and in float32 they are the
competitors in the benchmark. So they share no code with numpyvit, only field names, parameter names (timm's for ViT and Swin,
microsoft/CvT's for CvT) and torch's weight layout: `load_state_dict` takes our tensors as they are.

Every model maps images (B, in_chans, H, W) to logits (B, K). Nothing here is random: the drop rates must be 0.

Legend: B batch · N tokens · C channels · nh, hd heads and head width · H, W grid · M window side · nW windows · K classes
"""
import dataclasses
import math
from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
}


def build(family, **fields):
    return {"vit": TorchViT, "swin": TorchSwin, "cvt": TorchCvT}[family](**fields)


# ----------------------------------------------------------------------------------------------------------------- all three

def twin_of(model, train=False):
    """The torch model of one of ours, in float64, with its weights and buffers."""
    twin = build(type(model).__name__.lower(), **dataclasses.asdict(model.config)).double().train(train)
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in model.state_dict().items()})
    return twin


def pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def require_zero(**rates):
    for name, rate in rates.items():
        if rate != 0:
            raise ValueError(f"{name}={rate}: these models are deterministic, it must be 0")


def small_normal(*shape):
    return nn.Parameter(nn.init.normal_(torch.empty(*shape), std=0.02))


def init_linear(module):
    """For Module.apply: normal(0.02) weights, zero biases. Convolutions and norms keep torch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PatchEmbed(nn.Module):
    """(B, in_chans, H, W) -> (B, H', W', C); a norm only if it is given an eps"""

    def __init__(self, in_chans, dim, kernel, stride, padding=0, norm_eps=None):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel, stride, padding)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, images):
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class ConvNormAct(nn.Module):
    """(B, Cin, H, W) -> (B, C, H', W')"""

    def __init__(self, in_chans, width, stride, pool, act):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, stride, padding=1, bias=False)
        self.pool = nn.MaxPool2d(pool)
        self.bn = nn.BatchNorm2d(width)
        self.act = ACTIVATIONS[act]

    def forward(self, x):
        return self.act(self.bn(self.pool(self.conv(x))))


def stem_of(in_chans, widths, strides, pools, act):
    """(B, in_chans, H, W) -> (B, C', H', W'); the images themselves without widths"""
    inputs, pools = (in_chans, *widths), pools or [1] * len(widths)
    return nn.Sequential(*[ConvNormAct(*args, act) for args in zip(inputs, widths, strides, pools)])


class ConvStem(nn.Module):
    """Xiao et al. 2021. (B, in_chans, H, W) -> (B, H', W', C); a norm only if it is given an eps"""

    def __init__(self, in_chans, dim, widths, strides, pools, act, norm_eps=None):
        super().__init__()
        self.stem = stem_of(in_chans, widths, strides, pools, act)
        self.proj = nn.Conv2d(widths[-1], dim, 1)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, images):
        return self.norm(self.proj(self.stem(images)).permute(0, 2, 3, 1))


class Mlp(nn.Module):
    """(..., C) -> (..., C)"""

    def __init__(self, dim, hidden, act):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACTIVATIONS[act]
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """(B, ..., C) -> same; `size` goes to the attention"""

    def __init__(self, dim, attn, mlp_ratio, act, norm_eps, norm_order="pre"):
        super().__init__()
        self.norm_order = norm_order
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act)

    def forward(self, x, *size):
        if self.norm_order == "post":
            x = self.norm1(x + self.attn(x, *size))
            return self.norm2(x + self.mlp(x))
        x = x + self.attn(self.norm1(x), *size)
        return x + self.mlp(self.norm2(x))


# ------------------------------------------------------------------------------------------------------------------------ ViT

def position_table(kind, H, W, dim, cls):
    """Constant position embedding (1, cls + H·W, dim) in float64: the class token's row, if cls = 1, then the grid row-major.

    sinusoidal  columns 2i, 2i + 1 are sin, cos of p / 10000^(2i/dim), p the token's index. Vaswani et al. 2017, section 3.5
    sincos2d    [sin x, cos x, sin y, cos y], x the column of the patch; zeros for the class token. The form of MoCo v3
    """
    if kind in ("none", "rotary"):
        return None
    kind = kind.removesuffix("+rotary")
    if kind == "sinusoidal":
        omega = 10000 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angle = torch.outer(torch.arange(cls + H * W), omega)
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[None]
    assert kind == "sincos2d" and dim % 4 == 0
    omega = 10000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4 - 1))
    y = torch.outer(torch.arange(H).repeat_interleave(W), omega)
    x = torch.outer(torch.arange(W).repeat(H), omega)
    return F.pad(torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1), (0, 0, cls, 0))[None]


def rotary_table(H, W, hd, cls, temperature=100):
    """(cls + H·W, hd/2) complex: exp(i · angle) of the axial angles of RoPE-ViT, Heo et al. 2024; 1 for the class token."""
    omega = temperature ** (-torch.arange(hd // 4, dtype=torch.float64) / (hd // 4))
    y = torch.outer(torch.arange(H).repeat_interleave(W), omega)
    x = torch.outer(torch.arange(W).repeat(H), omega)
    return torch.exp(1j * F.pad(torch.cat([x, y], dim=1), (0, 0, cls, 0)))


class Attention(nn.Module):
    """(B, N, C) -> (B, N, C). rotary: None, or rotary_table, whose factors turn queries and keys as complex numbers."""

    def __init__(self, dim, num_heads, qkv_bias, rotary=None):
        super().__init__()
        self.rotary = rotary
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)     # each (B, nh, N, hd)
        if self.rotary is not None:
            q, k = self.turned(q), self.turned(k)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))

    def turned(self, x):
        """x (B, nh, N, hd), channel i and channel i + hd/2 being one complex number"""
        pairs = torch.complex(*x.chunk(2, dim=3))
        pairs = pairs * self.rotary.to(pairs.dtype)
        return torch.cat([pairs.real, pairs.imag], dim=3)


class TorchViT(nn.Module):
    """Dosovitskiy et al. 2021. "token": a class token first, head(norm(x)[:, 0]). "avg": none, head(fc_norm(mean(x))); "gap": mean(norm(x))."""

    def __init__(self, img_size=224, patch_size=16, in_chans=3, num_classes=1000, embed_dim=768, depth=12, num_heads=12,
                 mlp_ratio=4.0, qkv_bias=True, global_pool="token", pos_embed="learn", norm_order="pre", act="gelu",
                 norm_eps=1e-6, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0, stem_widths=(), stem_strides=(),
                 stem_pools=(), representation_size=0):
        super().__init__()
        require_zero(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        assert global_pool in ("token", "avg", "gap") and norm_order in ("pre", "post")
        H, W = (side // patch_size for side in pair(img_size))
        cls = int(global_pool == "token")                           # rows before the patches
        self.global_pool = global_pool
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size, patch_size)
        if stem_widths:
            self.patch_embed = ConvStem(in_chans, embed_dim, stem_widths, stem_strides, stem_pools, act)
        if cls:
            self.cls_token = small_normal(1, 1, embed_dim)
        if pos_embed == "learn":
            self.pos_embed = small_normal(1, cls + H * W, embed_dim)
        else:                                                       # float64, cast when used: exact in both precisions
            self.register_buffer("pos_embed", position_table(pos_embed, H, W, embed_dim, cls), persistent=False)
        rotary = rotary_table(H, W, embed_dim // num_heads, cls) if "rotary" in pos_embed else None
        self.blocks = nn.Sequential(*[
            Block(embed_dim, Attention(embed_dim, num_heads, qkv_bias, rotary), mlp_ratio, act, norm_eps, norm_order)
            for _ in range(depth)])
        norm = nn.LayerNorm(embed_dim, eps=norm_eps) if norm_order == "pre" else nn.Identity()
        self.add_module("fc_norm" if global_pool == "avg" else "norm", norm)
        self.pre_logits = nn.Sequential()
        if representation_size:
            self.pre_logits.add_module("fc", nn.Linear(embed_dim, representation_size))
            self.pre_logits.add_module("act", nn.Tanh())
        self.head = nn.Linear(representation_size or embed_dim, num_classes)
        self.apply(init_linear)

    def forward(self, images):
        x = self.patch_embed(images).flatten(1, 2)                  # (B, N, C)
        if self.global_pool == "token":
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed.to(x.dtype)
        x = self.blocks(x)
        if self.global_pool == "token":
            return self.head(self.pre_logits(self.norm(x)[:, 0]))
        x = self.norm(x).mean(dim=1) if self.global_pool == "gap" else self.fc_norm(x.mean(dim=1))
        return self.head(self.pre_logits(x))


# ----------------------------------------------------------------------------------------------------------------------- Swin

def windows_of(x, M):
    """(B, H, W, C) -> (B·nW, M², C): windows row-major, tokens row-major inside each"""
    B, H, W, C = x.shape
    return x.view(B, H // M, M, W // M, M, C).transpose(2, 3).reshape(-1, M * M, C)


def image_of(windows, M, H, W):
    """(B·nW, M², C) -> (B, H, W, C), the inverse of windows_of"""
    return windows.view(-1, H // M, W // M, M, M, windows.shape[-1]).transpose(2, 3).reshape(-1, H, W, windows.shape[-1])


def relative_position_index(M):
    """(M², M²): the row of the bias table that serves (query, key), from query − key"""
    row, col = torch.arange(M * M) // M, torch.arange(M * M) % M
    return (row[:, None] - row + M - 1) * (2 * M - 1) + (col[:, None] - col + M - 1)


def blocked_pairs(H, W, M, shift):
    """(nW, M², M²) bool, of the rolled map: on some axis one token of the pair came round the edge and the other did not."""
    label = 2 * (torch.arange(H) >= H - shift).long()[:, None] + (torch.arange(W) >= W - shift)
    label = windows_of(label[None, :, :, None], M)                  # (nW, M², 1)
    return label != label.transpose(1, 2)


class WindowAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C). Pad, roll, attend inside windows, roll back, crop.

    A map no larger than the window becomes one window of side min(H, W), unshifted (or a row of them, if it is not square).
    Padded tokens take part: they are zero before qkv, so their k and v are the biases.
    """

    def __init__(self, dim, H, W, num_heads, window_size, shifted, qkv_bias):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.M = M = min(H, W, window_size)
        self.shift = M // 2 if shifted and min(H, W) > window_size else 0
        self.pad = (-H % M, -W % M)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = small_normal((2 * M - 1) ** 2, num_heads)
        blocked = blocked_pairs(H + self.pad[0], W + self.pad[1], M, self.shift)[:, None] if self.shift else None
        self.register_buffer("index", relative_position_index(M).flatten(), persistent=False)
        self.register_buffer("blocked", blocked, persistent=False)                          # (nW, 1, M², M²)

    def bias(self, B):
        """Relative position bias (1, nh, M², M²); with the shift mask (B·nW, nh, M², M²)."""
        bias = self.relative_position_bias_table[self.index].view(1, self.M**2, self.M**2, -1).permute(0, 3, 1, 2)
        return bias if self.blocked is None else bias.masked_fill(self.blocked, -math.inf).repeat(B, 1, 1, 1)

    def forward(self, x):
        B, H, W, C = x.shape
        if any(self.pad):
            x = F.pad(x, (0, 0, 0, self.pad[1], 0, self.pad[0]))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        padded_H, padded_W = x.shape[1:3]
        x = windows_of(x, self.M)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B·nW, nh, M², hd)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias(B), scale=self.scale)
        y = image_of(self.proj(y.transpose(1, 2).flatten(2)), self.M, padded_H, padded_W)
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        return y[:, :H, :W]


class PatchMerging(nn.Module):
    """(B, H, W, C) -> (B, ⌈H/2⌉, ⌈W/2⌉, 2C)"""

    def __init__(self, dim, norm_eps):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        _, H, W, _ = x.shape
        if H % 2 or W % 2:
            x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
        return self.reduction(self.norm(x))


class TorchSwin(nn.Module):
    """Liu et al. 2021, for any image size"""

    def __init__(self, img_size=224, patch_size=4, in_chans=3, num_classes=1000, embed_dim=96, depths=(2, 2, 6, 2),
                 num_heads=(3, 6, 12, 24), window_size=7, mlp_ratio=4.0, qkv_bias=True, act="gelu", norm_eps=1e-5,
                 drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0, stem_widths=(), stem_strides=(), stem_pools=()):
        super().__init__()
        require_zero(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        H, W = pair(img_size)
        self.pad = (0, -W % patch_size, 0, -H % patch_size)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size, patch_size, norm_eps=norm_eps)
        if stem_widths:
            self.patch_embed = ConvStem(in_chans, embed_dim, stem_widths, stem_strides, stem_pools, act, norm_eps)
        self.layers = nn.Sequential()
        H, W, dim = math.ceil(H / patch_size), math.ceil(W / patch_size), embed_dim
        for i, (depth, nh) in enumerate(zip(depths, num_heads, strict=True)):
            stage = nn.Sequential()
            if i > 0:
                stage.add_module("downsample", PatchMerging(dim, norm_eps))
                H, W, dim = math.ceil(H / 2), math.ceil(W / 2), 2 * dim
            stage.add_module("blocks", nn.Sequential(*[
                Block(dim, WindowAttention(dim, H, W, nh, window_size, j % 2 == 1, qkv_bias), mlp_ratio, act, norm_eps)
                for j in range(depth)]))
            self.layers.append(stage)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.head = nn.Sequential(OrderedDict(fc=nn.Linear(dim, num_classes)))
        self.apply(init_linear)

    def forward(self, images):
        if any(self.pad):
            images = F.pad(images, self.pad)
        x = self.layers(self.patch_embed(images))                   # (B, H, W, C)
        return self.head(self.norm(x).mean(dim=(1, 2)))


# ------------------------------------------------------------------------------------------------------------------------ CvT

def grid_view(tokens, H, W):
    """(B, H·W, C) -> (B, C, H, W), channels last in memory.

    Not `transpose(1, 2).unflatten(2, (H, W))`: the strides that gives a batch of 1 (B's is C, not H·W·C) make the CPU batch norm
    of torch 2.13 return wrong gradients.
    """
    return tokens.unflatten(1, (H, W)).permute(0, 3, 1, 2)


def conv_projection(method, dim, kernel, stride):
    """The spatial half of a q, k or v projection, on (B, C, H, W)"""
    if method == "dw_bn":
        conv = nn.Conv2d(dim, dim, kernel, stride, kernel // 2, groups=dim, bias=False)
        return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(dim)))
    if method == "avg":
        return nn.AvgPool2d(kernel, stride, kernel // 2, ceil_mode=True)
    return nn.Identity()


class ConvAttention(nn.Module):
    """(B, [1 +] H·W, C) -> same. The class token joins q, k and v without passing the convolutions."""

    def __init__(self, dim, num_heads, qkv_bias, method, kernel, q_stride, kv_stride, cls_token):
        super().__init__()
        self.num_heads, self.cls_token = num_heads, cls_token
        self.scale = dim ** -0.5                                    # of the whole stage width, not of a head
        self.conv_proj_q = conv_projection("linear" if method == "avg" else method, dim, kernel, q_stride)
        self.conv_proj_k = conv_projection(method, dim, kernel, kv_stride)
        self.conv_proj_v = conv_projection(method, dim, kernel, kv_stride)
        self.proj_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_k = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def heads(self, cls, grid, conv, linear):
        """(B, 0 or 1, C) and (B, C, H, W) -> (B, nh, N, hd)"""
        tokens = conv(grid).permute(0, 2, 3, 1).flatten(1, 2)
        if self.cls_token:
            tokens = torch.cat([cls, tokens], dim=1)
        return linear(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x, H, W):
        cls, tokens = x.split([x.shape[1] - H * W, H * W], dim=1)
        grid = grid_view(tokens, H, W)
        q = self.heads(cls, grid, self.conv_proj_q, self.proj_q)
        k = self.heads(cls, grid, self.conv_proj_k, self.proj_k)
        v = self.heads(cls, grid, self.conv_proj_v, self.proj_v)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))


class CvTStage(nn.Module):
    """(B, in_chans, H, W) -> tokens (B, [1 +] H'·W', C), H', W'"""

    def __init__(self, patch_embed, dim, blocks, cls_token):
        super().__init__()
        self.patch_embed = patch_embed
        self.cls_token = small_normal(1, 1, dim) if cls_token else None
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        x = self.patch_embed(x)
        H, W = x.shape[1:3]
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, H, W)
        return x, H, W


class TorchCvT(nn.Module):
    """Wu et al. 2021. A class token in the last stage only; without one the head sees the mean of the normed tokens.
    Any image size will do, `img_size` is there because the config has it."""

    def __init__(self, img_size=224, in_chans=3, num_classes=1000, embed_dims=(64, 192, 384), depths=(1, 2, 10),
                 num_heads=(1, 3, 6), patch_sizes=(7, 3, 3), patch_strides=(4, 2, 2), patch_paddings=(2, 1, 1), qkv_kernel=3,
                 q_stride=1, kv_stride=2, qkv_bias=True, mlp_ratio=4.0, cls_token=True, qkv_method="dw_bn", act="quick_gelu",
                 norm_eps=1e-5, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0, stem_widths=(), stem_strides=(),
                 stem_pools=()):
        super().__init__()
        require_zero(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        assert qkv_method in ("dw_bn", "avg", "linear")
        assert q_stride == 1 or qkv_method != "dw_bn", "fewer queries than tokens: the residual would not fit"
        self.cls_token, self.stage_names = cls_token, [f"stage{i}" for i in range(len(depths))]
        self.stem = stem_of(in_chans, stem_widths, stem_strides, stem_pools, act)
        in_chans = (in_chans, *stem_widths)[-1]
        for name, dim, depth, nh, kernel, stride, padding in zip(
                self.stage_names, embed_dims, depths, num_heads, patch_sizes, patch_strides, patch_paddings, strict=True):
            cls = cls_token and name == self.stage_names[-1]
            self.add_module(name, CvTStage(
                PatchEmbed(in_chans, dim, kernel, stride, padding, norm_eps), dim,
                [Block(dim, ConvAttention(dim, nh, qkv_bias, qkv_method, qkv_kernel, q_stride, kv_stride, cls), mlp_ratio, act,
                       norm_eps) for _ in range(depth)], cls))
            in_chans = dim
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.head = nn.Linear(dim, num_classes)
        self.apply(init_linear)

    def forward(self, x):
        x = self.stem(x)
        for name in self.stage_names:
            tokens, H, W = getattr(self, name)(x)
            x = grid_view(tokens, H, W) if name != self.stage_names[-1] else self.norm(tokens)
        return self.head(x[:, 0] if self.cls_token else x.mean(dim=1))
