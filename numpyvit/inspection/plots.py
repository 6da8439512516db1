"""Figures of what attention.py computes, and of a classifier's answers to labelled images.

Each function returns a Matplotlib Figure; save(figure, path) writes it.

Images are (C, H, W) uint8, as read_image gives them. Matplotlib is an extra: pip install matplotlib
"""
import io
import math
import os
import re

import numpy as np

from ..checks import printable
from ..errors import UserError
from ..files.atomic import write_atomic
from .attention import attention_map

HEAT, SIGNED = "inferno", "RdBu_r"


def new_figure(width, height):
    """A Figure that is drawn without a window. UserError if Matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need Matplotlib; install it with: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def as_it_is(text):
    """The text, printable, for Matplotlib to draw character for character: "$" begins no formula."""
    return printable(text).replace("$", r"\$")


def save(figure, path):
    """Write the figure in the format of the path's suffix, .png, .svg or .pdf, and make its folder if there is none."""
    check_can_save(path)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    image = io.BytesIO()
    figure.savefig(image, dpi=120, format=os.path.splitext(path)[1][1:].lower())
    write_atomic(path, [image.getbuffer()])


def check_can_save(path):
    """Raise UserError where save would, or where Matplotlib is missing: before something long is computed."""
    if os.path.splitext(path)[1].lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"{path}: expected a name that ends in .png, .svg or .pdf")
    new_figure(1, 1)


