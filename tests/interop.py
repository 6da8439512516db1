"""Live checks against timm, transformers and torchvision themselves: make test-interop. Not part of make test.

    python tests/interop.py writes tests/golden/interop/, small files of these libraries, which tests/test_interop.py reads.

Models are random and tiny, with every parameter and statistic perturbed, in float64. Google's and microsoft's own code is not on
any index; their files are written here by hand, from the names in their sources, and read by timm, which is then the oracle.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

for name in ("nms", "qnms"):                         # a torchvision built for another torch asks for these when it is imported
    if not hasattr(torch.ops.torchvision, name):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm                                          # noqa: E402
import timm.models.swin_transformer as timm_swin     # noqa: E402
import timm.models.vision_transformer as timm_vit    # noqa: E402
import torchvision                                   # noqa: E402
import transformers                                  # noqa: E402

import numpyvit                                      # noqa: E402

GOLDEN = Path(__file__).parent / "golden" / "interop"
K, B = 5, 3


def perturbed(module, seed=0):
    """Every parameter and running statistic drawn anew, scales around 1, all in float32's numbers. float64, evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("attn_mask"):
            noise = torch.randn(tensor.shape, generator=generator).mul_(0.2)
            scale = tensor.ndim == 1 and name.endswith("weight")
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise + scale)
    module.load_state_dict({k: t.float() if t.is_floating_point() else t for k, t in module.state_dict().items()})
    return module.double().eval()


def images(module_size, seed=1):
    H, W = module_size
    return np.random.default_rng(seed).standard_normal((B, 3, H, W))


def logits_of(module, x):
    with torch.no_grad():
        out = module(torch.from_numpy(x))
    return (out if isinstance(out, torch.Tensor) else out.logits).numpy()


