"""What has to hold between two runs of the same model or op, whatever the numbers are."""
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cases
import numpyvit
from numpyvit import functional as F
from numpyvit.errors import UserError
from numpyvit.inspection.gradients import TINY, definitions
from numpyvit.module import pair

VARIANTS = {f"{family} {i + 1}": (family, fields) for family, tiny in TINY.items() for i, (fields, _) in enumerate(tiny[:2])}
every_family = pytest.mark.parametrize("variant", VARIANTS)
STEM = dict(stem_widths=(5, 6), stem_strides=(2, 1), stem_pools=(1, 2))
WITH_STEMS = VARIANTS | {
    "vit with a stem": ("vit", VARIANTS["vit 1"][1] | STEM), "cvt with a stem": ("cvt", VARIANTS["cvt 1"][1] | STEM),
    "swin with a stem": ("swin", VARIANTS["swin 1"][1] | STEM | dict(img_size=16, patch_size=4, window_size=2))}


def random_model(variant, dtype="float64"):
    family, fields = WITH_STEMS[variant]
    model = numpyvit.create_model(family, dtype=dtype, **fields)
    rng = np.random.default_rng(2)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.2, p.shape)
    return model, rng, rng.standard_normal((5, model.config.in_chans, *pair(model.config.img_size)))


def step(model, images, dlogits, **options):
    """logits, dimages and the flat gradient of one forward and backward."""
    model.zero_grad()
    logits, cache = model.forward(images, **options)
    return logits, model.backward(dlogits, cache), model.flat_grad.copy()


@every_family
def test_a_batch_is_the_sum_of_its_images(variant):
    model, rng, images = random_model(variant)
    dlogits = rng.standard_normal((5, model.config.num_classes))
    logits, dimages, grad = step(model, images, dlogits)
    alone = [step(model, images[i:i + 1], dlogits[i:i + 1]) for i in range(5)]
    assert cases.error(np.concatenate([a[0] for a in alone]), logits) <= 1e-12
    assert cases.error(np.concatenate([a[1] for a in alone]), dimages) <= 1e-12
    assert cases.error(sum(a[2] for a in alone), grad) <= 1e-12


