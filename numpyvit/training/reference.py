"""What a run of a recipe looked like where it was measured: the accuracy to expect at the same place of a new run.

Measured on CIFAR-10, seed 0, 45,000 training and 5,000 validation images; README.md beside this page has the commands.
"""
import dataclasses

import numpy as np

from .recipe import recipe_for

# {preset: {steps of the run: ((step, accuracy of the validation images), …)}}
CURVES = {
    "vit_nano_conv_32": {
        13000: ((703, 0.5976), (1406, 0.6554), (2109, 0.6792), (2812, 0.7124), (3515, 0.7232), (4218, 0.7428),
                (4921, 0.7498), (5624, 0.7512), (6327, 0.7764), (7030, 0.7782), (7733, 0.7778), (8436, 0.8310),
                (9139, 0.8402), (9842, 0.8380), (10545, 0.8518), (11248, 0.8602), (11951, 0.8656), (12654, 0.8690),
                (13000, 0.8700)),
    },
}
OWN = ("seed", "data", "data_dir", "minutes", "epochs", "steps", "test", "shards", "micro_batch")  # not of a recipe


def reference_accuracy(recipe, data, step, steps):
    """The accuracy that the reference run had after the same share of its steps; None where there is none to show.

    recipe, data: the run's Recipe and the name of its data set   step: of steps, where the run is
    The reference run is that of the preset whose number of steps is nearest in proportion; other settings have none.
    """
    curves = CURVES.get(recipe.model, {})
    if not curves or data != "cifar10" or settings(recipe) != settings(recipe_for(model=recipe.model)):
        return None
    nearest = min(curves, key=lambda length: max(length / steps, steps / length))
    if max(nearest / steps, steps / nearest) > 2:
        return None
    places, accuracies = zip(*curves[nearest])
    place = step / steps * nearest
    return float(np.interp(place, places, accuracies)) if place >= places[0] else None


def settings(recipe):
    """All that a recipe says of how to train: {name: value}, without what differs from run to run."""
    return {name: value for name, value in dataclasses.asdict(recipe).items() if name not in OWN}
