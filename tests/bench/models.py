"""What is measured: presets by name, and the configurations between them that the benchmark is about."""
import ast
import dataclasses

from numpyvit.models import model_config

MODELS = {                                           # name: (preset or family, fields)
    "vit_192": ("vit", dict(img_size=32, patch_size=4, num_classes=10, embed_dim=192, depth=6, num_heads=3)),
    "swin_96": ("swin_nano_patch2_window4_32", dict(embed_dim=96, num_heads=(3, 6))),
    "cvt_128": ("cvt_nano_32", dict(num_heads=(2, 4), mlp_ratio=4.0)),
}
DEFAULT = ("vit_192", "vit_nano_patch4_32", "swin_96", "cvt_128", "vit_mini_convpool_32")
OPTIMIZERS = {"vit_mini_convpool_32": "muon", "vit_nano_conv_32": "muon"}     # the first is the net of `make train`
NOT_RANDOM = dict(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)     # the torch models have no dropout


def configuration(name, **overrides):
    """(family, {field: value}) of a name above, a preset, or NAME:FIELD=VALUE:FIELD=VALUE…"""
    name, *more = name.split(":")
    base, fields = MODELS.get(name, (name, {}))
    given = {field: value(text) for field, _, text in (part.partition("=") for part in more)}
    family, config = model_config(base, **{**fields, **given, **overrides, **NOT_RANDOM})
    return family, dataclasses.asdict(config)


def value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def forward_flops(family, fields):
    """FLOPs of the matrix products and convolutions of one image's forward pass, counted by torch on the torch model."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    import torch_models
    H, W = torch_models.pair(fields["img_size"])
    model = torch_models.build(family, **fields).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, fields["in_chans"], H, W))
    return counter.get_total_flops()
