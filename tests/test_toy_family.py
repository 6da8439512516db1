"""A new family needs one file in models/ and one line in the registry.

Shown on a copy of the repository, to which a toy family is added in these places only: the rules hold, and summary,
gradcheck, training, evaluation, prediction, the figures and files of weights work with it.
"""
import shutil

import pytest

from rules import RULES, read_house
from test_toy_op import ROOT, change, run
from tiny import image_folder

FAMILY = '''"""A toy: a ViT without positions, which averages its tokens and doubles the mean."""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..checks import check_numbers, check_types
from ..layers import Linear
from ..module import Model, Stage
from . import rows
from .block import Block, SelfAttention
from .embed import PatchEmbed


@dataclass(frozen=True)
class ToyConfig:
    """A toy's fields; Block reads mlp_ratio, act, norm_eps and drop_rate."""

    img_size: int = 16
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 3
    width: int = 12
    depth: int = 2
    mlp_ratio: float = 2.0
    act: str = "relu"
    norm_eps: float = 1e-6
    drop_rate: float = 0.1

    def __post_init__(self):
        check_types(self)
        check_numbers(self, "img_size", "patch_size", "width", "depth", above=0)


class ToyCache(NamedTuple):
    """The caches of the parts, and the number of tokens."""

    embed: tuple
    blocks: list
    head: tuple
    tokens: int


class Toy(Model):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)"""

    def __init__(self, config, seed=0, dtype="float32", materialise=True):
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, config.in_chans, config.width)
        self.blocks = [Block(config.width, SelfAttention(config.width, 3), config, 0.0) for _ in range(config.depth)]
        self.head = Linear(config.width, config.num_classes)
        self.finish(seed, dtype, materialise)

    def forward_pass(self, images, down):
        x, c_embed = self.patch_embed.forward(images)
        c_blocks = []
        for block in self.blocks:
            x, cache = block.forward(x, down)
            c_blocks.append(cache)
        logits, c_head = self.head.forward(2 * x.mean(axis=1))
        return logits, ToyCache(c_embed, c_blocks, c_head, x.shape[1])

    def backward_pass(self, dlogits, cache):
        dmean = 2 * self.head.backward(dlogits, cache.head)
        dx = np.repeat(dmean[:, None] / cache.tokens, cache.tokens, axis=1)
        for block, c in zip(reversed(self.blocks), reversed(cache.blocks)):
            dx = block.backward(dx, c)
        return self.patch_embed.backward(dx, cache.embed)

    def stages(self):
        P, side = self.config.patch_size, self.config.img_size // self.config.patch_size
        return [Stage("blocks", self.blocks, (side, side), 0, (P, P, 0))]

    def block_caches(self, cache):
        return cache.parts.blocks

    def embed_filters(self):
        return self.patch_embed.filters

    def rows(self):
        tokens, size = (self.tokens,), (self.config.img_size,) * 2
        blocks = [row for i, block in enumerate(self.blocks) for row in block.rows(f"blocks.{i}", tokens)]
        return [*self.patch_embed.rows("patch_embed", tokens, size), *blocks, rows.linear("head", self.head, ())]


PRESETS = {"toy_16": ToyConfig()}
'''
USE = '''
import copy
import numpy as np
import numpyvit
model = numpyvit.create_model("toy_16", seed=1)
numpyvit.save_weights(model, "w.safetensors")
other = numpyvit.create_model("toy", seed=2)
assert numpyvit.load_weights(other, "w.safetensors") == [] and np.array_equal(model.flat, other.flat)
twin, images = copy.deepcopy(model), np.ones((2, 3, 16, 16), "f4")
assert np.array_equal(twin(images), model(images)) and not np.shares_memory(twin.flat, model.flat)
print(model)
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the repository in which the toy family has its places, a folder of images, and a run of the toy."""
    root = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "numpyvit", root / "numpyvit", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "numpyvit/models/toy.py").write_text(FAMILY)
    change(root / "numpyvit/models/__init__.py", "import cvt, swin, vit", "import cvt, swin, toy, vit")
    change(root / "numpyvit/models/__init__.py", "FAMILIES = {\n", "FAMILIES = {\n"
           '    "toy": Family(toy.ToyConfig, toy.Toy, toy.PRESETS),\n')
    image_folder(root / "images")
    status, out = run(root, "-m", "numpyvit", "train", "--model", "toy", "--data", "folder:images", "--out", "run",
                      "--batch-size", "16", "--val", "6", "--steps", "3", "--threads", "1")
    assert status == 0, out
    return root


def test_the_rules_hold(house):
    broken = {rule.__name__ for rule in RULES if rule(read_house(house / "numpyvit")).keys() - rule(read_house()).keys()}
    assert not broken


@pytest.mark.parametrize("command, word", [
    ("evaluate run", "%"), ("predict run IMAGE", "%"), ("models toy*", "toy_16"), ("summary toy --layers", "blocks.1.mlp.fc2"),
    ("gradcheck toy", "ok"), ("attention run IMAGE -o f.png", "f.png"), ("rollout run IMAGE -o f.png", "f.png"),
    ("saliency run IMAGE -o f.png", "f.png"), ("distance run IMAGE -o f.png", "f.png"), ("filters run -o f.png", "f.png")])
def test_commands(house, command, word):
    image = next((house / "images").rglob("*.png"))
    status, out = run(house, "-m", "numpyvit", *(str(image) if part == "IMAGE" else part for part in command.split()))
    assert status == 0 and word in out, out


@pytest.mark.parametrize("command, message", [("positions run -o f.png", "this Toy has no position table"),
                                              ("bias run -o f.png", "this Toy has no relative position biases")])
def test_what_it_has_not(house, command, message):
    status, out = run(house, "-m", "numpyvit", *command.split())
    assert status == 2 and message in out, out


def test_weights_and_copies(house):
    status, out = run(house, "-c", USE)
    assert status == 0 and "toy_16: " in out, out
