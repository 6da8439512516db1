"""Formats of weights: out and in again bit for bit, recognised by their content, refused in one line that names the format."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import numpyvit
from numpyvit.errors import UserError
from numpyvit.files.npz import read_npz, write_npz
from numpyvit.files.pth import write_pth
from numpyvit.files.safetensors import read_tensors, write_tensors
from numpyvit.models import model_config
from numpyvit.ops.relative_position import relative_position_index
from numpyvit.weights import names
from numpyvit.weights.build import imagenet_classes
from numpyvit.weights.images import IMAGENET, Preprocessing, usual_preprocessing
from numpyvit.weights.names import fill, match
from numpyvit.weights.sources import read_source
from numpyvit.weights.tables import TABLES
from tiny import same

VIT = dict(img_size=12, patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=5)
SWIN = dict(img_size=24, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=3, mlp_ratio=2.0, num_classes=5)
CVT = dict(img_size=(37, 32), embed_dims=(8, 16), depths=(1, 2), num_heads=(1, 2), patch_sizes=(7, 3), patch_strides=(4, 2),
           patch_paddings=(2, 1), mlp_ratio=2.0, num_classes=5)
FIELDS = {"vit": VIT, "swin": SWIN, "cvt": CVT}
GOLDEN = Path(__file__).parent / "golden" / "interop"


def model_of(family, seed=1, dtype="float32", **fields):
    """A model whose every tensor is random, counts included."""
    model = numpyvit.create_model(family, seed=seed, dtype=dtype, **FIELDS[family] | fields)
    rng = np.random.default_rng(seed)
    model.load_state_dict({name: rng.integers(0, 9, a.shape) if a.dtype.kind == "i" else rng.standard_normal(a.shape).astype(dtype)
                           for name, a in model.state_dict().items()})
    return model


ROUND_TRIPS = [("vit", "numpyvit", ".safetensors", {}), ("vit", "timm", ".safetensors", {}), ("vit", "timm", ".pth", {}),
               ("vit", "torchvision", ".pth", {}), ("vit", "google", ".npz", {}), ("vit", "huggingface", "", {}),
               ("vit", "timm", ".pt", {"global_pool": "avg"}), ("vit", "google", ".npz", {"global_pool": "gap"}),
               ("vit", "google", ".npz", {"representation_size": 10}), ("vit", "timm", ".pth", {"representation_size": 10}),
               ("vit", "timm", ".pth", {"qkv_bias": False}), ("vit", "huggingface", "", {"qkv_bias": False}),
               ("vit", "numpyvit", ".safetensors", {"img_size": (8, 20), "pos_embed": "sincos2d"}),
               ("swin", "numpyvit", ".safetensors", {}), ("swin", "timm", ".bin", {}), ("swin", "huggingface", "", {}),
               ("swin", "torchvision", ".pth", {}), ("swin", "microsoft", ".pth", {}), ("swin", "microsoft", ".safetensors", {}),
               ("swin", "timm", ".pth", {"img_size": 8}),                    # maps of 4 and 2: a window of 2
               ("cvt", "numpyvit", ".safetensors", {}), ("cvt", "microsoft", ".pth", {}), ("cvt", "huggingface", "", {}),
               ("cvt", "huggingface", "", {"cls_token": False}), ("cvt", "microsoft", ".pth", {"qkv_method": "linear"})]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family, format, suffix, fields", ROUND_TRIPS)
def test_round_trips_are_bit_for_bit(tmp_path, family, format, suffix, fields, dtype):
    model, other = (model_of(family, seed, dtype, **fields) for seed in (1, 2))
    numpyvit.save_weights(model, tmp_path / f"w{suffix}", format=format)
    numpyvit.load_weights(other, tmp_path / f"w{suffix}")
    assert same(model.state_dict(), other.state_dict())
    numpyvit.save_weights(other, tmp_path / f"v{suffix}", format=format)     # the same file again, to the last byte
    files = [""] if suffix else ["model.safetensors", "config.json", "preprocessor_config.json"]
    for file in files:
        assert (tmp_path / f"w{suffix}" / file).read_bytes() == (tmp_path / f"v{suffix}" / file).read_bytes()


def test_a_model_of_ours_brings_its_use_along(tmp_path):
    model = model_of("vit", drop_rate=0.1)
    model.classes, model.preprocessing = list("abcde"), Preprocessing((12, 12), "fit", 1.0, "bicubic", (0.1,) * 3, (0.2,) * 3, "a test")
    numpyvit.save_weights(model, tmp_path / "w.safetensors")
    again = numpyvit.load_model(tmp_path / "w.safetensors")
    assert again.config == model.config and again.classes == model.classes and again.preprocessing == model.preprocessing
    assert same(again.state_dict(), model.state_dict()) and again.notes == []
    numpyvit.save_weights(again, tmp_path / "hf", format="huggingface")
    third = numpyvit.load_model(tmp_path / "hf")
    assert third.classes == model.classes and third.preprocessing.mean == (0.1,) * 3 and third.preprocessing.how == "crop"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    assert again.predict(pixels) == model.predict(pixels) and len(model.predict(pixels)) == 5
    with pytest.raises(UserError, match="load_model"):
        model_of("vit").predict(pixels)


# --- what does not fit

def refused(model, path, *said, **options):
    before = model.state_dict()
    with pytest.raises(UserError) as caught:
        numpyvit.load_weights(model, path, **options)
    message = str(caught.value)
    assert all(part in message for part in said), message
    assert str(path) in message and "\n" not in message and len(message) < 700 and same(before, model.state_dict())


def test_another_family_is_named(tmp_path):
    refused(model_of("swin"), GOLDEN / "huggingface_vit", "ViT in Hugging Face's names", "this model is a Swin")
    refused(model_of("vit"), GOLDEN / "torchvision_swin.pth", "Swin in torchvision's names", "this model is a ViT")
    refused(model_of("vit"), GOLDEN / "microsoft_cvt.pth", "CvT in microsoft's names")


def test_a_misfit_names_the_format_and_the_first_tensors():
    refused(model_of("vit", depth=3), GOLDEN / "torchvision_vit.pth", "ViT in torchvision's names", "blocks.2.attn.proj.bias is missing",
            "blocks.2.attn.proj.weight is missing", "blocks.2.attn.qkv.bias is missing", "more")
    refused(model_of("vit", embed_dim=24, num_heads=2), GOLDEN / "google_vit.npz", "ViT in Google's names", "has shape")


def test_names_of_nobody(tmp_path):
    write_npz(tmp_path / "w.npz", {f"layer{i}/w": np.zeros(3) for i in range(9)})
    refused(model_of("vit"), tmp_path / "w.npz", "layer0/w, layer1/w, layer2/w", "timm", "Google", "microsoft")
    (tmp_path / "text").write_text("hello, world")
    refused(model_of("vit"), tmp_path / "text", "expected weights as .safetensors, .npz or a file of torch")
    (tmp_path / "empty").mkdir()
    refused(model_of("vit"), tmp_path / "empty", "no file of weights")


STEM = {"stem_widths": (4, 6)}


LONG = {"stem_widths": (4,) * 7, "depth": 1}                                 # more tensors than all other layers


@pytest.mark.parametrize("family, fields", [("swin", STEM | {"stem_strides": (2, 1)}), ("cvt", STEM | {"stem_strides": (1, 1)}),
                                            ("vit", LONG | {"stem_strides": (2, 2, 1, 1, 1, 1, 1)})])
def test_bare_tensors_of_a_stem_need_a_model(tmp_path, family, fields):
    """Its strides and max-pooling are in no shape: load_model says so, load_weights fills a model that is there."""
    model, other = (model_of(family, seed=seed, **fields) for seed in (1, 2))
    safetensors.numpy.save_file(model.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="shapes do not tell the strides .*load_weights"):
        numpyvit.load_model(tmp_path / "bare.safetensors")
    numpyvit.load_weights(other, tmp_path / "bare.safetensors")
    np.testing.assert_array_equal(other.flat, model.flat)


@pytest.mark.parametrize("family, format, fields, said", [
    ("vit", "microsoft", {}, "microsoft has no ViT"), ("cvt", "timm", {}, "timm has no CvT; expected numpyvit, microsoft, huggingface"),
    ("swin", "google", {}, "Google has no Swin"), ("vit", "flax", {}, "format: expected one of"),
    ("vit", "huggingface", {"global_pool": "avg"}, "global_pool 'token'"), ("vit", "huggingface", {"global_pool": "gap"}, "global_pool 'token'"),
    ("vit", "timm", {"norm_order": "post"}, "this model after them"), ("vit", "google", {"global_pool": "avg"}, "fc_norm"),
    *(("vit", "torchvision", {"global_pool": pool}, "torchvision's ViT needs global_pool 'token'") for pool in ("avg", "gap")),
    ("vit", "torchvision", {"qkv_bias": False}, "needs qkv_bias True"), ("vit", "google", {"qkv_bias": False}, "needs qkv_bias True"),
    ("vit", "torchvision", {"img_size": (8, 20)}, "needs a square img_size, this model has (8, 20)"),
    ("vit", "huggingface", {"representation_size": 6}, "representation_size 0"),
    ("cvt", "huggingface", {"qkv_method": "linear"}, "qkv_method 'dw_bn'"), ("cvt", "huggingface", {"depths": (1, 1)}, "stage 1"),
    ("swin", "huggingface", STEM | {"stem_strides": (2, 1)}, "stem_widths ()"),
    ("cvt", "huggingface", STEM | {"stem_strides": (1, 1)}, "stem_widths ()"),
    ("swin", "timm", STEM | {"stem_strides": (2, 1)}, "timm's Swin has no patch_embed.stem.0.conv.weight"),
    *(("vit", format, {"pos_embed": pos_embed}, "does not turn queries and keys") for format, pos_embed in
      [("timm", "rotary"), ("huggingface", "sincos2d+rotary"), ("torchvision", "rotary"), ("google", "sincos2d+rotary")]),
    ("swin", "huggingface", {"img_size": 8}, "keeps windows of 3 × 3"), ("swin", "torchvision", {"img_size": 8}, "stage 1 here (2 × 2)")])
def test_what_a_library_cannot_hold(tmp_path, family, format, fields, said):
    with pytest.raises(UserError) as caught:
        numpyvit.save_weights(model_of(family, **fields), tmp_path / "w.pth", format=format)
    assert said in str(caught.value), caught.value
    assert not (tmp_path / "w.pth").is_file()


def test_a_layer_that_timm_no_longer_has_is_said(tmp_path):
    for width in (0, 10):
        said = numpyvit.save_weights(model_of("vit", representation_size=width), tmp_path / "w.pth", format="timm")
        assert [s for s in said if "no longer has a layer pre_logits" in s] == said and len(said) == bool(width)


@pytest.mark.parametrize("pos_embed", ["sincos2d", "sinusoidal", "none"])
@pytest.mark.parametrize("format, path", [("huggingface", "hf"), ("timm", "w.pth"), ("google", "w.npz")])
def test_fixed_positions_are_written_as_a_table(tmp_path, format, path, pos_embed):
    model = model_of("vit", dtype="float64", pos_embed=pos_embed)
    said = numpyvit.save_weights(model, tmp_path / path, format=format)
    assert any("were written as a table" in s for s in said)
    again = numpyvit.load_model(tmp_path / path, num_heads=2, act="gelu", norm_eps=1e-6)
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12))
    np.testing.assert_allclose(again.forward(images)[0], model.forward(images)[0], rtol=0, atol=1e-12)


def test_suffixes(tmp_path):
    with pytest.raises(UserError, match=r"Google's names ends in \.npz"):
        numpyvit.save_weights(model_of("vit"), tmp_path / "w.pth", format="google")
    with pytest.raises(UserError, match=r"ends in \.safetensors or \.pth"):
        numpyvit.save_weights(model_of("vit"), tmp_path / "w", format="timm")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder"):
        numpyvit.save_weights(model_of("vit"), tmp_path / "file", format="huggingface")


# --- heads, positions

def test_a_file_without_a_head(tmp_path):
    """Hugging Face's ViTModel: no classifier, a pooler, and names without vit."""
    tensors = {name.removeprefix("vit."): a for name, a in read_source(GOLDEN / "huggingface_vit").tensors.items() if "classifier" not in name}
    tensors |= {"pooler.dense.weight": np.zeros((16, 16), np.float32), "pooler.dense.bias": np.zeros(16, np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    refused(model_of("vit"), tmp_path / "w.safetensors", "head.weight is missing", "pre_logits.fc.weight is unknown")
    model, own = model_of("vit"), model_of("vit")
    said = numpyvit.load_weights(model, tmp_path / "w.safetensors", drop_head=True)
    assert any("kept the model's own head.weight" in s for s in said) and any("left out the file's pre_logits.fc.weight" in s for s in said)
    full = numpyvit.load_model(GOLDEN / "huggingface_vit").state_dict()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, (own.state_dict() if name.startswith("head") else full)[name])
    with pytest.raises(UserError, match="no head"):
        numpyvit.load_model(tmp_path / "w.safetensors", num_heads=2)


def test_positions_and_tables_are_resized_whatever_the_format(tmp_path):
    for name in ("google_vit.npz", "torchvision_vit.pth", "huggingface_vit"):
        fields = {"representation_size": 12} if "torch" in name else {}
        said = numpyvit.load_weights(model_of("vit", img_size=20, **fields), GOLDEN / name)
        assert any("resized pos_embed from a grid of 3 × 3 to 5 × 5" in s for s in said)
    said = numpyvit.load_weights(model_of("swin", window_size=4, img_size=32), GOLDEN / "torchvision_swin.pth")
    assert sum("from windows of 3 × 3 to 4 × 4" in s for s in said) == 4
    model = numpyvit.load_model(GOLDEN / "google_vit.npz", img_size=20)
    assert model.config.img_size == 20 and model.preprocessing.size == (20, 20)


def test_positions_of_an_oblong_image(tmp_path):
    model = model_of("vit", img_size=(8, 20))
    numpyvit.save_weights(model, tmp_path / "w.pth", format="timm")
    other = model_of("vit", 2, img_size=(8, 20))
    numpyvit.load_weights(other, tmp_path / "w.pth")                         # 10 cells are no square: the model's own grid
    assert same(model.state_dict(), other.state_dict())
    refused(model_of("vit", 2, img_size=(8, 24)), tmp_path / "w.pth", "no table of a square grid")


def test_big_visions_class_token_has_no_position(tmp_path):
    tree = read_npz(GOLDEN / "big_vision_gap.npz")
    tree["params/cls"] = np.full((1, 1, 16), 0.5, np.float32)
    write_npz(tmp_path / "w.npz", tree)
    model = numpyvit.load_model(tmp_path / "w.npz")
    assert model.config.global_pool == "token" and model.config.act == "gelu_tanh" and model.config.num_heads == 2
    np.testing.assert_array_equal(model.pos_embed.data[0, 0], 0)
    np.testing.assert_array_equal(model.pos_embed.data[0, 1:], tree["params/pos_embedding"][0])


@pytest.mark.parametrize("format, pos_embed, said", [("big_vision", "sincos2d", "fixed positions (sincos2d)"), ("timm", "none", "no positions")])
@pytest.mark.parametrize("pool", ["gap", "token"])
def test_a_file_without_a_table_of_positions(tmp_path, format, pos_embed, said, pool):
    """big_vision's positions are learned or sincos2d; of other libraries there is no telling."""
    model = model_of("vit", embed_dim=64, num_heads=1, act="gelu_tanh", global_pool=pool, pos_embed=pos_embed)
    tensors, _ = names.to_there(TABLES[format, "vit"], model.state_dict(), lambda values: 1)
    write_npz(tmp_path / "w.npz", {("params/" if format == "big_vision" else "") + name: array for name, array in tensors.items()})
    with pytest.raises(UserError, match="it has no table of positions, which would tell the size of its images; give img_size"):
        numpyvit.load_model(tmp_path / "w.npz")
    again = numpyvit.load_model(tmp_path / "w.npz", img_size=12, act="gelu_tanh")
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12))
    np.testing.assert_array_equal(again.forward(images)[0], model.forward(images)[0])
    assert any(f" {said}, as the file has no table of them; give " in note and "pos_embed if that is wrong" in note for note in again.notes)
    given = numpyvit.load_model(tmp_path / "w.npz", img_size=12, pos_embed="sinusoidal")
    assert given.config.pos_embed == "sinusoidal" and not any("positions" in note for note in given.notes)


