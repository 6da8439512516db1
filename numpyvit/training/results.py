"""The end of a run: the test images are scored once, and weights, figures and curves are written."""
import json
import time

from ..files.atomic import write_atomic
from ..runs import curves
from ..weights import save_weights
from .progress import clock


def finish(trainer):
    """Score the test images; rank 0 writes result.json, weights.safetensors and curves.png. → what result.json holds"""
    run, data, recipe, say = trainer.run, trainer.config.data, trainer.recipe, trainer.progress.say
    say(f"scoring the {data.test:,} test images, once")
    started = time.monotonic()
    loss, accuracy = trainer.evaluate(trainer.dataset.test.images, trainer.dataset.test.labels)
    seconds = run.position.seconds + time.monotonic() - started
    run.log("metrics.jsonl", {"kind": "test", "step": run.position.step, "loss": loss, "accuracy": accuracy})
    trainer.progress.evaluated("test acc", accuracy)
    trainer.progress.end()
    first = trainer.world.rank == 0
    with trainer.averaged_weights():
        if first:
            save_weights(trainer.model, run.file("weights.safetensors"))
    result = {"test_accuracy": accuracy, "test_loss": loss, "weights": "running average" if recipe.ema else "last",
              "steps": run.position.step, "epochs": run.position.step / trainer.steps_per_epoch, "seconds": seconds,
              "data": data.name, "notice": data.notice}
    if not first:
        return result
    write_atomic(run.file("result.json"), [(json.dumps(result, indent=1) + "\n").encode()])
    say(f"test accuracy {accuracy:.2%} on the {data.test:,} test images of {data.name}, with the {result['weights']} "
        f"weights, after {clock(seconds)} of training in {run.path}")
    if data.notice:
        say(data.notice)
    say(curves.draw_curves(run))
    return result