class QuickGELU(torch.nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def single(module):
    """The state dict in float32, as files hold it."""
    return {k: t.float() if t.is_floating_point() else t for k, t in module.state_dict().items()}


# --- the models: (size of images, torch module)

VIT = dict(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2, num_classes=K)
SWIN = dict(img_size=24, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=3, mlp_ratio=2, num_classes=K)


def timm_vit_model(**fields):
    return perturbed(timm_vit.VisionTransformer(**VIT | fields))


def timm_swin_model(**fields):
    return perturbed(timm_swin.SwinTransformer(**SWIN | fields))


def hf_vit_model(**fields):
    config = dict(image_size=12, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                  num_labels=K, id2label={k: f"class {k}" for k in range(K)})
    return perturbed(transformers.ViTForImageClassification(transformers.ViTConfig(**config | fields)))


def hf_swin_model(**fields):
    config = dict(image_size=24, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=3, mlp_ratio=2.0, num_labels=K,
                  hidden_act="gelu_new")
    return perturbed(transformers.SwinForImageClassification(transformers.SwinConfig(**config | fields)))


def hf_cvt_model(quick=False, **fields):
    config = dict(embed_dim=[8, 16], depth=[1, 2], num_heads=[1, 2], patch_sizes=[7, 3], patch_stride=[4, 2], patch_padding=[2, 1],
                  mlp_ratio=[2.0, 2.0], num_labels=K, drop_path_rate=[0.0, 0.0],
                  **{k: [v] * 2 for k, v in dict(attention_drop_rate=0.0, drop_rate=0.0, qkv_bias=True, kernel_qkv=3, padding_kv=1,
                                                 stride_kv=2, padding_q=1, stride_q=1, qkv_projection_method="dw_bn").items()},
                  cls_token=[False, True])
    model = perturbed(transformers.CvtForImageClassification(transformers.CvtConfig(**config | fields)))
    for module in list(model.modules()):
        for name, child in module.named_children():
            if quick and isinstance(child, torch.nn.GELU):
                setattr(module, name, QuickGELU())
    return model


def torchvision_vit_model(**fields):
    config = dict(image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=K)
    return perturbed(torchvision.models.VisionTransformer(**config | fields))


def torchvision_swin_model(**fields):
    config = dict(patch_size=[2, 2], embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=[3, 3], mlp_ratio=2.0, num_classes=K)
    return perturbed(torchvision.models.SwinTransformer(**config | fields))


# --- files of Google, big_vision and microsoft, from the names in their sources

def flax_arrays(big_vision=False, cls=True, hidden=0, stacked=False, seed=3):
    """Arrays of a ViT under the names of google-research/vision_transformer (or big_vision), with their shapes there."""
    rng = np.random.default_rng(seed)
    D, nh, hd, E, P = 16, 2, 8, 32, 4

    def draw(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)
    attention, norm2, mlp = (("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0") if big_vision
                             else ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"))
    tree = {"embedding/kernel": draw(P, P, 3, D), "embedding/bias": draw(D)}
    tree["pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"] = draw(1, 9 + (cls and not big_vision), D)
    if cls:
        tree["cls"] = draw(1, 1, D)
    blocks = []
    for _ in range(2):
        block = {}
        for norm in ("LayerNorm_0", norm2):
            block |= {f"{norm}/scale": 1 + draw(D), f"{norm}/bias": draw(D)}
        for part in ("query", "key", "value"):
            block |= {f"{attention}/{part}/kernel": draw(D, nh, hd), f"{attention}/{part}/bias": draw(nh, hd)}
        block |= {f"{attention}/out/kernel": draw(nh, hd, D), f"{attention}/out/bias": draw(D),
                  f"{mlp}/Dense_0/kernel": draw(D, E), f"{mlp}/Dense_0/bias": draw(E),
                  f"{mlp}/Dense_1/kernel": draw(E, D), f"{mlp}/Dense_1/bias": draw(D)}
        blocks.append(block)
    if stacked:
        tree |= {f"Transformer/encoderblock/{k}": np.stack([b[k] for b in blocks]) for k in blocks[0]}
    else:
        tree |= {f"Transformer/encoderblock_{i}/{k}": v for i, b in enumerate(blocks) for k, v in b.items()}
    tree |= {"Transformer/encoder_norm/scale": 1 + draw(D), "Transformer/encoder_norm/bias": draw(D)}
    if hidden:
        tree |= {"pre_logits/kernel": draw(D, hidden), "pre_logits/bias": draw(hidden)}
    return tree | {"head/kernel": draw(hidden or D, K), "head/bias": draw(K)}


def timm_reads(npz, **fields):
    """The timm model that its own loader fills from a Google .npz."""
    model = timm_vit.VisionTransformer(**VIT, act_layer="gelu_tanh", **fields)
    model.load_pretrained(str(npz))
    return model.double().eval()


def microsoft_swin_state(module):
    """timm's Swin under microsoft's names, with the buffers of their code."""
    state = {}
    for name, tensor in single(module).items():
        if "downsample" in name:
            i = int(name.split(".")[1])
            name = name.replace(f"layers.{i}.", f"layers.{i - 1}.")
        state[name.replace("head.fc.", "head.")] = tensor
    for i, stage in enumerate(module.layers):
        for j, block in enumerate(stage.blocks):
            state[f"layers.{i}.blocks.{j}.attn.relative_position_index"] = block.attn.relative_position_index
            mask = block.get_attn_mask()
            if mask is not None:
                state[f"layers.{i}.blocks.{j}.attn_mask"] = mask.float()
    return state


def microsoft_cvt_state(module):
    """Hugging Face's CvT under the names of microsoft/CvT's cls_cvt.py."""
    state = {}
    changes = [("cvt.encoder.stages.", "stage"), (".embedding.convolution_embeddings.projection", ".patch_embed.proj"),
               (".embedding.convolution_embeddings.normalization", ".patch_embed.norm"), (".layers.", ".blocks."),
               (".layernorm_before", ".norm1"), (".layernorm_after", ".norm2"),
               *((f".attention.attention.convolution_projection_{w}.convolution_projection.convolution", f".attn.conv_proj_{w[0]}.conv")
                 for w in ("query", "key", "value")),
               *((f".attention.attention.convolution_projection_{w}.convolution_projection.normalization", f".attn.conv_proj_{w[0]}.bn")
                 for w in ("query", "key", "value")),
               *((f".attention.attention.projection_{w}", f".attn.proj_{w[0]}") for w in ("query", "key", "value")),
               (".attention.output.dense", ".attn.proj"), (".intermediate.dense", ".mlp.fc1"), (".output.dense", ".mlp.fc2"),
               ("layernorm.", "norm."), ("classifier.", "head.")]
    for name, tensor in single(module).items():
        for old, new in changes:
            name = name.replace(old, new)
        state[name] = tensor
    return state


# --- goldens: name → (what to write into a folder, the oracle, fields for load_model)

def save_npz(path, tree, prefix=""):
    np.savez(path, **{prefix + name: array for name, array in tree.items()})


def golden_cases(folder):
    """(name, file or folder, module, size of images, fields that load_model has to be told) of every golden."""
    from safetensors.torch import save_file

    def write(name, save, module, fields=None, size=(12, 12)):
        return name, save, module, size, fields or {}

    def hf(path, module):
        module.float().save_pretrained(path)
        module.double()
        (Path(path) / "preprocessor_config.json").write_text(json.dumps(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}, "resample": 2, "image_mean": [0.4, 0.5, 0.6],
             "image_std": [0.1, 0.2, 0.3]}))
        (Path(path) / "README.md").unlink(missing_ok=True)
    two = {"num_heads": 2}
    for pool, fields in {"token": {}, "avg": dict(global_pool="avg", class_token=False),
                         "gap": dict(global_pool="avg", class_token=False, fc_norm=False)}.items():
        module = timm_vit_model(**fields)
        yield write(f"timm_vit_{pool}.safetensors", lambda path, m=module: save_file(single(m), path), module, two)
    module = timm_swin_model()
    yield write("timm_swin.pth", lambda path: torch.save({"epoch": 3, "state_dict": {f"module.{k}": t for k, t in single(module).items()}},
                                                         path), module, {"img_size": 24}, (24, 24))
    yield write("microsoft_swin.pth", lambda path: torch.save({"model": microsoft_swin_state(module)}, path,
                                                              _use_new_zipfile_serialization=False), module, {"img_size": 24}, (24, 24))
    vit = hf_vit_model()
    yield write("huggingface_vit", lambda path: hf(path, vit), vit)
    swin = hf_swin_model()
    yield write("huggingface_swin", lambda path: hf(path, swin), swin, {}, (24, 24))
    cvt = hf_cvt_model()
    yield write("huggingface_cvt", lambda path: hf(path, cvt), cvt, {"img_size": (37, 32), "act": "gelu"}, (37, 32))
    quick = hf_cvt_model(quick=True)
    yield write("microsoft_cvt.pth", lambda path: torch.save(microsoft_cvt_state(quick), path), quick,
                {"img_size": (37, 32), "num_heads": (1, 2)}, (37, 32))
    tv = torchvision_vit_model(representation_size=12)
    yield write("torchvision_vit.pth", lambda path: torch.save(single(tv), path), tv, two)
    tvs = torchvision_swin_model()
    yield write("torchvision_swin.pth", lambda path: torch.save(single(tvs), path), tvs, {"img_size": (26, 32)}, (26, 32))
    for name, options, fields, prefix in (("google_vit", {}, {}, "opt/target/"), ("google_gap", dict(cls=False), dict(
            global_pool="avg", class_token=False, fc_norm=False), ""), ("big_vision_gap", dict(big_vision=True, cls=False, stacked=True), dict(
            global_pool="avg", class_token=False, fc_norm=False), "params/")):
        tree = flax_arrays(**options)
        npz = Path(folder) / f"{name}.npz"
        save_npz(npz, tree, prefix)
        yield write(f"{name}.npz", lambda path, t=tree, p=prefix: save_npz(path, t, p), timm_reads(npz, **fields))