# --- Swin's buffers

@pytest.mark.parametrize("name, format", [("torchvision_swin.pth", "features.1.0.attn."), ("microsoft_swin.pth", "layers.0.blocks.0.attn.")])
def test_a_wrong_index_is_an_error(tmp_path, name, format):
    tensors = dict(read_source(GOLDEN / name).tensors)
    for wrong in (0 * tensors[f"{format}relative_position_index"], relative_position_index(4), np.zeros(3, int)):
        write_pth(tmp_path / "w.pth", tensors | {f"{format}relative_position_index": wrong})
        refused(model_of("swin"), tmp_path / "w.pth", f"{format}relative_position_index", "is not the index of windows of 3 × 3")


def test_a_short_index_of_a_large_window_costs_nothing(tmp_path, monkeypatch):
    """A table of 99 × 99 windows and one number for an index: no index of 99⁴ numbers is made to compare it with."""
    from numpyvit.weights import recognise
    monkeypatch.setattr(recognise, "relative_position_index", lambda M: pytest.fail(f"an index of {M}⁴ numbers"))
    tensors = dict(read_source(GOLDEN / "torchvision_swin.pth").tensors)
    prefix = "features.1.0.attn.relative_position_"
    write_pth(tmp_path / "w.pth", tensors | {f"{prefix}bias_table": np.zeros((197 * 197, 2), np.float32), f"{prefix}index": np.zeros(1, int)})
    refused(model_of("swin"), tmp_path / "w.pth", f"{prefix}index", "is not the index of windows of 99 × 99")


