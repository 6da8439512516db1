"""What is in a file or folder of weights, whatever its container: tensors under the names that stand there.

    *.safetensors      this library's, Hugging Face's, timm's          begins with the length of a JSON header
    *.pth *.pt *.bin   torch's                                         a zip archive with a data.pkl, or a pickle
    *.npz              Google's vision_transformer, big_vision         a zip archive of .npy arrays
a folder           Hugging Face's or timm's: config.json beside a file of weights, or several with an index; a run of
this library

The content decides, not the name.
"""
import os
from dataclasses import dataclass, field

from ..errors import UserError
from ..files.archive import open_archive
from ..files.atomic import open_regular, read_json
from ..files.npz import read_npz
from ..files.pth import read_pth, without_prefixes
from ..files.safetensors import read_tensors

IN_A_FOLDER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
               "weights.safetensors")
MAX_SHARDS = 1000


@dataclass
class Source:
    """The content of a file or folder.   metadata: of a safetensors file;  config, preprocessor: the JSON files
    beside it
    """
    path: str
    tensors: dict
    metadata: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    preprocessor: dict = field(default_factory=dict)
    sentences: list = field(default_factory=list)


def read_source(path):
    """A file or folder of weights → Source. UserError, with the reason, where that is none; OSError if it cannot be
    read.
    """
    path = path_text(path)
    if os.path.isdir(path):
        source = read_folder(path)
    else:
        source = read_shards(path) if path.endswith(".index.json") else read_file(path)
    source.tensors, sentences = without_prefixes(source.tensors)
    source.sentences += sentences
    return source


def path_text(path):
    """A path as text. UserError for one that no file can have."""
    path = os.fsdecode(path)
    if not path or "\0" in path:
        raise UserError(f"{path!r}: expected the path of a file or folder, got {'a NUL in it' if path else 'nothing'}")
    return path


def read_file(path):
    """One file, by its first bytes. → Source"""
    with open_regular(path) as (file, _):
        start = file.read(9)
    if start[:4] == b"PK\3\4":
        with open_archive(path, "zip") as archive:
            is_torch = any(name.endswith("data.pkl") for name in archive.members)
        if not is_torch:
            return Source(path, read_npz(path))
    elif start[8:9] in (b"{", b" "):                                         # else a complaint would speak of torch
        tensors, metadata = read_tensors(path)
        return Source(path, tensors, metadata)
    elif start[:1] != b"\x80":
        raise UserError(f"{path}: expected weights as .safetensors, .npz or a file of torch, got something that begins "
                        f"with {start!r}")
    tensors, sentences = read_pth(path)
    return Source(path, tensors, sentences=sentences)


def read_folder(path):
    """A folder with one of IN_A_FOLDER in it. → Source"""
    config = optional_json(os.path.join(path, "config.json"))
    name = next((name for name in IN_A_FOLDER if os.path.lexists(os.path.join(path, name))), None)
    if name is None:
        what = "a run writes it when it ends" if "recipe" in config else f"expected {', '.join(IN_A_FOLDER)}"
        raise UserError(f"{path}: the folder has no file of weights; {what}")
    source = read_source(os.path.join(path, name))
    source.path = path
    source.config = config if "recipe" not in config else {}
    source.preprocessor = optional_json(os.path.join(path, "preprocessor_config.json"))
    return source


def optional_json(path):
    """The object in a JSON file, {} where there is no such file."""
    value = read_json(path) if os.path.lexists(path) else {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object, got a {type(value).__name__}")
    return value


def read_shards(path):
    """Several files and an index that says which tensor stands in which: {"weight_map": {name: file}}."""
    folder, index = os.path.split(path)
    where = optional_json(path).get("weight_map")
    if not isinstance(where, dict) or not where or not all(is_plain_name(file) for file in where.values()):
        raise UserError(f'{path}: expected "weight_map" with the name of a file beside it for every tensor')
    files = sorted(set(where.values()))
    if len(files) > MAX_SHARDS:
        raise UserError(f"{path}: {len(files)} files, expected at most {MAX_SHARDS}")
    tensors, sentences = {}, []
    for file in files:
        part = read_file(os.path.join(folder, file))
        for name, array in part.tensors.items():
            if where.get(name) == file:
                tensors[name] = array
        sentences += part.sentences
    missing = [name for name in where if name not in tensors]
    if missing:
        raise UserError(f"{path}: {missing[0][:80]} is not in {where[missing[0]]}, where the index has it")
    return Source(path, tensors, sentences=sentences)


def is_plain_name(file):
    """Whether this is the name of a file in the same folder, and no path that leads elsewhere."""
    return isinstance(file, str) and file == os.path.basename(file) and file not in ("", ".", "..") and "\0" not in file