def write_goldens():
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(parents=True)
    index = {}
    for name, save, module, size, fields in golden_cases(GOLDEN):
        x = images(size)
        save(GOLDEN / name)
        index[name] = dict(size=size, fields=fields, logits=logits_of(module, x).tolist())
    versions = {m.__name__: m.__version__ for m in (torch, timm, transformers, torchvision)}
    (GOLDEN / "logits.json").write_text(json.dumps({"versions": versions, "cases": index}) + "\n")


# --- live: numpyvit's files opened by the libraries

def err(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def ours(family, seed=5, **fields):
    """A numpyvit model in float64 whose every parameter is perturbed."""
    model = numpyvit.create_model(family, seed=seed, dtype="float64", num_classes=K, **fields)
    rng = np.random.default_rng(seed)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.2, p.shape)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer += rng.random(buffer.shape)
        elif name.endswith("running_mean"):
            buffer += rng.normal(0, 0.3, buffer.shape)
    return model


OUR_VIT = dict(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0)
OUR_SWIN = dict(img_size=24, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=3, mlp_ratio=2.0)
OUR_CVT = dict(img_size=(37, 32), embed_dims=(8, 16), depths=(1, 2), num_heads=(1, 2), patch_sizes=(7, 3), patch_strides=(4, 2),
               patch_paddings=(2, 1), mlp_ratio=2.0)


def opened(format, path, make):
    """A module of the library with the file's weights, in float64."""
    module = make()
    state = torch.load(path, weights_only=True) if str(path).endswith(".pth") else __import__("safetensors.torch").torch.load_file(path)
    module.load_state_dict(state, strict=True)
    return module.double().eval()


