"""Copies, pickles and assignments keep a model's parameters in its flat vectors; and what the API says about itself."""
import copy
import inspect
import pickle
import typing

import numpy as np
import pytest
import torch

import numpyvit
from numpyvit import functional as F
from numpyvit.errors import UserError
from tiny import FAMILIES

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


def make(family, seed=3, **fields):
    return numpyvit.create_model(family, num_classes=5, seed=seed, **{**FAMILIES[family], **fields})


def one_step(model, rate=0.1):
    """A step of plain gradient descent; the loss before it."""
    images, labels = np.random.default_rng(0).standard_normal((4, 3, 16, 16)), np.arange(4)
    model.zero_grad()
    logits, cache = model.forward(images, train=True, rng=1)
    loss, c_loss = F.cross_entropy_forward(logits, labels)
    model.backward(F.cross_entropy_backward(1.0, c_loss), cache)
    model.flat[...] -= rate * model.flat_grad
    model.update_buffers([model.batch_statistics(cache)])
    return loss


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_learns_alone_and_alike(family, how):
    model = make(family)
    one_step(model)                                                          # gradients and buffers are not 0
    twin, before = COPIES[how](model), model.flat.copy()
    assert np.array_equal(twin.flat, model.flat) and np.array_equal(twin.flat_grad, model.flat_grad)
    assert type(twin) is type(model) and twin.config == model.config and twin.title == model.title
    losses = [one_step(twin) for _ in range(3)]
    assert losses[2] < losses[0] and np.array_equal(model.flat, before)
    assert losses == [one_step(model) for _ in range(3)]
    state = twin.state_dict()
    assert all(np.array_equal(value, state[name]) for name, value in model.state_dict().items())
    for _, p in twin.named_parameters():
        assert np.shares_memory(p.data, twin.flat) and np.shares_memory(p.grad, twin.flat_grad)


def test_a_copy_of_a_part_and_of_shapes_alone():
    model = make("vit")
    block = copy.deepcopy(model.blocks[0])
    assert np.array_equal(block.mlp.fc1.weight.data, model.blocks[0].mlp.fc1.weight.data)
    assert not np.shares_memory(block.mlp.fc1.weight.data, model.flat)
    shapes = type(model)(model.config, materialise=False)
    assert copy.deepcopy(shapes).num_parameters() == model.num_parameters()


def test_assignment_copies_into_the_flat_vector():
    model = make("vit")
    weight = model.head.weight
    weight.data = np.full(weight.shape, 0.5)
    weight.grad = np.ones(weight.shape)
    weight.grad *= 3
    name, _, start, end = next(row for row in model.layout() if row[1] is weight)
    assert name == "head.weight" and (model.flat[start:end] == 0.5).all() and (model.flat_grad[start:end] == 3).all()
    with pytest.raises(UserError, match=r"data: expected an array of shape \(5, 32\), got \(32, 5\)"):
        weight.data = np.zeros((32, 5))


def test_repr():
    assert repr(numpyvit.create_model("vit_nano_patch4_32", dtype="float64")) == (
        "<vit_nano_patch4_32: 537,738 parameters, images (3, 32, 32) → 10 classes, float64>")
    assert repr(numpyvit.create_model("swin", depths=(2,), num_heads=(3,), img_size=(28, 32))).startswith(
        "<swin, depths=(2,), num_heads=(3,), img_size=(28, 32): ")
    model = make("vit")
    assert repr(type(model)(model.config, materialise=False)).endswith(", not materialised>")
    assert repr(model.head.weight) == "Parameter(5×32, decay)"