def test_a_wrong_mask_is_an_error(tmp_path):
    tensors = dict(read_source(GOLDEN / "microsoft_swin.pth").tensors)
    name = next(name for name in tensors if name.endswith("attn_mask"))
    mask = tensors[name].copy()
    for wrong in (-mask, mask[:, ::-1], mask[:3], mask * 0, np.zeros((2, 2), np.float32)):
        write_pth(tmp_path / "w.pth", tensors | {name: np.ascontiguousarray(wrong)})
        refused(model_of("swin"), tmp_path / "w.pth", "attn_mask", "not the mask of shifted windows")


def test_where_the_logits_differ_is_said(tmp_path):
    """timm shifts before it pads (its issue 2438), and along the longer side alone; torchvision's small windows do not shrink."""
    def said(format, **fields):
        model = model_of("swin", **fields)
        return " ".join(numpyvit.save_weights(model, tmp_path / "w.pth", format=format))
    assert said("timm") == said("torchvision") == said("microsoft") == ""
    assert "issue 2438" in said("timm", img_size=28) and said("torchvision", img_size=28) == ""
    for format in ("timm", "torchvision"):
        assert "along the longer side" in said(format, img_size=(12, 24), window_size=3)
    assert "has no windows smaller than 3" in " ".join(
        numpyvit.load_weights(model_of("swin", img_size=8), GOLDEN / "torchvision_swin.pth"))
    model = model_of("cvt")
    assert "GELU by erf" in numpyvit.save_weights(model, tmp_path / "hf", format="huggingface")[0]
    assert any("GELU by erf" in s or "act='gelu'" in s for s in numpyvit.load_model(tmp_path / "hf").notes)


