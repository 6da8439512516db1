"""numpyvit convert: weights from one library's names to another's."""
from ..errors import on_one_line
from .options import add_fields


def add_commands(commands):
    """Add the command convert."""
    p = commands.add_parser("convert", help="write weights in the names of another library",
                            description="Read a run, a file of weights or a folder of Hugging Face, recognised by its "
                                        "content, and write the same weights for another library.")
    p.add_argument("path", metavar="IN", help="a run, a file of weights, or a folder of Hugging Face")
    p.add_argument("out", metavar="OUT", help="a file: .safetensors, .pth or .npz; for huggingface a folder")
    p.add_argument("--to", metavar="FORMAT", default="numpyvit",
                   help="numpyvit (default), timm, huggingface, torchvision, google or microsoft")
    add_fields(p)
    p.set_defaults(run=run_convert)


def run_convert(args):
    """Write the file or folder and say what was done."""
    from ..runs.classifier import load_model
    from ..weights import save_weights
    model = load_model(args.path, **dict(args.fields))
    for sentence in [*model.notes, *save_weights(model, args.out, format=args.to)]:
        print(on_one_line(sentence))
    print(f"wrote {model.num_parameters():,} parameters to {args.out} in the format {args.to}")
