"""Training in forty lines of Python: batches, forward, loss, backward, step; everything else of `numpyvit train` is comfort.

    python examples/08_training_in_forty_lines.py [IMAGES]           a minute on two cores; IMAGES to train on, 10,000 unless given

What you will see: the loss and the accuracy on held-out images, epoch by epoch, of a small ViT on the built-in shapes.
"""
import sys
import time

import numpy as np

import numpyvit
from numpyvit.data import Augment, ImageSet, augment_batch, channel_statistics, epoch_order, load, normalise
from numpyvit.ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from numpyvit.training.optim import Optimizer
from numpyvit.training.schedule import learning_rate

BATCH, EPOCHS, PEAK = 64, 4, 2e-3
IMAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
data = load("shapes")
train = ImageSet(data.train.images[:IMAGES], data.train.labels[:IMAGES])
mean, std = channel_statistics(train.images)
model = numpyvit.create_model("vit_pico_patch4_32", num_classes=len(data.classes), seed=0)
optimizer = Optimizer(model, kind="adamw", weight_decay=0.05, beta2=0.98)
steps_per_epoch = len(train) // BATCH
total = EPOCHS * steps_per_epoch


def accuracy(images, labels):
    logits = np.concatenate([model.forward(normalise(images[i:i + 256], mean, std))[0] for i in range(0, len(images), 256)])
    return (logits.argmax(axis=1) == labels).mean()


print(f"{model.num_parameters():,} parameters, {len(train):,} images of {len(data.classes)} classes, {total} steps of {BATCH}")
start, step = time.perf_counter(), 0
for epoch in range(EPOCHS):
    order, losses = epoch_order(len(train), 0, epoch), []
    for i in range(steps_per_epoch):
        images, targets = augment_batch(train, order[i * BATCH:(i + 1) * BATCH], 0, epoch, Augment(padding=2), mean, std, 10)
        logits, cache = model.forward(images, train=True, rng=step)          # B logits, and all that backward needs
        loss, loss_cache = cross_entropy_forward(logits, targets, label_smoothing=0.1)
        model.zero_grad()
        model.backward(cross_entropy_backward(1.0, loss_cache), cache)       # fills every parameter's .grad
        step += 1
        optimizer.step(learning_rate("linear", step - 1, total, PEAK), step, optimizer.grad_norm())
        losses.append(float(loss))
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, {accuracy(data.test.images, data.test.labels):.1%} of the test images right, "
          f"{time.perf_counter() - start:.0f} s")
