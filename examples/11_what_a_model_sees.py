"""Attention maps, rollout, mean attention distance, positions and filters of a model that was trained here, on real images.

    python examples/11_what_a_model_sees.py                          trains a small ViT first, about 2 minutes on two cores
    python examples/11_what_a_model_sees.py RUN                      a run of yours, of any family: seconds

Without RUN the data are CIFAR-10 if it is there or can be had, else the built-in shapes (--data, --data-dir, --seconds).

What you will see in runs/examples/11_*.png: where each block and each head of one block looks, what of the image reaches the output
(rollout), which pixels move the predicted class (saliency), how far heads look by depth; and the tables the model has learned:
similarity of positions (ViT), relative position biases (Swin), patch filters. Two minutes of training show the beginnings of it; the
same commands on a run of half an hour show more. `numpyvit attention RUN IMAGE` and friends draw one at a time.
"""
import argparse
import os
import time

import numpy as np

from numpyvit import analysis, plots
from numpyvit.data import load, normalise
from numpyvit.training.loop import train
from numpyvit.training.recipe import recipe_for
from numpyvit.runs.classifier import Classifier

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run", nargs="?")
parser.add_argument("--data", default="auto", choices=("auto", "cifar10", "shapes"))
parser.add_argument("--data-dir")
parser.add_argument("--seconds", type=float, default=90, help="of training")
args = parser.parse_args()

if args.run is None:
    args.run = f"runs/examples/11_run-{time.strftime('%Y%m%d-%H%M%S')}"
    os.makedirs("runs/examples", exist_ok=True)
    fields = dict(img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=2, mlp_ratio=2.0, global_pool="token")
    train(recipe_for("vit", model="vit", model_fields=fields, data=args.data, data_dir=args.data_dir, minutes=args.seconds / 60), args.run)

run = Classifier(args.run)
model, recipe = run.model, run.config.recipe
data = load(run.config.data.name, args.data_dir or recipe.data_dir, model.config.img_size)
pixels, labels = data.test.images[:64], data.test.labels[:64]
images = normalise(pixels, run.mean, run.std, model.dtype)
logits, _ = model.forward(images)
right = np.flatnonzero(logits.argmax(axis=1) == labels)
chosen = right[np.argmax(logits[right, labels[right]])] if len(right) else 0   # the one it is surest of
name = data.classes[labels[chosen]]
blocks = analysis.attention_blocks(model, images[chosen:chosen + 1])
image = pixels[chosen]
print(f"{len(right)} of {len(labels)} test images right; looking at number {chosen}, {name}")

figures = {
    "attention_by_block": plots.plot_attention(image, blocks),
    "attention_by_head": plots.plot_attention(image, blocks, analysis.choose(blocks, -1)),
    "rollout": plots.plot_rollout(image, analysis.rollout(blocks)[0], f"attention rollout, {name}"),
    "saliency": plots.plot_saliency(image, analysis.saliency(model, images[chosen:chosen + 1], labels[chosen:chosen + 1])[0],
                                    f"saliency, {name}"),
    "distance": plots.plot_distances(analysis.mean_attention_distance(analysis.attention_blocks(model, images[:16])),
                                     "mean attention distance, 16 images"),
    "filters": plots.plot_patch_filters(*analysis.patch_filters(model)),
}
try:
    figures["positions"] = plots.plot_position_similarity(analysis.position_similarity(model))
except ValueError as none:
    print(none)
try:
    tables = analysis.relative_position_bias(model)
    figures["bias"] = plots.plot_relative_position_bias(tables, list(tables)[-1])
except ValueError as none:
    print(none)
for what, figure in figures.items():
    plots.save(figure, f"runs/examples/11_{what}.png")
    print(f"figure: runs/examples/11_{what}.png")
