"""The commands that ask a run about images: evaluate and predict."""
import csv
import json
import os
import shlex
import sys

from ..errors import UserError, on_one_line
from .options import add_fields, add_tta, check_data_set, positive

AT_ONCE = 256                                                                # images that predict holds in memory


def add_commands(commands):
    """Add the commands evaluate and predict."""
    add_evaluate(commands)
    add_predict(commands)


def add_evaluate(commands):
    """Add the command evaluate."""
    p = commands.add_parser("evaluate", help="accuracy, accuracy by class and confusion matrix of a run or of weights",
                            description="Score the newest checkpoint of a run, or weights, on a data set or a folder.")
    p.add_argument("path", metavar="RUN", help="folder of a run; a file of weights, or a folder of Hugging Face")
    p.add_argument("folder", metavar="FOLDER", nargs="?",
                   help="other images to score, FOLDER/CLASS/*.png and the like, with the names of the classes")
    p.add_argument("--split", choices=("test", "val"),
                   help="test images (default) or those held out of training")
    p.add_argument("--data", metavar="NAME", help="the data set to score weights on; a run knows its own")
    p.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are now")
    p.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    p.add_argument("--confusion", metavar="FILE", help="draw the confusion matrix: .png, .svg or .pdf")
    p.add_argument("--mistakes", metavar="FILE",
                   help="draw the wrong images of which the model is surest: .png, .svg or .pdf")
    add_tta(p)
    add_fields(p)
    p.set_defaults(run=run_evaluate)


def run_evaluate(args):
    """Print accuracy, accuracy by class and the confusion matrix; draw what is asked for."""
    from ..inspection.plots import check_can_save
    from ..runs.classifier import Classifier, confusion_matrix, top_accuracy
    from ..training.ranks import world
    world()                                                                  # ranks meet before one of them can fail
    for path in filter(None, (args.confusion, args.mistakes)):
        check_can_save(path)
    classifier = Classifier(args.path, dict(args.fields))
    images, labels, what, notice = images_to_score(classifier, args)
    place = f"step {classifier.step} of {classifier.run.path}" if classifier.run else args.path
    if not classifier.run:
        tell(classifier)
    logits = classifier.logits(images, args.threads or world().default_threads(), world(), args.tta)
    matrix = confusion_matrix(labels, logits.argmax(axis=1), len(classifier.classes))
    views = f", test-time augmentation: {args.tta}" if args.tta != "none" else ""
    five = f" ({top_accuracy(logits, labels, 5):.2%} in the first 5)" if len(matrix) > 5 else ""
    print(f"accuracy {matrix.trace() / len(labels):.2%}{five} on {len(labels):,} {what}, {place}{views}")
    if notice:
        print(notice)
    names = [on_one_line(name)[:12] for name in classifier.classes]
    width, cell = max(map(len, names)), max(len(str(matrix.max())), 4)
    print("\nrow: true class   accuracy   column: predicted class, in the same order")
    for name, row, hits in zip(names, matrix, matrix.diagonal()):
        share = f"{hits / row.sum():.1%}" if row.sum() else "-"
        print(f"{name:<{width}}  {share:>7}  " + " ".join(f"{count or '·':>{cell}}" for count in row))
    if world().rank == 0:
        draw_scores(args, classifier.classes, matrix, images, labels, logits)


def draw_scores(args, classes, matrix, images, labels, logits):
    """Write the figures that --confusion and --mistakes ask for, and say where they are."""
    from ..inspection import plots
    from ..ops.softmax import softmax_forward
    if args.confusion:
        plots.save(plots.plot_confusion(matrix, classes), args.confusion)
        print(f"confusion matrix: {args.confusion}")
    if args.mistakes:
        probabilities, _ = softmax_forward(logits.astype(float))
        plots.save(plots.plot_mistakes(images, labels, probabilities, classes), args.mistakes)
        print(f"mistakes: {args.mistakes}")


