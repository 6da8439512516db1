"""Files that timm, transformers and torchvision wrote (tests/interop.py), read here: the logits are theirs, the files written are theirs.

tests/golden/interop holds their files and the logits that they computed from these in float64.
"""
import json
from pathlib import Path

import numpy as np
import pytest

import numpyvit
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
