"""Augmentation: pure in (seed, epoch, index), equal to its definition, and of the stated distribution."""
import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from numpyvit.data import Augment, ImageSet, UserError, augment_batch, channel_statistics, epoch_order, normalise
from numpyvit import functional as F
from numpyvit.data import augment as augment_page, draws
from numpyvit.kernels import augment as kernels
from numpyvit.ops import augment as definitions

MEAN, STD, K = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 7
EVERYTHING = Augment(padding=3, flip="alternating", cutout=4, erasing=0.5, mixup=0.4, cutmix=1.0)
RECIPES = [Augment(), Augment(padding=0, flip="none"), Augment(cutout=5), Augment(erasing=0.7), Augment(mixup=0.2),
           Augment(cutmix=1.0), EVERYTHING]


def images_of(n=40, height=9, width=12, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8), rng.integers(0, K, n))


DATA = images_of()


def batch(indices, augment=EVERYTHING, seed=3, epoch=5, data=DATA, **more):
    return augment_batch(data, indices, seed, epoch, augment, MEAN, STD, K, **more)


augments = st.builds(Augment, padding=st.integers(0, 8), flip=st.sampled_from(augment_page.FLIPS), cutout=st.integers(0, 20),
                     erasing=st.sampled_from([0.0, 0.3, 1.0]), mixup=st.sampled_from([0.0, 0.2, 1.0]),
                     cutmix=st.sampled_from([0.0, 0.5, 1.0]))


@settings(deadline=None, max_examples=60)
@given(augments, st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.lists(st.integers(0, 39), min_size=2, max_size=20),
       st.integers(1, 19), st.sampled_from(["float32", "float64"]))
def test_split_merged_or_permuted_batches_have_the_same_bits(augment, seed, epoch, indices, cut, dtype):
    images, targets = batch(indices, augment, seed, epoch, dtype=dtype)
    assert images.dtype == targets.dtype == np.dtype(dtype)
    halves = [batch(part, augment, seed, epoch, dtype=dtype) for part in (indices[:cut], indices[cut:])]
    np.testing.assert_array_equal(images, np.concatenate([half[0] for half in halves]))
    np.testing.assert_array_equal(targets, np.concatenate([half[1] for half in halves]))
    order = np.argsort(indices, kind="stable")
    other = batch(np.asarray(indices)[order], augment, seed, epoch, dtype=dtype)
    np.testing.assert_array_equal(images[order], other[0])
    np.testing.assert_array_equal(targets[order], other[1])


