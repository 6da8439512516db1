"""How images are prepared, in the words of others: preprocessor_config.json of Hugging Face, in both directions, and
timm's pretrained_cfg.

    what a processor of transformers does                            its keys                            how here
    resizes to size, whatever the ratio                              size, height and width              squash
    … and cuts crop_size out of the middle                           do_center_crop, crop_size           squash-crop
    resizes the shorter side to size, and cuts crop_size out         size.shortest_edge, crop_size       crop
    ConvNext: the shorter side to size / crop_pct, and cuts size     size or size.shortest_edge < 384    crop
    ConvNext: resizes to size, whatever the ratio                    … from 384 up                       squash
"""
from ..checks import is_number, shown
from ..errors import UserError
from .images import HALF, IMAGENET, INTERPOLATIONS, Preprocessing

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}   # Pillow's numbers
FILE = "preprocessor_config.json"
WARPED = 384                                                                 # pixels from which ConvNext does not cut
# processor → what it does where a file lacks the key; all others are like ViT's
DEFAULTS = {"convnext": {"resample": 3, "crop_pct": 224 / 256, "size": {"shortest_edge": 384}},
            "deit": {"resample": 3, "size": 256, "do_center_crop": True, "crop_size": 224},
            "clip": {"resample": 3, "size": 224, "do_center_crop": True, "crop_size": 224,
                     "image_mean": [0.48145466, 0.4578275, 0.40821073],
                     "image_std": [0.26862954, 0.26130258, 0.27577711]}}


def read_preprocessor(source, config, size, in_chans=3):
    """preprocessor_config.json (source) or timm's pretrained_cfg in config.json → Preprocessing, or None without
    either. UserError for a key that asks for what no Preprocessing does.

    size: (H, W) of the model's images
    """
    timm = config.get("pretrained_cfg")
    if source:
        return read_processor(source, size, in_chans)
    return read_pretrained(timm, size, in_chans) if isinstance(timm, dict) else None


def refuse(file, key, expected, got):
    """Raise the UserError about a key of a file."""
    raise UserError(f"{key} of {file}: expected {expected}, got {shown(got)}")


def read_pretrained(timm, size, in_chans=3):
    """timm's pretrained_cfg → Preprocessing"""
    said, mode = "the pretrained_cfg of config.json", timm.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        refuse(said, "crop_mode", "'center' or 'squash'", mode)
    how = "crop" if mode == "center" else "squash-crop"
    usual = IMAGENET if in_chans == 3 else [(sum(values) / 3,) for values in IMAGENET]
    mean, std = timm.get("mean") or usual[0], timm.get("std") or usual[1]
    return Preprocessing(size, how, timm.get("crop_pct") or 0.875, timm.get("interpolation") or "bicubic",
                         *for_channels(mean, std, in_chans, said), said)


def read_processor(p, size, in_chans=3):
    """An object of preprocessor_config.json → Preprocessing. Sizes there are those of the published images."""
    named = str(p.get("image_processor_type") or p.get("feature_extractor_type") or "").lower()
    kind = next((kind for kind in DEFAULTS if named.startswith(kind)), None)
    p = DEFAULTS.get(kind, {}) | p
    if kind == "clip" and not isinstance(p["size"], dict):
        p |= {"size": {"shortest_edge": p["size"]}}
    scale = p.get("rescale_factor", 1 / 255)
    for key in ("do_resize", "do_rescale"):
        if not p.get(key, True):
            refuse(FILE, key, "true", p[key])
    if not is_number(scale) or abs(scale * 255 - 1) > 1e-4:
        refuse(FILE, "rescale_factor", "1/255", scale)
    convnext = kind == "convnext" or "crop_pct" in p and not p.get("do_center_crop")
    how, crop_pct = (convnext_resizing if convnext else usual_resizing)(p, size)
    mean, std = (p.get("image_mean"), p.get("image_std")) if p.get("do_normalize", True) else ((0.0,), (1.0,))
    mean, std = for_channels(mean or HALF[0][:1], std or HALF[1][:1], in_chans, FILE)
    return Preprocessing(size, how, crop_pct, interpolation_of(p.get("resample", 2)), mean, std, FILE)