def panels(count, title, side=2.1, columns=None, right=0.9, minimum=4.5, top=0.75, words=0.25):
    """A figure with room for count square panels and a colour bar   →   figure, [axes]

    side, right, minimum, top, words: inches of a panel, for the bar, of the width, for the title, for a panel's words
    """
    columns = columns or (count if count <= 6 else math.ceil(math.sqrt(count * 1.5)))
    rows = math.ceil(count / columns)
    figure = new_figure(max(columns * side + right, minimum), rows * (side + words) + top)
    figure.suptitle(as_it_is(title), fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for a in axes:
        a.set(xticks=[], yticks=[])
    for a in axes[count:]:
        a.set_visible(False)
    return figure, axes[:count]


def show_image(axes, image, title="", grey=False):
    """The image (C, H, W) on these axes, in grey if asked or if it has one channel."""
    pixels = np.asarray(image).transpose(1, 2, 0)
    if grey or pixels.shape[-1] == 1:
        axes.imshow(pixels.mean(axis=-1), cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(pixels)
    axes.set_title(as_it_is(title), fontsize=9)


def overlay(axes, image, values, title, high, alpha=0.75):
    """values (gh, gw) in colour over the image in grey   →   what a colour bar needs"""
    H, W = image.shape[1:]
    show_image(axes, image, title, grey=True)
    return axes.imshow(values, cmap=HEAT, vmin=0, vmax=high, alpha=alpha, extent=(-0.5, W - 0.5, H - 0.5, -0.5),
                       interpolation="nearest")


def mark_pixel(axes, query):
    """A square around the pixel (y, x)."""
    axes.plot(query[1], query[0], "s", color="cyan", markersize=6, markerfacecolor="none", markeredgewidth=1.5)


def colour_bar(figure, drawn, axes, label, **options):
    """A colour bar for all axes, with its label."""
    bar = figure.colorbar(drawn, ax=list(axes), shrink=0.85, **options)
    bar.set_label(label, fontsize=9)
    bar.solids.set_alpha(1)
    bar.ax.tick_params(labelsize=8)
    return bar


# --- one for each function of attention.py

def plot_attention(image, blocks, block=None, head=None, query=None, index=0):
    """Attention over the image: a panel a block (mean of its heads), a panel a head of one block, or one head's panel.

    block: one of blocks or None for all   head: a number or None   query: (y, x) of a pixel or None
    index: number of the image in blocks
    """
    chosen, who = ([block] if block else blocks), the_query(blocks[-1] if block is None else block, query)
    if block is None or head is not None:
        what = "mean of heads" if head is None else f"head {head}"
        maps = [(b.name, attention_map(b, index, head, query)) for b in chosen]
        title = f"attention of {who}, {what}" + (f" of {block.name}" if block else ", block by block")
    else:
        maps = [(f"head {h}", attention_map(block, index, h, query)) for h in range(block.num_heads)]
        title = f"attention of {who} in {block.name}, head by head"
    figure, axes = panels(len(maps) + 1, title)
    show_image(axes[0], image, "image")
    maps = [(name, values * values.size) for name, values in maps]           # grids differ: relative to an even spread
    high = max(float(np.quantile(np.concatenate([relative.ravel() for _, relative in maps]), 0.995)), 1e-12)
    for a, (name, relative) in zip(axes[1:], maps):
        drawn = overlay(a, image, relative, name, high)
    for a in axes if query else ():
        mark_pixel(a, query)
    colour_bar(figure, drawn, axes, "attention / even spread", extend="max")
    return figure


def the_query(block, query):
    """Whose attention a figure shows, in words."""
    if query:
        return f"pixel ({query[0]}, {query[1]})"
    return "the class token" if block.class_token else "all tokens (mean)"


def plot_rollout(image, shares, title="attention rollout"):
    """shares (gh, gw) of rollout(blocks)[b]"""
    figure, axes = panels(2, title, side=3, right=1.2)
    show_image(axes[0], image, "image")
    drawn = overlay(axes[1], image, shares * 100, "share of each patch in the output", shares.max() * 100)
    colour_bar(figure, drawn, axes, "share of the output [%]")
    return figure


def plot_distances(distances, title="mean attention distance"):
    """distances {block: (nh,)} of mean_attention_distance: a dot a head, over depth"""
    figure = new_figure(max(5, 2.2 + 0.38 * len(distances)), 3.8)
    axes = figure.subplots()
    for i, (name, values) in enumerate(distances.items()):
        axes.scatter(np.full(len(values), i), values, s=26, alpha=0.7, color="C0", label="one head" if i == 0 else None)
    axes.plot([values.mean() for values in distances.values()], color="C1", label="mean of the block")
    names = [".".join(re.findall(r"\d+", name)) for name in distances]       # "layers.0.blocks.1" → "0.1"
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=90 if len(names[-1]) > 3 and len(names) > 14 else 0)
    axes.set(title=as_it_is(title), xlabel="block" if "." not in names[0] else "stage.block",
             ylabel="distance [pixels]")
    axes.set_ylim(0, 1.1 * max(values.max() for values in distances.values()))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def plot_position_similarity(similarity, title="position embeddings: cosine similarity", most=8):
    """similarity (H, W, H, W) of position_similarity: a panel a patch, at most `most` rows and columns of them

    The colours span the values between different patches: a patch's similarity with itself is 1 and lies above them.
    """
    H, W = similarity.shape[:2]
    others = similarity.reshape(H * W, H * W)[~np.eye(H * W, dtype=bool)]
    low, high = (others.min(), others.max()) if len(others) else (-1, 1)
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)) for n in (H, W))
    figure = new_figure(0.72 * len(columns) + 2.0, 0.72 * len(rows) + 1.2)
    figure.suptitle(as_it_is(title), fontsize=11)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            drawn = axes[i, j].imshow(similarity[y, x], cmap="viridis", vmin=low, vmax=high)
            axes[i, j].set(xticks=[], yticks=[])
            if j == 0:
                axes[i, j].set_ylabel(str(y), fontsize=8)
            if i == len(rows) - 1:
                axes[i, j].set_xlabel(str(x), fontsize=8)
    figure.supxlabel("column of the patch", fontsize=9)
    figure.supylabel("row of the patch", fontsize=9)
    colour_bar(figure, drawn, axes.ravel(), "cosine of two different patches; that of a patch with itself is 1",
               extend="max" if high < 1 else "neither")
    return figure


def plot_patch_filters(components, share, title="patch embedding: principal components of its filters"):
    """components (n, C, P, P), share (n,) of patch_filters. Each is stretched to its own range, grey is 0."""
    title = f"{title}\n(share of the variance above each; grey is 0)"
    figure, axes = panels(len(components), title, side=1.15, right=0.2, top=0.9, columns=min(7, len(components)))
    for a, component, part in zip(axes, components, share):
        pixels = 0.5 + 0.5 * component / np.abs(component).max()
        pixels = pixels.transpose(1, 2, 0)
        a.imshow(pixels if pixels.shape[-1] == 3 else pixels.mean(axis=-1), **({} if pixels.shape[-1] == 3 else
                                                                               {"cmap": "gray", "vmin": 0, "vmax": 1}))
        a.set_title(f"{part:.1%}", fontsize=8)
    return figure