def images_to_score(classifier, args):
    """Of a folder, the run's data set, or --data → images (n, C, H, W) uint8, labels (n,), their name, a notice"""
    split = args.split or "test"
    if args.folder:
        for name in ("split", "data", "data_dir"):
            if getattr(args, name):
                raise UserError(f"--{name.replace('_', '-')} chooses images of a data set, and {args.folder} has the "
                                "images to score: leave out one of the two")
        images, labels, notice = classifier.folder(args.folder)
        return images, labels, f"images of {args.folder}, which need not be those of the run", notice
    if classifier.run:
        if args.data:
            weights = shlex.quote(classifier.run.file("weights.safetensors"))
            raise UserError("--data: a run is scored on its own data set; to score its weights on another one: "
                            f"numpyvit evaluate {weights} --data {args.data}")
        data = classifier.config.data
        check_data_set(args.path, "numpyvit evaluate {quoted} FOLDER scores images of a folder", classifier.config)
        return *classifier.split(split, args.data_dir), f"{split} images of {data.name}", data.notice
    if split != "test":
        raise UserError(f"--split {split}: only a run knows which images it held out of training; weights are scored "
                        "on test images: leave out --split")
    if not args.data:
        raise UserError("--data: expected the name of a data set, whose test images the weights are scored on")
    dataset = classifier.data_set(args.data, args.data_dir)
    return dataset.test.images, dataset.test.labels, f"test images of {dataset.name}", dataset.notice


def tell(classifier, stream=None):
    """Say what was done to weights of another library, and how images are prepared for them."""
    for sentence in classifier.model.notes:
        print(on_one_line(sentence), file=stream)
    print(on_one_line(f"images: {classifier.prepared}"), file=stream)


def add_predict(commands):
    """Add the command predict."""
    p = commands.add_parser("predict", help="classify image files with a run or with weights",
                            description="Classify images with the newest checkpoint of a run, or with weights of this "
                                        "library, timm, Hugging Face, torchvision, Google or microsoft. For a file "
                                        "that cannot be read, a line goes to standard error, and the others are "
                                        "classified.")
    p.add_argument("path", metavar="RUN", help="folder of a run; a file of weights, or a folder of Hugging Face")
    p.add_argument("images", metavar="IMAGE", nargs="+",
                   help="PNG, JPEG, WebP, GIF or BMP files, and folders of them")
    p.add_argument("--top", type=positive, default=3, metavar="N", help="classes to show (3)")
    form = p.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object an image: file, classes with probabilities")
    form.add_argument("--csv", action="store_true", help="a table with a column a class and its probability")
    add_tta(p)
    add_fields(p)
    p.set_defaults(run=run_predict)


def run_predict(args):
    """Print the likeliest classes of each image. → 2 if a file could not be read"""
    import numpy as np

    from ..runs.classifier import Classifier
    from ..training.ranks import launched
    classifier, failed = Classifier(args.path, dict(args.fields)), False
    if not classifier.run:
        tell(classifier, sys.stderr if args.json or args.csv else None)
    files = [file for path in args.images for file in image_files(path)]
    show = {(True, False): show_json, (False, True): show_csv}.get((args.json, args.csv), show_line)
    if args.csv:
        csv.writer(sys.stdout).writerow(["file", *classifier.classes])
    for start in range(0, len(files), AT_ONCE):
        good, pixels = [], []
        for file in files[start:start + AT_ONCE]:
            try:
                image, remark = classifier.read(file)
            except UserError as error:
                if launched()[0] == 0:
                    print(f"numpyvit: {error}", file=sys.stderr)
                failed = True
                continue
            if remark:
                print(f"numpyvit: {file}: {remark}", file=sys.stderr)
            good.append(file)
            pixels.append(image)
        if good:
            for file, probabilities in zip(good, classifier.probabilities(np.stack(pixels), args.tta)):
                best = (-probabilities).argsort(kind="stable")[:args.top]
                show(file, classifier.classes, probabilities, best)
    return 2 if failed else 0


def image_files(path):
    """The file itself, or the image files in a folder and its folders, by name. UserError for a folder without any."""
    from ..data.images import KINDS, SUFFIXES
    if not os.path.isdir(path):
        return [path]
    found = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
             if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise UserError(f"{path}: expected {KINDS} files in this folder, found none")
    return sorted(found)


def show_line(file, classes, probabilities, best):
    """FILE: cat 91.2%, dog 5.0%"""
    print(f"{file}: " + ", ".join(f"{on_one_line(classes[k])} {probabilities[k]:.1%}" for k in best))


def show_json(file, classes, probabilities, best):
    """{"file": FILE, "classes": [{"name": "cat", "probability": 0.912}, …]}"""
    rows = [{"name": classes[k], "probability": float(probabilities[k])} for k in best]
    print(json.dumps({"file": file, "classes": rows}))


def show_csv(file, classes, probabilities, best):
    """FILE,0.912,0.05,… in the order of the classes"""
    csv.writer(sys.stdout).writerow([file, *(f"{p:.6f}" for p in probabilities)])
