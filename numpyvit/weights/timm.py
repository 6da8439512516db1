"""timm's config.json: {"architecture": …, "global_pool": …, "model_args": {…}, "pretrained_cfg": {…}}.

It names the function of timm that builds the model and how that was called; the widths and depths are in the tensors.
"""
from ..checks import is_number, shown
from ..errors import UserError

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu")
OTHERS = ("_rpn_", "swin_s3")                                                # norms behind the branches; mixed windows
SAME = {"img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "num_heads", "mlp_ratio", "qkv_bias",
        "drop_rate", "attn_drop_rate", "drop_path_rate"}
OWN = {"vit": {"depth"}, "swin": {"depths", "window_size"}}
WITHOUT_EFFECT = {"strict_img_size", "dynamic_img_size", "weight_init", "pretrained"}   # on images of the model's size
POOLING = {"act_layer", "global_pool", "class_token", "fc_norm"}


def is_timms(config):
    """Whether the object of a config.json is one of timm's."""
    return "model_type" not in config and isinstance(config.get("architecture"), str)


def read_timm_config(config, family, tensors):
    """timm's config.json and the tensors under the names here   →   the fields of the config here that it tells.

    UserError for an architecture or an argument that asks for what no model here computes, or that is unknown here.
    """
    architecture, args = config["architecture"], config.get("model_args") or {}
    if any(part in architecture for part in OTHERS):
        raise UserError(f"config.json: architecture {shown(architecture)}, which no model here computes")
    if not isinstance(args, dict) or family not in OWN:
        raise UserError(f"config.json: model_args: expected the arguments of a ViT or Swin, got {shown(args)}")
    args = {name: value for name, value in args.items() if value is not None and name not in WITHOUT_EFFECT}
    same = SAME | OWN[family]
    unknown = sorted(args.keys() - same - POOLING)
    if unknown:
        raise UserError(f"config.json: model_args: {', '.join(unknown)[:80]} is not understood here; expected "
                        f"{', '.join(sorted(same | POOLING))}")
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in args.items() if name in same}
    window = fields.get("window_size")
    if isinstance(window, tuple) and len(window) == 2 and window[0] == window[1]:
        fields["window_size"] = window[0]
    act = args.get("act_layer", "quick_gelu" if "quickgelu" in architecture else "gelu")
    if act not in ACTIVATIONS:
        raise UserError(f"config.json: act_layer {shown(act)}, expected one of {', '.join(ACTIVATIONS)}")
    pool = pooling({"global_pool": config.get("global_pool"), **args}, family, tensors)
    return size_of(config, tensors) | fields | {"act": act} | pool


def pooling(args, family, tensors):
    """{"global_pool": …} of a ViT by timm's global_pool, class_token and fc_norm. UserError where the tensors are not
    those of such a model.
    """
    token = "cls_token" in tensors
    pool = args.get("global_pool") or ("token" if token and family == "vit" else "avg")
    if family == "swin":
        if pool != "avg":
            raise UserError(f"config.json: global_pool {shown(pool)}, expected 'avg' for a Swin")
        return {}
    if pool not in ("token", "avg") or token != (pool == "token") or token != bool(args.get("class_token", token)):
        raise UserError(f"config.json: global_pool {shown(pool)} of a ViT with{'' if token else 'out'} a class token "
                        "in its weights; models here classify from the token where there is one, and else from the "
                        "average")
    normed_last = "fc_norm.weight" in tensors
    if bool(args.get("fc_norm", normed_last)) != normed_last:
        raise UserError(f"config.json: fc_norm {shown(args['fc_norm'])}, but the weights have "
                        f"{'an' if normed_last else 'no'} fc_norm")
    return {"global_pool": "token" if token else "avg" if normed_last else "gap"}


def size_of(config, tensors):
    """img_size by the input_size (C, H, W) of timm's pretrained_cfg, and patch_size by the tensors; {} where a table of
    positions is of another grid.
    """
    cfg = config.get("pretrained_cfg")
    size = cfg.get("input_size") if isinstance(cfg, dict) else None
    if not isinstance(size, list) or len(size) != 3 or not all(is_number(n, True) and 0 < n < 1e5 for n in size):
        return {}
    H, W = size[1:]
    table, weight = tensors.get("pos_embed"), tensors.get("patch_embed.proj.weight")
    P = weight.shape[2] if weight is not None and weight.ndim == 4 else 0
    rows = table.shape[1] if table is not None and table.ndim == 3 else None
    if P < 1 or rows not in (None, H // P * (W // P) + ("cls_token" in tensors)):
        return {}
    return {"img_size": H if H == W else (H, W), "patch_size": P}
