"""The command line's explore: a run and an image as one offline HTML page."""
import os


def add_commands(commands):
    """Add the command explore."""
    p = commands.add_parser("explore", help="a page that steps forward and backward through a run on an image, offline",
                            description="Write one HTML file that steps forward and backward through the model on the "
                                        "image, every number derivable. Open it in a browser; it needs no network.")
    p.add_argument("path", metavar="RUN", help="folder of the run")
    p.add_argument("image", metavar="IMAGE", help="PNG or JPEG file")
    p.add_argument("--label", metavar="CLASS",
                   help="the class that the loss asks for, by name or number (default: the predicted one)")
    p.add_argument("-o", "--out", metavar="FILE", default="explorer.html", help="the page (explorer.html)")
    p.set_defaults(run=run_explore)


def run_explore(args):
    """Write the page."""
    from ..data import read_image
    from ..explorer.update import update_of
    from ..explorer.write import explore, write_page
    from ..module import pair
    from ..runs.classifier import Classifier
    run = Classifier(args.path)
    label = None if args.label is None else label_number(args.label, run.classes)
    pixels = read_image(args.image, pair(run.model.config.img_size)[0], run.model.config.in_chans)
    text = explore(run.model, pixels, run.classes, run.mean, run.std, label, os.path.basename(args.image),
                   run.config.recipe.model, update_of(run))
    write_page(args.out, text)
    print(f"{args.out}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser")


def label_number(label, classes):
    """The number of a class that is given by its name or its number."""
    from ..errors import UserError
    if label in classes:
        return list(classes).index(label)
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    raise UserError(f"--label: expected one of the classes {', '.join(map(str, classes))} "
                    f"or a number below {len(classes)}, got {label!r}")
