"""Pre-train, then fine-tune at a higher resolution, as the ViT paper does; against the same training from scratch.

    python examples/10_pretrain_then_finetune.py [STEPS]             about 3 minutes on two cores; STEPS of pre-training, 1,000 unless given

The large task: seven of the built-in shapes, 32×32 pixels, plenty of images. The small one: the other three shapes, 48×48 pixels, 90
images. What the paper does between the two (section 3.2, appendix B.1.1):
    a new head for the new classes, zeros at first          load_weights(…, drop_head=True), head.weight = 0
    more patches of the same size                           load_weights resizes the table of positions (8×8 → 12×12, bicubic)
    SGD with momentum 0.9, no weight decay, clipped at 1    Optimizer(model, "sgd", …), cosine schedule

What you will see: accuracy on 600 test images while fine-tuning, beside that of a model that starts from scratch (with AdamW, which suits
it better than SGD). In runs/examples/ both as curves, and the table of positions before and after resizing.
"""
import os
import sys

import numpy as np

import numpyvit
from numpyvit.inspection.attention import position_similarity
from numpyvit.data import Augment, ImageSet, augment_batch, channel_statistics, epoch_order, normalise
from numpyvit.data.shapes import CLASSES, generate
from numpyvit.inspection.plots import colour_bar, new_figure, save
from numpyvit.training.lanes import Lanes
from numpyvit.training.optim import Optimizer
from numpyvit.training.schedule import learning_rate

BATCH = 32
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000                      # and a fifth of that to fine-tune
LARGE = ("disc", "ring", "square", "frame", "triangle", "plus", "stripes")
SMALL = ("star", "crescent", "checkerboard")
os.makedirs("runs/examples", exist_ok=True)


def images_of(names, per_class, size, seed):
    """Labelled images of these classes alone, labels 0, 1, …"""
    everything = generate(per_class * len(CLASSES), seed, img_size=size)
    kept = np.isin(everything.labels, [CLASSES.index(name) for name in names])
    return ImageSet(everything.images[kept], np.array([names.index(CLASSES[k]) for k in everything.labels[kept]]))


def train(model, images, test, steps, settings, peak, every):
    """→ [(step, accuracy on test)]"""
    mean, std = channel_statistics(images.images)
    optimizer, curve, K = Optimizer(model, **settings), [], model.config.num_classes
    with Lanes(model, shards=2, label_smoothing=0.1) as lanes:
        for step in range(steps + 1):
            if step % every == 0:
                logits = lanes.logits(len(test), lambda lo, hi: normalise(test.images[lo:hi], mean, std))
                curve.append((step, (logits.argmax(axis=1) == test.labels).mean()))
            epoch, i = divmod(step, max(1, len(images) // BATCH))
            rows = epoch_order(len(images), 0, epoch)[i * BATCH:(i + 1) * BATCH]
            x, t = augment_batch(images, rows, 0, epoch, Augment(padding=2), mean, std, K)
            lanes.gradient(len(x), lambda lo, hi: (x[lo:hi], t[lo:hi], None))
            rate = learning_rate("cosine", step, steps + 1, peak)
            optimizer.step(rate, step + 1, optimizer.grad_norm(lanes.pool), lanes.pool)
    return curve


fields = dict(patch_size=4, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0, global_pool="avg")
large = numpyvit.create_model("vit", img_size=32, num_classes=len(LARGE), **fields)
curve = train(large, images_of(LARGE, 1500, 32, 0), images_of(LARGE, 60, 32, 1), STEPS, dict(beta2=0.98), 2e-3, max(1, STEPS // 4))
print("pre-training on seven shapes, 32×32: " + ", ".join(f"{a:.0%} after {s}" for s, a in curve))
numpyvit.save_weights(large, "runs/examples/10_pretrained.safetensors")

train_set, test_set = images_of(SMALL, 30, 48, 2), images_of(SMALL, 200, 48, 3)
tuned = numpyvit.create_model("vit", img_size=48, num_classes=len(SMALL), **fields)
for sentence in numpyvit.load_weights(tuned, "runs/examples/10_pretrained.safetensors", drop_head=True):
    print("load_weights:", sentence)
tuned.head.weight.data[...] = 0
tuned.head.bias.data[...] = 0
similarity = {"32×32: 8×8 positions": position_similarity(large)[3, 4], "48×48: resized to 12×12": position_similarity(tuned)[5, 6]}
sgd = dict(kind="sgd", momentum=0.9, weight_decay=0.0, clip_norm=1.0)
curves = {"fine-tuned (SGD)": train(tuned, train_set, test_set, STEPS // 5, sgd, 0.03, max(1, STEPS // 50))}
scratch = numpyvit.create_model("vit", img_size=48, num_classes=len(SMALL), **fields)
curves["from scratch (AdamW)"] = train(scratch, train_set, test_set, STEPS // 5, dict(beta2=0.98), 1e-3, max(1, STEPS // 50))
for name, curve in curves.items():
    print(f"{name}: {curve[-1][1]:.1%} of {len(test_set)} test images right, after {curve[-1][0]} steps on {len(train_set)} images")

figure = new_figure(10.5, 3.6)
axes, *tables = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
for name, curve in curves.items():
    axes.plot([s for s, _ in curve], [a * 100 for _, a in curve], ".-", label=name)
axes.axhline(100 / 3, color="grey", linestyle=":", label="chance")
axes.set(title=f"three new shapes, {len(train_set)} images of 48×48", xlabel="step", ylabel="test accuracy [%]", ylim=(0, 102))
axes.legend(fontsize=8)
axes.grid(alpha=0.3)
for axes, (name, values) in zip(tables, similarity.items()):
    drawn = axes.imshow(values, cmap="viridis", vmin=-0.3, vmax=1)
    axes.set_title(name, fontsize=10)
    axes.set(xlabel="column of the patch", ylabel="row of the patch")
colour_bar(figure, drawn, tables, "cosine with one position")
save(figure, "runs/examples/10_finetune.png")
print("figure: runs/examples/10_finetune.png")
