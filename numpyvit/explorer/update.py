"""One step of a run's optimiser on the tape: what it remembers, the gradient of this image, the new weights."""
import math

from .. import functional as F
from ..ops.optim import OPTIMIZERS, Update
from ..training.optim import is_matrix
from .pack import keep_bits

STATE_BITS = 10                                                              # of what the optimiser remembers


class UpdateStep:
    """The step that a run would take on this one image. Called once a parameter by record().

    kind       a name in the table OPTIMIZERS
    settings   {name: number}: lr, weight_decay, clip_norm and the settings of the kind's rules
    number     of the step, 1 for the first
    vectors    {name: flat vector} of what the optimiser remembers
    """

    def __init__(self, model, kind, settings, number, vectors):
        self.kind, self.rules, self.settings = kind, OPTIMIZERS[kind], settings
        self.number, self.vectors = number, vectors
        self.parameters = {name: (p, start, end) for name, p, start, end in model.layout()}
        self.scale, self.states = None, {}

    def __call__(self, name, parameter, gradient, gradients, tape):
        """parameter, gradient: on the tape; parameter is changed in place.   gradients: of all, for clipping"""
        if self.scale is None:
            norm = math.sqrt(sum(float((tape.value(g.current())**2).sum()) for g in gradients.values()))
            clip = self.settings["clip_norm"]
            self.scale = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        p, start, end = self.parameters[name]
        module, _, own = name.rpartition(".")
        rule = next(rule for rule in self.rules if not rule.matrices or is_matrix(p))
        kept = {key: keep_bits(self.vectors[key][start:end], STATE_BITS).reshape(p.shape) for key in rule.state}
        state = {key: tape.leaf(value, f"{own}.{key}", module, "state") for key, value in kept.items()}
        self.states[name] = [(key, array.current()) for key, array in state.items()]
        arrays = [parameter, gradient, *state.values()]
        if rule.matrices:
            arrays = [a.reshape(p.shape[0], -1) for a in arrays]
        now = Update(self.settings["lr"], self.number, scale=self.scale)
        decay = self.settings["weight_decay"] if p.decay else 0.0
        getattr(F, rule.step)(*arrays, now._replace(decay=decay), *(self.settings[key] for key in rule.settings))
        return parameter.current()


def update_of(classifier):
    """The UpdateStep of a run: its newest checkpoint, the recipe's learning rate. None without the vectors."""
    recipe, checkpoint = classifier.config.recipe, classifier.run.read_checkpoint()
    vectors = {name.removeprefix("optimizer/"): vector for name, vector in checkpoint.tensors.items()
               if name.startswith("optimizer/")}
    wanted = {key for rule in OPTIMIZERS[recipe.optimizer] for key in rule.state}
    if not wanted <= vectors.keys():
        return None
    settings = {key: getattr(recipe, key) for rule in OPTIMIZERS[recipe.optimizer] for key in rule.settings}
    settings |= {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "clip_norm": recipe.clip_norm}
    return UpdateStep(classifier.model, recipe.optimizer, settings, checkpoint.position.step + 1, vectors)
