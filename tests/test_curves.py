"""Figures whose numbers are known: the learning curves of a run, and the colours of the similarity of positions."""
import html
import io
import re

import numpy as np
import pytest

from numpyvit import plots
from numpyvit.runs.curves import curves_figure, running_mean

pytest.importorskip("matplotlib")


class Run:
    """A run whose metrics.jsonl has these lines."""

    def __init__(self, steps, val=(), test=()):
        rng = np.random.default_rng(0)
        self.lines = [dict(kind="train", step=i + 1, loss=float(x), accuracy=float(x) / 4, lr=1e-3 * (i + 1))
                      for i, x in enumerate(rng.uniform(1, 3, steps))]
        for kind, at in (("val", val), ("test", test)):
            self.lines += [dict(kind=kind, step=step, loss=1.5, accuracy=0.8698) for step in at]

    def read_metrics(self):
        return self.lines


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_running_mean_by_hand():
    np.testing.assert_allclose(running_mean([1, 3, 8, 1, 0], 3), [1, 2, 4, 4, 3])
    np.testing.assert_array_equal(running_mean([5, 6], 1), [5, 6])
    assert running_mean([], 3).shape == (0,)


def test_20_curves_show_what_was_measured_and_its_running_mean():
    """The pale line is the loss of every step, the other one moves far less; the learning rate is not smoothed."""
    run = Run(400, val=(200, 400), test=(400,))
    loss, accuracy, rate = curves_figure(run).axes
    raw, smooth, val, test = loss.lines
    np.testing.assert_array_equal(raw.get_ydata(), [m["loss"] for m in run.lines[:400]])
    np.testing.assert_allclose(smooth.get_ydata(), running_mean(raw.get_ydata(), 10))
    assert raw.get_alpha() < 0.5 and np.abs(np.diff(smooth.get_ydata())).mean() < np.abs(np.diff(raw.get_ydata())).mean() / 5
    np.testing.assert_allclose(rate.lines[0].get_ydata(), 1e-3 * np.arange(1, 401))
    assert test.get_marker() == "*" and test.get_markersize() > 12 and test.get_zorder() > val.get_zorder()
    assert labels(loss) == ["train, mean of 10 steps", "validation", "test, once: 1.500"]
    assert labels(accuracy)[-1] == "test, once: 86.98%"


def test_20_no_star_without_a_test_and_no_curve_without_a_step():
    assert labels(curves_figure(Run(30, val=(30,))).axes[0]) == ["train", "validation"]
    assert labels(curves_figure(Run(3)).axes[0]) == ["train"]
    assert len(curves_figure(Run(0)).axes) == 3
    assert all(axes.lines[-1].get_marker() == "." for axes in curves_figure(Run(1)).axes)     # one point is visible, too


def test_20_colours_of_positions_span_the_values():
    """An untrained table's similarities are small: the scale ends where they end, not at −1 and 1."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 200))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = (rows @ rows.T).reshape(3, 4, 3, 4)
    *panels, bar = plots.plot_position_similarity(similarity).axes
    others = (rows @ rows.T)[~np.eye(12, dtype=bool)]
    assert {axes.images[0].get_clim() for axes in panels if axes.images} == {(others.min(), others.max())}
    assert others.max() < 0.5 and "1" in bar.get_ylabel()
    plots.plot_position_similarity(np.ones((1, 1, 1, 1)))


NAMES = ["$5-$10", "a_$_b_$_c", "$x_{1$", "b \udcff\udcfe", r"c\$d$", "plain"]
SHOWN = ["$5-$10", "a_$_b_$_c", "$x_{1$", "b ??", r"c\$d$", "plain"]


def drawn(figure):
    """The texts of a figure, as they stand in an SVG file. A formula would be in several pieces, without its dollars."""
    import matplotlib
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return [html.unescape(text) for text in re.findall("<text[^>]*>([^<]*)<", file.getvalue())]


def test_names_of_users_are_drawn_as_they_are():
    """Names of classes, and titles with them: no formula is seen in them, and surrogates can be drawn."""
    labels, rng = np.arange(6), np.random.default_rng(0)
    figure = plots.plot_confusion(np.eye(6, dtype=int), NAMES, title=f"of {NAMES[0]}")
    seen = drawn(figure)
    assert {f"{name} 100%" for name in SHOWN} <= set(seen) and set(SHOWN) <= set(seen) and "of $5-$10" in seen
    images = rng.integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    seen = drawn(plots.plot_mistakes(images, labels, np.roll(np.eye(6), 1, axis=1), NAMES))
    assert {f"is {name}" for name in SHOWN} | {f"{name} 100%" for name in SHOWN} <= set(seen)
    for figure in (plots.plot_saliency(images[0], images[0, 0], NAMES[2]), plots.plot_rollout(images[0], images[0, 0] / 255, NAMES[2]),
                   plots.plot_distances({"blocks.0": np.ones(2)}, NAMES[2]),
                   plots.plot_position_similarity(np.ones((1, 1, 1, 1)), NAMES[2])):
        assert SHOWN[2] in drawn(figure)
