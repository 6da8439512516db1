"""Training from Python, in a notebook or a script: a model and a data set that are there already."""
import dataclasses
import os

from ..checks import fail, shown
from ..data import Dataset, load
from ..data.registry import TABLE, recipe_defaults, split_name
from ..errors import Interrupted, UserError
from ..module import Model, pair
from ..runs.folder import FollowedRun
from ..weights.load import describe_model
from . import prepare
from .loop import run_together
from .recipe import recipe_for
from .trainer import Trainer

NOT_HERE = {                                                                 # settings of a recipe that fit refuses
    "init": "fit begins with the weights that the model has: leave out init, and give the model that "
            "numpyvit.load_model(PATH) returns",
    "dtype": "the model has its dtype already: leave out dtype, and give numpyvit.create_model the dtype",
    "model_fields": "the model has its fields already: leave out model_fields, and give numpyvit.create_model the "
                    "fields",
    "data": "fit trains on its argument dataset: leave out data"}


def fit(model, dataset, recipe=None, out=None, threads=None, callback=None, console=None, **settings):
    """Train the model in place. → a dict: test_accuracy, steps, seconds and the like, and history, a list of dicts

        model = numpyvit.create_model("vit_pico_patch4_32", num_classes=10)
        result = numpyvit.fit(model, "shapes", epochs=2)

    dataset   a Dataset, or the name of one, such as "cifar10" or "folder:ROOT"
    recipe    a Recipe, whose model and data are those given here; settings: its fields, such as epochs=2, lr=1e-3, or
              data_dir, where a data set of that name has its files
    out       folder of a run with checkpoints; without it, nothing is written
    callback  callback(entry) after every step and every look at the validation images; entry is a dict as in
              metrics.jsonl: kind, step, loss, accuracy. The run ends early if it returns True.
    threads, console   as in train

    Ctrl-C ends the training; the model has the weights of that step, and the result has no test_accuracy.
    Raises UserError where model, data set and settings do not fit each other.
    """
    check_settings(recipe, settings)
    data_dir = settings.get("data_dir", getattr(recipe, "data_dir", None))
    if isinstance(dataset, str):
        dataset, data_dir = split_name(dataset, data_dir)
        settings["data_dir"] = data_dir and os.fspath(data_dir)              # where --resume and evaluate look
    dataset = check_arguments(model, dataset, callback, data_dir)
    check_fit(model, dataset)
    recipe, history, trainers = recipe_of(model, dataset, recipe, settings), [], []

    def remember(entry):
        history.append(entry)
        return callback(entry) if callback else None

    def begin(world, progress, threads, held):
        if world.size > 1:
            raise UserError("fit trains in one process; under mpiexec use numpyvit train")
        run = prepare.free_folder(out, "") if out else FollowedRun("memory")
        trainer = Trainer(run, prepare.new_config(recipe, dataset, model), dataset, model, threads, progress, world)
        trainer.callback = remember
        trainers.append(trainer)
        if out:
            run.create()
            held.enter_context(run.lock())
            run.write_config(trainer.config)
            run.save_checkpoint(model, trainer.optimizer, trainer.config, 0, 0.0)            # weights may be trained
        return trainer, None

    try:
        result = run_together(begin, threads, None, console)
    except Interrupted:
        if out:
            raise
        result = {"steps": trainers[0].run.position.step}
    trainers[0].use_final_weights()
    return result | {"history": history}


def recipe_of(model, dataset, recipe, settings):
    """The Recipe for this model and data set. UserError for a setting that a recipe does not have."""
    described = {"model": describe_model(model)["family"], "model_fields": dataclasses.asdict(model.config),
                 "dtype": str(model.dtype)}
    try:
        if recipe is not None:
            return dataclasses.replace(recipe, **described, data=dataset.name, **settings)
        defaults = recipe_defaults(dataset.name) if dataset.name in TABLE else {}
        return dataclasses.replace(recipe_for(**{**defaults, **described, **settings}), data=dataset.name)
    except TypeError as error:
        raise UserError(f"fit: {str(error).replace('Recipe.__init__() got an ', '')}") from None


def check_settings(recipe, settings):
    """Raise UserError for settings that the model or the data set decides."""
    for name, reason in NOT_HERE.items():
        if name in settings or name == "init" and getattr(recipe, "init", None):
            raise UserError(f"{name}: {reason}")


def check_arguments(model, dataset, callback, data_dir):
    """→ the Dataset, loaded if its name is given.   Raises UserError for arguments of another kind."""
    if not isinstance(model, Model):
        fail("model", "a model that numpyvit.create_model or load_model made", shown(model))
    if callback is not None and not callable(callback):
        fail("callback", "a function of one argument, or None", shown(callback))
    if isinstance(dataset, str):
        return load(dataset, data_dir, pair(model.config.img_size)[0])
    if not isinstance(dataset, Dataset):
        fail("dataset", "the name of a data set or a Dataset", f"a {type(dataset).__name__}; of arrays it is Dataset("
             "name, classes, ImageSet(images, labels), ImageSet(test_images, test_labels), checksum) of numpyvit.data, "
             "with images (n, C, H, W) uint8, labels (n,) int64, and any text as name and checksum")
    return dataset


def check_fit(model, dataset):
    """Raise UserError unless the data set's images and classes are those of the model."""
    config, shape = model.config, dataset.train.images.shape[1:]
    expected = (config.in_chans, *pair(config.img_size))
    if tuple(shape) != expected:
        raise UserError(f"the model takes images of shape {expected}, the data set {dataset.name} has {tuple(shape)}")
    if config.num_classes != len(dataset.classes):
        raise UserError(f"the model has {config.num_classes} classes, the data set {dataset.name} has "
                        f"{len(dataset.classes)}; create the model with num_classes={len(dataset.classes)}")