def plot_relative_position_bias(tables, block, title=None):
    """tables {block: (nh, 2M−1, 2M−1)} of relative_position_bias, block: a name of them; the query is in the middle."""
    if block not in tables:
        raise UserError(f"block {block!r}: this model has {', '.join(tables)}")
    table = tables[block]
    reach, high = table.shape[1] // 2, float(np.abs(table).max()) or 1.0
    figure, axes = panels(len(table), title or f"relative position bias of {block}", side=2.0, right=1.1)
    for h, (a, values) in enumerate(zip(axes, table)):
        drawn = a.imshow(values[::-1, ::-1], cmap=SIGNED, vmin=-high, vmax=high,
                         extent=(-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5))
        a.set_title(f"head {h}", fontsize=9)
        a.set(xticks=[-reach, 0, reach], yticks=[-reach, 0, reach])
        a.tick_params(labelsize=7)
    figure.supxlabel("key column − query column [tokens]", fontsize=9)
    figure.supylabel("key row − query row [tokens]", fontsize=9)
    colour_bar(figure, drawn, axes, "added to the score")
    return figure


def plot_saliency(image, values, title="saliency"):
    """values (H, W) of saliency(model, images)[b]"""
    figure, axes = panels(2, title, side=3, right=1.2)
    show_image(axes[0], image, "image")
    drawn = axes[1].imshow(values, cmap=HEAT, vmin=0)
    axes[1].set_title("largest effect of each pixel", fontsize=9)
    colour_bar(figure, drawn, axes, "|∂logit / ∂pixel|, pixels normalised")
    return figure


# --- a classifier's answers

def plot_confusion(matrix, classes, title=None):
    """How often class i (row) was taken for class j (column), coloured by the share of row i; counts up to 20 classes.

    matrix (K, K) counts, as runs.classifier.confusion_matrix makes it   classes [K names]   →   Figure
    Raises UserError for another shape.
    """
    matrix, K = np.asarray(matrix), len(classes)
    if matrix.shape != (K, K):
        raise UserError(f"matrix: expected shape ({K}, {K}) for {K} classes, got {matrix.shape}")
    from matplotlib.colors import PowerNorm
    totals, hits = matrix.sum(axis=1), matrix.diagonal()
    share = matrix / np.maximum(totals, 1)[:, None]
    side = min(max(1.5 + 0.42 * K, 4), 14)
    figure = new_figure(side + 2.2, side + 0.4)
    axes = figure.subplots()
    drawn = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))        # rare confusions are visible
    size = min(8, 72 * side / K / 2)
    if size >= 3:
        names = [as_it_is(name if len(name) <= 20 else name[:19] + "…") for name in map(str, classes)]
        own = [f"{hit / total:.0%}" if total else "-" for hit, total in zip(hits, totals)]
        axes.set_xticks(range(K), names, fontsize=size, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(K), [f"{name} {part}" for name, part in zip(names, own)], fontsize=size)
    for i, j in np.argwhere(matrix) if K <= 20 else ():
        axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=7,
                  color="white" if share[i, j] > 0.4 else "black")
    right = f"{hits.sum():,} of {totals.sum():,} images right"
    axes.set(title=as_it_is(title or f"confusion matrix, {right}"), xlabel="predicted class",
             ylabel="true class" + (", accuracy" if size >= 3 else ""))
    colour_bar(figure, drawn, [axes], "share of the true class's images", fraction=0.05)
    return figure


def worst_mistakes(labels, probabilities, most=24):
    """Which images are classified wrongly: up to `most` indices, those of the most probable wrong class first.

    labels (n,)   probabilities (n, K)
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    return wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:most]


def plot_mistakes(images, labels, probabilities, classes, most=24):
    """The wrongly classified images of which the model is surest, a panel each, with its number among the images.

    images (n, C, H, W) uint8   labels (n,)   probabilities (n, K)   classes [K names]   →   Figure
    Raises UserError for shapes that do not fit each other.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.shape != (len(labels), len(classes)) or len(images) != len(labels):
        raise UserError(f"mistakes: expected as many labels as images and probabilities ({len(images)}, {len(classes)})"
                        f", got {len(labels)} labels and {probabilities.shape}")
    predicted = probabilities.argmax(axis=1)
    worst, count = worst_mistakes(labels, probabilities, most), int((predicted != labels).sum())
    title = f"{count:,} of {len(labels):,} images are wrong"
    if not count:
        figure = new_figure(6, 0.6)
        figure.suptitle(title, fontsize=11)
        return figure
    title += "" if count == len(worst) else f"; the model is surest of these {len(worst)}"
    figure, axes = panels(len(worst), title, 1.75, min(6, len(worst)), right=0.1, minimum=5.5, words=0.5)
    for a, i in zip(axes, worst):
        guess, truth = classes[predicted[i]], classes[labels[i]]
        show_image(a, images[i], f"{guess} {probabilities[i, predicted[i]]:.0%}\nis {truth}")
        a.set_xlabel(f"image {i}", fontsize=7)
    return figure
