"""The end of a run: the test images are scored once, weights and figures are written, and curves are drawn."""
import json
import time

from ..files.atomic import write_atomic
from ..runs import curves
from ..runs.classifier import equip
from ..weights import load_weights, save_weights
from .progress import clock
from .trainer import share_weights


def finish(trainer):
    """Score the test images, unless the recipe leaves them alone; rank 0 writes what a run leaves.

    →   the contents of result.json: test_accuracy of the images as they are, and test_accuracy_mirror of the mean over
    each image and its mirror image, where the recipe mirrors images at all.
    """
    run, data, recipe, say = trainer.run, trainer.config.data, trainer.recipe, trainer.progress.say
    result = {"weights": choose_weights(trainer), "steps": run.position.step,
              "epochs": run.position.step / trainer.steps_per_epoch}
    if result["weights"] == "best on validation":
        result["best_step"] = trainer.watched.best_step()
    result |= {"ended": "patience"} if trainer.watched.impatient else {}
    started = time.monotonic()
    if recipe.test:
        result |= score_test(trainer)
    else:
        say("the test images are left alone (--no-test)")
    seconds = run.position.seconds + time.monotonic() - started
    trainer.progress.end()
    first = trainer.world.rank == 0 and run.has_files
    equip(trainer.model, data)
    with trainer.averaged_weights():
        if first:
            save_weights(trainer.model, run.file("weights.safetensors"))
    result |= {"seconds": seconds, "data": data.name, "notice": data.notice}
    if not first:
        return result
    write_atomic(run.file("result.json"), [(json.dumps(result, indent=1) + "\n").encode()])
    if recipe.test:
        mirrored = result.get("test_accuracy_mirror")
        mirrored = "" if mirrored is None else f" ({mirrored:.2%} with the mirror image)"
        best = result["weights"] == "best on validation"
        words = "weights that were best on validation" if best else f"{result['weights']} weights"
        say(f"test accuracy {result['test_accuracy']:.2%}{mirrored} on the {data.test:,} test images of {data.name}, "
            f"with the {words}, after {clock(seconds)} of training in {run.path}")
    if data.notice:
        say(data.notice)
    return result


def draw(trainer):
    """Rank 0 draws the curves of the run."""
    if trainer.world.rank == 0 and trainer.run.has_files:
        trainer.progress.say(curves.draw_curves(trainer.run))


def choose_weights(trainer):
    """Give the model the weights that the recipe keeps. → which these are, in words"""
    if trainer.recipe.keep == "last" or not trainer.watched.accuracies:
        return "running average" if trainer.recipe.ema else "last"
    if trainer.watched.best:
        trainer.model.load_state_dict(trainer.watched.best)
    elif trainer.world.rank == 0:
        load_weights(trainer.model, trainer.run.file("best.safetensors"))
    share_weights(trainer.world, trainer.model)
    trainer.ends = True
    return "best on validation"


def score_test(trainer):
    """Loss and accuracy of the test images, plain and with the mirror image: entries of result.json."""
    images, labels = trainer.dataset.test.images, trainer.dataset.test.labels
    trainer.progress.say(f"scoring the {len(labels):,} test images, once")
    loss, accuracy = trainer.evaluate(images, labels)
    step = trainer.run.position.step
    trainer.record({"kind": "test", "step": step, "loss": loss, "accuracy": accuracy})
    trainer.progress.evaluated("test acc", accuracy)
    scores = {"test_accuracy": accuracy, "test_loss": loss}
    if trainer.recipe.flip != "none":
        loss, accuracy = trainer.evaluate(images, labels, "mirror")
        scores |= {"test_accuracy_mirror": accuracy, "test_loss_mirror": loss}
    return scores
