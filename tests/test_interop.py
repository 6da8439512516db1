"""Files that timm, transformers and torchvision wrote (tests/interop.py), read here: the logits are theirs, the files written are theirs.

tests/golden/interop holds their files and the logits that they computed from these in float64.
"""
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import numpyvit
from numpyvit.errors import UserError
from numpyvit.files.pth import write_pth
from numpyvit.files.safetensors import write_tensors
from numpyvit.module import pair
from numpyvit.weights.images import Preprocessing
from numpyvit.weights.sources import read_source
from tiny import same

GOLDEN = Path(__file__).parent / "golden" / "interop"
CASES = json.loads((GOLDEN / "logits.json").read_text())["cases"]
FORMATS = ("timm", "huggingface", "torchvision", "google", "microsoft")
each_case = pytest.mark.parametrize("name", CASES)


def err(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def images(size):
    return np.random.default_rng(1).standard_normal((3, 3, *size))


def load(name, dtype="float64", **fields):
    fields = {field: tuple(v) if isinstance(v, list) else v for field, v in (CASES[name]["fields"] | fields).items()}
    return numpyvit.load_model(GOLDEN / name, dtype=dtype, **fields)


@each_case
@pytest.mark.parametrize("dtype, limit", [("float64", 1e-12), ("float32", 2e-5)])
def test_logits_are_the_librarys(name, dtype, limit):
    model = load(name, dtype)
    logits = model.forward(images(CASES[name]["size"]).astype(dtype))[0]
    assert logits.dtype == dtype and err(logits, np.array(CASES[name]["logits"])) < limit


@each_case
def test_load_weights_into_a_model_of_that_config(name):
    model = load(name)
    other = numpyvit.create_model(type(model).__name__.lower(), dtype="float64", seed=3,
                                  **{f: getattr(model.config, f) for f in model.config.__dataclass_fields__})
    said = numpyvit.load_weights(other, GOLDEN / name)
    assert same(model.state_dict(), other.state_dict())
    title = {"huggingface": "Hugging Face", "big": "big_vision", "google": "google"}.get(name.split("_")[0], name.split("_")[0])
    if not name.startswith(("timm", "microsoft_cvt")):
        assert any(title.lower() in sentence.lower() for sentence in said), said


@each_case
def test_what_is_written_is_the_file(name, tmp_path):
    """Out again in the format that the file had: the same tensors, bit for bit, but for numbers that torch does not keep."""
    if name.startswith("big_vision"):
        pytest.skip("big_vision's names are read only")
    format = next(f for f in FORMATS if name.startswith(f))
    model = load(name, "float32")
    suffix = Path(name).suffix
    written = tmp_path / f"w{suffix}"
    numpyvit.save_weights(model, written, format=format)
    theirs, ours = read_source(GOLDEN / name).tensors, read_source(written).tensors
    theirs = {key.removeprefix("opt/target/"): array for key, array in theirs.items()}
    assert same(theirs, ours)
    if format == "huggingface":
        theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / name, written))
        for key in ours.keys() & theirs.keys() - {"label2id", "hidden_act", *(["layer_norm_eps"] if "cvt" in name else [])}:
            assert ours[key] == theirs[key], key