@pytest.mark.parametrize("family, format, suffix, usual", [
    ("vit", "timm", ".safetensors", "gelu"), ("vit", "torchvision", ".pth", "gelu"), ("vit", "google", ".npz", "gelu_tanh"),
    ("swin", "timm", ".pth", "gelu"), ("swin", "torchvision", ".pth", "gelu"), ("swin", "microsoft", ".pth", "gelu"),
    ("cvt", "microsoft", ".pth", "quick_gelu")])
def test_settings_that_a_library_has_otherwise_are_said(tmp_path, family, format, suffix, usual):
    eps = 1e-6 if family == "vit" else 1e-5
    for act in ("gelu", "gelu_tanh", "quick_gelu", "relu"):
        for norm_eps in (eps, 1e-3):
            said = numpyvit.save_weights(model_of(family, act=act, norm_eps=norm_eps), tmp_path / f"w{suffix}", format=format)
            assert sum(f"has act {usual}, this model has {act}: the logits differ" in s for s in said) == (act != usual)
            assert sum(f"has norm_eps {eps}, this model has {norm_eps}" in s for s in said) == (norm_eps != eps)
            assert len(said) == (act != usual) + (norm_eps != eps)
    if family != "cvt":                                                      # config.json says it
        said = numpyvit.save_weights(model_of(family, act="relu", norm_eps=1e-3), tmp_path / "hf", format="huggingface")
        assert said == [] and numpyvit.load_model(tmp_path / "hf").config.act == "relu"


