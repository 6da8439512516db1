"""A run as one HTML page that needs no network: result, curves, confusion matrix, worst mistakes, attention."""
import base64
import html
import io
import json
import os
import shlex

import numpy as np

from ..checks import printable
from ..data import normalise
from ..errors import UserError
from ..files.atomic import write_atomic
from ..inspection import attention, plots
from ..ops.softmax import softmax_forward
from .classifier import Classifier, confusion_matrix, top_accuracy
from .config import how_to_repeat_parts
from .curves import curves_figure

MISTAKES, LOOKED_AT = 24, 3                                                  # images
STYLE = """body {font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem}
table {border-collapse: collapse; font-variant-numeric: tabular-nums} td, th {padding: .15rem .5rem; text-align: right}
th {font-weight: 600} img {max-width: 100%} code {background: #eee; padding: .1rem .3rem} .own {font-weight: 700}"""


def write_report(path, out=None, data_dir=None, threads=None):
    """Write the page of a run, RUN/report.html unless out is given. → where it is

    Scores the test images with the newest checkpoint. UserError without matplotlib, for a folder that is no run, and
    for a data set that has changed.
    """
    try:
        import matplotlib                                                    # noqa: F401
    except ImportError:
        raise UserError("a report has figures, which need matplotlib: pip install matplotlib") from None
    if not os.path.exists(path):
        raise UserError(f"{path}: expected the folder of a run, got nothing")
    classifier = Classifier(path)
    if not classifier.run:
        raise UserError(f"{path}: expected the folder of a run, got weights")
    out = out or classifier.run.file("report.html")
    images, labels = classifier.split("test", data_dir)
    probabilities, _ = softmax_forward(classifier.logits(images, threads).astype(np.float64))
    parts = [describe(classifier, probabilities, labels), curves_part(classifier.run),
             confusion_part(classifier, probabilities, labels),
             mistakes_part(classifier, images, labels, probabilities),
             attention_part(classifier, images), settings_part(classifier)]
    name = html.escape(os.path.basename(os.path.normpath(path)))
    page = (f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{STYLE}</style>"
            f"<h1>{name}</h1>\n" + "\n".join(parts) + "\n</html>\n")
    write_atomic(out, [printable(page).encode()])
    return out


def describe(classifier, probabilities, labels):
    """What was trained on what, the accuracy, and how to repeat the run."""
    config, run = classifier.config, classifier.run
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    five = f", {top_accuracy(probabilities, labels, 5):.2%} in the first 5" if len(classifier.classes) > 5 else ""
    again = html.escape(f"numpyvit train --config {shlex.quote(run.file('config.json'))}")
    again = f"The same run again: <code>{again}</code>"
    if config.plan.start:
        again = html.escape(how_to_repeat_parts(config, run.path))
    notice = f"<p>{html.escape(config.data.notice)}</p>" if config.data.notice else ""
    return (f"<p><b>{accuracy:.2%}</b> of the {len(labels):,} test images of {html.escape(config.data.name)} are right"
            f"{five}; {html.escape(config.recipe.model)}, {config.model.parameters:,} parameters, step "
            f"{classifier.step:,} of {config.plan.steps:,}.</p>{notice}"
            f"<p>{again}</p>")


def curves_part(run):
    """Loss, accuracy and learning rate."""
    return "<h2>Curves</h2>" + picture(curves_figure(run), "loss, accuracy and learning rate by step")


def confusion_part(classifier, probabilities, labels):
    """The confusion matrix as a figure, and its counts as a table."""
    classes = [html.escape(name) for name in classifier.classes]
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    rows = ["<tr><th>true class<th>accuracy" + "".join(f"<th>{name}" for name in classes)]
    for k, (name, row) in enumerate(zip(classes, matrix)):
        share = f"{row[k] / row.sum():.1%}" if row.sum() else "-"
        cells = "".join(f"<td class={'own' if j == k else 'other'}>{count or '·'}" for j, count in enumerate(row))
        rows.append(f"<tr><th>{name}<td>{share}{cells}")
    figure = picture(plots.plot_confusion(matrix, classifier.classes), "confusion matrix")
    return (f"<h2>Confusion matrix</h2>{figure}<details><summary>all counts; columns are predicted classes</summary>"
            "<table>" + "\n".join(rows) + "</table></details>")


def mistakes_part(classifier, images, labels, probabilities):
    """The wrong images whose predicted class is the most probable."""
    figure = plots.plot_mistakes(images, labels, probabilities, classifier.classes, MISTAKES)
    return "<h2>Worst mistakes</h2>" + picture(figure, "wrong images, their predicted and their true class")


def attention_part(classifier, images):
    """Where the model looks, block by block, on the first test images."""
    parts = []
    for pixels in images[:LOOKED_AT]:
        inputs = normalise(pixels[None], classifier.mean, classifier.std, classifier.model.dtype)
        figure = plots.plot_attention(pixels, attention.attention_blocks(classifier.model, inputs))
        parts.append(picture(figure, "attention over an image, block by block"))
    return "<h2>Attention</h2>" + "\n".join(parts)


def settings_part(classifier):
    """All settings of the run."""
    text = json.dumps(classifier.config.to_json(), indent=1, ensure_ascii=False)
    return f"<h2>Settings</h2><details><summary>config.json</summary><pre>{html.escape(text)}</pre></details>"


def picture(figure, what):
    """A figure as an image inside the page; what: the text for those who do not see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return f'<img alt="{what}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