def test_threads_get_the_bits_of_one_thread():
    parts = np.array_split(np.arange(40), 10)
    alone = [batch(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for expected, got in zip(alone * 5, pool.map(batch, parts * 5)):
            np.testing.assert_array_equal(expected[0], got[0])
            np.testing.assert_array_equal(expected[1], got[1])


def test_seed_epoch_and_index_each_matter():
    same = ImageSet(np.repeat(DATA.images[:1], 40, axis=0), DATA.labels)
    crop = Augment(padding=4, flip="random")
    base = batch(np.arange(40), crop, 3, 5, same)[0]
    assert len(np.unique(base, axis=0)) > 20
    for seed, epoch in ((4, 5), (3, 6)):
        other = batch(np.arange(40), crop, seed, epoch, same)[0]
        assert 20 < (base != other).any(axis=(1, 2, 3)).sum()


@settings(deadline=None, max_examples=60)
@given(augments, st.integers(0, 2**63 - 1), st.integers(0, 99), st.integers(1, 4), st.integers(9, 14), st.integers(9, 14))
def test_kernel_is_the_definition_bit_for_bit(augment, seed, epoch, channels, height, width):
    data = images_of(12, height, width, channels, seed % 1000)
    mean, std = np.linspace(0.3, 0.6, channels), np.linspace(0.2, 0.3, channels)
    outcomes = []
    for page in (kernels, definitions):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("augment_views", "augment_mixtures"):
                assert getattr(F, name) is getattr(definitions if F.REFERENCE else kernels, name)
                patch.setattr(F, name, getattr(page, name))
            white = normalise(data.images, mean, std)
            np.testing.assert_array_equal(white, augment_batch(
                data, np.arange(12), 0, 0, Augment(padding=0, flip="none"), mean, std, K)[0])
            outcomes.append((white, *augment_batch(data, np.arange(12), seed, epoch, augment, mean, std, K)))
    for kernel, definition in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(kernel, definition)


@pytest.mark.parametrize("value, plain", [("", False), ("0", False), ("1", True), ("yes", True)])
def test_one_switch_leaves_every_definition_in_place(value, plain):
    """NUMPYVIT_REFERENCE means the same for augmentation as for every other operation."""
    code = ("from numpyvit import functional as F; "
            "print([f.__module__.split('.')[1] for f in (F.augment_views, F.augment_mixtures, F.layer_norm_forward)])")
    out = subprocess.run([sys.executable, "-c", code], cwd=Path(augment_page.__file__).parents[2], text=True, check=True,
                         capture_output=True, env={**os.environ, "NUMPYVIT_REFERENCE": value}).stdout
    assert out.strip() == str(["ops" if plain else "kernels"] * 3)


@pytest.mark.parametrize("padding, flip", [(0, "none"), (1, "random"), (4, "random"), (8, "alternating")])
def test_crop_is_a_window_of_the_reflect_padded_image(padding, flip):
    images, targets = batch(np.arange(40), Augment(padding=padding, flip=flip))
    scale = np.asarray(STD)[:, None, None], np.asarray(MEAN)[:, None, None]
    _, _, height, width = DATA.images.shape
    for index, image in enumerate(images):
        padded = np.pad(DATA.images[index], ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
        top, left = (int(x[0]) for x in draws.draw_crops(np.array([index]), 3, 5, padding))
        window = padded[:, top:top + height, left:left + width]
        if draws.draw_flips(np.array([index]), 3, 5, flip)[0]:
            window = window[:, :, ::-1]
        np.testing.assert_allclose(image, (window / 255 - scale[1]) / scale[0], rtol=1e-6, atol=1e-6)
        assert targets[index].argmax() == DATA.labels[index] and targets[index].sum() == 1


def test_crops_and_flips_are_uniform_and_independent():
    n, places = 81 * 400, 9
    top, left = draws.draw_crops(np.arange(n), 1, 2, 4)
    assert top.min() == left.min() == 0 and top.max() == left.max() == 8
    flip = draws.draw_flips(np.arange(n), 1, 2, "random")
    counts = np.bincount((top * places + left) * 2 + flip, minlength=2 * places * places)
    expected = n / counts.size
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert 100 < chi2 < 236                                                  # 161 degrees of freedom: 161 ± 4.2 · 18


def test_alternating_flip_shows_both_sides_in_two_epochs():
    index = np.arange(2000)
    flips = np.stack([draws.draw_flips(index, 9, epoch, "alternating") for epoch in range(4)])
    assert (flips[0] != flips[1]).all() and (flips[0] == flips[2]).all() and (flips[1] == flips[3]).all()
    assert 880 < flips[0].sum() < 1120
    assert (flips[0] != draws.draw_flips(index, 10, 0, "alternating")).sum() > 800
    plain = Augment(padding=0, flip="alternating")
    np.testing.assert_array_equal(batch(np.arange(40), plain, epoch=0)[0], batch(np.arange(40), plain, epoch=1)[0][..., ::-1])


def test_cutout_clears_one_square_to_the_mean():
    data = ImageSet(np.zeros((400, 3, 9, 12), dtype=np.uint8), np.zeros(400, dtype=np.int64))   # black is not the mean
    images, _ = batch(np.arange(400), Augment(padding=0, flip="none", cutout=4), data=data)
    areas = (images == 0).all(axis=1).sum(axis=(1, 2))
    assert areas.max() == 16 and areas.min() >= 4 and len(set(areas)) > 3
    assert ((images == 0).all(axis=1) == (images == 0).any(axis=1)).all()
    covered = (images == 0).all(axis=1).mean(axis=0)
    assert covered.min() > 0.02                                              # every pixel is hit at times


def test_erasing_fills_rectangles_of_the_stated_sizes_with_noise():
    data = ImageSet(np.zeros((600, 3, 32, 32), dtype=np.uint8), np.zeros(600, dtype=np.int64))
    images, _ = augment_batch(data, np.arange(600), 1, 1, Augment(padding=0, flip="none", erasing=0.25), (0,) * 3, (1,) * 3, K)
    erased = (images != 0).any(axis=(1, 2, 3))
    assert 105 < erased.sum() < 195                                          # 150 ± 4.2 σ
    boxes = draws.draw_erasings(np.arange(600), 1, 1, 0.25, 32, 32)
    assert (erased == (boxes[:, 1] > boxes[:, 0])).all()
    for image, (t, b, l, r) in zip(images[erased], boxes[erased]):
        assert 0 <= t < b <= 32 and 0 <= l < r <= 32 and 0.015 < (b - t) * (r - l) / 1024 < 0.36
        assert 0.25 < (b - t) / (r - l) < 4
        outside = image.copy()
        outside[:, t:b, l:r] = 0
        assert not outside.any()
    values = np.concatenate([image[image != 0] for image in images[erased]])
    assert abs(values.mean() - 0.502) < 0.01 and abs(values.std() - 0.2887) < 0.01


@pytest.mark.parametrize("augment", [Augment(mixup=0.3), Augment(cutmix=0.7), Augment(mixup=0.3, cutmix=0.7)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mixtures_are_of_two_views_and_targets_sum_to_one(augment, dtype):
    plain = Augment(padding=augment.padding, flip=augment.flip)
    index = np.arange(40)
    images, targets = batch(index, augment, dtype=dtype)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=2 * np.finfo(dtype).eps)
    assert targets.min() >= 0
    partner = draws.draw_partners(index, 3, 5, 40)
    assert (partner != index).all() and partner.min() >= 0 and partner.max() < 40
    own, other = batch(index, plain, dtype=dtype)[0], batch(partner, plain, dtype=dtype)[0]
    kinds = set()
    for i in range(40):
        share = targets[i, DATA.labels[i]]
        if DATA.labels[i] == DATA.labels[partner[i]]:
            assert abs(share - 1) < 1e-6
            continue
        assert abs(targets[i, DATA.labels[partner[i]]] - (1 - share)) < 1e-6
        pasted = (images[i] == other[i]).all(axis=0)
        if (pasted | (images[i] == own[i]).all(axis=0)).all():               # every pixel from one of both: cutmix
            kinds.add("cutmix")
            assert abs(pasted.mean() - (1 - share)) < 1e-5
        else:
            kinds.add("mixup")
            np.testing.assert_allclose(images[i], share * own[i] + (1 - share) * other[i], rtol=1e-5, atol=1e-5)
    assert kinds == {name for name in ("mixup", "cutmix") if getattr(augment, name)}


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 39), min_size=1), st.integers(0, 2**40))
def test_partners_come_from_the_given_pool(pool, seed):
    pool = sorted(pool)
    partner = draws.draw_partners(np.arange(40), seed, 0, 40, pool)
    assert set(partner) <= set(pool)
    if len(pool) > 1:
        assert (partner != np.arange(40)).all()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 5.0])
