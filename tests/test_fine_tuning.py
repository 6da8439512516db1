"""Training that begins with weights, layers that keep theirs, and the commands on weights of other libraries."""
import json
from pathlib import Path

import numpy as np
import pytest

import numpyvit
from numpyvit.cli.main import main
from numpyvit.data import registry, shapes
from numpyvit.data.resize import resized
from numpyvit.errors import UserError
from numpyvit.files.safetensors import read_tensors
from numpyvit.runs.classifier import Classifier
from numpyvit.training import loop
from numpyvit.training.optim import Optimizer
from numpyvit.training.recipe import FINE_TUNE, recipe_for
from numpyvit.training.start import model_of, start_from
from tiny import FAMILIES, image_folder, recipe, same, small_shapes

GOLDEN = Path(__file__).parent / "golden" / "interop"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A short run of a ViT on the small shapes."""
    small_shapes(monkeypatch)
    loop.train(recipe(steps=3), tmp_path / "a")
    return tmp_path / "a"


def weights_of(run):
    return read_tensors(run / "weights.safetensors")[0]


# --- init

def test_a_run_that_begins_with_a_run(run, tmp_path, capsys):
    """Before its first step it has the weights of the other run; the same classes keep the head."""
    model = numpyvit.create_model("vit", num_classes=10, **FAMILIES["vit"])
    sentences = start_from(run, model, Classifier(run).classes)
    assert same(model.state_dict(), Classifier(run).model.state_dict()) and sentences == [f"began with the weights of {run}"]
    loop.train(recipe(steps=2, init=str(run)), tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["recipe"]["init"] == str(run) and "began with the weights of" in capsys.readouterr().out
    before, after = weights_of(run), weights_of(tmp_path / "b")
    steps = [np.abs(after[n] - before[n]).max() for n in before]
    fresh = numpyvit.create_model("vit", num_classes=10, **FAMILIES["vit"]).state_dict()
    assert 0 < max(steps) < 0.1 * max(np.abs(before[n] - fresh[n]).max() for n in before) + 0.1


def test_a_run_killed_before_its_first_checkpoint_begins_with_the_weights_again(run, tmp_path):
    loop.train(recipe(steps=2, init=str(run)), tmp_path / "b")
    (tmp_path / "c" / "checkpoints").mkdir(parents=True)
    (tmp_path / "c" / "config.json").write_bytes((tmp_path / "b" / "config.json").read_bytes())
    loop.resume(tmp_path / "c")
    assert same(weights_of(tmp_path / "c"), weights_of(tmp_path / "b"))


def test_other_classes_get_a_head_of_zeros(run):
    model = numpyvit.create_model("vit", num_classes=3, **FAMILIES["vit"] | {"img_size": 20})
    said = start_from(run, model, ["cat", "dog", "bird"])
    assert not model.head.weight.data.any() and not model.head.bias.data.any()
    assert said[-1] == "the head for the 3 classes is new, all zeros" and any("resized pos_embed" in s for s in said)
    same_count = numpyvit.create_model("vit", num_classes=10, **FAMILIES["vit"])
    said = start_from(run, same_count, [f"class {k}" for k in range(10)])    # as many classes, of other names
    assert not same_count.head.weight.data.any() and "all zeros" in said[-1]


def test_init_from_other_libraries():
    for name, family in (("huggingface_vit", "vit"), ("torchvision_swin.pth", "swin"), ("microsoft_cvt.pth", "cvt")):
        given = {"num_heads": (1, 2)} if family == "cvt" else {"img_size": 24} if family == "swin" else {}
        settings = model_of(str(GOLDEN / name), given)
        assert settings["model"] == family and "num_classes" not in settings["model_fields"]
        model = numpyvit.create_model(family, num_classes=5, **settings["model_fields"])
        said = start_from(str(GOLDEN / name), model, list("abcde"))
        assert model.preprocessing is not None and any("read as a" in s for s in said) or family == "cvt"
        full = numpyvit.load_model(GOLDEN / name, **given).state_dict()
        for key, array in model.state_dict().items():
            if not key.startswith("head."):
                np.testing.assert_array_equal(array, full[key])


def test_the_pre_training_head_is_replaced():
    """representation_size: two layers with tanh between become one layer of zeros, as in the paper."""
    settings = model_of(str(GOLDEN / "torchvision_vit.pth"), {"num_heads": 2})
    model = numpyvit.create_model("vit", num_classes=5, **settings["model_fields"])
    said = start_from(str(GOLDEN / "torchvision_vit.pth"), model, list("abcde"))
    assert model.config.representation_size == 0 and model.pre_logits is None and not model.head.weight.data.any()
    assert any("left out the file's pre_logits.fc.weight (12, 16)" in s for s in said) and "all zeros" in said[-1]


def test_images_are_normalised_as_the_weights_expect(tmp_path, monkeypatch):
    small_shapes(monkeypatch)
    fields = {"img_size": 16, **model_of(str(GOLDEN / "huggingface_vit"), {})["model_fields"]} | {"img_size": 16}
    loop.train(recipe(steps=1, model_fields=fields, init=str(GOLDEN / "huggingface_vit")), tmp_path / "b")
    data = json.loads((tmp_path / "b" / "config.json").read_text())["data"]
    assert data["mean"] == [0.4, 0.5, 0.6] and data["std"] == [0.1, 0.2, 0.3]
    again = numpyvit.load_model(tmp_path / "b" / "weights.safetensors")
    assert again.preprocessing.mean == (0.4, 0.5, 0.6) and again.classes == data["classes"]


@pytest.mark.parametrize("path, said", [("nothing", "nothing"), ("torchvision_swin.pth", "this model is a ViT")])
def test_a_wrong_init_is_one_line(tmp_path, monkeypatch, path, said):
    small_shapes(monkeypatch)
    path = str(GOLDEN / path) if path != "nothing" else str(tmp_path / path)
    with pytest.raises((UserError, OSError), match=said):
        loop.train(recipe(steps=1, init=path), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_recipes_of_fine_tuning():
    paper = recipe_for("vit", fine_tune="paper", init="x", model="vit", steps=5)
    assert (paper.optimizer, paper.momentum, paper.weight_decay, paper.schedule, paper.clip_norm) == ("sgd", 0.9, 0, "cosine", 1)
    short = recipe_for("vit", init="x", model="vit", steps=5, lr=1.0)
    assert (short.optimizer, short.schedule, short.lr) == ("adamw", "cosine", 1.0) and set(FINE_TUNE) == {"adamw", "paper"}
    assert model_of(str(GOLDEN / "huggingface_vit"), {}, finer=True)["model_fields"]["img_size"] == 20      # 12 · 384 / 224


# --- freeze

@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon", "adam"])
@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_parameters_keep_their_bits(family, kind):
    model = numpyvit.create_model(family, num_classes=5, seed=1, **FAMILIES[family])
    optimizer = Optimizer(model, kind, weight_decay=0.1, ema_decay=0.9, freeze="*norm1*, *patch_embed*,head.*bias")
    before, rng = model.state_dict(), np.random.default_rng(0)
    for step in (1, 2, 3):
        model.flat_grad[...] = rng.standard_normal(model.flat_grad.shape)
        optimizer.step(1e-2, step, optimizer.grad_norm())
    for name, p in model.named_parameters():
        frozen = "norm1" in name or "patch_embed" in name or (name.startswith("head") and name.endswith("bias"))
        assert np.array_equal(p.data, before[name]) == frozen, name
        assert not frozen or not p.grad.any()


def test_frozen_gradients_do_not_count():
    """The global norm is that of the parameters that are trained, as in torch, where frozen ones have no gradient."""
    model = numpyvit.create_model("vit", num_classes=5, seed=1, dtype="float64", **FAMILIES["vit"])
    for _, p in model.named_parameters():
        p.grad[...] = 1
    total = model.num_parameters()
    assert Optimizer(model).grad_norm() == pytest.approx(total**0.5)
    assert Optimizer(model, freeze="head.weight").grad_norm() == pytest.approx((total - model.head.weight.size)**0.5)


@pytest.mark.parametrize("freeze", ["heat.*", "*", "head.*,blocks.9.*"])
def test_wrong_patterns(freeze):
    with pytest.raises(UserError, match="freeze: expected patterns"):
        Optimizer(numpyvit.create_model("vit", num_classes=5, **FAMILIES["vit"]), freeze=freeze)


def test_a_frozen_run(run, tmp_path, monkeypatch):
    loop.train(recipe(steps=3, init=str(run), freeze="patch_embed*,blocks.0.*", ema=0.0), tmp_path / "b")
    before, after = weights_of(run), weights_of(tmp_path / "b")
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith(("patch_embed", "blocks.0.")), name


# --- the commands

def command(capsys, *args):
    status = main([str(arg) for arg in args])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def photo(tmp_path):
    from PIL import Image
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_predict_and_evaluate_take_weights(run, photo, capsys):
    status, of_run, _ = command(capsys, "predict", run, photo)
    assert status == 0
    for path in (run / "weights.safetensors",):
        status, out, _ = command(capsys, "predict", path, photo)
        assert status == 0 and out.splitlines()[-1] == of_run.splitlines()[-1] and out.startswith("images: the middle, resized to 16")
    status, out, _ = command(capsys, "predict", GOLDEN / "huggingface_vit", photo, "--top", 2)
    assert status == 0 and "from preprocessor_config.json" in out and out.count("class ") == 2
    status, of_run, _ = command(capsys, "evaluate", run)
    status2, out, _ = command(capsys, "evaluate", run / "weights.safetensors", "--data", "shapes")
    assert status == status2 == 0 and out.split("%")[0].split()[-1] == of_run.split("%")[0].split()[-1]
    for args in (("evaluate", run / "weights.safetensors"), ("evaluate", run, "--data", "shapes"),
                 ("evaluate", GOLDEN / "huggingface_vit", "--data", "shapes"), ("predict", GOLDEN, photo), ("predict", "nothing", photo)):
        status, _, err = command(capsys, *args)
        assert status == 2 and err.startswith("numpyvit: ") and err.count("\n") == 1, err


def test_convert(run, tmp_path, capsys):
    status, out, _ = command(capsys, "convert", run, tmp_path / "w.pth", "--to", "timm")
    assert status == 0 and "parameters to" in out
    status, out, _ = command(capsys, "convert", tmp_path / "w.pth", tmp_path / "w.npz", "--to", "google", "--set", "num_heads=2")
    assert status == 0
    status, out, _ = command(capsys, "convert", run, tmp_path / "hf", "--to", "huggingface")
    assert status == 0 and json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"] == "vit"
    folder = numpyvit.load_model(tmp_path / "hf")
    assert same(folder.state_dict(), Classifier(run).model.state_dict()) and folder.classes == Classifier(run).classes
    status, _, err = command(capsys, "convert", run, tmp_path / "x", "--to", "microsoft")
    assert status == 2 and "microsoft has no ViT" in err


def test_load_model_of_a_run(run, photo):
    model = numpyvit.load_model(run)
    assert model.classes == Classifier(run).classes and model.predict(photo, top=1)[0][0] in model.classes
    with pytest.raises(UserError, match="img_size cannot be chosen"):
        numpyvit.load_model(run, img_size=20)


def test_train_init_and_fine_tune_on_the_command_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.undo()                                                       # the data sets are whole again
    root = image_folder(tmp_path / "images")
    status, out, err = command(capsys, "train", "--init", run, "--data", f"folder:{root}", "--set", "img_size=20", "--steps", 2,
                               "--batch-size", 16, "--out", tmp_path / "b")
    assert status == 0, err
    assert "the head for the 3 classes is new, all zeros" in " ".join(out.split())
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["recipe"]["optimizer"] == "adamw" and config["model"]["config"]["img_size"] == 20
    status, out, err = command(capsys, "train", "--init", run, "--fine-tune", "paper", "--data", f"folder:{root}", "--steps", 1,
                               "--batch-size", 16, "--out", tmp_path / "c")
    assert status == 0, err
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["recipe"]["optimizer"] == "sgd" and config["model"]["config"]["img_size"] == 28            # 16 · 384 / 224
    status, _, err = command(capsys, "train", "--fine-tune", "paper", "--data", "shapes")
    assert status == 2 and "--init" in err


@pytest.mark.parametrize("before, after", [(32, 40), (28, 12), (5, 5), (7, 20)])
def test_resized_images_are_torchs(before, after):
    import torch
    images = np.random.default_rng(0).integers(0, 256, (3, 2, before, before), dtype=np.uint8)
    mode = "bilinear" if after >= before else "area"
    if mode == "area" and before % after:
        after = before // 2
    expected = torch.nn.functional.interpolate(torch.tensor(images).double(), size=after, mode=mode,
                                               **({"align_corners": False} if mode == "bilinear" else {})).numpy()
    result = resized(images, after)
    assert result.dtype == np.uint8 and np.abs(result - expected).max() < 0.5001


def test_a_data_set_of_another_size(monkeypatch):
    row = registry.TABLE["cifar10"]
    asked = []

    def of_row(self, data_dir=None, img_size=None, download=True, progress=None):
        asked.append(img_size)
        return shapes.load(32, 40, 20)
    monkeypatch.setattr(type(row), "load", of_row)
    dataset, side = registry.load_resized("cifar10", None, 40)
    assert side == 32 and asked == [None] and dataset.train.images.shape == (40, 3, 40, 40) and len(dataset.test) == 20
    same_size, side = registry.load_resized("cifar10", None, 32)
    assert side == 32 and asked == [None, 32] and same_size.train.images.shape == (40, 3, 32, 32)
