"""Smaller images by area, against torch's adaptive average where sizes divide and against many small pixels elsewhere."""
import numpy as np
import pytest
import torch

from numpyvit.data.resize import resize_windows, shares, shrink


@pytest.mark.parametrize("size, side", [(32, 16), (12, 4), (6, 6), (8, 1)])
def test_whole_blocks_are_torchs_average(size, side):
    images = np.random.default_rng(0).normal(size=(2, 3, size, size))
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images), side).numpy()
    np.testing.assert_allclose(shrink(images, side), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size, side", [(32, 24), (32, 20), (7, 5)])
def test_parts_of_pixels_count_as_their_area(size, side):
    """Every pixel cut into side × side equal ones, of which a smaller image's pixel then covers a whole number."""
    images = np.random.default_rng(1).normal(size=(2, 1, size, size))
    fine = np.kron(images, np.ones((1, 1, side, side)))
    blocks = fine.reshape(2, 1, side, size, side, size)
    np.testing.assert_allclose(shrink(images, side), blocks.mean(axis=(3, 5)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(shares(size, side, "float64").sum(axis=1), 1, rtol=1e-12)


def test_float32_stays_float32():
    assert shrink(np.ones((1, 3, 32, 32), np.float32), 24).dtype == np.float32


WINDOWS = np.array([[0, 0, 32], [3, 5, 24], [8, 0, 24], [10, 2, 17]])


@pytest.mark.parametrize("side", [24, 32, 17])
def test_a_window_is_resized_as_an_image_of_its_own(side):
    """By area where it becomes smaller, as torch's bilinear interpolation where it becomes larger, as it is otherwise."""
    images = np.random.default_rng(2).normal(size=(4, 3, 32, 32))
    for y, image, (top, left, size) in zip(resize_windows(images, WINDOWS, side), images, WINDOWS, strict=True):
        window = image[None, :, top:top + size, left:left + size]
        if size >= side:
            expected = shrink(np.ascontiguousarray(window), side)
        else:
            larger = torch.nn.functional.interpolate(torch.from_numpy(window), side, mode="bilinear", align_corners=False)
            expected = larger.numpy()
        np.testing.assert_allclose(y, expected[0], rtol=1e-10, atol=1e-12)
    assert resize_windows(images.astype(np.float32), WINDOWS, side).dtype == np.float32