@every_family
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_again_gives_the_same_bits(variant, train, dtype):
    model, rng, images = random_model(variant, dtype)
    dlogits = rng.standard_normal((5, model.config.num_classes))
    first, second = (step(model, images, dlogits, train=train, rng=3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


@every_family
def test_two_threads_in_one_model(variant):
    """Forward passes at the same time in the same weights, gradients in replicas: the bits of one after the other."""
    model, rng, images = random_model(variant, "float32")
    dlogits = rng.standard_normal((5, model.config.num_classes))
    batches = [images, images[:, :, ::-1], -images, images * 2]
    expected = [step(model.replica(), x, dlogits) for x in batches]
    logits_expected = [model.forward(x)[0] for x in batches]
    for _ in range(5):
        replicas = [model.replica() for _ in batches]
        got, logits, start = [None] * 4, [None] * 4, threading.Barrier(4)

        def work(i):
            start.wait()
            logits[i] = model.forward(batches[i])[0]
            got[i] = step(replicas[i], batches[i], dlogits)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(4):
            assert np.array_equal(logits[i], logits_expected[i])
            assert all(np.array_equal(a, b) for a, b in zip(got[i], expected[i]))


@every_family
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layout_does_not_matter_and_nothing_is_written_to(variant, layout):
    model, rng, images = random_model(variant)
    dlogits = rng.standard_normal((5, model.config.num_classes))
    expected = step(model, images, dlogits)
    images, dlogits = cases.laid_out(images, layout), cases.laid_out(dlogits, layout)
    images.flags.writeable = dlogits.flags.writeable = False
    for got, want in zip(step(model, images, dlogits), expected):
        assert cases.error(got, want) <= 1e-13


@every_family
def test_gradients_add_to_what_is_there(variant):
    model, rng, images = random_model(variant)
    dlogits = rng.standard_normal((5, model.config.num_classes))
    _, _, grad = step(model, images, dlogits)
    model.backward(dlogits, model.forward(images)[1])                        # without zero_grad
    assert cases.error(model.flat_grad, 2 * grad) <= 1e-14


def maps_of(cache):
    """The arrays of numbers in nested tuples and lists that own their memory, but for vectors, which batch norms measured."""
    if isinstance(cache, (tuple, list)):
        return [array for part in cache for array in maps_of(part)]
    return [cache] if isinstance(cache, np.ndarray) and cache.base is None and cache.ndim > 1 and cache.dtype.kind == "f" else []


@pytest.mark.parametrize("variant", WITH_STEMS)
def test_a_training_step_leaves_out_what_it_does_not_use(variant):
    """The same bits without dimages; and each cache of a block is freed when it was read, while the caller still holds the whole."""
    model, rng, images = random_model(variant)
    dlogits = rng.standard_normal((5, model.config.num_classes))
    logits, dimages, grad = step(model, images, dlogits, train=True, rng=3)
    replica = model.replica().for_training_steps()
    assert dimages.shape == images.shape
    got = step(replica, images, dlogits, train=True, rng=3)
    assert got[1] is None and np.array_equal(got[0], logits) and np.array_equal(got[2], grad)
    for twin, freed in ((model, False), (replica, True)):
        logits, cache = twin.forward(images, train=True, rng=3)
        maps = [weakref.ref(array) for array in maps_of(twin.block_caches(cache))]
        twin.backward(dlogits, cache)
        assert len(maps) >= 8 and all((ref() is None) == freed for ref in maps)
    with pytest.raises(UserError, match="cache: expected one that backward has not read yet, .* run forward again"):
        replica.backward(dlogits, cache)
    logits, cache = replica.forward(images)                                  # in evaluation a cache serves as often as wanted
    assert np.array_equal(step(replica, images, dlogits)[2], step(model, images, dlogits)[2])
    for _ in range(2):
        replica.backward(dlogits, cache)


@pytest.mark.parametrize("variant", WITH_STEMS)
def test_frozen_first_filters_have_no_gradient_and_change_no_other(variant):
    """A convolution leaves its gradients out where both weight and bias are frozen; plain patches have them all the same."""
    model, rng, images = random_model(variant)
    dlogits = rng.standard_normal((5, model.config.num_classes))
    _, _, grad = step(model, images, dlogits, train=True, rng=3)
    own = [name for name, _ in model.named_parameters() if name.startswith(model.reads_pixels.name + ".")]
    spans = {name: slice(start, end) for name, _, start, end in model.layout()}
    for frozen in (own, own[:-1], [*own, "head.weight"]):
        left_out = own if set(own) <= set(frozen) and ("stem" in variant or "cvt" in variant) else []
        got = step(model.replica().for_training_steps(frozen), images, dlogits, train=True, rng=3)[2]
        assert all(np.array_equal(got[span], grad[span] * (name not in left_out)) for name, span in spans.items())
        assert grad[spans[own[0]]].any()


@pytest.mark.parametrize("folder", ["ops", "kernels"])
@pytest.mark.parametrize("name, B, Cin, kernel", [("conv2d", 2, 3, 3), ("conv2d", 9, 40, 3), ("patch_embed", 2, 3, 2)])
def test_without_dx_the_other_gradients_are_the_same(folder, name, B, Cin, kernel):
    forward, backward = ((getattr(F, f"{name}_{way}") for way in ("forward", "backward")) if folder == "kernels"
                         else definitions()[name])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, Cin, 8, 6) if name == "patch_embed" else (B, 8, 6, Cin))
    y, cache = forward(x, rng.standard_normal((33, Cin, kernel, kernel)), rng.standard_normal(33))
    dy = rng.standard_normal(y.shape)
    dx, *others = backward(dy, cache)
    none, *same = backward(dy, cache, needs_dx=False)
    assert dx.shape == x.shape and none is None and all(map(np.array_equal, others, same)) and len(others) == len(same) == 2