def interpolation_of(resample):
    """The name of Pillow's number."""
    name = resample if isinstance(resample, str) else RESAMPLING.get(resample if is_number(resample, True) else None)
    if name not in INTERPOLATIONS:
        refuse(FILE, "resample", f"one of Pillow's numbers {', '.join(map(str, RESAMPLING))}", resample)
    return name


def convnext_resizing(p, size):
    """(how, crop_pct) of ConvNextImageProcessor, which is CvT's, too."""
    wanted = p.get("size")
    short = wanted.get("shortest_edge") if isinstance(wanted, dict) else min(size) if wanted is None else wanted
    check_side("size", short)
    return ("squash", 1.0) if short >= WARPED else ("crop", p.get("crop_pct") or 224 / 256)


def usual_resizing(p, size):
    """(how, crop_pct) of the processors that do what do_center_crop, crop_size and size say."""
    wanted = p.get("size")
    short = wanted.get("shortest_edge") if isinstance(wanted, dict) else None
    if short is None:
        sides = sides_of("size", wanted, size)
    else:
        sides = (check_side("size", short),) * 2
    if not p.get("do_center_crop"):
        return ("squash", 1.0) if short is None else ("crop", size[0] / short)
    cut = sides_of("crop_size", p.get("crop_size"), size)
    shares = [c / n for c, n in zip(cut, sides)]
    share = max(shares) if short is not None else min(shares)
    misfit = short is None and any(c / share - n >= 1 for c, n in zip(cut, sides))           # sides are whole pixels
    if max(shares) > 1 or misfit:
        refuse(FILE, "crop_size", f"sides that are the same part of size, {sides[0]} × {sides[1]}", p.get("crop_size"))
    return "crop" if short is not None else "squash-crop" if share < 1 else "squash", share


def check_side(key, side):
    """The side, where it is a number of pixels."""
    if not is_number(side) or not 0 < side < 1e6:
        refuse(FILE, key, "a number of pixels", side)
    return side


def sides_of(key, value, usual):
    """(height, width) of a size in preprocessor_config.json: a number, two, or an object; usual where there is none."""
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    sides = usual if value is None else value if isinstance(value, list) else (value, value)
    if len(sides) != 2:
        refuse(FILE, key, "height and width", value)
    return tuple(check_side(key, side) for side in sides)


def for_channels(mean, std, in_chans, said):
    """mean and std with one number for each channel of the model: a single one is repeated, another count refused."""
    both = []
    for key, values in (("mean", mean), ("std", std)):
        if isinstance(values, (list, tuple)) and len(values) != in_chans:
            if len(values) != 1:
                refuse(said, key, f"one number for each of {in_chans} channels", values)
            values = [values[0]] * in_chans
        both.append(values)
    return both


def write_preprocessor(preprocessing):
    """preprocessor_config.json of the processor in transformers that does the same.   → a dict, a list of sentences

    For a size that is not square, transformers squashes what is cut here; a sentence then says so. For "fit", which
    cuts first, transformers cuts last: pixels at the border may differ. UserError for a crop_pct above 1.
    """
    p, (H, W), sentences = preprocessing, preprocessing.size, []
    if p.how in ("crop", "squash-crop") and p.crop_pct > 1:
        raise UserError(f"crop_pct of {p.said}: expected at most 1, got {shown(p.crop_pct)}: transformers has no "
                        "processor that adds a border; write another format")
    code = next(code for code, name in RESAMPLING.items() if name == p.interpolation)
    written = {"do_resize": True, "resample": code, "do_rescale": True, "rescale_factor": 1 / 255,
               "do_normalize": True, "image_mean": list(p.mean), "image_std": list(p.std)}
    cut = {"do_center_crop": True, "crop_size": {"height": H, "width": W}}
    to_H, to_W = p.resized_to()
    if p.how == "squash-crop":
        written |= {"image_processor_type": "DeiTImageProcessor", "size": {"height": to_H, "width": to_W}, **cut}
    elif p.how == "squash" or H != W:
        written |= {"image_processor_type": "ViTImageProcessor", "size": {"height": H, "width": W}}
        if p.how != "squash":
            sentences = [f"transformers has no processor that cuts {H} × {W} out of an image: the one that was written "
                         "resizes to that, whatever the ratio"]
    else:                                                                    # the one that cuts at any size
        written |= {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": to_H}, **cut,
                    "do_convert_rgb": len(p.mean) == 3}
    return written, sentences
