"""Test-time augmentation: which pixels a view shows, and the mean over views."""
import numpy as np
import pytest

import numpyvit
from numpyvit.data.views import VIEWS, Looks, View, look, mean_logits
from numpyvit.errors import UserError


def test_a_view_is_what_its_fields_say():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4), dtype=np.uint8)
    assert np.array_equal(look(images, View()), images)
    assert np.array_equal(look(images, View(True)), images[:, :, :, ::-1])
    moved = look(images, View(down=1, right=-1))
    assert np.array_equal(moved[:, :, 1:, :3], images[:, :, :4, 1:])         # every pixel one row lower, one column to the left
    assert np.array_equal(moved[:, :, 0, :3], images[:, :, 1, 1:])           # the border is the reflection
    assert np.array_equal(moved[:, :, 1:, 3], images[:, :, :4, 2])
    mirrored = look(images, View(True, down=-1))
    assert np.array_equal(mirrored[:, :, :4], images[:, :, 1:, ::-1])
    assert all(look(images, view).flags.c_contiguous and look(images, view).dtype == np.uint8 for view in VIEWS["shifts"])


def test_weights_add_up_and_each_view_has_its_mirror_image():
    for name, views in VIEWS.items():
        assert sum(view.weight for view in views) == 1 and len(set(views)) == len(views)
        if name != "none":
            assert {view._replace(mirrored=not view.mirrored) for view in views} == set(views)
    assert {(view.down, view.right) for view in VIEWS["shifts"]} == {(0, 0), (-1, -1), (1, 1)}


@pytest.mark.parametrize("tta", VIEWS)
def test_the_mean_over_views_is_the_sum_of_its_parts(tta):
    model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, num_classes=3, dtype="float64")
    images = np.random.default_rng(1).normal(size=(4, 3, 8, 8))
    logits, seen = mean_logits(lambda looks: model.forward(looks[:])[0], images, tta), []
    for view in VIEWS[tta]:
        seen.append(model.forward(look(images, view))[0] * view.weight)
    np.testing.assert_allclose(logits, np.sum(seen, axis=0), rtol=1e-13)
    assert (tta == "none") == np.array_equal(logits, model.forward(images)[0])
    if tta != "none":                                                        # blind to left and right
        np.testing.assert_allclose(mean_logits(lambda looks: model.forward(looks[:])[0], images[..., ::-1], tta), logits, rtol=1e-12)


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="tta: expected one of none, mirror, shifts, got 'both'"):
        mean_logits(None, None, "both")


def test_views_are_made_a_block_at_a_time():
    """Images in a file larger than memory stay there: no view of all of them is ever made."""
    images = np.random.default_rng(2).integers(0, 256, (7, 1, 6, 6), dtype=np.uint8)
    for view in VIEWS["shifts"]:
        looks = Looks(images, view)
        assert len(looks) == 7
        for lo, hi in ((0, 2), (2, 7), (6, 9)):
            np.testing.assert_array_equal(looks[lo:hi], look(images, view)[lo:hi])