@pytest.mark.parametrize("arguments, fields, message", [
    ((3,), {}, "name: expected the name of a preset or a family, got 3"),
    (("vit",), dict(seed=None), "seed: expected a whole number from 0 up, got None"),
    (("vit",), dict(seed="0"), "seed: expected a whole number from 0 up, got '0'"),
    (("vit",), dict(seed=-1), "seed: expected a whole number from 0 up, got -1"),
    (("vit",), dict(dtype="float16"), "dtype: expected float32 or float64, got float16"),
    (("vit",), dict(depth=2.0), "depth: expected a whole number, got 2.0"),
    (("swin",), dict(depths="2,2"), "depths: expected a tuple of numbers, got '2,2'"),
])
def test_what_create_model_refuses(arguments, fields, message):
    with pytest.raises(UserError) as caught:
        numpyvit.create_model(*arguments, **fields)
    assert str(caught.value) == message


def test_numbers_of_numpy_are_numbers():
    ours = make("vit", seed=np.int64(3), depth=np.int32(1), drop_rate=np.float32(0.5), img_size=np.array([16, 16]).tolist())
    assert type(ours.config.depth) is int and type(ours.config.drop_rate) is float
    assert np.array_equal(ours.flat, make("vit", depth=1, drop_rate=0.5).flat)


def test_backward_names_another_models_cache():
    vit, swin = make("vit"), make("swin")
    images = np.zeros((2, 3, 16, 16))
    logits, cache = vit.forward(images)
    with pytest.raises(UserError, match="cache: expected what forward of this Swin returned, .* got that of a model of ViTConfig"):
        swin.backward(logits, cache)
    with pytest.raises(UserError, match="cache: .*got a tuple"):
        vit.backward(logits, tuple(cache))
    assert vit.replica().backward(logits, cache).shape == images.shape       # a replica is the same model


@pytest.mark.parametrize("targets, message", [
    ([0, 5], "whole numbers from 0 to 4"), ([0, -1], "whole numbers from 0 to 4"), ([0.0, 1.0], "float64"),
    ([0, 1, 2], "labels"), (np.ones((2, 4)), "soft targets"), (np.ones((2, 5, 1)), "soft targets")])
def test_cross_entropy_checks_its_targets(targets, message):
    with pytest.raises(ValueError, match=f"^targets: expected .*{message}"):
        F.cross_entropy_forward(np.zeros((2, 5)), np.asarray(targets))


def test_a_masked_class_costs_nothing():
    """A logit of −inf, of a class that is not the target: as in torch, and no NaN."""
    logits = np.array([[1.0, -np.inf, 2.0], [0.0, 1.0, 2.0]])
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor([0, 1]))
    loss, cache = F.cross_entropy_forward(logits, np.array([0, 1]))
    assert abs(loss - float(expected)) <= 1e-12 and np.isfinite(F.cross_entropy_backward(1.0, cache)).all()
    assert F.cross_entropy_forward(logits, np.array([1, 1]))[0] == np.inf


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, np.nan])
def test_label_smoothing_is_a_share(smoothing):
    with pytest.raises(ValueError, match="^label_smoothing: expected a number from 0 to 1"):
        F.cross_entropy_forward(np.zeros((2, 5)), np.array([0, 1]), smoothing)


@pytest.mark.parametrize("rng", [True, 2**64, 1.5, "0", np.zeros(4, np.uint64), np.zeros(2, np.int64)])
def test_rng_is_checked(rng):
    with pytest.raises(ValueError, match="^rng: expected an int"):
        make("vit").forward(np.zeros((2, 3, 16, 16)), train=True, rng=rng)


def test_public_functions_have_type_hints():
    assert (__import__("pathlib").Path(numpyvit.__file__).parent / "py.typed").exists()
    model = make("vit")
    public = [numpyvit.create_model, numpyvit.list_models, numpyvit.count_parameters, numpyvit.summary.summary,
              *(getattr(type(model), name) for name in ("forward", "backward", "state_dict", "load_state_dict", "layout"))]
    for function in public:
        hints = typing.get_type_hints(function)
        assert "return" in hints or function.__name__ == "load_state_dict", function
        assert len(hints) >= len(inspect.signature(function).parameters) - 2, function
