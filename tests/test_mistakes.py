"""The confusion matrix and the misclassified images as figures: by hand, from evaluate, and in the report."""
import numpy as np
import pytest

from numpyvit import plots
from numpyvit.cli import main as cli
from numpyvit.errors import UserError
from numpyvit.runs import report
from test_cli import images, one_line, train

assert images                                                                # the fixture of test_cli
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def barely_trained(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    train(images, path, "--steps", "2")
    return path


def scored(n=50, K=3, seed=0):
    """pixels, labels, probabilities of n images, of which a third is classified wrongly"""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    guesses = np.where(rng.random(n) < 1 / 3, (labels + 1) % K, labels)
    probabilities = rng.random((n, K)) * 0.1
    probabilities[np.arange(n), guesses] = rng.uniform(0.4, 1, n)
    return rng.integers(0, 256, (n, 3, 8, 8), np.uint8), labels, probabilities


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_22_confusion_by_hand():
    """Colours are shares of the row; the labels say accuracies; a class without images has none."""
    axes, bar = plots.plot_confusion([[8, 2, 0], [1, 2, 1], [0, 0, 0]], ["cat", "dog", "frog"]).axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0.25, 0.5, 0.25], [0, 0, 0]])
    assert words(axes) == ["8", "2", "1", "2", "1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat 80%", "dog 50%", "frog -"]
    assert axes.get_title() == "confusion matrix, 10 of 14 images right" and "share" in bar.get_ylabel()
    many = plots.plot_confusion(np.eye(100, dtype=int), [f"class {k}" for k in range(100)]).axes[0]
    assert not words(many) and len(many.get_yticklabels()) == 100
    with pytest.raises(UserError, match=r"matrix: expected shape \(3, 3\) for 3 classes, got \(2, 2\)"):
        plots.plot_confusion(np.eye(2), ["a", "b", "c"])


def test_22_the_surest_mistakes_come_first():
    pixels, labels, probabilities = scored()
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    figure = plots.plot_mistakes(pixels, labels, probabilities, ["cat", "dog", "frog"], most=5)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    numbers = [int(axes.get_xlabel().removeprefix("image ")) for axes in shown]
    assert len(wrong) > 5 and set(numbers) < set(wrong) and f"{len(wrong)} of 50 images" in figure.get_suptitle()
    assert numbers == sorted(wrong, key=lambda i: -probabilities[i].max())[:5]
    for axes, i in zip(shown, numbers):
        guess = ["cat", "dog", "frog"][probabilities[i].argmax()]
        assert axes.get_title() == f"{guess} {probabilities[i].max():.0%}\nis {['cat', 'dog', 'frog'][labels[i]]}"
        np.testing.assert_array_equal(axes.images[0].get_array(), pixels[i].transpose(1, 2, 0))
    none = plots.plot_mistakes(pixels, labels, np.eye(3)[labels], ["cat", "dog", "frog"])
    assert none.get_suptitle() == "0 of 50 images are wrong" and not none.axes
    with pytest.raises(UserError, match="as many labels as images"):
        plots.plot_mistakes(pixels[:4], labels, probabilities, ["cat", "dog", "frog"])


@pytest.mark.parametrize("folder", [False, True])
def test_22_evaluate_draws_them(barely_trained, images, folder, tmp_path, capsys):
    """Of the run's test images and of any folder, beside the same text as before."""
    also = [str(images / "train")] if folder else []
    capsys.readouterr()
    assert cli.main(["evaluate", str(barely_trained), *also]) == 0
    plain = capsys.readouterr().out
    confusion, mistakes = tmp_path / "new" / "c.png", tmp_path / "new" / "m.svg"
    assert cli.main(["evaluate", str(barely_trained), *also, "--confusion", str(confusion), "--mistakes", str(mistakes)]) == 0
    assert capsys.readouterr().out == f"{plain}confusion matrix: {confusion}\nmistakes: {mistakes}\n"
    assert confusion.read_bytes()[:4] == b"\x89PNG" and b"<svg" in mistakes.read_bytes()


def test_22_a_figure_that_cannot_be_written_is_refused_before_anything_is_scored(barely_trained, monkeypatch, capsys):
    monkeypatch.setattr("numpyvit.runs.classifier.Classifier.logits", None)
    assert ".png, .svg or .pdf" in one_line(capsys, "evaluate", barely_trained, "--confusion", "c.bmp")
    assert ".png, .svg or .pdf" in one_line(capsys, "evaluate", barely_trained, "--mistakes", "m")


def test_22_the_report_has_the_same_figures(barely_trained, tmp_path, monkeypatch):
    drawn = []
    for name in ("plot_confusion", "plot_mistakes"):
        draw = getattr(plots, name)
        monkeypatch.setattr(plots, name, lambda *args, draw=draw: drawn.append(draw.__name__) or draw(*args))
    report.write_report(barely_trained, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert drawn == ["plot_confusion", "plot_mistakes"] and 'alt="confusion matrix"' in page and "<table>" in page


def test_a_name_that_is_not_utf_8_does_not_stop_the_report(barely_trained, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "settings_part", lambda classifier: b"class b \xff".decode(errors="surrogateescape"))
    report.write_report(barely_trained, tmp_path / "r.html")
    assert "class b ?" in (tmp_path / "r.html").read_text()
