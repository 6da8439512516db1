"""The commands that ask a run about images: evaluate and predict."""
from .options import add_tta, positive


def add_commands(commands):
    """Add the commands evaluate and predict."""
    add_evaluate(commands)
    add_predict(commands)


def add_evaluate(commands):
    """Add the command evaluate."""
    p = commands.add_parser("evaluate", help="accuracy, accuracy by class and confusion matrix of a run",
                            description="Score the newest checkpoint of a run.")
    p.add_argument("path", metavar="RUN", help="folder of the run")
    p.add_argument("--split", choices=("test", "val"), default="test",
                   help="test images (default) or those held out of training")
    p.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are now")
    p.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    add_tta(p)
    p.set_defaults(run=run_evaluate)


def run_evaluate(args):
    """Print accuracy, accuracy by class and the confusion matrix."""
    from ..runs.classifier import Classifier, confusion_matrix
    from ..training.ranks import world
    classifier = Classifier(args.path)
    images, labels = classifier.split(args.split, args.data_dir)
    threads = args.threads or world().default_threads()
    predicted = classifier.logits(images, threads, world(), args.tta).argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(classifier.classes))
    data = classifier.config.data
    views = f", test-time augmentation: {args.tta}" if args.tta != "none" else ""
    print(f"accuracy {matrix.trace() / len(labels):.2%} on {len(labels):,} {args.split} images of {data.name}, "
          f"step {classifier.step} of {classifier.run.path}{views}")
    if data.notice:
        print(data.notice)
    names = [name[:12] for name in classifier.classes]
    width, cell = max(map(len, names)), max(len(str(matrix.max())), 4)
    print("\nrow: true class   accuracy   column: taken for, in the same order")
    for name, row, hits in zip(names, matrix, matrix.diagonal()):
        share = f"{hits / row.sum():.1%}" if row.sum() else "-"
        print(f"{name:<{width}}  {share:>7}  " + " ".join(f"{count or '·':>{cell}}" for count in row))


def add_predict(commands):
    """Add the command predict."""
    p = commands.add_parser("predict", help="classify PNG or JPEG images with a run",
                            description="Classify images with the newest checkpoint of a run.")
    p.add_argument("path", metavar="RUN", help="folder of the run")
    p.add_argument("images", metavar="IMAGE", nargs="+", help="PNG or JPEG files")
    p.add_argument("--top", type=positive, default=3, metavar="N", help="classes to show (3)")
    add_tta(p)
    p.set_defaults(run=run_predict)


def run_predict(args):
    """Print the likeliest classes of each image."""
    from ..runs.classifier import Classifier
    classifier = Classifier(args.path)
    for path, probabilities in zip(args.images, classifier.predict(args.images, args.tta)):
        best = (-probabilities).argsort(kind="stable")[:args.top]
        print(f"{path}: " + ", ".join(f"{classifier.classes[k]} {probabilities[k]:.1%}" for k in best))