# --- containers of Hugging Face: shards and torch's files

def test_shards_and_an_index(tmp_path):
    shutil.copytree(GOLDEN / "huggingface_vit", tmp_path / "hf")
    tensors, _ = read_tensors(tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "model.safetensors").unlink()
    parts = {f"model-0000{i}-of-00002.safetensors": dict(list(tensors.items())[i::2]) for i in (0, 1)}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    for file, part in parts.items():
        safetensors.numpy.save_file(part, tmp_path / "hf" / file)
    place = tmp_path / "hf" / "model.safetensors.index.json"
    place.write_text(json.dumps(index))
    expected = numpyvit.load_model(GOLDEN / "huggingface_vit").state_dict()
    assert same(numpyvit.load_model(tmp_path / "hf").state_dict(), expected)
    numpyvit.load_weights(model_of("vit"), place)
    name = next(iter(index["weight_map"]))
    for wrong in ("../x", "/etc/passwd", "..", "", "a/b", "a\0b", 3):
        place.write_text(json.dumps({"weight_map": index["weight_map"] | {name: wrong}}))
        refused(model_of("vit"), tmp_path / "hf", "weight_map")
    place.write_text(json.dumps({"weight_map": index["weight_map"] | {"extra": list(parts)[0]}}))
    with pytest.raises(UserError, match="extra is not in"):
        numpyvit.load_model(tmp_path / "hf")


def test_a_folder_with_a_file_of_torch(tmp_path):
    shutil.copytree(GOLDEN / "huggingface_swin", tmp_path / "hf")
    tensors, _ = read_tensors(tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "model.safetensors").unlink()
    write_pth(tmp_path / "hf" / "pytorch_model.bin", tensors)
    assert same(numpyvit.load_model(tmp_path / "hf").state_dict(), numpyvit.load_model(GOLDEN / "huggingface_swin").state_dict())


