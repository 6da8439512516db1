"""First filters that are whitened principal components of the training images: what they are, and that they stay so."""
import numpy as np
import pytest

import numpyvit
from numpyvit.data import channel_statistics, hold_out, shapes
from numpyvit.errors import Interrupted, UserError
from numpyvit.runs.classifier import Classifier
from numpyvit.training import loop
from numpyvit.training.whiten import EPS, filters_name, whiten, whitening
from test_training import assert_same_run, stop_at
from tiny import FAMILIES, recipe, small_shapes

FIELDS = FAMILIES | {"stem": FAMILIES["vit"] | dict(stem_widths=(8, 16), stem_strides=(2, 2)),
                     "swin_stem": FAMILIES["swin"] | dict(stem_widths=(8, 16), stem_strides=(1, 2)),
                     "cvt_stem": FAMILIES["cvt"] | dict(cls_token=False, stem_widths=(8, 8), stem_strides=(1, 1)),
                     "cvt": FAMILIES["cvt"] | dict(cls_token=False)}         # with it, no gradient reaches the last queries


def family_of(name):
    return {"stem": "vit", "swin_stem": "swin", "cvt_stem": "cvt"}.get(name, name)


def patches_of(images, mean, std, side):
    """All patches that do not overlap, as rows: by plain loops."""
    x = (images / 255 - mean[:, None, None]) / std[:, None, None]
    _, _, H, W = x.shape
    return np.array([image[:, h:h + side, w:w + side].ravel() for image in x
                     for h in range(0, H - side + 1, side) for w in range(0, W - side + 1, side)])


@pytest.mark.parametrize("side", [1, 3, 4])
def test_outputs_are_uncorrelated_and_have_variance_1(side):
    """Up to EPS: variance v becomes v / (v + EPS), the largest first."""
    images = shapes.generate(60, img_size=16).images
    mean, std = channel_statistics(images)
    filters, patches = whitening(images, mean, std, side), patches_of(images, mean, std, side)
    variances = np.linalg.eigvalsh(np.cov(patches.T))[::-1]
    outputs = np.cov((patches @ filters.reshape(len(filters), -1).T).T)
    np.testing.assert_allclose(outputs, np.diag(variances / (variances + EPS)), atol=1e-9)
    assert np.all(np.diff(np.linalg.norm(filters.reshape(len(filters), -1), axis=1)) >= 0)


@pytest.mark.parametrize("count, pairs", [(8, 4), (24, 12), (30, 12)])
def test_each_component_is_there_with_both_signs(count, pairs):
    """Filters that are left over keep their random values. The patches of 2 × 2 pixels have 12 components."""
    images = shapes.generate(40, img_size=8).images
    mean, std = channel_statistics(images)
    model = numpyvit.create_model("vit", img_size=8, patch_size=2, embed_dim=count, depth=1, num_heads=2, dtype="float64")
    before = model.embed_filters().copy()
    whiten(model, images, np.arange(40), mean, std)
    filters, components = model.embed_filters(), whitening(images, mean, std, 2)
    np.testing.assert_array_equal(filters[:pairs], components[:pairs])
    np.testing.assert_array_equal(filters[pairs:2 * pairs], -components[:pairs])
    np.testing.assert_array_equal(filters[2 * pairs:], before[2 * pairs:])
    assert not (filters[:2 * pairs] == before[:2 * pairs]).any()


@pytest.mark.parametrize("name", FIELDS)
def test_they_stay_and_all_else_learns(name, tmp_path, monkeypatch):
    dataset = small_shapes(monkeypatch)
    settings = recipe(family_of(name), model_fields=FIELDS[name], first_filters="whitened", ema=0.0)
    loop.train(settings, tmp_path / "run", threads=1)
    model = Classifier(tmp_path / "run").model
    fresh = numpyvit.create_model(family_of(name), seed=0, **FIELDS[name] | dict(num_classes=len(dataset.classes)))
    rows, *_ = hold_out(dataset, 64, 0)
    whiten(fresh, dataset.train.images, rows, *channel_statistics(dataset.train.images))
    same = {n for (n, p), (_, q) in zip(model.named_parameters(), fresh.named_parameters(), strict=True)
            if np.array_equal(p.data, q.data)}
    assert same == {filters_name(fresh)}


@pytest.mark.parametrize("name", FIELDS)
def test_threads_and_interruptions_leave_no_trace(name, tmp_path, monkeypatch):
    """Interrupted after the first step, and in a process that begins with filters of its own."""
    small_shapes(monkeypatch)
    settings = dict(model_fields=FIELDS[name], first_filters="whitened", optimizer="muon")
    loop.train(recipe(family_of(name), **settings), tmp_path / "a", threads=1)
    stop_at(monkeypatch, 1, 5)
    with pytest.raises(Interrupted):
        loop.train(recipe(family_of(name), **settings), tmp_path / "b", threads=2)
    with pytest.raises(Interrupted):
        loop.resume(tmp_path / "b", threads=3)
    loop.resume(tmp_path / "b", threads=2)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_validation_images_are_not_looked_at():
    """The filters stay what they are when the validation images become black."""
    dataset = shapes.load(16, 200, 10)
    rows, *_ = hold_out(dataset, 50, 0)
    held_out = np.setdiff1d(np.arange(200), rows)
    mean, std, found = np.full(3, 0.5), np.full(3, 0.2), []
    for pixels in (dataset.train.images.copy(), dataset.train.images):
        model = numpyvit.create_model("vit", **FAMILIES["vit"])
        whiten(model, pixels, rows, mean, std)
        found.append(model.embed_filters().copy())
        dataset.train.images[held_out] = 0
    np.testing.assert_array_equal(*found)
    whiten(model, dataset.train.images, np.arange(200), mean, std)
    assert not np.array_equal(model.embed_filters(), found[0])


def test_given_weights_have_filters_of_their_own():
    with pytest.raises(UserError, match="first_filters: expected random beside init"):
        recipe("vit", init="somewhere", first_filters="whitened")