@every_family
def test_a_larger_gradient_is_a_larger_gradient(variant):
    """Backward is linear in dlogits."""
    model, rng, images = random_model(variant)
    a, b = rng.standard_normal((2, 5, model.config.num_classes))
    (_, dimages_a, grad_a), (_, dimages_b, grad_b) = step(model, images, a), step(model, images, b)
    _, dimages, grad = step(model, images, 3 * a - 2 * b)
    assert cases.error(dimages, 3 * dimages_a - 2 * dimages_b) <= 1e-12
    assert cases.error(grad, 3 * grad_a - 2 * grad_b) <= 1e-12


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_without_positions_the_order_of_the_patches_does_not_matter(norm_order):
    fields = dict(img_size=12, patch_size=3, num_classes=5, embed_dim=12, depth=2, num_heads=3, pos_embed="none")
    for global_pool in ("token", "avg", "gap"):
        model = numpyvit.create_model("vit", dtype="float64", norm_order=norm_order, global_pool=global_pool, **fields)
        rng = np.random.default_rng(0)
        for _, p in model.named_parameters():
            p.data += rng.normal(0, 0.3, p.shape)
        patches, order = rng.standard_normal((2, 3, 16, 3, 3)), rng.permutation(16)
        dlogits = rng.standard_normal((2, 5))

        def image_of(patches):
            return patches.reshape(2, 3, 4, 4, 3, 3).transpose(0, 1, 2, 4, 3, 5).reshape(2, 3, 12, 12)
        logits, dimages, grad = step(model, image_of(patches), dlogits)
        moved = step(model, image_of(patches[:, :, order]), dlogits)
        dpatches, dmoved = (d.reshape(2, 3, 4, 3, 4, 3).transpose(0, 1, 2, 4, 3, 5).reshape(2, 3, 16, 3, 3)
                            for d in (dimages, moved[1]))
        assert cases.error(moved[0], logits) <= 1e-12
        assert cases.error(dmoved, dpatches[:, :, order]) <= 1e-12
        assert cases.error(moved[2], grad) <= 1e-12


@given(seed=st.integers(0, 2**32), padding=st.integers(1, 9), finite=st.booleans())
def test_masked_keys_might_as_well_not_be_there(seed, padding, finite):
    """Attention over S keys = attention over S + padding keys with the padding masked: y, dq, dk, dv; and its dk, dv are 0."""
    r = np.random.default_rng(seed).standard_normal
    q, k, v, dy = r((2, 3, 5, 7)), r((2, 3, 6, 7)), r((2, 3, 6, 7)), r((2, 3, 5, 7))
    y, cache = F.attention_forward(q, k, v)
    dq, dk, dv, _ = F.attention_backward(dy, cache)
    extra = [np.concatenate([a, 50 * r((2, 3, padding, 7))], axis=2) for a in (k, v)]
    mask = np.zeros((1, 5, 6 + padding))
    mask[..., 6:] = -1e5 if finite else -np.inf
    padded_y, cache = F.attention_forward(q, *extra, mask=mask)
    padded_dq, padded_dk, padded_dv, _ = F.attention_backward(dy, cache)
    for got, want in [(padded_y, y), (padded_dq, dq), (padded_dk[:, :, :6], dk), (padded_dv[:, :, :6], dv)]:
        assert cases.error(got, want) <= 1e-12
    assert (padded_dk[:, :, 6:] == 0).all() and (padded_dv[:, :, 6:] == 0).all()


@given(seed=st.integers(0, 2**32), shift=st.sampled_from([-1e4, -3.0, 50.0, 1e4]))
def test_softmax_and_cross_entropy_do_not_see_a_constant(seed, shift):
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((4, 9)), rng.integers(0, 9, 4)
    (loss, c1), (moved, c2) = (F.cross_entropy_forward(x, labels, 0.1) for x in (logits, logits + shift))
    assert abs(loss - moved) <= 1e-11
    assert cases.error(F.cross_entropy_backward(1.0, c2), F.cross_entropy_backward(1.0, c1)) <= 1e-11
