"""ViT, Swin and CvT side by side on the same few images: what their inductive biases are worth.

    python examples/09_three_families.py [--data auto] [--steps 500]          about 2 minutes on two cores

Nine runs: three models of 52,000 to 95,000 parameters, trained on 64, 250 and 1,000 images for the same number of
multiply-adds: as many as the ViT needs for --steps steps. A step of the ViT costs most, so the other two take more steps. A ViT has to
learn that neighbours belong together; Swin's windows and CvT's convolutions are built that way. On the built-in shapes, 250 images are enough for Swin and
CvT (99 % and 98 % of the test images are right) and not for the ViT (84 %); 1,000 are enough for all three, and 64 for none.
On CIFAR-10 they are equal within the error (1.5 %) up to 250 images, and 1,000 give CvT 43 %, Swin 42 % and the ViT 38 %. --data auto is
CIFAR-10 if it is there or can be had, else the shapes.

A model takes as many steps on 1,000 images as on 64, and these have to be enough to learn from all of them: with too few steps, accuracy
falls where images are added, because no image is seen often enough. Muon keeps their number small.

What you will see: parameters, cost and accuracy in a table; in runs/examples/ accuracy against number of images, and how the loss fell.
"""
import argparse
import time

import numpy as np

import numpyvit
from numpyvit.data import Augment, ImageSet, augment_batch, channel_statistics, epoch_order, load, normalise
from numpyvit.inspection.plots import new_figure, save
from numpyvit.inspection.summary import amount, summary
from numpyvit.runs.curves import running_mean
from numpyvit.training.lanes import Lanes
from numpyvit.training.optim import Optimizer
from numpyvit.training.schedule import learning_rate

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="auto", choices=("auto", "cifar10", "shapes"))
parser.add_argument("--data-dir")
parser.add_argument("--steps", type=int, default=500, help="of 32 images, for the ViT; the other two get as many multiply-adds")
parser.add_argument("--sizes", type=int, nargs="+", default=[64, 250, 1000], help="numbers of training images")
args = parser.parse_args()

MODELS = {
    "ViT": dict(name="vit", img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=3, mlp_ratio=2.0, global_pool="avg"),
    "Swin": dict(name="swin", img_size=32, patch_size=4, embed_dim=32, depths=(2, 2), num_heads=(2, 4), window_size=4, mlp_ratio=2.0),
    "CvT": dict(name="cvt", img_size=32, embed_dims=(16, 48), depths=(1, 2), num_heads=(1, 3), patch_sizes=(3, 3), patch_strides=(2, 2),
                patch_paddings=(1, 1), mlp_ratio=2.0, cls_token=False),
}
BATCH, PEAK = 32, 6e-3
data = load(args.data, args.data_dir)
print(data.notice or f"data: {data.name}")
mean, std = channel_statistics(data.train.images)
test = ImageSet(data.test.images[:1000], data.test.labels[:1000])


def train(fields, images, steps):
    """Train on these images. → accuracy on the test images, the loss of every step"""
    model = numpyvit.create_model(**fields, num_classes=len(data.classes), seed=0)
    optimizer, losses = Optimizer(model, "muon", lr_rest=0.5), []
    with Lanes(model, label_smoothing=0.1, shards=2) as lanes:
        for number in range(steps):
            epoch, i = divmod(number, len(images) // BATCH)
            rows = epoch_order(len(images), 0, epoch)[i * BATCH:(i + 1) * BATCH]
            x, t = augment_batch(images, rows, 0, epoch, Augment(padding=2), mean, std, len(data.classes))
            losses.append(lanes.gradient(BATCH, lambda lo, hi: (x[lo:hi], t[lo:hi], None))[0])
            rate = learning_rate("cosine", number, steps, PEAK)
            optimizer.step(rate, number + 1, optimizer.grad_norm(lanes.pool), lanes.pool)
        logits = lanes.logits(len(test), lambda lo, hi: normalise(test.images[lo:hi], mean, std))
    return (logits.argmax(axis=1) == test.labels).mean(), losses


print(f"{'':6}{'parameters':>12}{'multiply-adds':>15}{'steps':>9}" + "".join(f"{n:>10,} img" for n in args.sizes) + f"{'seconds':>10}")
results, curves, budget = {}, {}, None
for family, fields in MODELS.items():
    layers = summary(**{("model" if k == "name" else k): v for k, v in fields.items()}, num_classes=len(data.classes))
    parameters, macs = sum(row.parameters for row in layers), sum(row.macs for row in layers)
    budget = budget or args.steps * macs
    steps, start = round(budget / macs), time.perf_counter()
    print(f"{family:6}{parameters:>12,}{amount(macs, 1000, '', 'k', 'M'):>15}{steps:>9,}", end="", flush=True)
    for n in args.sizes:
        accuracy, curves[family] = train(fields, ImageSet(data.train.images[:n], data.train.labels[:n]), steps)
        results.setdefault(family, []).append(accuracy)
        print(f"{accuracy:>14.1%}", end="", flush=True)
    print(f"{time.perf_counter() - start:>10.0f}")

figure = new_figure(10.5, 4)
axes, right = figure.subplots(1, 2)
for family, accuracies in results.items():
    axes.semilogx(args.sizes, np.array(accuracies) * 100, "o-", label=family)
    losses = running_mean(curves[family], len(curves[family]) // 20 + 1)
    right.plot(np.linspace(0, 100, len(losses)), losses, label=family)
axes.axhline(100 / len(data.classes), color="grey", linestyle=":", label="chance")
axes.set_xticks(args.sizes, [f"{n:,}" for n in args.sizes])
axes.set_xticks([], minor=True)
axes.set(title=f"{data.name}, the same multiply-adds of training each", xlabel="training images", ylabel="accuracy on 1,000 test images [%]")
axes.set_ylim(0, 102)
axes.legend(loc="lower right")
right.set(title=f"learning from {args.sizes[-1]:,} images", xlabel="multiply-adds spent [%]", ylabel="training loss, running mean")
right.legend()
for panel in (axes, right):
    panel.grid(alpha=0.3)
save(figure, "runs/examples/09_three_families.png")
print("figure: runs/examples/09_three_families.png")
