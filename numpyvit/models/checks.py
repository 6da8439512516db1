"""What the configurations of several families check: images, divisors, stems, one value a stage."""
import math

from ..checks import check_number, check_numbers, fail, values
from ..module import pair
from ..ops.conv import output_size
from .stem import stem_steps


def check_image_size(config):
    """img_size is a positive number of pixels, or (height, width)."""
    size = values(config, "img_size")
    if len(size) != 2 and isinstance(config.img_size, (tuple, list)):
        fail("img_size", "a number of pixels or (height, width)", f"{len(size)} numbers")
    for side in size:
        check_number("img_size", side, whole=True, above=0)


def check_divisor(config, divisor, field):
    """The number in one field divides that in another, or both of its sides."""
    for value in pair(getattr(config, field)):
        if value % getattr(config, divisor):
            fail(divisor, f"a divisor of {field} {getattr(config, field)}", getattr(config, divisor))


def check_stem(config):
    """stem_strides and stem_pools have a number for each of stem_widths; pools may be () for none."""
    widths, strides, pools = config.stem_widths, config.stem_strides, config.stem_pools
    check_numbers(config, "stem_widths", "stem_strides", "stem_pools", above=0)
    if len(strides) != len(widths):
        fail("stem_strides", f"a tuple of one stride a convolution, {len(widths)} as in stem_widths", strides)
    if len(pools) not in (0, len(widths)):
        fail("stem_pools", f"() or a tuple of one side a convolution, {len(widths)} as in stem_widths", pools)


def check_stem_makes_patches(config):
    """The stem's strides and pools multiply to patch_size, which divides img_size."""
    strides, pools, side = config.stem_strides, config.stem_pools, config.patch_size
    check_stem(config)
    if config.stem_widths:
        check_divisor(config, "patch_size", "img_size")
        if math.prod((*strides, *pools)) != side:
            if pools:
                fail("stem_pools", f"pools that with stem_strides {strides} multiply to patch_size {side}", pools)
            fail("stem_strides", f"strides whose product is patch_size {side}", strides)


def check_stem_batch(config, batch):
    """A batch norm that sees one value a channel has no variance: UserError for one image where a map of the stem is
    1 × 1. A batch norm stands behind each convolution and its pooling.
    """
    size = pair(config.img_size)
    for i, (stride, pool) in enumerate(stem_steps(config)):
        size = tuple(output_size(n, 3, stride, 1) // pool for n in size)
        if batch == 1 and size == (1, 1):
            fail("images", "2 or more to train on", "a batch of 1, which leaves batch norm one value a channel behind "
                 f"convolution {i} of the stem, where the map is 1×1")


def check_mlp(config, widths):
    """The MLP of every width has a channel."""
    C = min(widths)
    if int(C * config.mlp_ratio) < 1:
        fail("mlp_ratio", f"a number that leaves the MLP of the width {C} a channel, 1/{C} or more", config.mlp_ratio)


def check_stages(config, first, *others):
    """Every field is a tuple of one value a stage, as many as the first has, at least one."""
    stages = max(len(values(config, first)), 1)
    for field in (first, *others):
        if not isinstance(getattr(config, field), tuple) or len(getattr(config, field)) != stages:
            fail(field, f"a tuple of one value a stage, {stages} as in {first}", getattr(config, field))


def check_heads(widths, num_heads):
    """Every stage's number of heads divides its width."""
    for i, (C, nh) in enumerate(zip(widths, num_heads)):
        if C % nh:
            fail("num_heads", f"in stage {i} a divisor of its width {C}", nh)
