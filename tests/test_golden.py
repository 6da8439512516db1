"""Ten training losses of each family, as torch had them: reproduced here from the seed, without torch.

tests/golden/losses.json was written by `python tests/test_golden.py`, which trains the torch models of torch_models.py with
torch.optim.AdamW in float64, from the weights that numpyvit initialises.
"""
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import numpyvit
from numpyvit import functional as F
from numpyvit.inspection.gradients import TINY
from numpyvit.module import pair
from numpyvit.ops.optim import Update

PATH = Path(__file__).parent / "golden" / "losses.json"
ADAMW = dict(lr=3e-3, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.05)
BETAS = ADAMW["beta1"], ADAMW["beta2"]
FIELDS = {family: tiny[0][0] for family, tiny in TINY.items()}
STEPS, B = 10, 6


def problem(family):
    model = numpyvit.create_model(family, dtype="float64", seed=11, **FIELDS[family])
    rng = np.random.default_rng(12)
    for _, p in model.named_parameters():
        p.data += rng.normal(0, 0.1, p.shape)
    images = rng.standard_normal((B, model.config.in_chans, *pair(model.config.img_size)))
    return model, images, rng.integers(0, model.config.num_classes, B)


@pytest.mark.parametrize("family", FIELDS)
def test_ten_losses(family):
    model, images, labels = problem(family)
    m, v = np.zeros_like(model.flat), np.zeros_like(model.flat)
    losses = []
    for step in range(1, STEPS + 1):
        logits, cache = model.forward(images, train=True, rng=0)
        loss, c_loss = F.cross_entropy_forward(logits, labels, 0.1)
        model.zero_grad()
        model.backward(F.cross_entropy_backward(1.0, c_loss), cache)
        F.adamw_step(model.flat, model.flat_grad, m, v, Update(ADAMW["lr"], step, ADAMW["decay"]), *BETAS, ADAMW["eps"])
        losses.append(float(loss))
    np.testing.assert_allclose(losses, json.loads(PATH.read_text())[family], rtol=1e-9)
    assert losses[-1] < 0.9 * losses[0]


def torch_losses(family):
    import torch
    import torch_models
    model, images, labels = problem(family)
    twin = torch_models.build(family, **dataclasses.asdict(model.config)).double().train()
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in model.state_dict().items()})
    optimiser = torch.optim.AdamW(twin.parameters(), ADAMW["lr"], BETAS, ADAMW["eps"], ADAMW["decay"])
    losses = []
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(images)), torch.from_numpy(labels), label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    PATH.write_text(json.dumps({family: torch_losses(family) for family in FIELDS}, indent=1) + "\n")