def test_beta_quantile_has_the_moments_of_beta(alpha):
    q = (np.arange(200_000) + 0.5) / 200_000
    x = draws.beta_quantile(q, alpha)
    assert (np.diff(x) >= 0).all() and x.min() >= 0 and x.max() <= 1
    assert abs(x.mean() - 0.5) < 1e-9
    assert abs(x.var() - 1 / (4 * (2 * alpha + 1))) < 2e-5
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))                    # E (x − ½)⁴
    assert abs(((x - 0.5) ** 4).mean() - fourth) < 2e-5
    if alpha == 1:
        np.testing.assert_allclose(x, q, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3000), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_epoch_order_is_a_permutation_that_changes(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    if n > 50:
        assert (order != epoch_order(n, seed, epoch + 1)).sum() > n / 2
        assert (order != epoch_order(n, seed + 1, epoch)).sum() > n / 2


def test_epoch_order_is_the_same_everywhere():
    assert epoch_order(12, 1, 2).tolist() == [5, 6, 11, 10, 4, 1, 7, 3, 2, 9, 8, 0]


def test_channel_statistics_and_normalise_whiten():
    mean, std = channel_statistics(DATA.images)
    np.testing.assert_allclose(mean, (DATA.images / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (DATA.images / 255).std(axis=(0, 2, 3)), rtol=1e-12)
    white = normalise(DATA.images, mean, std, "float64")
    np.testing.assert_allclose(white.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(white.std(axis=(0, 2, 3)), 1, atol=1e-12)
    assert normalise(DATA.images, mean, std).dtype == np.float32
    assert channel_statistics(np.full((3, 1, 4, 4), 51, np.uint8))[1].tolist() == [1.0]


def test_inputs_are_not_changed():
    before = DATA.images.copy(), DATA.labels.copy()
    indices = np.arange(40)
    batch(indices)
    np.testing.assert_array_equal(before[0], DATA.images)
    np.testing.assert_array_equal(before[1], DATA.labels)
    np.testing.assert_array_equal(indices, np.arange(40))


def test_empty_batch():
    images, targets = batch([])
    assert images.shape == (0, 3, 9, 12) and targets.shape == (0, K)


@pytest.mark.parametrize("indices", [[40], [-1], [[0, 1]], [0, 2**40]])
def test_indices_out_of_range_are_refused(indices):
    with pytest.raises(ValueError, match="indices"):
        batch(indices)
    with pytest.raises(ValueError, match="indices"):
        batch([0], EVERYTHING, partners=np.array([40]))


def test_other_wrong_arguments_are_refused():
    with pytest.raises(UserError, match="padding"):
        batch([0], Augment(padding=9))
    with pytest.raises(ValueError, match="labels"):
        augment_batch(DATA, np.arange(40), 0, 0, Augment(), MEAN, STD, DATA.labels.max())
    with pytest.raises(ValueError, match="channels"):
        augment_batch(DATA, [0], 0, 0, Augment(), (0.5,), (0.5,), K)
    for wrong in (dict(flip="vertical"), dict(padding=-1), dict(padding=1.5), dict(cutout=-2), dict(erasing=1.1),
                  dict(erasing=float("nan")), dict(mixup=-0.1), dict(cutmix=float("inf"))):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Augment(**wrong)


def test_importing_the_package_compiles_and_reads_nothing():
    root = Path(augment_page.__file__).parents[2]
    code = "import sys, numpyvit.data; print([m for m in ('numba', 'PIL', 'rich', 'tarfile', 'urllib.request') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    if (root / "numpyvit" / "__init__.py").exists():
        before = subprocess.run([sys.executable, "-c", code.replace("numpyvit.data", "numpyvit")], cwd=root,
                                capture_output=True, text=True, check=True)
        assert result.stdout == before.stdout
    else:
        assert result.stdout.strip() == "[]"


def test_windows_lie_inside_and_every_side_and_place_is_as_likely():
    n = 40000
    top, left, side = draws.draw_windows(np.arange(n), 3, 5, 24, 32).T
    for least, most, found in ((24, 32, side), (0, 8, top[side == 24]), (0, 8, left[side == 24]), (0, 2, top[side == 30])):
        counts = np.bincount(found, minlength=most + 1)
        assert not counts[:least].any() and len(counts) == most + 1
        mean = len(found) / (most - least + 1)
        np.testing.assert_allclose(counts[least:], mean, atol=5 * np.sqrt(mean))
    assert (top + side).max() == (left + side).max() == 32 and abs(np.corrcoef(top[side == 24], left[side == 24])[0, 1]) < 0.06


def test_windows_depend_on_seed_epoch_and_image_alone():
    windows = draws.draw_windows(np.arange(40), 3, 5, 6, 12)
    np.testing.assert_array_equal(draws.draw_windows(np.arange(40)[::-1], 3, 5, 6, 12), windows[::-1])
    for other in ((4, 5), (3, 6)):
        assert (draws.draw_windows(np.arange(40), *other, 6, 12) != windows).any(axis=1).sum() > 20
    np.testing.assert_array_equal(draws.draw_windows(np.arange(3), 3, 5, 12, 12), [[0, 0, 12]] * 3)


def test_smaller_images_are_mixed_after_they_were_resized():
    """A box of cutmix has whole pixels of the smaller image, so that the target is the share of its pixels."""
    data = images_of(height=12)
    for augment in (Augment(cutmix=1.0, side=8), Augment(cutmix=1.0, side=8, window=6), Augment(mixup=0.4, side=8, window=9)):
        images, targets = batch(np.arange(40), augment, data=data)
        partner = draws.draw_partners(np.arange(40), 3, 5, 40)
        alone = dataclasses.replace(augment, cutmix=0.0, mixup=0.0)
        own, other = batch(np.arange(40), alone, data=data)[0], batch(partner, alone, data=data)[0]
        assert images.shape == (40, 3, 8, 8)
        different = data.labels != data.labels[partner]
        share = targets[np.arange(40), data.labels][:, None, None, None]
        if augment.cutmix:
            from_own = (images == own).all(axis=1)
            assert (from_own | (images == other).all(axis=1)).all()
            np.testing.assert_allclose(from_own.mean(axis=(1, 2))[different], share[different].ravel(), atol=1e-6)
        else:
            np.testing.assert_allclose(images[different], (share * own + (1 - share) * other)[different], atol=1e-5)


@pytest.mark.parametrize("augment, message", [(Augment(side=8), "small_size: expected square images, got 9 × 12 pixels"),
                                              (Augment(side=13), "small_size: expected at most the 12 pixels"),
                                              (Augment(side=8, window=13), "small_window: expected at most the 12 pixels")])
def test_sizes_that_do_not_fit_are_named(augment, message):
    data = DATA if "square" in message else images_of(height=12)
    with pytest.raises(UserError, match=message):
        batch(np.arange(4), augment, data=data)
