"""One table of names for every library and family. The shapes are torch's (out, in) but where a transform says
otherwise.
"""
import numpy as np

from .names import ROWS, Row, Transform

# --- flax stores (in, out), convolutions (h, w, in, out), and attention with its heads apart
DENSE = Transform(lambda arrays: arrays[0].T, lambda array, num_heads: [array.T])
CONV = Transform(lambda arrays: arrays[0].transpose(3, 2, 0, 1), lambda array, num_heads: [array.transpose(2, 3, 1, 0)])


def read_heads(arrays):
    """q, k, v (C, nh, hd) → (3·C, C)"""
    return np.concatenate([array.reshape(array.shape[0], array.shape[1] * array.shape[2]).T for array in arrays])


def write_heads(array, num_heads):
    """(3·C, C) → q, k, v (C, nh, hd)"""
    return [part.T.reshape(part.shape[1], num_heads, -1) for part in np.split(array, 3)]


QKV_KERNEL = Transform(read_heads, write_heads)
QKV_BIAS = Transform(lambda arrays: np.concatenate([array.reshape(-1) for array in arrays]),
                     lambda array, num_heads: [part.reshape(num_heads, -1) for part in np.split(array, 3)])
OUT_KERNEL = Transform(lambda arrays: arrays[0].reshape(-1, arrays[0].shape[2]).T,                # (nh, hd, C) → (C, C)
                       lambda array, num_heads: [array.T.reshape(num_heads, -1, len(array))])


def same(*names):
    """Rows whose name there is the name here."""
    return [Row(name, name) for name in names]


# --- ViT

TIMM_VIT = same("cls_token", "pos_embed", "patch_embed.proj.*", "blocks.{i}.norm1.*", "blocks.{i}.attn.qkv.*",
                "blocks.{i}.attn.proj.*", "blocks.{i}.norm2.*", "blocks.{i}.mlp.fc1.*", "blocks.{i}.mlp.fc2.*",
                "norm.*", "fc_norm.*", "pre_logits.fc.*", "head.*")


def flax_vit(positions, attention, norm2, mlp):
    """Google's names; big_vision numbers the parts of a block anew and keeps the positions elsewhere."""
    block = "Transformer/encoderblock_{i}"
    return [
        Row("cls_token", "cls"),
        Row("pos_embed", positions),
        Row("patch_embed.proj.weight", "embedding/kernel", CONV),
        Row("patch_embed.proj.bias", "embedding/bias"),
        Row("blocks.{i}.norm1.weight", f"{block}/LayerNorm_0/scale"),
        Row("blocks.{i}.norm1.bias", f"{block}/LayerNorm_0/bias"),
        Row("blocks.{i}.attn.qkv.weight", f"{block}/{attention}/{{query|key|value}}/kernel", QKV_KERNEL),
        Row("blocks.{i}.attn.qkv.bias", f"{block}/{attention}/{{query|key|value}}/bias", QKV_BIAS),
        Row("blocks.{i}.attn.proj.weight", f"{block}/{attention}/out/kernel", OUT_KERNEL),
        Row("blocks.{i}.attn.proj.bias", f"{block}/{attention}/out/bias"),
        Row("blocks.{i}.norm2.weight", f"{block}/{norm2}/scale"),
        Row("blocks.{i}.norm2.bias", f"{block}/{norm2}/bias"),
        Row("blocks.{i}.mlp.fc1.weight", f"{block}/{mlp}/Dense_0/kernel", DENSE),
        Row("blocks.{i}.mlp.fc1.bias", f"{block}/{mlp}/Dense_0/bias"),
        Row("blocks.{i}.mlp.fc2.weight", f"{block}/{mlp}/Dense_1/kernel", DENSE),
        Row("blocks.{i}.mlp.fc2.bias", f"{block}/{mlp}/Dense_1/bias"),
        Row("norm.weight", "Transformer/encoder_norm/scale"),
        Row("norm.bias", "Transformer/encoder_norm/bias"),
        Row("pre_logits.fc.weight", "pre_logits/kernel", DENSE),
        Row("pre_logits.fc.bias", "pre_logits/bias"),
        Row("head.weight", "head/kernel", DENSE),
        Row("head.bias", "head/bias"),
    ]