def test_a_folder_brings_classes_and_preprocessing():
    model = load("huggingface_vit")
    assert model.classes == [f"class {k}" for k in range(5)] and model.config.norm_eps == 1e-12
    p = model.preprocessing
    assert (p.size, p.how, p.interpolation, p.mean, p.std) == ((12, 12), "squash", "bilinear", (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    expected = (pixels / 255 - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]
    np.testing.assert_allclose(p(pixels, "float64"), expected.transpose(2, 0, 1), atol=1e-12)
    logits = model.forward(p(pixels, "float64")[None])[0][0]
    best = model.predict(pixels, top=2)
    assert [name for name, _ in best] == [f"class {k}" for k in np.argsort(-logits)[:2]]
    np.testing.assert_allclose([p for _, p in best], np.sort(np.exp(logits) / np.exp(logits).sum())[::-1][:2])


# --- the traps of facts/architecture.md: each handling taken away is seen in the logits

TRAPS = {                                                                    # golden → a field as it must not be
    "GELU by erf where Google has tanh": ("google_vit.npz", {"act": "gelu"}),
    "GELU by erf where CvT has quick": ("microsoft_cvt.pth", {"act": "gelu"}),
    "quick GELU where transformers' CvT has erf": ("huggingface_cvt", {"act": "quick_gelu"}),
    "GELU by erf where config.json says gelu_new": ("huggingface_swin", {"act": "gelu"}),
    "an epsilon of 1e-6 where Hugging Face has 1e-12": ("huggingface_vit", {"norm_eps": 1e-6}),
    "an epsilon of 1e-6 where Swin has 1e-5": ("timm_swin.pth", {"norm_eps": 1e-6}),
    "an epsilon of 1e-5 where torchvision's ViT has 1e-6": ("torchvision_vit.pth", {"norm_eps": 1e-5}),
    "another number of heads": ("timm_vit_token.safetensors", {"num_heads": 4}),
}


@pytest.mark.parametrize("name, wrong", TRAPS.values(), ids=TRAPS.keys())
def test_traps(name, wrong):
    x, expected = images(CASES[name]["size"]), np.array(CASES[name]["logits"])
    assert err(load(name).forward(x)[0], expected) < 1e-12 < 1e-7 < err(load(name, **wrong).forward(x)[0], expected)


def test_other_functions_of_the_same_weights_are_said():
    vit = dict(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=5)
    said = numpyvit.load_weights(numpyvit.create_model("vit", **vit), GOLDEN / "google_vit.npz")
    assert any("act gelu_tanh" in s for s in said)
    said = numpyvit.load_weights(numpyvit.create_model("vit", **vit), GOLDEN / "huggingface_vit")
    assert any("norm_eps 1e-12" in s for s in said)
    for name in ("google_vit.npz", "huggingface_vit"):                       # the heads are in the file: another number is an error
        with pytest.raises(numpyvit.errors.UserError, match="2 heads, this model's 4"):
            numpyvit.load_weights(numpyvit.create_model("vit", **vit | {"num_heads": 4}), GOLDEN / name)


def test_mean_pooling_is_not_one_function():
    """Google and big_vision normalise, then average; timm's fc_norm averages, then normalises. The names tell them apart."""
    gap, avg = load("timm_vit_gap.safetensors"), load("timm_vit_avg.safetensors")
    assert (gap.config.global_pool, avg.config.global_pool) == ("gap", "avg")
    x = images((12, 12))
    state = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: a for name, a in gap.state_dict().items()}
    avg.load_state_dict(state)
    assert err(avg.forward(x)[0], np.array(CASES["timm_vit_gap.safetensors"]["logits"])) > 1e-3


# --- what no shape tells: kept in the file, said in config.json, or assumed and said

VIT = dict(img_size=32, patch_size=16, embed_dim=128, depth=1, num_heads=4, mlp_ratio=1.0, num_classes=3)
SWIN = dict(img_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, mlp_ratio=1.0, num_classes=3)
CVT = dict(img_size=(37, 32), embed_dims=(64, 128), depths=(1, 2), num_heads=(1, 2), patch_sizes=(7, 3), patch_strides=(4, 2),
           patch_paddings=(2, 1), mlp_ratio=1.0, num_classes=3)


def guesses(model):
    return [note for note in model.notes if "assumed" in note]


def refused(path, match, **fields):
    with pytest.raises(UserError, match=match) as caught:
        numpyvit.load_model(path, **fields)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("family, fields, format, file", [
    ("vit", VIT | {"act": "relu", "norm_eps": 1e-3, "img_size": (16, 64)}, "timm", "w.safetensors"),
    ("vit", VIT | {"pos_embed": "sincos2d"}, "torchvision", "w.safetensors"), ("swin", SWIN | {"img_size": 24}, "timm", "w.safetensors"),
    ("swin", SWIN | {"img_size": (16, 24)}, "microsoft", "w.safetensors"), ("cvt", CVT | {"num_heads": (2, 4)}, "microsoft", "w.safetensors")])
def test_a_file_in_the_names_of_another_library_keeps_our_config(tmp_path, family, fields, format, file):
    model = numpyvit.create_model(family, seed=1, **fields)
    model.classes, model.preprocessing = list("abc"), Preprocessing(pair(model.config.img_size), "squash")
    numpyvit.save_weights(model, tmp_path / file, format=format)
    again = numpyvit.load_model(tmp_path / file)
    wanted = dataclasses.asdict(model.config) | ({"pos_embed": "learn"} if family == "vit" else {})
    assert dataclasses.asdict(again.config) == wanted and guesses(again) == []
    assert again.classes == model.classes and again.preprocessing == model.preprocessing
    x = np.random.default_rng(0).standard_normal((2, 3, *model.preprocessing.size)).astype(np.float32)
    np.testing.assert_allclose(again.forward(x)[0], model.forward(x)[0], rtol=0, atol=1e-6)
    assert all(s.startswith("read as a") for s in numpyvit.load_weights(again, tmp_path / file))
    said = numpyvit.load_weights(numpyvit.create_model(family, **wanted | {"norm_eps": 0.1}), tmp_path / file)
    assert any("the weights were made with norm_eps" in s for s in said)
    heads = 1 if family == "vit" else (1, 1)
    with pytest.raises(UserError, match="heads"):
        numpyvit.load_weights(numpyvit.create_model(family, **wanted | {"num_heads": heads}), tmp_path / file)


def test_what_was_guessed_is_said(tmp_path):
    def said(family, fields, format, file, **given):
        numpyvit.save_weights(numpyvit.create_model(family, **fields), tmp_path / file, format=format)
        return guesses(numpyvit.load_model(tmp_path / file, **given))
    assert said("vit", VIT, "timm", "w.pth") == [
        "no whole config came with the weights: assumed 2 heads of width 64 and images of 32 × 32; give num_heads and img_size if that is wrong"]
    assert "assumed images of 32 × 32; give img_size if" in said("vit", VIT, "timm", "w.pth", num_heads=4)[0]
    assert "assumed images of 32 × 32; give img_size if" in said("vit", VIT, "google", "w.npz")[0]          # whose shapes tell the heads
    assert said("vit", VIT, "timm", "w.pth", num_heads=4, img_size=32) == []
    assert "assumed images of 16 × 16; give img_size if" in said("swin", SWIN, "timm", "w.pth")[0]
    assert said("swin", SWIN, "timm", "w.pth", img_size=24) == []
    assert ("assumed 1 and 2 heads, images of 224 × 224 and strides of 4 and 2; give num_heads, img_size and patch_strides if"
            in said("cvt", CVT, "microsoft", "w.pth")[0])


def test_windows_that_contradict_each_other(tmp_path):
    """timm's Swin-S3 has windows of 7, 7, 14 and 7; it was read as a model of 28 pixels."""
    deep = SWIN | dict(img_size=112, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=7)
    model = numpyvit.create_model("swin", **deep)
    numpyvit.save_weights(model, tmp_path / "w.pth", format="timm")
    tensors = dict(read_source(tmp_path / "w.pth").tensors)
    assert numpyvit.load_model(tmp_path / "w.pth").config.img_size == 112
    table = "layers.2.blocks.0.attn.relative_position_bias_table"
    write_pth(tmp_path / "s3.pth", tensors | {table: np.zeros((27 * 27, 4), np.float32)})
    refused(tmp_path / "s3.pth", "sides of 7, 7, 14, 7 in its stages; expected one window_size")
    small = numpyvit.create_model("swin", **SWIN | dict(img_size=18, depths=(1, 1, 1), num_heads=(1, 2, 4)))   # maps of 9, 5, 3: 4, 4, 3
    numpyvit.save_weights(small, tmp_path / "v.pth", format="timm")
    assert numpyvit.load_model(tmp_path / "v.pth", img_size=18).config.window_size == 4
    two = numpyvit.create_model("swin", **SWIN | {"depths": (2, 1)})
    numpyvit.save_weights(two, tmp_path / "b.pth", format="timm")
    tensors = dict(read_source(tmp_path / "b.pth").tensors)
    write_pth(tmp_path / "b.pth", tensors | {"layers.0.blocks.1.attn.relative_position_bias_table": np.zeros((9, 1), np.float32)})
    refused(tmp_path / "b.pth", "stage 0 has another")


def test_the_images_of_a_cvt(tmp_path):
    """image_size of config.json, else the preprocessor's, else 224 and a note."""
    for size in (40, (37, 32)):
        numpyvit.save_weights(numpyvit.create_model("cvt", **CVT | {"img_size": size}), tmp_path / "hf", format="huggingface")
        model = numpyvit.load_model(tmp_path / "hf")
        assert model.config.img_size == size and guesses(model) == []
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config.pop("image_size") == [37, 32]
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    for preprocessor, size in (({"size": 64, "crop_pct": 0.875}, 64), ({"size": {"shortest_edge": 96}}, 96), ({"size": {"height": 64, "width": 96}}, (64, 96)),
                               ({"size": {"shortest_edge": 80}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}}, 64),
                               ({"resample": 3}, 224)):
        (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        model = numpyvit.load_model(tmp_path / "hf")
        assert model.config.img_size == size == model.preprocessing.size[0] or model.preprocessing.size == size
        assert [("224 × 224" in note) for note in guesses(model)] == [True] * (size == 224)
    assert numpyvit.load_model(tmp_path / "hf", img_size=64).config.img_size == 64
    assert guesses(numpyvit.load_model(tmp_path / "hf", img_size=64)) == []


def test_names_of_classes(tmp_path):
    """ImageNet's are assumed for a thousand and that is said; a class may be called None."""
    model = numpyvit.create_model("vit", **VIT | {"num_classes": 1000})
    numpyvit.save_weights(model, tmp_path / "w.pth", format="timm")
    again = numpyvit.load_model(tmp_path / "w.pth", num_heads=4, img_size=32)
    assert again.classes[0] == "tench" and again.notes == ["no names of classes came with the weights: assumed the 1000 of ImageNet in their usual order"]
    model.classes = [f"part {i}" for i in range(1000)]
    numpyvit.save_weights(model, tmp_path / "w.safetensors", format="timm")
    again = numpyvit.load_model(tmp_path / "w.safetensors")
    assert again.classes == model.classes and again.notes == []
    model = numpyvit.create_model("vit", **VIT)
    for model.classes in (["None", "b", "c"], ["a", "None", ""]):
        numpyvit.save_weights(model, tmp_path / "hf", format="huggingface")
        assert numpyvit.load_model(tmp_path / "hf").classes == model.classes
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for names in ({"0": "a", "1": None, "2": "c"}, {"0": "a", "1": "b", "3": "c"}, {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}):
        (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"id2label": names}))
        assert numpyvit.load_model(tmp_path / "hf").classes is None


