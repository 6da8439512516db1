"""curves.png: loss, accuracy and learning rate of a run, drawn from its metrics.jsonl."""
import os

import numpy as np


def draw_curves(run):
    """Write RUN/curves.png. → a sentence that says where it is, or why there is none"""
    try:
        os.environ.setdefault("MPLBACKEND", "Agg")
        import matplotlib                                                    # noqa: F401
    except ImportError:
        return "no curves.png: matplotlib is not installed"
    figure = curves_figure(run)
    figure.savefig(run.file("curves.png"), dpi=110)
    return f"curves: {run.file('curves.png')}"


def curves_figure(run):
    """Loss, accuracy and learning rate of a run, as a Matplotlib figure. The training curves are running means."""
    from matplotlib.figure import Figure
    metrics = run.read_metrics()
    train, val, test = ([m for m in metrics if m.get("kind") == kind] for kind in ("train", "val", "test"))
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, 3), ("loss", "accuracy", "lr")):
        steps, values = np.array([m["step"] for m in train]), np.array([m[key] for m in train])
        window = max(1, len(values) // 100)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1:], smooth, label=f"train, mean of {window}" if window > 1 else "train")
        if key != "lr":
            axes.plot([m["step"] for m in val], [m[key] for m in val], marker=".", label="validation")
            axes.plot([m["step"] for m in test], [m[key] for m in test], "*", markersize=10, label="test, once")
            axes.legend()
        axes.set(xlabel="step", title={"lr": "learning rate"}.get(key, key))
        axes.locator_params(axis="x", nbins=5)                               # five-digit step numbers do not touch
        axes.grid(alpha=0.3)
    return figure