def test_version_5_names_of_hugging_face(tmp_path):
    """What state_dict() returns there today; save_pretrained writes those of version 4."""
    changes = [(".encoder.layer.", ".layers."), (".attention.attention.query", ".attention.q_proj"), (".attention.attention.key", ".attention.k_proj"),
               (".attention.attention.value", ".attention.v_proj"), (".attention.output.dense", ".attention.o_proj"),
               (".intermediate.dense", ".mlp.fc1"), (".output.dense", ".mlp.fc2")]
    swin = [(".attention.self.query", ".attention.q_proj"), (".attention.self.key", ".attention.k_proj"), (".attention.self.value", ".attention.v_proj"),
            (".attention.self.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"), *changes[4:]]
    for golden, pairs, family in (("huggingface_vit", changes, "vit"), ("huggingface_swin", swin, "swin")):
        tensors = {}
        for name, array in read_source(GOLDEN / golden).tensors.items():
            for old, new in pairs:
                name = name.replace(old, new)
            tensors[name] = array
        write_pth(tmp_path / "w.bin", tensors)
        model = model_of(family)
        numpyvit.load_weights(model, tmp_path / "w.bin")
        assert same(model.state_dict(), numpyvit.load_model(GOLDEN / golden).state_dict())


# --- configs that are not what they claim

BAD_CONFIGS = [{"model_type": "bert"}, {"model_type": "swin"}, {"hidden_size": 10**6}, {"hidden_size": "16"}, {"num_hidden_layers": 10**9},
               {"image_size": 10**6}, {"patch_size": 0}, {"num_attention_heads": 3}, {"hidden_act": "swish"}, {"hidden_act": ["gelu"]},
               {"layer_norm_eps": None}, {"layer_norm_eps": float("nan")}, {"intermediate_size": -1}, {"image_size": [12, 12, 12]},
               {"id2label": {"0": "a"}}, {"num_channels": 10**9}, {"qkv_bias": "no"}, {"id2label": {}, "label_names": 5},
               {"id2label": [1]}, {"intermediate_size": 10**400}, {"hidden_size": 10**400}, {"image_size": 10**400},
               {"num_hidden_layers": 10**400}, {"num_channels": 10**400}, {"layer_norm_eps": 10**400}]


@pytest.mark.parametrize("change", BAD_CONFIGS, ids=lambda change: str(change)[:60])
def test_bad_configs_are_one_line(tmp_path, change):
    shutil.copytree(GOLDEN / "huggingface_vit", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError) as caught:
        numpyvit.load_model(tmp_path / "hf")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("key", ["padding_q", "padding_kv"])
def test_other_paddings_of_a_cvt_are_refused(tmp_path, key):
    """Here every projection pads by half of its kernel; the tensors would fit any padding."""
    numpyvit.save_weights(model_of("cvt", qkv_kernel=5), tmp_path / "hf", format="huggingface")
    assert numpyvit.load_model(tmp_path / "hf").config.qkv_kernel == 5
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for padding in ([1, 1], [0, 0], [2, 1], None):                           # transformers pads by 1 where a file does not say it
        changed = {name: value for name, value in config.items() if name != key} | ({key: padding} if padding else {})
        (tmp_path / "hf" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=f"config.json: {key} .*, expected (2, half of kernel_qkv|the same in every stage)$"):
            numpyvit.load_model(tmp_path / "hf")


@pytest.mark.parametrize("change", [{"mlp_ratio": 1e308}, {"mlp_ratio": 1e300}, {"embed_dim": 10**400}, {"img_size": 10**400},
                                    {"num_classes": 10**400}, {"depth": 10**400}, {"patch_size": 10**400}], ids=lambda c: next(iter(c)))
def test_bad_configs_of_ours_are_one_line(tmp_path, change):
    model = model_of("vit")
    numpyvit.save_weights(model, tmp_path / "w.safetensors")
    tensors, metadata = read_tensors(tmp_path / "w.safetensors")
    config = json.loads(metadata["config"]) | change
    write_tensors(tmp_path / "w.safetensors", tensors, metadata | {"config": json.dumps(config)})
    with pytest.raises(UserError) as caught:
        numpyvit.load_model(tmp_path / "w.safetensors")
    assert str(tmp_path) in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("change", [{"how": "bogus"}, {"how": 3}, {"std": [1.0]}, {"mean": [0.5] * 4}, {"mean": [0.5, 0.5], "std": [1, 1]}], ids=str)