OUT = {
    "timm vit": ("vit", OUR_VIT, "timm", ".safetensors", timm_vit_model),
    "timm vit avg": ("vit", OUR_VIT | {"global_pool": "avg"}, "timm", ".pth",
                     lambda: timm_vit_model(global_pool="avg", class_token=False)),
    "timm vit gap": ("vit", OUR_VIT | {"global_pool": "gap"}, "timm", ".pth",
                     lambda: timm_vit_model(global_pool="avg", class_token=False, fc_norm=False)),
    "timm vit oblong": ("vit", OUR_VIT | {"img_size": (12, 20)}, "timm", ".pth", lambda: timm_vit_model(img_size=(12, 20))),
    "timm swin": ("swin", OUR_SWIN, "timm", ".pth", timm_swin_model),
    "torchvision vit": ("vit", OUR_VIT, "torchvision", ".pth", torchvision_vit_model),
    "torchvision vit 21k": ("vit", OUR_VIT | {"representation_size": 12}, "torchvision", ".safetensors",
                            lambda: torchvision_vit_model(representation_size=12)),
    "torchvision swin": ("swin", OUR_SWIN, "torchvision", ".pth", torchvision_swin_model),
    "torchvision swin, odd": ("swin", OUR_SWIN | {"img_size": (26, 32)}, "torchvision", ".pth", torchvision_swin_model),
    "huggingface vit": ("vit", OUR_VIT | {"norm_eps": 1e-12, "act": "gelu_tanh"}, "huggingface", "", transformers.ViTForImageClassification),
    "huggingface vit relu": ("vit", OUR_VIT | {"act": "relu"}, "huggingface", "", transformers.ViTForImageClassification),
    "huggingface swin": ("swin", OUR_SWIN, "huggingface", "", transformers.SwinForImageClassification),
    "huggingface swin, odd": ("swin", OUR_SWIN | {"img_size": 26}, "huggingface", "", transformers.SwinForImageClassification),
    "huggingface cvt": ("cvt", OUR_CVT | {"act": "gelu"}, "huggingface", "", transformers.CvtForImageClassification),
}


@pytest.mark.parametrize("family, fields, format, suffix, make", OUT.values(), ids=OUT.keys())
def test_files_of_ours_in_the_library(tmp_path, family, fields, format, suffix, make):
    model = ours(family, **fields)
    path = tmp_path / f"w{suffix}"
    assert numpyvit.save_weights(model, path, format=format) == []
    if format == "huggingface":
        module, info = make.from_pretrained(path, output_loading_info=True, dtype=torch.float64)
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        module = module.eval()
    else:
        module = opened(format, path, make)
    x = images(numpyvit.module.pair(model.config.img_size))
    expected = model.forward(x)[0]
    assert err(logits_of(module, x), expected) < 1e-12
    back = numpyvit.load_model(path, dtype="float64", **fields if format != "huggingface" else {"img_size": model.config.img_size,
                                                                                                "act": model.config.act})
    assert err(back.forward(x)[0], expected) < 1e-12
    single = back.forward(x.astype(np.float32))[0]
    assert err(single, expected) < 2e-5


@pytest.mark.parametrize("cls", [True, False])
def test_google_files_of_ours_in_timm(tmp_path, cls):
    fields = OUR_VIT | {"act": "gelu_tanh", "global_pool": "token" if cls else "gap"}
    model = ours("vit", **fields)
    for _, p in model.named_parameters():
        p.data[...] = p.data.astype(np.float32)
    numpyvit.save_weights(model, tmp_path / "w.npz", format="google")
    module = timm_reads(tmp_path / "w.npz", **({} if cls else dict(global_pool="avg", class_token=False, fc_norm=False)))
    x = images((12, 12))
    assert err(logits_of(module, x), model.forward(x)[0]) < 1e-12


def test_microsoft_files_of_ours_in_timm(tmp_path):
    model = ours("swin", **OUR_SWIN)
    numpyvit.save_weights(model, tmp_path / "w.pth", format="microsoft")
    module = timm_swin_model()
    state = timm_swin.checkpoint_filter_fn(torch.load(tmp_path / "w.pth", weights_only=True), module)
    module.load_state_dict(state, strict=True)
    x = images((24, 24))
    assert err(logits_of(module, x), model.forward(x)[0]) < 1e-12
    written = torch.load(tmp_path / "w.pth", weights_only=True)["model"]
    expected = microsoft_swin_state(module)
    assert written.keys() == expected.keys() and all(written[k].shape == expected[k].shape for k in expected)


@pytest.mark.parametrize("name", sorted(json.loads((GOLDEN / "logits.json").read_text())["cases"]) if GOLDEN.exists() else [])
def test_goldens_are_what_the_libraries_say_today(name, tmp_path):
    for case, _, module, size, _ in golden_cases(tmp_path):
        if case == name:
            logits = json.loads((GOLDEN / "logits.json").read_text())["cases"][name]["logits"]
            assert err(logits_of(module, images(size)), np.array(logits)) < 1e-9


if __name__ == "__main__":
    sys.exit(write_goldens())
