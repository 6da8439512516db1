"""Debugging aids: every named intermediate of a pass with its line of source, and two passes compared tensor by tensor.

    python examples/12_trace_and_compare.py                          five seconds

What you will see: what numpyvit/ops computes in one forward and backward pass of a tiny ViT, recorded by the interpreter: its beginning
and its end, and as a table what the first attention computes; the tensors called scores; and the same pass after one weight was changed: where the difference begins, and how it spreads.
"""
import os

os.environ["NUMPYVIT_REFERENCE"] = "1"                                       # before numpyvit is imported: plain NumPy everywhere

import numpy as np

import numpyvit
from numpyvit.inspection.trace import compare, print_comparison, print_trace, trace

rng = np.random.default_rng(0)
model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=4, dtype="float64")
images, dlogits = rng.standard_normal((1, 3, 8, 8)), rng.standard_normal((1, 4))


def traced_pass():
    with trace(model) as tensors:
        _, cache = model.forward(images)
        model.backward(dlogits, cache)
    return tensors


first = traced_pass()
print(first)                                                                 # a short repr; first.show() prints all
print("those of the first block's attention:")
print_trace([t for t in first if t.key.module.startswith("blocks.0.attn")])
scores = first.find("scores", "attention_forward", "blocks.0")[0]
print(f"scores, from {scores.file}:{scores.line}, head 0:\n{np.round(scores.array[0, 0], 4)}")

model.blocks[1].mlp.fc1.weight.data[3, 5] += 0.1
rows = compare(first, traced_pass())
changed = rows.differing()
print(f"\nafter changing blocks.1.mlp.fc1.weight[3, 5] by 0.1: {len(changed)} of {len(rows)} tensors differ. The first, and every dx after them:")
print_comparison(changed[:6] + [row for row in changed[6:] if row.key.name == "dx"])
