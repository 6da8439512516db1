"""What a run says about itself at its beginning."""
from ..ops.optim import OPTIMIZERS
from .recipe import SETTINGS


def describe(trainer, resumed):
    """Say what is trained on what, and how long."""
    config, data, per_epoch = trainer.config, trainer.config.data, trainer.steps_per_epoch
    trainer.progress.say(f"{config.recipe.model}: {config.model.parameters:,} parameters; {data.name}: {data.train:,} "
                         f"training, {data.val:,} validation, {data.test:,} test images; "
                         f"{trainer.world.describe()}{trainer.lanes.pool.threads} threads")
    trainer.progress.say(how_it_trains(config.recipe))
    if not resumed and small_images_left_out(config.recipe):
        trainer.progress.say(small_images_left_out(config.recipe))
    start = f"continuing after step {trainer.run.position.step} of " if resumed else ""
    trainer.progress.say(f"{start}{config.plan.steps:,} steps of {config.recipe.batch_size} images, "
                         f"{config.plan.steps / per_epoch:.2f} epochs, in {trainer.run.path}")


def small_images_left_out(recipe):
    """A sentence where fields of the model are set, so that the smaller images of its recipe are not used; or ''."""
    usual = SETTINGS.get(recipe.model, {})
    if not usual.get("small_size") or recipe.small_size or not recipe.model_fields:
        return ""
    options = " ".join(f"--{name.replace('_', '-')} {usual[name]:g}" for name in usual if name.startswith("small_"))
    return f"--set changes {recipe.model}, so the smaller images of its recipe are left out; {options} would use them"


def how_it_trains(recipe):
    """The settings of a recipe that matter most, in a sentence."""
    leaves_some = len(OPTIMIZERS[recipe.optimizer]) > 1 and recipe.lr_rest != 1
    rest = f", {recipe.lr * recipe.lr_rest:g} for what it leaves to AdamW" if leaves_some else ""
    more = ""
    if recipe.small_size:
        size = f"{recipe.small_size} × {recipe.small_size} pixels"
        if recipe.small_window:
            size = f"random squares of {recipe.small_window} pixels or more of each image, resized to {size},"
        more = f"; {size} in the first {recipe.small_share:.0%} of the steps"
    if recipe.cutout:
        more += f"; cutout of {recipe.cutout} × {recipe.cutout} pixels"
    if recipe.first_filters == "whitened":
        more += "; the first filters are components of the training images and do not learn"
    return (f"optimizer {recipe.optimizer}, peak learning rate {recipe.lr:g}{rest}, schedule {recipe.schedule}, "
            f"batches of {recipe.batch_size}{more}")