def test_bad_preprocessing_of_ours_is_one_line(tmp_path, change):
    model = model_of("vit")
    model.preprocessing = Preprocessing((12, 12))
    numpyvit.save_weights(model, tmp_path / "w.safetensors")
    tensors, metadata = read_tensors(tmp_path / "w.safetensors")
    stored = json.loads(metadata["preprocessing"]) | change
    write_tensors(tmp_path / "w.safetensors", tensors, metadata | {"preprocessing": json.dumps(stored)})
    with pytest.raises(UserError, match="of ImageNet's usual: expected"):
        numpyvit.load_model(tmp_path / "w.safetensors")


@pytest.mark.parametrize("change", [{"image_mean": [1, "a", 2]}, {"image_mean": 3}, {"image_std": [0, 1, 1]}, {"image_std": [1] * 9},
                                    {"crop_pct": 1e-9, "size": {"shortest_edge": 12}}, {"size": {"shortest_edge": 1e-5}}], ids=str)
def test_bad_preprocessors_are_one_line(tmp_path, change):
    shutil.copytree(GOLDEN / "huggingface_vit", tmp_path / "hf")
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(change))
    with pytest.raises(UserError, match="of preprocessor_config.json"):
        numpyvit.load_model(tmp_path / "hf")


# --- images

def test_images_are_prepared_as_the_libraries_do(tmp_path):
    """The shorter side to size / crop_pct, the middle cut out, antialiased, as torchvision and timm do on Pillow images."""
    from PIL import Image
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    p = Preprocessing((24, 24), "crop", 0.75, "bilinear", (0.5,) * 3, (0.25,) * 3)
    resized = image.resize((48, 32), Image.Resampling.BILINEAR).crop((12, 4, 36, 28))
    expected = (np.asarray(resized) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(p(image, "float64"), expected.transpose(2, 0, 1), atol=1e-12)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(p(tmp_path / "a.png"), p(image))
    np.testing.assert_array_equal(p(np.asarray(image)), p(np.asarray(image).transpose(2, 0, 1)))
    assert "shorter side to 32, 24 × 24 from the middle (bilinear)" in str(p)
    grey = Preprocessing((24, 24), mean=(0.5,), std=(0.5,))
    assert grey(image).shape == (1, 24, 24) == grey(np.asarray(image)[..., 0]).shape
    for wrong in (np.zeros((3, 4, 5)), np.zeros((4, 5, 2), np.uint8), "nothing.png", 7):
        with pytest.raises(UserError):
            p(wrong)


@pytest.mark.parametrize("size", [(640, 478), (478, 640), (322, 322), (347, 500), (474, 600), (225, 3999)])
def test_the_shorter_side_has_exactly_the_size_that_is_said(size):
    from PIL import Image
    rng, (short, long) = np.random.default_rng(0), sorted(size)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    sides = [256, int(256 * long / short)]
    W, H = sides if size[0] == short else sides[::-1]
    left, top = round((W - 224) / 2), round((H - 224) / 2)
    want = image.resize((W, H), Image.Resampling.BILINEAR).crop((left, top, left + 224, top + 224))
    got = Preprocessing((224, 224), "crop", 224 / 256, "bilinear").pixels(image)
    np.testing.assert_array_equal(got.transpose(1, 2, 0), np.asarray(want))


def test_a_share_that_was_a_quotient_gives_the_whole_number():
    for short in range(225, 512):
        assert Preprocessing((224, 224), "crop", 224 / short).resized_to() == (short, short)
    assert Preprocessing((224, 224), "crop", 0.9).resized_to() == (248, 248)          # timm rounds 248.9 down


def test_what_is_usual(tmp_path):
    said = {key: str(usual_preprocessing(*key, (224, 224))) for key in TABLES}
    assert "248" in said["timm", "vit"] and "mean 0.5," in said["timm", "vit"] and "mean 0.485" in said["timm", "swin"]
    assert "256" in said["torchvision", "vit"] and "bilinear" in said["torchvision", "vit"] and "232" in said["torchvision", "swin"]
    assert "resized to 224" in said["google", "vit"] and "timm's usual for swin" in str(usual_preprocessing("huggingface", "swin", (224, 224)))
    assert "256" in said["microsoft", "swin"] and "bicubic" in said["microsoft", "swin"]
    assert "438" in str(usual_preprocessing("microsoft", "swin", (384, 384)))          # int(256 / 224 · 384)


@pytest.mark.parametrize("format", ["microsoft", "huggingface"])
@pytest.mark.parametrize("size, how, side", [((224, 224), "crop", 256), ((384, 384), "squash", 384)])
def test_images_of_cvt(format, size, how, side):
    """microsoft's configs for 384 pixels cut nothing: the image is resized to a square, as ConvNext's processor does."""
    p = usual_preprocessing(format, "cvt", size)
    assert (p.how, p.resized_to(), p.interpolation) == (how, (side, side), "bicubic") and p.said == f"{format}'s usual for cvt"
    assert p.mean == IMAGENET[0] and p.std == IMAGENET[1]


@pytest.mark.parametrize("preset, side", [("swin_tiny_patch4_window7_224", 232), ("swin_small_patch4_window7_224", 246),
                                          ("swin_base_patch4_window7_224", 238)])
def test_sizes_of_torchvisions_swin(preset, side):
    _, config = model_config(preset)
    assert usual_preprocessing("torchvision", "swin", (224, 224), config=config).resized_to() == (side, side)


@pytest.mark.parametrize("preset, size, side, interpolation", [
    ("vit_base_patch16_224", 224, 256, "bilinear"), ("vit_base_patch16_224", 384, 384, "bicubic"), ("vit_base_patch32_224", 224, 256, "bilinear"),
    ("vit_large_patch16_224", 224, 242, "bilinear"), ("vit_large_patch16_224", 512, 512, "bicubic"),
    ("vit_huge_patch14_224", 224, 224, "bicubic"), ("vit_huge_patch14_224", 518, 518, "bicubic")])
def test_sizes_of_torchvisions_vit(preset, size, side, interpolation):
    _, config = model_config(preset, img_size=size)
    p = usual_preprocessing("torchvision", "vit", (size, size), config=config)
    assert (p.resized_to(), p.interpolation) == ((side, side), interpolation)


def test_imagenets_classes():
    classes = imagenet_classes()
    assert len(set(classes)) == 1000 and (classes[0], classes[281], classes[999]) == ("tench", "tabby", "toilet tissue")


# --- the tables

@pytest.mark.parametrize("key", TABLES, ids=" ".join)
def test_rows_lead_there_and_back(key):
    for row in TABLES[key]:
        values = {"i": 3, "j": 2, "last": "weight", "part": names.parts_of(row.there)[-1]}
        there, here = fill(row.there, values), fill(row.here, values)
        found = match(row.there, there)
        assert all(found[group] == values[group] for group in found)
        assert fill(row.here, found) == here and match(row.here, here) is not None
        assert names.find_row(TABLES[key], there, "there")[0] == row             # no row hides behind another


def test_patterns():
    assert match("features.{2i+1}.{j}.*", "features.3.0.weight") == {"i": 1, "j": 0, "last": "weight"}
    assert match("features.{2i+1}.{j}.*", "features.2.0.weight") is None and match("layers.{i+1}.x", "layers.0.x") is None
    assert match("a.{i}", "a.01") is None and match("[vit.]a", "vit.a") == {} == match("[vit.]a", "a")


def test_old_names_of_torchvision(tmp_path):
    """Until version 0.13 the layers of the MLP were linear_1 and linear_2."""
    tensors = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): a
               for name, a in read_source(GOLDEN / "torchvision_vit.pth").tensors.items()}
    write_pth(tmp_path / "w.pth", tensors)
    expected = numpyvit.load_model(GOLDEN / "torchvision_vit.pth", num_heads=2).state_dict()
    assert same(numpyvit.load_model(tmp_path / "w.pth", num_heads=2).state_dict(), expected)


