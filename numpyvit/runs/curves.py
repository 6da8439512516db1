"""curves.png: loss, accuracy and learning rate of a run, drawn from its metrics.jsonl."""
import io
import os

import numpy as np

from ..files.atomic import write_atomic


def draw_curves(run):
    """Write RUN/curves.png. → a sentence that says where it is, or why there is none"""
    try:
        os.environ.setdefault("MPLBACKEND", "Agg")
        import matplotlib                                                    # noqa: F401
    except ImportError:
        return "no curves.png: matplotlib is not installed"
    figure = curves_figure(run)
    image = io.BytesIO()
    figure.savefig(image, dpi=110, format="png")
    write_atomic(run.file("curves.png"), [image.getbuffer()])
    return f"curves: {run.file('curves.png')}"


def curves_figure(run):
    """Loss, accuracy and learning rate of a run, as a Matplotlib figure: pale as measured, and their running means."""
    from matplotlib.figure import Figure
    metrics = run.read_metrics()
    train, val, test = ([m for m in metrics if m.get("kind") == kind] for kind in ("train", "val", "test"))
    steps, window = [m["step"] for m in train], max(1, len(train) // 40)
    mark = "." if len(train) == 1 else None                                  # a line of one point would be invisible
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, key in zip(figure.subplots(1, 3), ("loss", "accuracy", "lr")):
        values = np.array([m[key] for m in train])
        if key == "lr":
            axes.plot(steps, values, marker=mark)
        else:
            axes.plot(steps, values, color="C0", alpha=0.2, linewidth=0.8)
            axes.plot(steps, running_mean(values, window), color="C0", marker=mark,
                      label=f"train, mean of {window} steps" if window > 1 else "train")
            axes.plot([m["step"] for m in val], [m[key] for m in val], ".-", color="C1",
                      label="validation" if val else None)
            for m in test[-1:]:
                shown = f"{m[key]:.2%}" if key == "accuracy" else f"{m[key]:.3f}"
                axes.plot(m["step"], m[key], "*", markersize=15, color="C2", markeredgecolor="black", zorder=5,
                          clip_on=False, label=f"test, once: {shown}")
            axes.legend(fontsize=9)
        axes.set(xlabel="step", title={"lr": "learning rate"}.get(key, key))
        axes.locator_params(axis="x", nbins=5)                               # five-digit step numbers do not touch
        axes.grid(alpha=0.3)
    return figure


def running_mean(values, window):
    """Each value's mean with those before it, over `window` of them where there are so many.   values (n,) → (n,)"""
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.float64)])
    last = np.arange(1, len(sums))
    first = np.maximum(last - window, 0)
    return (sums[last] - sums[first]) / (last - first)
