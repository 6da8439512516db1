"""Validation images: their accuracy now and then, the best of it, and when to stop waiting for a better one."""
import numpy as np

from ..checks import check_tensors
from ..errors import UserError
from ..files.atomic import size_of
from ..files.safetensors import read_tensors
from ..weights import save_weights
from .reference import reference_accuracy


class Watched:
    """What the validation images of a Trainer have said so far. Every rank has the same accuracies.

    Raises UserError where the recipe asks for the best weights or for patience and there are no validation images.
    """

    def __init__(self, trainer):
        self.trainer, self.accuracies, self.best = trainer, {}, None         # {step: accuracy}
        self.impatient = False                                               # whether patience has ended the run
        for name, asked in (("keep best", trainer.recipe.keep == "best"), ("patience", trainer.recipe.patience > 0)):
            if asked and not len(trainer.val_labels):
                raise UserError(f"{name}: expected validation images, got --val 0")

    def look(self, step):
        """Score the validation images, keep the weights if they are the best, stop the run if patience has ended."""
        trainer = self.trainer
        if not len(trainer.val_labels):
            return
        loss, accuracy = trainer.evaluate(trainer.val_images, trainer.val_labels)
        trainer.record({"kind": "val", "step": step, "loss": loss, "accuracy": accuracy})
        trainer.progress.evaluated("val acc", accuracy)
        plan = trainer.config.plan
        expected = reference_accuracy(trainer.recipe, trainer.config.data.name, step, plan.steps)
        if expected is not None and not plan.start:                          # the curves are of runs in one part
            trainer.progress.evaluated("reference", expected)
        if trainer.recipe.keep == "best" and accuracy > max(self.accuracies.values(), default=-1.0):
            self.keep()
        self.accuracies[step] = accuracy
        self.judge()
        trainer.progress.paused()

    def judge(self):
        """Stop the run if the best accuracy is as many looks ago as the recipe's patience.

        A run that was extended begins to count anew: the looks before the extension are left out. A run that has taken
        its last step needs no stop.
        """
        patience, plan = self.trainer.recipe.patience, self.trainer.config.plan
        accuracies = [accuracy for step, accuracy in self.accuracies.items() if step > plan.start]
        over = max(self.accuracies, default=0) >= plan.steps
        if patience and not over and len(accuracies) - 1 - int(np.argmax(accuracies or [0])) >= patience:
            self.trainer.stopping = self.impatient = True

    def best_step(self):
        """The first step of the best accuracy."""
        return max(self.accuracies, key=self.accuracies.get)

    def why_stopped(self):
        """The sentence for a run that patience has ended."""
        best = self.best_step()
        last, steps, patience = max(self.accuracies), self.trainer.config.plan.steps, self.trainer.recipe.patience
        return (f"stopped after step {last:,} of {steps:,}: no better validation accuracy in {patience} looks than the "
                f"{self.accuracies[best]:.2%} of step {best:,}")

    def with_best_weights(self, accuracies):
        """The accuracies; none, and a sentence, where the run keeps its best weights and those of before are lost."""
        trainer = self.trainer
        if accuracies and trainer.recipe.keep == "best" and trainer.run.has_files:
            try:
                tensors, _ = read_tensors(trainer.run.file("best.safetensors"), expect_checksum=True)
                check_tensors(trainer.model.state_dict(), tensors, "model")
            except (OSError, UserError) as error:
                trainer.progress.say(f"{error}: the best weights of before are lost; the run keeps the best from now "
                                     "on")
                return {}
        return accuracies

    def keep(self):
        """Keep the weights of now: in best.safetensors, or in memory where the run has no files."""
        trainer = self.trainer
        with trainer.averaged_weights():
            if trainer.run.has_files:
                save_weights(trainer.model, trainer.run.file("best.safetensors"))
            elif trainer.world.size == 1:
                self.best = trainer.model.state_dict()

    def restore(self):
        """After a checkpoint was read: the accuracies of the steps before it, from metrics.jsonl."""
        run = self.trainer.run

        def accuracies():
            there = run.position.metrics_bytes and size_of(run.file("metrics.jsonl"))
            looks = [entry for entry in run.read_metrics() if entry.get("kind") == "val"] if there else []
            return self.with_best_weights({entry["step"]: entry["accuracy"] for entry in looks})

        self.accuracies = self.trainer.world.from_first(accuracies)
        self.judge()
