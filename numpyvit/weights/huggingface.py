"""config.json and preprocessor_config.json of Hugging Face, in both directions, and timm's config.json.

Hugging Face keeps a model as a folder: its config in words of its own, one file of weights, and how images are
prepared.
"""
from ..checks import is_number
from ..errors import UserError
from ..module import pair
from .images import HALF, Preprocessing

ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
               "gelu_fast": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
WRITTEN = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
CLASSES = {"vit": "ViT", "swin": "Swin", "cvt": "Cvt"}
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}   # Pillow's numbers

# fields of a config: (here, there, what is meant where a config says nothing)
VIT = (("img_size", "image_size", 224), ("patch_size", "patch_size", 16), ("in_chans", "num_channels", 3),
       ("embed_dim", "hidden_size", 768), ("depth", "num_hidden_layers", 12), ("num_heads", "num_attention_heads", 12),
       ("qkv_bias", "qkv_bias", True), ("norm_eps", "layer_norm_eps", 1e-12), ("drop_rate", "hidden_dropout_prob", 0.0),
       ("attn_drop_rate", "attention_probs_dropout_prob", 0.0))
SWIN = (("img_size", "image_size", 224), ("patch_size", "patch_size", 4), ("in_chans", "num_channels", 3),
        ("embed_dim", "embed_dim", 96), ("depths", "depths", (2, 2, 6, 2)), ("num_heads", "num_heads", (3, 6, 12, 24)),
        ("window_size", "window_size", 7), ("mlp_ratio", "mlp_ratio", 4.0), ("qkv_bias", "qkv_bias", True),
        ("norm_eps", "layer_norm_eps", 1e-5), ("drop_rate", "hidden_dropout_prob", 0.0),
        ("attn_drop_rate", "attention_probs_dropout_prob", 0.0), ("drop_path_rate", "drop_path_rate", 0.1))
CVT = (("in_chans", "num_channels", 3), ("embed_dims", "embed_dim", (64, 192, 384)), ("depths", "depth", (1, 2, 10)),
       ("num_heads", "num_heads", (1, 3, 6)), ("patch_sizes", "patch_sizes", (7, 3, 3)),
       ("patch_strides", "patch_stride", (4, 2, 2)), ("patch_paddings", "patch_padding", (2, 1, 1)),
       ("drop_path_rate", "drop_path_rate", (0.0, 0.0, 0.1)))
# one value a stage there, one for all here
CVT_SHARED = (("qkv_method", "qkv_projection_method", "dw_bn"), ("qkv_kernel", "kernel_qkv", 3),
              ("kv_stride", "stride_kv", 2), ("q_stride", "stride_q", 1), ("qkv_bias", "qkv_bias", True),
              ("mlp_ratio", "mlp_ratio", 4.0), ("drop_rate", "drop_rate", 0.0),
              ("attn_drop_rate", "attention_drop_rate", 0.0))
FIELDS = {"vit": VIT, "swin": SWIN, "cvt": CVT}


