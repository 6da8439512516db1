"""How an image becomes a sequence: 224×224 pixels, 14×14 patches, 196×768 numbers, 197×768 with the class token, plus positions.

    python examples/02_patches_and_positions.py [IMAGE.png]         five seconds; a generated image unless you name one

What you will see: the shape after every step (ViT-Base's); in runs/examples/ the image cut into patches, and three tables of
positions: learned (noise until it is trained: see 11), sinusoidal, and 2-D sin-cos; how alike the positions are in each.
"""
import sys

import numpy as np

from numpyvit.data import read_image
from numpyvit.data.shapes import CLASSES, generate
from numpyvit.ops.patch_embed import patch_embed_forward, patches_of
from numpyvit.ops.positions import sincos2d_table, sinusoidal_table
from numpyvit.inspection.plots import colour_bar, new_figure, save, show_image

S, P, C = 224, 16, 768
gh = gw = S // P
rng = np.random.default_rng(0)
image = read_image(sys.argv[1], S) if len(sys.argv) > 1 else generate(10, img_size=S).images[CLASSES.index("star")]

x = image[None] / 255 - 0.5                                                  # (1, 3, 224, 224)
patches = patches_of(x, P)                                                   # (1, 196, 768): a patch is 16·16·3 numbers
weight, bias = rng.standard_normal((C, 3, P, P)) * 0.02, np.zeros(C)
tokens, _ = patch_embed_forward(x, weight, bias)                             # (1, 196, 768): each times a 768 × 768 matrix
class_token = np.zeros((1, 1, C))
sequence = np.concatenate([class_token, tokens], axis=1)                     # (1, 197, 768)
learned = rng.standard_normal((1, 1 + gh * gw, C)) * 0.02                    # as a ViT's table begins
for name, array in {"image": x, "patches": patches, "tokens": tokens, "with class token": sequence,
                    "with positions": sequence + learned}.items():
    print(f"{name:<18}{' × '.join(map(str, array.shape[1:]))}")

# --- the patches, drawn

figure = new_figure(9, 4.7)
figure.suptitle(f"an image of {S}×{S} pixels is a sequence of {gh}×{gw} = {gh * gw} patches of {P}×{P}", fontsize=11)
left, right = figure.subplots(1, 2)
show_image(left, image, "image")
apart = np.full((gh * (P + 3), gw * (P + 3), 3), 255, np.uint8)              # the patches with gaps between
for i, patch in enumerate(patches_of(image[None].astype(float), P)[0]):
    row, column = divmod(i, gw)
    apart[row * (P + 3):row * (P + 3) + P, column * (P + 3):column * (P + 3) + P] = patch.reshape(3, P, P).transpose(1, 2, 0)
right.imshow(apart)
right.set_title("tokens 0 to 195, row by row", fontsize=9)
for axes in (left, right):
    axes.set(xticks=[], yticks=[])
for i in (0, 1, 13, 14, 195):
    row, column = divmod(i, gw)
    right.text(column * (P + 3) + P / 2, row * (P + 3) + P / 2, i, ha="center", va="center", fontsize=7,
               bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "linewidth": 0})
save(figure, "runs/examples/02_patches.png")

# --- three tables of positions

tables = {"learned, before training": learned[0, 1:], "sinusoidal (1-D, row by row)": sinusoidal_table(gh * gw, C),
          "2-D sin-cos": sincos2d_table(gh, gw, C)}
figure = new_figure(11, 6.6)
figure.suptitle("position tables: the numbers (above), and the cosine of patch (5, 9) with every patch (below)", fontsize=11)
axes = figure.subplots(2, 3, height_ratios=(1, 1.1))
for (name, table), above, below in zip(tables.items(), *axes):
    high = np.abs(table).max()
    drawn = above.imshow(table, cmap="RdBu_r", vmin=-high, vmax=high, aspect="auto", interpolation="nearest")
    above.set_title(name, fontsize=10)
    above.set(xlabel="channel", ylabel="patch")
    colour_bar(figure, drawn, [above], "value")
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    drawn = below.imshow((unit @ unit[5 * gw + 9]).reshape(gh, gw), cmap="viridis", vmin=-0.2, vmax=1)
    below.set(xlabel="column of the patch", ylabel="row of the patch")
    colour_bar(figure, drawn, [below], "cosine")
save(figure, "runs/examples/02_positions.png")
print("\nThe 1-D table knows neighbours in a row but hardly those in a column; the 2-D table knows both; a learned one finds out.")
print("figures: runs/examples/02_patches.png, runs/examples/02_positions.png")
