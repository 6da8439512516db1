"""The command line's explore: a run and an image as one offline HTML page."""
import os

from .options import add_fields


def add_commands(commands):
    """Add the command explore."""
    p = commands.add_parser("explore", help="a page that steps forward and backward through a run on an image, offline",
                            description="Write one HTML file that steps forward and backward through the model on the "
                                        "image, every number derivable. Open it in a browser; it needs no network.")
    p.add_argument("path", metavar="RUN", help="folder of the run; or a file or Hugging Face folder of weights")
    p.add_argument("image", metavar="IMAGE", help="PNG or JPEG file")
    p.add_argument("--label", metavar="CLASS",
                   help="the class that the loss asks for, by name or number (default: the predicted one)")
    add_fields(p)
    p.add_argument("-o", "--out", metavar="FILE", default="explorer.html", help="the page (explorer.html)")
    p.set_defaults(run=run_explore)


def run_explore(args):
    """Write the page."""
    from ..explorer.write import explore, write_page
    from ..runs.classifier import is_run
    of_path = of_run if is_run(args.path) or not os.path.exists(args.path) else of_weights
    subject = of_path(args.path, args.image, dict(args.fields))
    label = None if args.label is None else label_number(args.label, subject["classes"])
    text = explore(**subject, label=label, image_name=os.path.basename(args.image))
    write_page(args.out, text)
    print(f"{args.out}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser")
    if "update" in subject and subject["update"] is None:
        print("it shows no step of the optimiser, because the run would not go on from these weights")


def of_run(path, image, fields):
    """What explore() wants to know of a run and an image."""
    from ..explorer.update import update_of
    from ..runs.classifier import Classifier
    run = Classifier(path, fields)
    return dict(model=run.model, pixels=run.read(image)[0], classes=run.classes, mean=run.mean, std=run.std,
                model_name=run.config.recipe.model, update=update_of(run))


def of_weights(path, image, fields):
    """What explore() wants to know of a file or folder of weights and an image, which is prepared as they ask for.

    fields: of the model's config that the weights do not tell
    """
    import numpy as np

    from ..errors import UserError
    from ..weights import load_model
    model = load_model(path, **fields)
    if model.preprocessing is None:
        raise UserError(f"{path}: the file does not say how its images are prepared; give the folder of the run")
    mean, std = np.array(model.preprocessing.mean), np.array(model.preprocessing.std)
    images = model.preprocessing(image, "float64")
    pixels = np.rint((images * std[:, None, None] + mean[:, None, None]) * 255).clip(0, 255).astype(np.uint8)
    classes = model.classes or range(model.config.num_classes)
    name = os.path.basename(os.path.abspath(path))
    return dict(model=model, pixels=pixels, classes=list(map(str, classes)), mean=mean, std=std, model_name=name)


def label_number(label, classes):
    """The number of a class that is given by its name or its number."""
    from ..errors import UserError
    if label in classes:
        return list(classes).index(label)
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    raise UserError(f"--label: expected one of the classes {', '.join(map(str, classes))} "
                    f"or a number below {len(classes)}, got {label!r}")