GOOGLE_VIT = flax_vit("Transformer/posembed_input/pos_embedding", "MultiHeadDotProductAttention_1", "LayerNorm_2",
                      "MlpBlock_3")
BIG_VISION_VIT = flax_vit("pos_embedding", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")

# On the disk Hugging Face keeps the names of version 4; state_dict() of version 5 has those of the second half.
HUGGINGFACE_VIT = [
    Row("cls_token", "[vit.]embeddings.cls_token"),
    Row("pos_embed", "[vit.]embeddings.position_embeddings"),
    Row("patch_embed.proj.*", "[vit.]embeddings.patch_embeddings.projection.*"),
    Row("blocks.{i}.norm1.*", "[vit.]encoder.layer.{i}.layernorm_before.*"),
    Row("blocks.{i}.attn.qkv.*", "[vit.]encoder.layer.{i}.attention.attention.{query|key|value}.*", ROWS),
    Row("blocks.{i}.attn.proj.*", "[vit.]encoder.layer.{i}.attention.output.dense.*"),
    Row("blocks.{i}.norm2.*", "[vit.]encoder.layer.{i}.layernorm_after.*"),
    Row("blocks.{i}.mlp.fc1.*", "[vit.]encoder.layer.{i}.intermediate.dense.*"),
    Row("blocks.{i}.mlp.fc2.*", "[vit.]encoder.layer.{i}.output.dense.*"),
    Row("norm.*", "[vit.]layernorm.*"),
    Row("pre_logits.fc.*", "[vit.]pooler.dense.*"),
    Row("head.*", "classifier.*"),
    Row("blocks.{i}.norm1.*", "[vit.]layers.{i}.layernorm_before.*"),
    Row("blocks.{i}.attn.qkv.*", "[vit.]layers.{i}.attention.{q_proj|k_proj|v_proj}.*", ROWS),
    Row("blocks.{i}.attn.proj.*", "[vit.]layers.{i}.attention.o_proj.*"),
    Row("blocks.{i}.norm2.*", "[vit.]layers.{i}.layernorm_after.*"),
    Row("blocks.{i}.mlp.fc1.*", "[vit.]layers.{i}.mlp.fc1.*"),
    Row("blocks.{i}.mlp.fc2.*", "[vit.]layers.{i}.mlp.fc2.*"),
]

TORCHVISION_VIT = [
    Row("cls_token", "class_token"),
    Row("pos_embed", "encoder.pos_embedding"),
    Row("patch_embed.proj.*", "conv_proj.*"),
    Row("blocks.{i}.norm1.*", "encoder.layers.encoder_layer_{i}.ln_1.*"),
    Row("blocks.{i}.attn.qkv.weight", "encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight"),
    Row("blocks.{i}.attn.qkv.bias", "encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias"),
    Row("blocks.{i}.attn.proj.*", "encoder.layers.encoder_layer_{i}.self_attention.out_proj.*"),
    Row("blocks.{i}.norm2.*", "encoder.layers.encoder_layer_{i}.ln_2.*"),
    Row("blocks.{i}.mlp.fc1.*", "encoder.layers.encoder_layer_{i}.mlp.0.*"),
    Row("blocks.{i}.mlp.fc2.*", "encoder.layers.encoder_layer_{i}.mlp.3.*"),
    Row("blocks.{i}.mlp.fc1.*", "encoder.layers.encoder_layer_{i}.mlp.linear_1.*"),              # until version 0.13
    Row("blocks.{i}.mlp.fc2.*", "encoder.layers.encoder_layer_{i}.mlp.linear_2.*"),
    Row("norm.*", "encoder.ln.*"),
    Row("pre_logits.fc.*", "heads.pre_logits.*"),
    Row("head.*", "heads.head.*"),
]

# --- Swin; the libraries differ most in where a merging of patches belongs: timm counts it to the stage that follows

SWIN_TRUNK = same("patch_embed.proj.*", "patch_embed.norm.*", "layers.{i}.blocks.{j}.norm1.*",
                  "layers.{i}.blocks.{j}.attn.relative_position_bias_table", "layers.{i}.blocks.{j}.attn.qkv.*",
                  "layers.{i}.blocks.{j}.attn.proj.*", "layers.{i}.blocks.{j}.norm2.*",
                  "layers.{i}.blocks.{j}.mlp.fc1.*", "layers.{i}.blocks.{j}.mlp.fc2.*", "norm.*")
TIMM_SWIN = [*SWIN_TRUNK, *same("layers.{i+1}.downsample.norm.*", "layers.{i+1}.downsample.reduction.*", "head.fc.*")]
MICROSOFT_SWIN = [*SWIN_TRUNK,
                  Row("layers.{i+1}.downsample.norm.*", "layers.{i}.downsample.norm.*"),
                  Row("layers.{i+1}.downsample.reduction.*", "layers.{i}.downsample.reduction.*"),
                  Row("head.fc.*", "head.*")]

HF_SWIN_BLOCK, HERE_SWIN_BLOCK = "[swin.]encoder.layers.{i}.blocks.{j}", "layers.{i}.blocks.{j}"
HUGGINGFACE_SWIN = [
    Row("patch_embed.proj.*", "[swin.]embeddings.patch_embeddings.projection.*"),
    Row("patch_embed.norm.*", "[swin.]embeddings.norm.*"),
    Row(f"{HERE_SWIN_BLOCK}.norm1.*", f"{HF_SWIN_BLOCK}.layernorm_before.*"),
    Row(f"{HERE_SWIN_BLOCK}.attn.relative_position_bias_table",
        f"{HF_SWIN_BLOCK}.attention.self.relative_position_bias_table"),
    Row(f"{HERE_SWIN_BLOCK}.attn.qkv.*", f"{HF_SWIN_BLOCK}.attention.self.{{query|key|value}}.*", ROWS),
    Row(f"{HERE_SWIN_BLOCK}.attn.proj.*", f"{HF_SWIN_BLOCK}.attention.output.dense.*"),
    Row(f"{HERE_SWIN_BLOCK}.norm2.*", f"{HF_SWIN_BLOCK}.layernorm_after.*"),
    Row(f"{HERE_SWIN_BLOCK}.mlp.fc1.*", f"{HF_SWIN_BLOCK}.intermediate.dense.*"),
    Row(f"{HERE_SWIN_BLOCK}.mlp.fc2.*", f"{HF_SWIN_BLOCK}.output.dense.*"),
    Row("layers.{i+1}.downsample.norm.*", "[swin.]encoder.layers.{i}.downsample.norm.*"),
    Row("layers.{i+1}.downsample.reduction.*", "[swin.]encoder.layers.{i}.downsample.reduction.*"),
    Row("norm.*", "[swin.]layernorm.*"),
    Row("head.fc.*", "classifier.*"),
    Row(f"{HERE_SWIN_BLOCK}.attn.relative_position_bias_table",
        f"{HF_SWIN_BLOCK}.attention.relative_position_bias.relative_position_bias_table"),
    Row(f"{HERE_SWIN_BLOCK}.attn.qkv.*", f"{HF_SWIN_BLOCK}.attention.{{q_proj|k_proj|v_proj}}.*", ROWS),
    Row(f"{HERE_SWIN_BLOCK}.attn.proj.*", f"{HF_SWIN_BLOCK}.attention.o_proj.*"),
    Row(f"{HERE_SWIN_BLOCK}.mlp.fc1.*", f"{HF_SWIN_BLOCK}.mlp.fc1.*"),
    Row(f"{HERE_SWIN_BLOCK}.mlp.fc2.*", f"{HF_SWIN_BLOCK}.mlp.fc2.*"),
]

TORCHVISION_SWIN = [
    Row("patch_embed.proj.*", "features.0.0.*"),
    Row("patch_embed.norm.*", "features.0.2.*"),
    Row("layers.{i}.blocks.{j}.norm1.*", "features.{2i+1}.{j}.norm1.*"),
    Row("layers.{i}.blocks.{j}.attn.relative_position_bias_table",
        "features.{2i+1}.{j}.attn.relative_position_bias_table"),
    Row("layers.{i}.blocks.{j}.attn.qkv.*", "features.{2i+1}.{j}.attn.qkv.*"),
    Row("layers.{i}.blocks.{j}.attn.proj.*", "features.{2i+1}.{j}.attn.proj.*"),
    Row("layers.{i}.blocks.{j}.norm2.*", "features.{2i+1}.{j}.norm2.*"),
    Row("layers.{i}.blocks.{j}.mlp.fc1.*", "features.{2i+1}.{j}.mlp.0.*"),
    Row("layers.{i}.blocks.{j}.mlp.fc2.*", "features.{2i+1}.{j}.mlp.3.*"),
    Row("layers.{i+1}.downsample.norm.*", "features.{2i+2}.norm.*"),
    Row("layers.{i+1}.downsample.reduction.*", "features.{2i+2}.reduction.*"),
    Row("norm.*", "norm.*"),
    Row("head.fc.*", "head.*"),
]

# --- CvT: the names here are microsoft's

CVT_BLOCK = "stage{i}.blocks.{j}"
MICROSOFT_CVT = same("stage{i}.patch_embed.proj.*", "stage{i}.patch_embed.norm.*", "stage{i}.cls_token",
                     f"{CVT_BLOCK}.norm1.*", f"{CVT_BLOCK}.norm2.*", f"{CVT_BLOCK}.attn.proj.*",
                     *(f"{CVT_BLOCK}.attn.conv_proj_{x}.conv.*" for x in "qkv"),
                     *(f"{CVT_BLOCK}.attn.conv_proj_{x}.bn.*" for x in "qkv"),
                     *(f"{CVT_BLOCK}.attn.proj_{x}.*" for x in "qkv"),
                     f"{CVT_BLOCK}.mlp.fc1.*", f"{CVT_BLOCK}.mlp.fc2.*", "norm.*", "head.*")

HF_CVT_STAGE = "[cvt.]encoder.stages.{i}"
HF_CVT_BLOCK = f"{HF_CVT_STAGE}.layers.{{j}}"
HF_CVT_CONV = f"{HF_CVT_BLOCK}.attention.attention.convolution_projection_"
HF_QKV = {"q": "query", "k": "key", "v": "value"}
HUGGINGFACE_CVT = [
    Row("stage{i}.patch_embed.proj.*", f"{HF_CVT_STAGE}.embedding.convolution_embeddings.projection.*"),
    Row("stage{i}.patch_embed.norm.*", f"{HF_CVT_STAGE}.embedding.convolution_embeddings.normalization.*"),
    Row("stage{i}.cls_token", f"{HF_CVT_STAGE}.cls_token"),
    Row(f"{CVT_BLOCK}.norm1.*", f"{HF_CVT_BLOCK}.layernorm_before.*"),
    Row(f"{CVT_BLOCK}.norm2.*", f"{HF_CVT_BLOCK}.layernorm_after.*"),
    *(Row(f"{CVT_BLOCK}.attn.conv_proj_{x}.conv.*", f"{HF_CVT_CONV}{there}.convolution_projection.convolution.*")
      for x, there in HF_QKV.items()),
    *(Row(f"{CVT_BLOCK}.attn.conv_proj_{x}.bn.*", f"{HF_CVT_CONV}{there}.convolution_projection.normalization.*")
      for x, there in HF_QKV.items()),
    *(Row(f"{CVT_BLOCK}.attn.proj_{x}.*", f"{HF_CVT_BLOCK}.attention.attention.projection_{there}.*")
      for x, there in HF_QKV.items()),
    Row(f"{CVT_BLOCK}.attn.proj.*", f"{HF_CVT_BLOCK}.attention.output.dense.*"),
    Row(f"{CVT_BLOCK}.mlp.fc1.*", f"{HF_CVT_BLOCK}.intermediate.dense.*"),
    Row(f"{CVT_BLOCK}.mlp.fc2.*", f"{HF_CVT_BLOCK}.output.dense.*"),
    Row("norm.*", "layernorm.*"),
    Row("head.*", "classifier.*"),
]

# (format, family) → rows. The order decides between tables that know as many of a file's names.
TABLES = {
    ("timm", "vit"): TIMM_VIT, ("google", "vit"): GOOGLE_VIT, ("big_vision", "vit"): BIG_VISION_VIT,
    ("huggingface", "vit"): HUGGINGFACE_VIT, ("torchvision", "vit"): TORCHVISION_VIT,
    ("timm", "swin"): TIMM_SWIN, ("microsoft", "swin"): MICROSOFT_SWIN, ("huggingface", "swin"): HUGGINGFACE_SWIN,
    ("torchvision", "swin"): TORCHVISION_SWIN,
    ("microsoft", "cvt"): MICROSOFT_CVT, ("huggingface", "cvt"): HUGGINGFACE_CVT,
}
