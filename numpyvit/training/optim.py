"""Optimisers over a model's flat vector: groups of parameters, clipping by global norm, an average of the weights."""
import fnmatch
import math
from typing import NamedTuple

import numpy as np

from .. import functional as F
from ..checks import check_number, fail, shown
from ..ops.optim import OPTIMIZERS, Rule, Update, optimizer_settings
from ..threads import CHUNK, Pool
from .exchange import Ranges
from .ranks import ALONE

INLINE = Pool(1)                                                             # everything in the caller's thread


class Group(NamedTuple):
    """A stretch of the flat vector that is updated alike: by one rule, with one decay and share of the learning rate.

    shape: of the one matrix (rows, columns) that it is, where the rule takes matrices; else None.
    """
    rule: Rule
    decay: float
    share: float
    start: int
    end: int
    shape: tuple | None = None


class Optimizer:
    """The state that goes with model.flat: the vectors that the rules remember, and the average of the weights.
    Where several ranks train the model, each has the state of its own range of the vector and updates this range.

    kind          a name in the table OPTIMIZERS
    weight_decay  of weight matrices; nothing else decays
    clip_norm     the gradient is scaled down to this global norm (0: never)
    ema_decay     of the running average of the weights (0: none); early on it is min(ema_decay, (1 + t) / (10 + t))
    lr_rest       share of the learning rate for the parameters that the kind's first rule leaves over (Muon, to AdamW)
    settings      those of the kind's rules, such as beta2, where they are not to be the table's
    world         the Ranks that train the model together
    freeze        patterns of names, divided by commas, whose parameters keep their values and have no gradient
    Raises UserError for an unknown kind or setting, and for a number out of its range.
    """

    def __init__(self, model, kind="adamw", weight_decay=0.05, clip_norm=0.0, ema_decay=0.0, world=ALONE, lr_rest=1.0,
                 freeze="", **settings):
        if kind not in OPTIMIZERS:
            fail("optimizer", f"one of {', '.join(OPTIMIZERS)}", shown(kind))
        known = optimizer_settings(kind)
        for name in settings.keys() - known.keys():
            fail(f"optimizer {kind}", f"only the settings {', '.join(known)}", name)
        self.settings = known | settings
        for name, value in self.settings.items():
            check_number(name, value, least=0, below=math.inf if name == "eps" else 1)
        check_number("weight_decay", weight_decay, least=0)
        check_number("clip_norm", clip_norm, least=0)
        check_number("ema_decay", ema_decay, least=0, below=1)
        check_number("lr_rest", lr_rest, above=0)
        self.model, self.kind, self.clip_norm, self.ema_decay = model, kind, clip_norm, ema_decay
        self.frozen = frozen_ranges(model, freeze)
        self.groups = parameter_groups(model, OPTIMIZERS[kind], weight_decay, lr_rest, self.frozen)
        matrices = [(group.start, group.end) for group in self.groups if group.shape]
        self.ranges = Ranges(world, model.flat.size, matrices)
        self.sums = np.zeros(-(-model.flat.size // CHUNK))
        self.begin()

    def begin(self):
        """Have the state from before the first step: vectors of zeros, and the model's weights as their average."""
        model, ranges = self.model, self.ranges
        names = [name for rule in OPTIMIZERS[self.kind] for name in rule.state]
        self.vectors = self.ema = None                                       # freed before the new ones are made
        self.vectors = {name: np.zeros(ranges.hi - ranges.lo, model.dtype) for name in names}
        self.ema = model.flat[ranges.lo:ranges.hi].copy() if self.ema_decay else None
        buffers = model.named_buffers() if self.ema_decay else ()
        self.ema_buffers = {name: buffer.copy() for name, buffer in buffers if buffer.dtype.kind == "f"}

    def grad_norm(self, pool=INLINE):
        """√Σ grad², from chunks of CHUNK elements summed in float64 and added in order.

        Not finite if any element is not.
        """
        for start, end in self.frozen.values():
            self.model.flat_grad[start:end] = 0
        first, end = self.ranges.chunks
        own, sums = self.model.flat_grad[first * CHUNK:end * CHUNK], self.sums[first:end]

        def fill(lo, hi):
            F.square_sums(own[lo:hi], sums[lo // CHUNK:-(-hi // CHUNK)], CHUNK)

        self.sums[...] = 0
        pool.each_range(fill, own.size)
        return math.sqrt(float(self.ranges.world.together(self.sums).sum()))

    def step(self, lr, step, norm, pool=INLINE):
        """Change the weights.   lr: learning rate   step: 1 for the first   norm: of the gradient   pool: who works"""
        scale = min(1.0, self.clip_norm / (norm + 1e-6)) if self.clip_norm else 1.0          # torch's clip_grad_norm_
        now = Update(float(lr), step, scale=float(scale))
        ema_decay = min(self.ema_decay, (1 + step) / (10 + step))
        own = self.ranges
        elementwise = [group for group in self.groups if not group.shape]
        matrices = [group for group in self.groups if group.shape and own.lo <= group.start and group.end <= own.hi]

        def run(lo, hi):
            lo, hi = own.lo + lo, own.lo + hi
            for group in elementwise:
                if max(lo, group.start) < min(hi, group.end):
                    self.update(group, max(lo, group.start), min(hi, group.end), now)
            if self.ema is not None:
                F.average_step(self.model.flat[lo:hi], self.ema[lo - own.lo:hi - own.lo], ema_decay)

        matrices.sort(key=lambda group: group.start - group.end)             # the largest first
        pool.map(lambda group: self.update(group, group.start, group.end, now), matrices)
        pool.each_range(run, own.hi - own.lo)
        own.share(self.model.flat)
        buffers = dict(self.model.named_buffers()) if self.ema_buffers else {}
        for name, average in self.ema_buffers.items():
            average += (1 - ema_decay) * (buffers[name] - average)

    def update(self, group, a, b, now):
        """One step of the elements a to b of the flat vector: a part of the group, all of it if it is a matrix."""
        rule = group.rule
        lo = self.ranges.lo
        parts = [self.model.flat[a:b], self.model.flat_grad[a:b]]
        parts += [self.vectors[name][a - lo:b - lo] for name in rule.state]
        parts = parts if group.shape is None else [part.reshape(group.shape) for part in parts]
        now = now._replace(lr=now.lr * group.share, decay=group.decay)
        getattr(F, rule.step)(*parts, now, *(self.settings[name] for name in rule.settings))

    def compile(self):
        """Have Numba compile the elementwise steps, or load them: a step of no elements."""
        lo = self.ranges.lo
        for group in (group for group in self.groups if not group.shape):
            self.update(group, lo, lo, Update(0.0))
        F.average_step(self.model.flat[:0], self.model.flat[:0], 0.0)
        F.square_sums(self.model.flat[:0], self.sums[:0], CHUNK)

    def own_state(self):
        """{name: the array itself} of all that this process remembers."""
        return self.own_vectors() | {f"ema/{name}": average for name, average in self.ema_buffers.items()}

    def own_vectors(self):
        """{name: the vector itself}, of the own range"""
        vectors = {f"optimizer/{name}": vector for name, vector in self.vectors.items()}
        return vectors if self.ema is None else vectors | {"ema": self.ema}

    def state(self):
        """{name: array} of all that a later process needs to go on exactly. All ranks call it; rank 0 gets it whole."""
        return self.own_state() | {name: self.ranges.collect(vector) for name, vector in self.own_vectors().items()}

    def load(self, state):
        """Go on from this state(), of which rank 0 alone needs the arrays."""
        for name, array in self.own_state().items():
            if name in self.own_vectors():
                self.ranges.scatter(state.get(name), array)
            else:
                array[...] = state.get(name, array)
                self.ranges.world.bcast(array)


def frozen_ranges(model, freeze):
    """{name: (start, end)} of the parameters that fit one of the patterns, as of files, which commas divide.

    Raises UserError for a pattern that no name fits, and where nothing would be left to train.
    """
    patterns = [pattern.strip() for pattern in freeze.split(",") if pattern.strip()]
    layout = list(model.layout())
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name, *_ in layout):
            fail("freeze", f"patterns of names such as {layout[0][0]} and {layout[-1][0]}", shown(pattern))
    frozen = {name: (start, end) for name, _, start, end in layout
              if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    if len(frozen) == len(layout):
        fail("freeze", "patterns that leave something to train", shown(freeze))
    return frozen


def parameter_groups(model, rules, weight_decay, lr_rest=1.0, frozen=()):
    """[Group, …] of all parameters, in the order of the flat vector; a parameter follows the first rule that takes it.

    Neighbours of one rule and decay are one group; a matrix for a rule of matrices is a group of its own.
    frozen: names of parameters that belong to no group.
    """
    groups, hidden, cut = [], hidden_matrices(model), False
    for name, p, start, end in model.layout():
        if name in frozen:
            cut = True                                                       # no group reaches over these
            continue
        rule = next(rule for rule in rules if not rule.matrices or name in hidden)
        decay, share = float(weight_decay) if p.decay else 0.0, 1.0 if rule is rules[0] else float(lr_rest)
        if rule.matrices:
            groups.append(Group(rule, decay, share, start, end, (p.shape[0], p.size // p.shape[0])))
        elif groups and groups[-1][:3] == (rule, decay, share) and not cut:
            groups[-1] = groups[-1]._replace(end=end)
        else:
            groups.append(Group(rule, decay, share, start, end))
        cut = False
    return groups


def hidden_matrices(model):
    """The names of what a rule for matrices takes: weight matrices and convolution kernels between hidden layers.

    Not among them are the layer that reads pixels and the layer that makes logits (model.first_and_last), and depthwise
    kernels, which are one small filter a channel.   Jordan et al. 2024, "Muon", under "Definition"
    """
    weights = [(name, p) for name, p, _, _ in model.layout() if p.decay and len(p.shape) > 1]
    return {name for name, p in weights if p.shape[1] > 1 and not name.startswith(model.first_and_last)}
