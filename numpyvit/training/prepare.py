"""What a run needs before its first step: the data set, the model, the config, the folder."""
import dataclasses
import itertools
import math
import os
import platform
import shlex
import sys
import time

import llvmlite.binding
import numba
import numpy as np
import threadpoolctl

from .. import __version__
from ..data import channel_statistics, hold_out, load
from ..data.mapped import put_aside
from ..data.registry import load_resized
from ..errors import UserError
from ..models import count_parameters, create_model, model_config
from ..module import pair
from ..ops.optim import OPTIMIZERS
from ..runs.config import DataEntry, LanesEntry, ModelEntry, RunConfig, records_of
from ..runs.folder import RunFolder
from .batches import augmentation
from .lanes import default_micro_batch, default_shards
from .ranks import ALONE

WATCHED = 1000                                                               # images that are held out by default


def check_recipe(recipe):
    """Raise UserError for a model or an augmentation that cannot be, before data is loaded."""
    model_config(recipe.model, **recipe.model_fields)
    augmentation(recipe)


def load_dataset(recipe, progress, recorded=None, data_dir=None):
    """The data set at the model's image size.

    recorded: the DataEntry of a run that goes on; UserError if the images are not the same any more.
    """
    _, model = model_config(recipe.model, **recipe.model_fields)
    H, W = pair(model.img_size)
    if H != W:
        raise UserError(f"img_size: the data sets have square images, got {H} × {W}")
    name, data_dir = recorded.name if recorded else recipe.data, data_dir or recipe.data_dir
    if recipe.init:                                                          # a model whose size is the weights'
        dataset, side = load_resized(name, data_dir, H)
        if side != H:
            progress.say(f"the images of {dataset.name} are resized from {side} to {H} pixels")
    else:
        dataset = load(name, data_dir, H)
    if recorded and recorded.checksum != records_of(dataset):
        raise UserError("the data set is not the one this run was started with: its checksum is "
                        f"{records_of(dataset)}, expected {recorded.checksum}")
    notice = dataset.notice or (recorded.notice if recorded else "")
    if notice:
        progress.say(notice)
    return dataset


def aside(dataset):
    """The data set with its images on the disk: a batch reads its rows, and the test images are read at the end."""
    return dataclasses.replace(dataset, train=put_aside(dataset.train), test=put_aside(dataset.test))


def new_model(recipe, dataset, world=ALONE):
    """The recipe's model, with as many classes and channels as the data set has. world: the ranks that will train it"""
    if len(dataset.classes) < 2:
        raise UserError(f"{dataset.source}: expected two classes or more, found only {', '.join(dataset.classes)}")
    needs = {"num_classes": len(dataset.classes), "in_chans": dataset.train.images.shape[1]}
    for field, value in needs.items():
        if recipe.model_fields.get(field, value) != value:
            raise UserError(f"{field}: the data set {dataset.name} has {value}, got {recipe.model_fields[field]}")
    fields = {**recipe.model_fields, **needs}
    state = len({name for rule in OPTIMIZERS[recipe.optimizer] for name in rule.state})
    state += bool(recipe.ema)                                                # of each, a rank has its range
    sums = recipe.shards or default_shards(recipe.batch_size, 1)             # the micro-batch is not known yet
    vectors = 1 + -(-sums // world.size) + state / world.size                # the weights, a gradient a shard
    needed = count_parameters(recipe.model, **fields) * np.dtype(recipe.dtype).itemsize * vectors * world.node_size
    if needed > installed_memory():
        raise UserError(f"{recipe.model}: training it needs at least {needed / 2**30:,.1f} GiB of memory, and this "
                        f"machine has {installed_memory() / 2**30:,.1f}; choose a smaller model")
    return create_model(recipe.model, seed=recipe.seed, dtype=recipe.dtype, **fields)


def installed_memory():
    """Bytes of memory of this machine, infinity where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def new_config(recipe, dataset, model):
    """The RunConfig of a new run. Its plan is added when it is made."""
    n = len(dataset.train)
    val = min(WATCHED, n // 10) if recipe.val is None else recipe.val
    if dataset.val is not None and recipe.val is not None:
        raise UserError(f"val: the data set has {len(dataset.val)} validation images of its own; leave --val out")
    kept, _, watched = hold_out(dataset, val, recipe.seed)
    mean, std = normalisation(model, dataset.train.images)
    micro_batch = recipe.micro_batch or default_micro_batch(model)
    shards = recipe.shards or default_shards(recipe.batch_size, micro_batch)
    return RunConfig(
        recipe,
        ModelEntry(model_config(recipe.model)[0], dataclasses.asdict(model.config), model.num_parameters()),
        DataEntry(name=dataset.name, notice=dataset.notice, source=dataset.source, checksum=records_of(dataset),
                  files=dataset.checksum, classes=list(dataset.classes), mean=mean.tolist(), std=std.tolist(),
                  train=len(kept), val=len(watched), test=len(dataset.test)),
        LanesEntry(shards, micro_batch, "tree", "equal"),
        versions=versions(), command=shlex.join(sys.argv[1:]), started=time.strftime("%Y-%m-%d %H:%M:%S"))


def normalisation(model, images):
    """(mean, std) of every channel (C,): as the weights expect that the model began with, else of these images."""
    expected = model.preprocessing
    if expected is not None and len(expected.mean) == images.shape[1]:
        return np.array(expected.mean), np.array(expected.std)
    return channel_statistics(images)


def extended(config, path, checkpoint, length):
    """The config of a finished run that goes on for another length. Its plan is to be made anew.

    checkpoint: the last one of the run; None is a UserError: the run is not finished, or its checkpoints are gone.
    length: {"minutes", "epochs" or "steps": how long}
    """
    if checkpoint is None:
        option = "--" + next(iter(length))
        raise UserError(f"{option} extends a finished run that has its last checkpoint, and {path} is no such run: "
                        f"--resume {shlex.quote(path)} alone continues a run as it was planned")
    lengths = {"minutes": None, "epochs": None, "steps": None, "small_size": 0} | length
    return dataclasses.replace(config, plan=None, recipe=dataclasses.replace(config.recipe, **lengths))


def versions():
    """What else the bits of a run depend on: {name: version}"""
    return {"numpyvit": __version__, "python": platform.python_version(), "numpy": np.__version__,
            "numba": numba.__version__, "machine": platform.machine()}


def kernels():
    """What the bits depend on, too: {name: what this processor is to the compiler and to BLAS}"""
    blas = [library["architecture"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    return {"the processor": llvmlite.binding.get_host_cpu_name(), "BLAS for": ", ".join(map(str, blas))}


def free_folder(out, name):
    """The RunFolder at out, or at the first free runs/NAME-N; not made yet. UserError if it holds a run already."""
    if out is not None:
        run = RunFolder(out)
        run.check_free()
        return run
    return next(run for run in (RunFolder(os.path.join("runs", f"{name}-{number}")) for number in itertools.count(1))
                if not os.path.lexists(run.path))
