"""One step of a run's optimiser on the tape: what it remembers, the gradient of this image, the new weights."""
import numpy as np

from .. import functional as F
from ..ops.optim import Update
from ..training.schedule import learning_rate
from ..training.trainer import new_optimizer
from .pack import keep_bits

STATE_BITS = (24, 20, 16, 13, 10)                                            # to be tried; 24 keeps all
LEAST_FOR_MATRICES = 16                                                      # Muon makes small rounding errors large


class UpdateStep:
    """The step that a run would take on this one image. Called once a parameter by record().

    optimizer  an Optimizer of the model   lr: learning rate   number: of the step, 1 for the first
    vectors    {name: flat vector} of what the optimiser remembers
    ended      whether the run has ended before this step, which then has the learning rate of the run's last one
    bits       to how many significant bits the page rounds these vectors; 24 keeps all
    texts      {name: which step the optimiser takes of the parameter}, "" for a frozen one
    """

    def __init__(self, optimizer, kind, lr, number, vectors, ended=False):
        self.optimizer, self.kind, self.lr, self.number, self.vectors = optimizer, kind, float(lr), number, vectors
        self.ended, self.bits, self.tape = ended, STATE_BITS[0], None
        self.parameters = {name: (p, start, end) for name, p, start, end in optimizer.model.layout()}

    def __call__(self, name, parameter, gradient, gradients, tape):
        """parameter, gradient: on the tape; parameter is changed in place.   gradients: of all, for clipping"""
        if self.tape is not tape:
            self.tape, self.states, self.texts, self.clipping = tape, {}, {}, {}
            self.scale = self.clip_scale(gradients) if self.optimizer.clip_norm else 1.0
        if name in self.optimizer.frozen:
            self.texts[name] = ""
            return parameter.current()
        p, start, end = self.parameters[name]
        module, _, own = name.rpartition(".")
        group = next(group for group in self.optimizer.groups if group.start <= start and end <= group.end)
        rule, self.texts[name] = group.rule, self.text(group)
        kept = {key: keep_bits(self.vectors[key][start:end], self.bits).reshape(p.shape) for key in rule.state}
        state = {key: tape.leaf(value, f"{own}.{key}", module, "state") for key, value in kept.items()}
        self.states[name] = [(key, array.current()) for key, array in state.items()]
        arrays = [parameter, gradient, *state.values()]
        if group.shape is not None:
            arrays = [a.reshape(group.shape) for a in arrays]
        lr = self.lr * group.share
        now = Update(lr, self.number, decay=group.decay, scale=self.scale)
        getattr(F, rule.step)(*arrays, now, *(self.optimizer.settings[key] for key in rule.settings))
        return parameter.current()

    def remembered(self):
        """What the rules remember of the parameters that are trained: a part of a vector for each group."""
        return [self.vectors[key][group.start:group.end] for group in self.optimizer.groups for key in group.rule.state]

    def bits_to_try(self):
        """To how many bits the page may round what the optimiser remembers, the most first."""
        matrices = any(group.shape for group in self.optimizer.groups)
        return [bits for bits in STATE_BITS if bits >= LEAST_FOR_MATRICES or not matrices]

    def text(self, group=None):
        """What the page says about the step: of all parameters, or of those of a group, with their own rule and rate"""
        kind, lr = self.kind, self.lr
        if group is not None:
            kind, lr = group.rule.step.removesuffix("_step"), self.lr * group.share
        if self.ended:
            return (f"{kind}, step {self.number:,}, one more than the run took, with the learning rate of step "
                    f"{self.number - 1:,}, its last, {lr:.4g}")
        return f"{kind}, step {self.number:,}, learning rate {lr:.4g}"

    def clip_scale(self, gradients):
        """What clipping multiplies every gradient with, on the tape, as in Optimizer.step: min(1, clip / norm)."""
        trained = [g for name, g in gradients.items() if name not in self.optimizer.frozen]
        squares = np.concatenate([(g * g).sum().reshape(1) for g in trained])
        norm = np.sqrt(squares.sum())
        scale = np.minimum(self.optimizer.clip_norm / (norm + 1e-6), 1.0)
        self.clipping = {"grad_squares": squares, "grad_norm": norm, "clip_scale": scale}
        return scale


def update_of(classifier):
    """The UpdateStep of a run: the next step after its newest checkpoint, with the learning rate of the schedule.

    After the last step of a run, one step more with the learning rate of the last.   None without the vectors, and
    where the classifier's weights are not those that the run goes on from: a running average, or the best ones.
    """
    recipe, plan, checkpoint = classifier.config.recipe, classifier.config.plan, classifier.run.read_checkpoint()
    if checkpoint is None or plan is None or recipe.ema or classifier.step != checkpoint.position.step:
        return None
    optimizer = new_optimizer(classifier.model, recipe)
    vectors = {name.removeprefix("optimizer/"): vector for name, vector in checkpoint.tensors.items()
               if name.startswith("optimizer/")}
    if not optimizer.vectors.keys() <= vectors.keys():
        return None
    done = checkpoint.position.step
    ended = done >= plan.steps or (done > plan.start and classifier.run.is_finished())
    lr = learning_rate(recipe.schedule, done - ended - plan.start, plan.steps - plan.start, recipe.lr, recipe.warmup)
    return UpdateStep(optimizer, recipe.optimizer, lr, done + 1, vectors, ended)
