"""What a run of a recipe looked like where it was measured: the accuracy to expect at the same place of a new run.

Measured on CIFAR-10, seed 0, with 1,000 or 5,000 validation images; README.md beside this page has the commands.
"""
import dataclasses

import numpy as np

from .recipe import MINUTES, recipe_for

# {preset: {steps of the run: ((step, accuracy of the validation images), …)}}
CURVES = {
    "vit_mini_convpool_32": {
        867: ((87, 0.4980), (174, 0.7100), (261, 0.7070), (348, 0.7690), (435, 0.7900), (522, 0.7820), (609, 0.8070),
              (696, 0.8180), (783, 0.8550), (867, 0.8660)),
        3500: ((191, 0.6770), (382, 0.7160), (573, 0.7740), (764, 0.7440), (955, 0.7620), (1146, 0.7730),
               (1337, 0.7730), (1528, 0.7820), (1719, 0.8090), (1910, 0.7970), (2101, 0.8130), (2292, 0.8130),
               (2483, 0.8280), (2674, 0.8210), (2865, 0.8610), (3056, 0.8670), (3247, 0.8880), (3438, 0.9070),
               (3500, 0.9070)),
    },
    "cvt_mini_convpool_32": {
        3500: ((191, 0.6660), (382, 0.7200), (573, 0.7620), (764, 0.7500), (955, 0.7660), (1146, 0.7710),
               (1337, 0.7660), (1528, 0.7560), (1719, 0.7940), (1910, 0.8000), (2101, 0.7990), (2292, 0.7890),
               (2483, 0.8130), (2674, 0.8120), (2865, 0.8670), (3056, 0.8690), (3247, 0.8890), (3438, 0.8950),
               (3500, 0.8980)),
    },
    "swin_mini_convpool_32": {
        1960: ((191, 0.6100), (382, 0.6780), (573, 0.7450), (764, 0.7660), (955, 0.7430), (1146, 0.7900),
               (1337, 0.8010), (1528, 0.8400), (1719, 0.8610), (1910, 0.8780), (1960, 0.8750)),
    },
    "vit_nano_patch4_32": {
        11000: ((1146, 0.4980), (2292, 0.6100), (3438, 0.6180), (4584, 0.6270), (5730, 0.5660), (6876, 0.7300),
                (8022, 0.7690), (9168, 0.8020), (10314, 0.8240), (11000, 0.8350)),
    },
    "vit_nano_patch4_rope_32": {
        10000: ((764, 0.5190), (1528, 0.5830), (2292, 0.6250), (3056, 0.6300), (3820, 0.6300), (4584, 0.6630),
                (5348, 0.6890), (6112, 0.6900), (6876, 0.7090), (7640, 0.6950), (8022, 0.7860), (8404, 0.8060),
                (8786, 0.8210), (9168, 0.8440), (9550, 0.8390), (9932, 0.8560), (10000, 0.8590)),
    },
    "vit_nano_conv_32": {
        1980: ((261, 0.5528), (522, 0.6412), (783, 0.6962), (1044, 0.7036), (1305, 0.7758), (1566, 0.8072),
               (1827, 0.8238), (1980, 0.8340)),
        7000: ((351, 0.5436), (702, 0.6168), (1053, 0.6676), (1404, 0.6742), (1755, 0.7178), (2106, 0.7078),
               (2457, 0.7242), (2808, 0.7106), (3159, 0.7504), (3510, 0.7630), (3861, 0.7508), (4212, 0.7938),
               (4563, 0.8178), (4914, 0.8338), (5265, 0.8330), (5616, 0.8392), (5967, 0.8480), (6318, 0.8576),
               (6669, 0.8624), (7000, 0.8710)),
    },
}
LONG = 60.0                                                                  # minutes of the runs of LONG_CURVES
LONG_CURVES = {
    "vit_mini_convpool_32": {
        7000: ((382, 0.7100), (764, 0.7050), (1146, 0.7190), (1528, 0.7770), (1910, 0.7960), (2292, 0.7720),
               (2674, 0.7970), (3056, 0.7910), (3438, 0.8050), (3820, 0.8110), (4202, 0.8010), (4584, 0.8060),
               (4966, 0.8180), (5348, 0.8160), (5730, 0.8670), (6112, 0.8820), (6494, 0.8870), (6876, 0.8970),
               (7000, 0.9020)),
    },
}
OWN = ("seed", "data", "data_dir", "minutes", "epochs", "steps", "test", "shards", "micro_batch")  # not of a recipe


def reference_accuracy(recipe, data, step, steps):
    """The accuracy that the reference run had after the same share of its steps; None where there is none to show.

    recipe, data: the run's Recipe and the name of its data set   step: of steps, where the run is
    Of the preset's reference runs, that one is taken whose number of steps is nearest in proportion. A run with other
    settings than those of the table of recipes has no reference.
    """
    curves = curves_of(recipe)
    if not curves or data != "cifar10":
        return None
    nearest = min(curves, key=lambda length: max(length / steps, steps / length))
    if max(nearest / steps, steps / nearest) > 2:
        return None
    places, accuracies = zip(*curves[nearest])
    place = step / steps * nearest
    return float(np.interp(place, places, accuracies)) if place >= places[0] else None


def curves_of(recipe):
    """{steps of the run: its curve} of the runs of this preset with these settings, {} where there are none."""
    for curves, minutes in ((CURVES, MINUTES), (LONG_CURVES, LONG)):
        if recipe.model in curves and settings(recipe) == settings(recipe_for(model=recipe.model, minutes=minutes)):
            return curves[recipe.model]
    return {}


def settings(recipe):
    """All that a recipe says of how to train: {name: value}, without what differs from run to run."""
    return {name: value for name, value in dataclasses.asdict(recipe).items() if name not in OWN}