@pytest.mark.parametrize("D, nh, name", [(192, 3, "ViT-Ti"), (1280, 16, "ViT-H")])
def test_heads_that_no_shape_tells(tmp_path, D, nh, name):
    """All published ViTs have heads of 64 channels, but for the widest."""
    model = numpyvit.create_model("vit", img_size=4, patch_size=4, embed_dim=D, depth=1, num_heads=nh, mlp_ratio=0.1, num_classes=3)
    numpyvit.save_weights(model, tmp_path / "w.pth", format="timm")
    assert numpyvit.load_model(tmp_path / "w.pth").config.num_heads == nh


def test_a_folder_of_timm(tmp_path):
    """config.json with a pretrained_cfg beside model.safetensors, as timm's folders on the hub."""
    model = model_of("vit")
    (tmp_path / "t").mkdir()
    numpyvit.save_weights(model, tmp_path / "t" / "model.safetensors", format="timm")
    config = {"architecture": "vit_x", "num_classes": 5, "label_names": list("abcde"),
              "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8, "interpolation": "bilinear"}}
    (tmp_path / "t" / "config.json").write_text(json.dumps(config))
    again = numpyvit.load_model(tmp_path / "t", num_heads=2)
    p = again.preprocessing
    assert same(again.state_dict(), model.state_dict()) and again.classes == list("abcde")
    assert (p.crop_pct, p.interpolation, p.mean, p.std) == (0.8, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
