"""The commands that look at models: models, summary, gradcheck, and one for each figure."""
import argparse

from .options import field_value

OWN_PAIR = """A pair of yours, in cube.py:

    def cube_forward(x):                # returns y and what backward needs
        return x ** 3, x

    def cube_backward(dy, cache):       # returns one gradient an array
        return 3 * cache ** 2 * dy

    def cube_inputs(rng):               # may be left out, then shapes are tried
        return {"x": rng.standard_normal((5, 7))}

numpyvit gradcheck cube:cube checks it; numpyvit.gradcheck.check does so from
Python, where forward may also take sizes, labels and seeds."""


def add_commands(commands):
    """Add the commands models, summary and gradcheck, and those that draw figures."""
    for add in (add_models, add_summary, add_gradcheck, add_figures):
        add(commands)


def add_summary(commands):
    """Add the command summary."""
    p = commands.add_parser("summary", help="a model as a table: shapes, parameters, multiply-adds, activations",
                            description="A model as a table, a row a block: output shape, parameters, multiply-adds "
                                        "and activation bytes of one image.")
    p.add_argument("model", metavar="MODEL", help="preset or family, see numpyvit models")
    p.add_argument("--set", dest="model_fields", action="append", type=field_value, metavar="FIELD=VALUE", default=[],
                   help="a field of the model's config; each field takes a --set of its own")
    p.add_argument("--layers", action="store_true", help="a row a layer instead")
    p.set_defaults(run=run_summary)


def run_summary(args):
    """Print the table of a model."""
    from ..inspection.summary import run
    run(args.model, dict(args.model_fields), every_layer=args.layers)


def add_models(commands):
    """Add the command models."""
    p = commands.add_parser("models", help="list the presets",
                            description="List the presets: image size, parameters, multiply-adds of one image's "
                                        "forward pass, as numpyvit summary counts them: of products and convolutions.")
    p.add_argument("pattern", nargs="?", default="*", help="of names, such as 'vit*32'")
    p.set_defaults(run=run_models)


def run_models(args):
    """Print the presets that match."""
    from ..inspection.flops import multiply_adds
    from ..inspection.summary import amount
    from ..models import count_parameters, list_models, model_config
    from ..module import pair
    names = list_models(args.pattern)
    if not names:
        raise ValueError(f"no model matches {args.pattern!r}; numpyvit models lists all")
    width = max(map(len, names))
    print(f"{'model':<{width}}  {'image':>9}  {'parameters':>12}  multiply-adds, each two FLOPs")
    for name in names:
        family, config = model_config(name)
        size = "×".join(map(str, pair(config.img_size)))
        macs = amount(multiply_adds(family, config), 1000, "", "k", "M", "G", "T")
        print(f"{name:<{width}}  {size:>9}  {count_parameters(name):>12,}  {macs:>13}")


def add_gradcheck(commands):
    """Add the command gradcheck."""
    p = commands.add_parser("gradcheck", help="check every backward pass against its forward pass, here and now",
                            description="⟨u, J v⟩ = ⟨Jᵀu, v⟩ for every op and model: the directional check, without "
                                        "torch.",
                            formatter_class=argparse.RawDescriptionHelpFormatter, epilog=OWN_PAIR)
    p.add_argument("names", nargs="*", metavar="NAME",
                   help="of ops or models (default: all), or MODULE:NAME for a pair of yours")
    p.set_defaults(run=run_gradcheck)


def run_gradcheck(args):
    """Print the directional check of each op and model. → 1 if one is wrong"""
    from rich.console import Console

    from ..inspection.gradients import run
    return 0 if run(args.names, Console()) else 1


# --- figures of a run

