"""config.json of Hugging Face, in both directions.

Hugging Face keeps a model as a folder: its config in words of its own, one file of weights, and how images are
prepared (see processors).
"""
from ..checks import is_number, shown
from ..errors import UserError

ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
               "gelu_fast": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
WRITTEN = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
CLASSES = {"vit": "ViT", "swin": "Swin", "cvt": "Cvt"}

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
        kernel = fields["qkv_kernel"]
        for there in ("padding_q", "padding_kv"):
            padding = shared(config, there, 1)
            if is_number(kernel) and padding != kernel // 2:
                raise UserError(f"config.json: {there} {str(padding)[:40]}, expected {kernel // 2}, half of kernel_qkv")
        tokens = config.get("cls_token", [False, False, True])
        if not isinstance(tokens, list) or any(tokens[:-1]):
            raise UserError(f"config.json: cls_token {str(tokens)[:40]}, expected one in the last stage at most")
        fields["cls_token"] = bool(tokens and tokens[-1])
        if "image_size" in config:                                           # transformers has no such key for CvT
            fields["img_size"] = config["image_size"]
        sentences.append("QuickGELU and an epsilon of 1e-5, with which CvT was published; transformers computes GELU "
                         "by erf with the same weights (act='gelu' does so here)")
    else:
        act = config.get("hidden_act", "gelu")
        if not isinstance(act, str) or act not in ACTIVATIONS:
            raise UserError(f"config.json: hidden_act {str(act)[:40]!r}, expected one of {', '.join(ACTIVATIONS)}")
        fields["act"] = ACTIVATIONS[act]
    if family == "vit":
        width, hidden = fields["embed_dim"], config.get("intermediate_size", 3072)
        if not all(is_number(n, whole=True) and 0 < n < 1e9 for n in (width, hidden)):
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
    """The names of the classes in config.json, in order; None where it has none, only LABEL_0, LABEL_1, …, or where a
    number has no name. UserError where they are not names by number (id2label) or a list (timm's label_names).
    """
    names, listed = config.get("id2label") or {}, config.get("label_names") or []
    if not isinstance(names, dict):
        raise UserError(f"config.json: id2label: expected an object of names by number, got {shown(names)}")
    if not isinstance(listed, list):
        raise UserError(f"config.json: label_names: expected a list of names, got {shown(listed)}")
    names = names or {str(i): name for i, name in enumerate(listed)}
    if not names or any(names.get(str(i)) is None for i in range(len(names))) or names["0"] == "LABEL_0":
        return None
    return [str(names[str(i)])[:200] for i in range(len(names))]


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
                    "cls_token": [False] * (stages - 1) + [c.cls_token], "layer_norm_eps": c.norm_eps,
                    "image_size": c.img_size}
        if not isinstance(c.drop_path_rate, tuple):
            written["drop_path_rate"] = [c.drop_path_rate] * stages
    else:
        written["hidden_act"] = WRITTEN[c.act]
    names = list(classes) if classes else [f"LABEL_{k}" for k in range(c.num_classes)]
    written["id2label"] = {str(k): name for k, name in enumerate(names)}
    written["label2id"] = {name: k for k, name in enumerate(names)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in sorted(written.items())}


def check_depths(config):
    """UserError where transformers cannot build a CvT of these depths."""
    late = [i for i, depth in enumerate(config.depths) if depth <= i]
    if late:
        raise UserError(f"format: transformers cannot build a CvT with depths {config.depths}: stage {late[0]} "
                        f"needs more than {late[0]} blocks there")