# --- timm's config.json

def timm_folder(path, fields, **config):
    """A folder as timm writes it: tensors without a config of ours, and config.json."""
    path.mkdir(exist_ok=True)
    model = numpyvit.create_model("swin" if "depths" in fields else "vit", seed=1, **fields)
    write_tensors(path / "model.safetensors", model.state_dict(), {"format": "pt"})
    (path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_224", **config}))
    return model


def test_timms_config_is_followed(tmp_path):
    model = timm_folder(tmp_path / "t", VIT | {"act": "quick_gelu"}, global_pool="token", model_args={
        "num_heads": 4, "img_size": 32, "act_layer": "quick_gelu", "class_token": True, "fc_norm": False, "drop_rate": None})
    again = numpyvit.load_model(tmp_path / "t")
    assert again.config == model.config and again.notes == []
    with pytest.raises(UserError, match="4 heads"):
        numpyvit.load_weights(numpyvit.create_model("vit", **VIT | {"num_heads": 2}), tmp_path / "t")
    for pool, fc_norm in (("avg", None), ("avg", True), ("gap", False)):
        model = timm_folder(tmp_path / "t", VIT | {"global_pool": pool}, global_pool="avg", model_args={
            "num_heads": 4, "class_token": False, "fc_norm": fc_norm}, pretrained_cfg={"input_size": [3, 32, 32]})
        assert numpyvit.load_model(tmp_path / "t").config == model.config
    model = timm_folder(tmp_path / "t", VIT | {"img_size": (16, 64)}, model_args={"num_heads": 4, "img_size": [16, 64]})
    assert numpyvit.load_model(tmp_path / "t").config == model.config
    model = timm_folder(tmp_path / "t", VIT | {"act": "quick_gelu"}, architecture="vit_base_patch32_clip_quickgelu_224",
                        model_args={"num_heads": 4}, pretrained_cfg={"input_size": [3, 32, 32]})
    assert numpyvit.load_model(tmp_path / "t").config == model.config
    model = timm_folder(tmp_path / "t", SWIN | {"img_size": 24}, architecture="swin_x", global_pool="avg",
                        model_args={"window_size": [4, 4], "img_size": 24, "embed_dim": 8})
    assert numpyvit.load_model(tmp_path / "t").config == model.config


@pytest.mark.parametrize("config, said", [
    ({"architecture": "vit_base_patch16_rpn_224"}, "architecture 'vit_base_patch16_rpn_224', which no model here"),
    ({"architecture": "swin_s3_tiny_224"}, "architecture 'swin_s3_tiny_224', which no model here"),
    ({"global_pool": "avg"}, "global_pool 'avg' of a ViT with a class token"), ({"global_pool": "map"}, "global_pool 'map'"),
    ({"model_args": {"global_pool": "avg", "fc_norm": False}}, "global_pool 'avg'"), ({"model_args": {"class_token": False}}, "with a class token"),
    ({"model_args": {"fc_norm": True}}, "fc_norm True, but the weights have no fc_norm"), ({"model_args": {"act_layer": "silu"}}, "act_layer 'silu'"),
    ({"model_args": {"qk_norm": True}}, "qk_norm is not understood"), ({"model_args": [1]}, "model_args"), ({"model_args": {"num_heads": 3}}, "num_heads"),
    ({"model_args": {"act_layer": ["gelu"]}}, "act_layer"), ({"model_args": {"num_heads": [[4], 4]}}, "num_heads"), ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode of the pretrained_cfg")], ids=str)
def test_what_timms_config_asks_for_and_no_model_here_does(tmp_path, config, said):
    timm_folder(tmp_path / "t", VIT, **config)
    refused(tmp_path / "t", said)