def add_figures(commands):
    """Add a command for each figure."""
    with_image = [
        ("attention", "where a block's heads look", run_attention),
        ("rollout", "how much of each patch reaches the output", run_rollout),
        ("saliency", "how much each pixel moves the predicted class", run_saliency),
        ("distance", "how far each head looks, by depth", run_distance),
    ]
    of_weights = [
        ("positions", "similarity of the position embeddings (ViT)", run_positions),
        ("filters", "principal components of the patch embedding's filters", run_filters),
        ("bias", "relative position biases (Swin)", run_bias),
    ]
    for name, what, run in with_image + of_weights:
        p = commands.add_parser(name, help=f"figure: {what}", description=f"Draw {what}.")
        p.add_argument("path", metavar="RUN", help="folder of the run")
        if (name, what, run) in with_image:
            many = {"nargs": "+"} if name == "distance" else {}
            text = "PNG or JPEG files, to average over" if many else "PNG or JPEG file"
            p.add_argument("image", metavar="IMAGE", help=text, **many)
        p.add_argument("-o", "--out", metavar="FILE", default=f"{name}.png",
                       help=f"the figure: .png, .svg or .pdf ({name}.png)")
        if name in ("attention", "bias"):
            p.add_argument("--block", metavar="BLOCK",
                           help="number from 0, or name; attention draws all unless given, bias the last")
        if name == "attention":
            p.add_argument("--head", type=int, metavar="N", help="one head, from 0; all of the block unless given")
            p.add_argument("--query", type=pixel, metavar="Y,X", help="attention of the token at this pixel of the "
                           "resized image (default: the class token, or the mean of all)")
        p.set_defaults(run=run_figure, draw=run)


def run_figure(args):
    """Draw the figure, unless its name is one that no figure can have: that is said before a model is read."""
    from ..inspection.plots import check_can_save
    check_can_save(args.out)
    args.draw(args)


def pixel(text):
    """"3,12" → (3, 12)"""
    try:
        y, x = (int(part) for part in text.split(","))
        return y, x
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected Y,X in pixels, got {text!r}") from None


class Subject:
    """A run's model, and images at its size and normalised."""

    def __init__(self, path, images=()):
        from ..data import normalise
        from ..runs.classifier import Classifier
        self.run = Classifier(path)
        self.model = self.run.model
        self.pixels = [self.run.read(image)[0] for image in images]
        if images:
            import numpy as np
            self.images = normalise(np.stack(self.pixels), self.run.mean, self.run.std, self.model.dtype)


def finish(figure, args, sentence=""):
    """Write the figure and say where it is."""
    from ..inspection.plots import save
    save(figure, args.out)
    print(f"{sentence + ': ' if sentence else ''}{args.out}")


def run_attention(args):
    """Where heads look, as a figure."""
    from ..inspection import attention as analysis, plots
    subject = Subject(args.path, [args.image])
    blocks = analysis.attention_blocks(subject.model, subject.images)
    block = analysis.choose(blocks, args.block) if args.block is not None or args.head is not None else None
    finish(plots.plot_attention(subject.pixels[0], blocks, block, args.head, args.query), args)


def run_rollout(args):
    """The share of each patch in the output, as a figure."""
    from ..inspection import attention as analysis, plots
    subject = Subject(args.path, [args.image])
    shares = analysis.rollout(analysis.attention_blocks(subject.model, subject.images))
    finish(plots.plot_rollout(subject.pixels[0], shares[0]), args)


def run_saliency(args):
    """The gradient of the predicted class with respect to the pixels, as a figure."""
    from ..inspection import attention as analysis, plots
    subject = Subject(args.path, [args.image])
    k = int(subject.model.forward(subject.images)[0].argmax())
    values = analysis.saliency(subject.model, subject.images, [k])
    name = subject.run.classes[k]
    figure = plots.plot_saliency(subject.pixels[0], values[0], f"saliency for the predicted class, {name}")
    finish(figure, args, f"predicted {name}")


def run_distance(args):
    """How far heads look, by depth, as a figure."""
    from ..inspection import attention as analysis, plots
    subject = Subject(args.path, args.image)
    distances = analysis.mean_attention_distance(analysis.attention_blocks(subject.model, subject.images))
    finish(plots.plot_distances(distances), args)


def run_positions(args):
    """Similarity of position embeddings, as a figure."""
    from ..inspection import attention as analysis, plots
    finish(plots.plot_position_similarity(analysis.position_similarity(Subject(args.path).model)), args)


def run_filters(args):
    """Principal components of the patch filters, as a figure."""
    from ..inspection import attention as analysis, plots
    finish(plots.plot_patch_filters(*analysis.patch_filters(Subject(args.path).model)), args)


def run_bias(args):
    """Relative position biases, as a figure."""
    from ..inspection import attention as analysis, plots
    tables = analysis.relative_position_bias(Subject(args.path).model)
    names = list(tables)
    block = names[-1] if args.block is None else args.block
    if block.lstrip("-").isdigit() and -len(names) <= int(block) < len(names):
        block = names[int(block)]
    finish(plots.plot_relative_position_bias(tables, block), args)