def read_config(config):
    """Hugging Face's config.json   →   family, fields of the config here, sentences. UserError for what no model here
    computes.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FIELDS:
        raise UserError(f"config.json: model_type {str(family)[:40]!r}, expected {', '.join(FIELDS)}")
    if config.get("use_absolute_embeddings"):
        raise UserError("config.json: use_absolute_embeddings, which no model here has")
    fields = {here: config.get(there, default) for here, there, default in FIELDS[family]}
    sentences = []
    if family == "cvt":
        fields |= {here: shared(config, there, default) for here, there, default in CVT_SHARED}
        tokens = config.get("cls_token", [False, False, True])
        if not isinstance(tokens, list) or any(tokens[:-1]):
            raise UserError(f"config.json: cls_token {str(tokens)[:40]}, expected one in the last stage at most")
        fields["cls_token"] = bool(tokens and tokens[-1])
        sentences.append("QuickGELU and an epsilon of 1e-5, with which CvT was published; transformers computes GELU "
                         "by erf with the same weights (act='gelu' does so here)")
    else:
        act = config.get("hidden_act", "gelu")
        if not isinstance(act, str) or act not in ACTIVATIONS:
            raise UserError(f"config.json: hidden_act {str(act)[:40]!r}, expected one of {', '.join(ACTIVATIONS)}")
        fields["act"] = ACTIVATIONS[act]
    if family == "vit":
        width, hidden = fields["embed_dim"], config.get("intermediate_size", 3072)
        if not (is_number(width, whole=True) and is_number(hidden, whole=True) and width > 0 and hidden > 0):
            raise UserError("config.json: expected whole numbers for hidden_size and intermediate_size, got "
                            f"{str((width, hidden))[:40]}")
        fields["mlp_ratio"] = ratio(width, hidden)
    return family, {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}, sentences


def shared(config, name, default):
    """The one value of a list with one for each stage."""
    values = config.get(name, default)
    if not isinstance(values, list):
        return values
    if not values or any(value != values[0] for value in values):
        raise UserError(f"config.json: {name} {str(values)[:60]}, expected the same in every stage")
    return values[0]


def ratio(width, hidden):
    """mlp_ratio so that int(width · mlp_ratio) is hidden, whatever the division rounds to."""
    return hidden / width if int(width * (hidden / width)) == hidden else (hidden + 0.5) / width


def read_classes(config):
    """The names of the classes in config.json, in order; None where it has none, or only LABEL_0, LABEL_1, …"""
    names = config.get("id2label") or dict(enumerate(config.get("label_names") or []))
    if not isinstance(names, dict) or not names:
        return None
    try:
        classes = [str(names.get(str(i), names.get(i)))[:200] for i in range(len(names))]
    except (TypeError, ValueError):
        return None
    return None if "None" in classes or classes[0] == "LABEL_0" else classes


def write_config(model, family, classes=None):
    """The config.json with which transformers builds this model. UserError where no config of theirs describes the
    model.
    """
    c = model.config
    written = {"architectures": [f"{CLASSES[family]}ForImageClassification"], "model_type": family}
    written |= {there: getattr(c, here) for here, there, _ in FIELDS[family]}
    if family == "vit":
        written["intermediate_size"] = int(c.embed_dim * c.mlp_ratio)
    if family == "cvt":
        stages = len(c.depths)
        written |= {there: [getattr(c, here)] * stages for here, there, _ in CVT_SHARED}
        written |= {"padding_q": [c.qkv_kernel // 2] * stages, "padding_kv": [c.qkv_kernel // 2] * stages,
                    "cls_token": [False] * (stages - 1) + [c.cls_token], "layer_norm_eps": c.norm_eps}
        if not isinstance(c.drop_path_rate, tuple):
            written["drop_path_rate"] = [c.drop_path_rate] * stages
    else:
        written["hidden_act"] = WRITTEN[c.act]
    names = list(classes) if classes else [f"LABEL_{k}" for k in range(c.num_classes)]
    written["id2label"] = {str(k): name for k, name in enumerate(names)}
    written["label2id"] = {name: k for k, name in enumerate(names)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in sorted(written.items())}


def check_expressible(config, family):
    """UserError where transformers cannot compute what the model does."""
    needs = {"vit": {"global_pool": "token", "norm_order": "pre", "representation_size": 0},
             "swin": {}, "cvt": {"qkv_method": "dw_bn", "norm_eps": 1e-5}}
    for field, needed in {"stem_widths": (), **needs[family]}.items():
        if getattr(config, field, needed) != needed:
            raise UserError(f"format: Hugging Face's {CLASSES[family]} needs {field} {needed!r}, this model has "
                            f"{getattr(config, field)!r}")
    if family == "cvt":
        late = [i for i, depth in enumerate(config.depths) if depth <= i]
        if late:
            raise UserError(f"format: transformers cannot build a CvT with depths {config.depths}: stage {late[0]} "
                            f"needs more than {late[0]} blocks there")


# --- how images are prepared

def read_preprocessor(source, config, size):
    """preprocessor_config.json (source) or timm's pretrained_cfg in config.json → Preprocessing, or None without
    either.

    size: (H, W) of the model's images
    """
    timm = config.get("pretrained_cfg")
    if source:
        return read_processor(source, size)
    if isinstance(timm, dict):
        how = "squash" if timm.get("crop_mode") == "squash" else "crop"
        return Preprocessing(size, how, timm.get("crop_pct") or 0.875, timm.get("interpolation", "bicubic"),
                             timm.get("mean"), timm.get("std"), "the pretrained_cfg of config.json")
    return None


def read_processor(p, size):
    """An object of preprocessor_config.json → Preprocessing. Sizes there are those of the published images."""
    wanted, H = p.get("size"), size[0]
    wanted = wanted if isinstance(wanted, dict) else {"height": wanted, "width": wanted}
    short = wanted.get("shortest_edge")
    how, crop_pct = "squash", 1.0
    if is_number(short) and short > 0:                                       # cut out of the resized image
        how, crop_pct = "crop", H / short
        if is_number(p.get("crop_pct")) and short < 384:                     # ConvNeXT's processor, which CvT uses
            crop_pct = p["crop_pct"]
    elif p.get("do_center_crop") and is_number(wanted.get("height")) and wanted["height"] > 0:
        how, crop_pct = "crop", H / wanted["height"]
    mean, std = (p.get("image_mean"), p.get("image_std")) if p.get("do_normalize", True) else ((0.0,) * 3, (1.0,) * 3)
    resample = p.get("resample", 2)
    interpolation = RESAMPLING.get(resample, "bilinear") if isinstance(resample, int) else "bilinear"
    mean, std = mean or HALF[0], std or HALF[1]
    return Preprocessing(size, how, crop_pct, interpolation, mean, std, "preprocessor_config.json")


def write_preprocessor(preprocessing, family, config):
    """preprocessor_config.json for the model: of ViTImageProcessor, which resizes without cutting, or
    ConvNextImageProcessor.
    """
    H, W = pair(config.img_size)
    p = preprocessing
    code = next(code for code, name in RESAMPLING.items() if name == p.interpolation)
    common = {"do_resize": True, "resample": code, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
              "image_mean": list(p.mean), "image_std": list(p.std)}
    if p.how == "squash" or H != W:
        return {"image_processor_type": "ViTImageProcessor", "size": {"height": H, "width": W}, **common}
    return {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": H},
            "crop_pct": p.crop_pct if p.how == "crop" else 1.0, **common}
