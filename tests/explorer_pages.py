"""Tiny models of the three families as recordings and pages, for the tests of the explorer."""
import base64

import numpy as np

import numpyvit
from numpyvit.explorer.document import document
from numpyvit.explorer.record import record

MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
CVT = dict(img_size=10, embed_dims=(6, 10), depths=(1, 2), num_heads=(1, 2), patch_sizes=(3, 3), patch_strides=(2, 2), patch_paddings=(1, 1))
VIT = dict(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3)
# name: (family, fields, images, training)
MODELS = {
    "vit": ("vit", VIT, 1, False),
    "vit_post": ("vit", dict(VIT, norm_order="post", global_pool="avg", pos_embed="sincos2d", act="gelu_tanh"), 2, False),
    "vit_dropout": ("vit", dict(VIT, act="quick_gelu", drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.3), 3, True),
    "vit_relu": ("vit", dict(VIT, act="relu", pos_embed="none"), 1, False),
    "vit_rotary": ("vit", dict(VIT, global_pool="avg", pos_embed="sincos2d+rotary"), 1, False),
    "vit_stem": ("vit", dict(VIT, stem_widths=(4, 6, 5), stem_strides=(1, 1, 1), stem_pools=(2, 1, 2), global_pool="avg"), 2, True),
    "swin": ("swin", dict(img_size=14, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4), 1, False),
    "swin_stem": ("swin", dict(img_size=12, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4,
                               stem_widths=(4, 6), stem_strides=(1, 1), stem_pools=(1, 2)), 2, True),
    "cvt": ("cvt", CVT, 2, True),
    "cvt_stem": ("cvt", dict(CVT, stem_widths=(4, 6), stem_strides=(1, 1), stem_pools=(2, 1), patch_strides=(1, 2)), 2, True),
    "cvt_eval": ("cvt", dict(CVT, cls_token=False), 1, False),
    "cvt_avg": ("cvt", dict(CVT, qkv_method="avg"), 1, False),
}


def subject(name, seed=0, noise=0.1):
    """(model in float32 with no parameter at its initial value, pixels, labels, training)"""
    family, fields, B, train = MODELS[name]
    model = numpyvit.create_model(family, seed=1, num_classes=5, **fields)
    rng = np.random.default_rng([seed, len(name)])
    for _, p in model.named_parameters():
        p.data[...] += noise * rng.standard_normal(p.shape, dtype=np.float32)
    side = fields["img_size"]
    return model, rng.integers(0, 256, (B, 3, side, side), dtype=np.uint8), rng.integers(0, 5, B), train


def recording(name, **settings):
    model, pixels, labels, train = subject(name, **settings)
    return record(model, pixels, labels, MEAN, STD, train, rng=3 if train else None)


def about(recording, **more):
    config = recording.model.config
    predicted, label = (int(recording.tape.value(recording.named[name])[0].argmax()) for name in ("logits", "target"))
    return {"model": "tiny", "family": type(recording.model).__name__, "parameters": recording.model.num_parameters(), "image": "photo.png",
            "classes": ["ant", "bee", "cat", "dog", "eel"], "label": label, "predicted": predicted, "label_given": True, "bits": 24, "rounding": 0.0,
            "config": {k: v for k, v in vars(config).items()}, **more}


def page(recording, path, **more):
    path.write_text(document(recording, about(recording, **more)), encoding="utf-8")
    return path


READ_ALL = """(() => {
  const all = numpyvit.steps.map(s => numpyvit.read(s.id)), n = all.reduce((sum, x) => sum + x.length, 0), flat = new Float64Array(n);
  let at = 0;
  for (const x of all) { flat.set(x, at); at += x.length; }
  const bytes = new Uint8Array(flat.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 30000) text += String.fromCharCode(...bytes.subarray(i, i + 30000));
  return btoa(text);
})()"""


def read_all(browser):
    """[(step, its values as the page computed them)]"""
    flat = np.frombuffer(base64.b64decode(browser.run(READ_ALL)), np.float64)
    steps = browser.run("numpyvit.steps")
    parts = np.split(flat, np.cumsum([int(np.prod(s["shape"])) for s in steps])[:-1])
    return [(s, x.reshape(s["shape"])) for s, x in zip(steps, parts)]
