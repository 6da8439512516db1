"""What the configurations of several families check: images, divisors, one value a stage."""
from ..checks import check_number, fail, values
from ..module import pair


def check_image_size(config):
    """img_size is a positive number of pixels, or (height, width)."""
    size = values(config, "img_size")
    if len(size) not in (1, 2):
        fail("img_size", "a number of pixels or (height, width)", f"{len(size)} numbers")
    for side in size:
        check_number("img_size", side, whole=True, above=0)


def check_divisor(config, divisor, field):
    """The number in one field divides that in another, or both of its sides."""
    for value in pair(getattr(config, field)):
        if value % getattr(config, divisor):
            fail(divisor, f"a divisor of {field} {getattr(config, field)}", getattr(config, divisor))


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
