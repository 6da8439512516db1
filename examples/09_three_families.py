"""ViT, Swin and CvT side by side on the same few images: what their inductive biases are worth.

    python examples/09_three_families.py [--data auto] [--steps 350]          about 6 minutes on two cores

Nine runs: three models of some 140,000 to 210,000 parameters, trained on 250, 1,000 and 4,000 images for the same number of
multiply-adds: those of --steps steps of the ViT, which is the dearest, so the other two take more. A ViT has to learn that neighbours
belong together; Swin's windows and CvT's convolutions are built that way. From 1,000 images on expect CvT ahead of Swin and Swin
ahead of the ViT. --data auto is CIFAR-10 if it is there or can be had, else the built-in shapes. Short runs: the order is the
point, not the numbers.

What you will see: parameters, cost and accuracy in a table; in runs/examples/ accuracy against number of images.
"""
import argparse
import time

import numpy as np

import numpyvit
from numpyvit.data import Augment, ImageSet, augment_batch, channel_statistics, epoch_order, load, normalise
from numpyvit.inspection.plots import new_figure, save
from numpyvit.inspection.summary import amount, summary
from numpyvit.training.lanes import Lanes
from numpyvit.training.optim import Optimizer
from numpyvit.training.schedule import learning_rate

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="auto", choices=("auto", "cifar10", "shapes"))
parser.add_argument("--data-dir")
parser.add_argument("--steps", type=int, default=350, help="of 64 images, for the ViT; the other two get as many multiply-adds")
args = parser.parse_args()

MODELS = {
    "ViT": dict(name="vit", img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0, global_pool="avg"),
    "Swin": dict(name="swin", img_size=32, patch_size=4, embed_dim=48, depths=(2, 2), num_heads=(3, 6), window_size=4, mlp_ratio=2.0),
    "CvT": dict(name="cvt", img_size=32, embed_dims=(32, 64), depths=(1, 3), num_heads=(1, 4), patch_sizes=(5, 3), patch_strides=(4, 2),
                patch_paddings=(2, 1), mlp_ratio=2.0, cls_token=False),
}
SIZES, BATCH = (250, 1000, 4000), 64
data = load(args.data, args.data_dir)
print(data.notice or f"data: {data.name}")
mean, std = channel_statistics(data.train.images)
test = ImageSet(data.test.images[:1000], data.test.labels[:1000])


def train(fields, images, steps):
    """Train on these images. → accuracy on the test images"""
    model = numpyvit.create_model(**fields, num_classes=len(data.classes), seed=0)
    optimizer = Optimizer(model, beta2=0.98)
    with Lanes(model, label_smoothing=0.1, shards=2) as lanes:
        for number in range(steps):
            epoch, i = divmod(number, len(images) // BATCH)
            rows = epoch_order(len(images), 0, epoch)[i * BATCH:(i + 1) * BATCH]
            x, t = augment_batch(images, rows, 0, epoch, Augment(), mean, std, len(data.classes))
            lanes.gradient(BATCH, lambda lo, hi: (x[lo:hi], t[lo:hi], None))
            rate = learning_rate("cosine", number, steps, 2e-3)
            optimizer.step(rate, number + 1, optimizer.grad_norm(lanes.pool), lanes.pool)
        logits = lanes.logits(len(test), lambda lo, hi: normalise(test.images[lo:hi], mean, std))
    return (logits.argmax(axis=1) == test.labels).mean()


print(f"{'':6}{'parameters':>12}{'multiply-adds':>15}{'steps':>9}" + "".join(f"{n:>10,} img" for n in SIZES) + f"{'seconds':>10}")
results, budget = {}, None
for family, fields in MODELS.items():
    layers = summary(**{("model" if k == "name" else k): v for k, v in fields.items()}, num_classes=len(data.classes))
    parameters, macs = sum(row.parameters for row in layers), sum(row.macs for row in layers)
    budget = budget or args.steps * macs
    steps, start = round(budget / macs), time.perf_counter()
    print(f"{family:6}{parameters:>12,}{amount(macs, 1000, '', 'k', 'M'):>15}{steps:>9,}", end="", flush=True)
    for n in SIZES:
        accuracy = train(fields, ImageSet(data.train.images[:n], data.train.labels[:n]), steps)
        results.setdefault(family, []).append(accuracy)
        print(f"{accuracy:>14.1%}", end="", flush=True)
    print(f"{time.perf_counter() - start:>10.0f}")

figure = new_figure(6.2, 4)
axes = figure.subplots()
for family, accuracies in results.items():
    axes.semilogx(SIZES, np.array(accuracies) * 100, "o-", label=family)
axes.axhline(100 / len(data.classes), color="grey", linestyle=":", label="chance")
axes.set_xticks(SIZES, [f"{n:,}" for n in SIZES])
axes.set_xticks([], minor=True)
axes.set(title=f"{data.name}, the same multiply-adds of training each", xlabel="training images", ylabel="accuracy on 1,000 test images [%]")
axes.set_ylim(bottom=0)
axes.grid(alpha=0.3)
axes.legend(loc="lower right")
save(figure, "runs/examples/09_three_families.png")
print("figure: runs/examples/09_three_families.png")
