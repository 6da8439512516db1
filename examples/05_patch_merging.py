"""Swin's pyramid: patches, then 2×2 neighbours merged three times; the size and width of the map at every stage.

    python examples/05_patch_merging.py [IMAGE.png]                  five seconds; a generated image unless you name one

What you will see: the four stages of Swin-T with map, width, windows, parameters and multiply-adds; which neighbour lands in which
quarter of the channels; in runs/examples/ the tokens of every stage and their windows, drawn on the image.
"""
import sys

import numpy as np

from numpyvit.data import read_image
from numpyvit.data.shapes import CLASSES, generate
from numpyvit.models import model_config
from numpyvit.ops.windows import merge_patches_forward
from numpyvit.inspection.plots import panels, save
from numpyvit.inspection.summary import amount, summary

_, config = model_config("swin_tiny_patch4_window7_224")
layers = summary("swin_tiny_patch4_window7_224")
image = read_image(sys.argv[1], 224) if len(sys.argv) > 1 else generate(10, img_size=224).images[CLASSES.index("checkerboard")]

print("stage   map     width   windows of 7×7   blocks   parameters   multiply-adds")
for i, (C, H, W, M, _) in enumerate(config.stages()):
    rows = [row for row in layers if row.name.startswith(f"layers.{i}.")]
    parameters, macs = (sum(getattr(row, field) for row in rows) for field in ("parameters", "macs"))
    print(f"{i:<8}{f'{H}×{W}':<8}{C:<8}{f'{H // M}×{W // M}':<17}{config.depths[i]:<9}{parameters:<13,}{amount(macs, 1000, '', 'k', 'M', 'G')}")

x = np.arange(16).reshape(1, 4, 4, 1)                                        # token 0 to 15, one channel: its number
y, _ = merge_patches_forward(x)
print(f"\nmerging a 4×4 map of tokens 0 … 15:\n{x[0, :, :, 0]}\nbecomes 2×2 tokens of four times the channels (then a Linear, 4·C → 2·C):")
for r, c in np.ndindex(2, 2):
    print(f"  token ({r}, {c}) = {y[0, r, c]}   above left, below left, above right, below right")

figure, axes = panels(4, "Swin-T on 224×224 pixels: tokens (white) and windows of 7×7 tokens (red)", side=3.2, right=0.2, columns=4)
for i, (axes_, (C, H, W, M, _)) in enumerate(zip(axes, config.stages())):
    side = 224 // H
    tokens = image.reshape(3, H, side, W, side).mean(axis=(2, 4))            # one colour a token: its pixels' mean
    axes_.imshow(tokens.transpose(1, 2, 0).astype(np.uint8), extent=(0, 224, 224, 0), interpolation="nearest")
    for edge in range(0, 225, side):
        width = 0.25 if H > 30 else 0.5
        axes_.axhline(edge, color="white", linewidth=width)
        axes_.axvline(edge, color="white", linewidth=width)
    for edge in range(0, 225, side * M):
        axes_.axhline(edge, color="red", linewidth=1.5)
        axes_.axvline(edge, color="red", linewidth=1.5)
    axes_.set_title(f"stage {i}: {H}×{W} tokens of {C} channels\na token is {side}×{side} pixels", fontsize=9)
save(figure, "runs/examples/05_stages.png")
print("\nfigure: runs/examples/05_stages.png")
