"""The commands that ask a run about images: evaluate and predict."""
from ..errors import UserError
from .options import add_tta, positive


def add_commands(commands):
    """Add the commands evaluate and predict."""
    add_evaluate(commands)
    add_predict(commands)


def add_evaluate(commands):
    """Add the command evaluate."""
    p = commands.add_parser("evaluate", help="accuracy, accuracy by class and confusion matrix of a run or of weights",
                            description="Score the newest checkpoint of a run, or weights on a data set.")
    p.add_argument("path", metavar="RUN", help="folder of a run; a file of weights, or a folder of Hugging Face")
    p.add_argument("--split", choices=("test", "val"), default="test",
                   help="test images (default) or those held out of training")
    p.add_argument("--data", metavar="NAME", help="the data set to score weights on; a run knows its own")
    p.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are now")
    p.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    add_tta(p)
    p.set_defaults(run=run_evaluate)


def run_evaluate(args):
    """Print accuracy, accuracy by class and the confusion matrix."""
    from ..runs.classifier import Classifier, confusion_matrix
    from ..training.ranks import world
    classifier = Classifier(args.path)
    if classifier.run:
        if args.data:
            raise UserError("--data: a run is scored on its own data set; numpyvit evaluate "
                            f"{args.path}/weights.safetensors --data {args.data} takes any")
        images, labels = classifier.split(args.split, args.data_dir)
        name, notice = classifier.config.data.name, classifier.config.data.notice
        place = f"step {classifier.step} of {classifier.run.path}"
    else:
        if not args.data or args.split != "test":
            raise UserError("--data: expected the name of a data set, whose test images the weights are scored on")
        dataset = classifier.data_set(args.data, args.data_dir)
        images, labels, name, notice = dataset.test.images, dataset.test.labels, dataset.name, dataset.notice
        place = args.path
        tell(classifier)
    threads = args.threads or world().default_threads()
    predicted = classifier.logits(images, threads, world(), args.tta).argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(classifier.classes))
    views = f", test-time augmentation: {args.tta}" if args.tta != "none" else ""
    print(f"accuracy {matrix.trace() / len(labels):.2%} on {len(labels):,} {args.split} images of {name}, "
          f"{place}{views}")
    if notice:
        print(notice)
    names = [name[:12] for name in classifier.classes]
    width, cell = max(map(len, names)), max(len(str(matrix.max())), 4)
    print("\nrow: true class   accuracy   column: taken for, in the same order")
    for name, row, hits in zip(names, matrix, matrix.diagonal()):
        share = f"{hits / row.sum():.1%}" if row.sum() else "-"
        print(f"{name:<{width}}  {share:>7}  " + " ".join(f"{count or '·':>{cell}}" for count in row))


def add_predict(commands):
    """Add the command predict."""
    p = commands.add_parser("predict", help="classify image files with a run or with weights",
                            description="Classify images with the newest checkpoint of a run, or with weights of this "
                                        "library, timm, Hugging Face, torchvision, Google or microsoft.")
    p.add_argument("path", metavar="RUN", help="folder of a run; a file of weights, or a folder of Hugging Face")
    p.add_argument("images", metavar="IMAGE", nargs="+", help="PNG or JPEG files")
    p.add_argument("--top", type=positive, default=3, metavar="N", help="classes to show (3)")
    add_tta(p)
    p.set_defaults(run=run_predict)


def run_predict(args):
    """Print the likeliest classes of each image."""
    from ..runs.classifier import Classifier
    classifier = Classifier(args.path)
    if not classifier.run:
        tell(classifier)
    for path, probabilities in zip(args.images, classifier.predict(args.images, args.tta)):
        best = (-probabilities).argsort(kind="stable")[:args.top]
        print(f"{path}: " + ", ".join(f"{classifier.classes[k]} {probabilities[k]:.1%}" for k in best))


def tell(classifier):
    """Say what was done to weights of another library, and how images are prepared for them."""
    for sentence in classifier.model.notes:
        print(sentence)
    print(f"images: {classifier.model.preprocessing}")
