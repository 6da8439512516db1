"""Model: what every family of models promises to training, to the figures and to the files of weights.

Other code asks the model, and never which family the model is of. A family is one file in models/: a subclass of Model
that fills in those methods below which raise NotImplementedError, and overrides others where its answer differs.
"""
from typing import Any, NamedTuple

import numpy as np

from .checks import check_number, fail, shown
from .errors import UserError
from .flat import ALIGN, EVALUATION, LOGITS_ALONE, FlatModule, Module, Parameter, Pass  # noqa: F401, offered from here
from .ops.random_bits import image_seeds
from .ops.softmax import softmax_forward


class Stage(NamedTuple):
    """Blocks that work on the tokens of one grid.

    name: of the list of blocks, as in "layers.0.blocks"; the i-th block's parameters begin with "layers.0.blocks.i."
    blocks: [Block]. block.attn has probs(cache), the probabilities of its attention, and in_image(probs, grid, b), the
    probabilities of image b between the tokens of the grid, (nh, N, N).
    grid: (rows, columns)   class_token: 0 or 1, how many tokens stand before those of the grid
    embed: (kernel, stride, padding) of the patches that became tokens, in pixels or in tokens of the stage before
    """

    name: str
    blocks: list
    grid: tuple[int, int]
    class_token: int
    embed: tuple[int, int, int]


class PositionTable(NamedTuple):
    """How the rows of a table lie on a grid: class_token rows, then grid[0] · grid[1] rows, row by row.

    of_offsets False: a row a token, in a table of shape (1, [class +] rows · columns, C).
    of_offsets True: a row an offset between two tokens of a window, 2·M − 1 offsets a side, in ((2·M − 1)², nh).
    """

    grid: tuple[int, int]
    class_token: int = 0
    of_offsets: bool = False


class ModelCache(NamedTuple):
    """What forward hands to backward.

    config: of the model   batch: number of images   statistics: what batch norms measured, None in evaluation
    parts: the caches of the model's parts, as the family's forward_pass returned them
    """

    config: Any
    batch: int
    statistics: dict | None
    parts: Any

    def __repr__(self):                              # all the numbers would fill a notebook
        return f"<ModelCache({', '.join(self._fields)}) of a batch of {self.batch}: what backward needs>"


class Model(FlatModule):
    """images (B, in_chans, H, W)   →   logits (B, num_classes)

    A subclass is built from its config, a frozen dataclass with at least img_size, in_chans and num_classes.
    __init__(config, seed, dtype, materialise) sets self.config, builds the layers and calls finish(seed, dtype,
    materialise) last.
    """

    title = ""                                   # what create_model was given: a preset or family, and other fields
    first_and_last = ("patch_embed.", "head.")   # how the names of the layers that read pixels and make logits begin
    positions_from = "nothing"                   # where a model without a position_table knows positions from
    fixed_positions = None                       # the table that is added but not learned, (1, N, C), or None
    reads_pixels = None                          # the Conv whose filters look at the pixels, None for another layer
    caches_once = False                          # whether backward frees the caches of a training forward
    folded = False                               # whether batch norms are part of convolutions, see models/fold.py

    # --- a training step

    def forward(self, images, train: bool = False, rng=None) -> tuple[np.ndarray, ModelCache]:
        """logits (B, K) of images (B, in_chans, H, W), and the cache that backward needs. The model is not changed.

        train: dropout and drop path act, and batch norms normalise over these images; whoever trains passes
        batch_statistics(cache) to update_buffers.
        rng: source of the random bits, an int, a numpy Generator, or one uint64 seed an image (B,).
        Raises UserError for images of another shape or kind, or where rng is needed and missing.
        """
        images = self.check_images(images)
        down = Pass(self.check_seeds(rng, len(images)), {}, once=self.caches_once) if train else EVALUATION
        if train:
            self.check_batch(len(images))
        logits, parts = self.forward_pass(images, down)
        return logits, ModelCache(self.config, len(images), down.statistics, parts)

    def backward(self, dlogits, cache: ModelCache) -> np.ndarray:
        """Add into every parameter's .grad and return dimages (B, in_chans, H, W).   dlogits (B, K)

        After for_training_steps() it returns None, and a cache serves once. Raises UserError for gradients of another
        shape, and for a cache of a model of another config or one that has served.
        """
        if not isinstance(cache, ModelCache) or cache.config != self.config:
            what = f"what forward of this {type(self).__name__} returned"
            if not isinstance(cache, ModelCache):
                fail("cache", what, f"a {type(cache).__name__}")
            fail("cache", f"{what}, of {self.config}", f"that of a model of {cache.config}")
        return self.backward_pass(self.check_logits_gradient(dlogits, cache.batch), cache.parts)

    def for_training_steps(self, frozen=()):
        """Let backward do no more than a step of training needs. Returns self.

        It computes no gradient of the images and returns None, where the family names the Conv that reads_pixels; and
        it frees the caches of a training forward one after the other, so that they serve once.
        frozen: names of parameters whose gradients may be left out as well
        """
        self.caches_once, first = True, self.reads_pixels
        if first is not None:
            first.needs_dx = False
            first.learns = any(f"{first.name}.{name}" not in frozen for name, _ in first.named_parameters())
        return self

    def __call__(self, images) -> np.ndarray:
        """logits (B, K) of images, in evaluation: those of forward up to rounding, with less work and memory."""
        return self.forward_pass(self.check_images(images), LOGITS_ALONE)[0]

    def for_inference(self):
        """A model for evaluation, with the same logits up to rounding. By default this model itself."""
        return self

    def forward_pass(self, images, down: Pass):
        """logits and caches of images that are checked.   down: the Pass, for layers that draw bits or measure"""
        raise NotImplementedError

    def backward_pass(self, dlogits, cache):
        """dimages: forward_pass, read from the bottom.   dlogits are checked; cache: forward_pass's"""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: copy of the array}, parameters then buffers, in the reference implementation's names and layouts.

        This is what files of weights hold. UserError for a folded model: no other model has its parameters.
        """
        if self.folded:
            fail("weights", "those of a model with its batch norms",
                 "those of a folded one, which no model can load; save the model that it was made from")
        return super().state_dict()

    def batch_statistics(self, cache: ModelCache) -> dict:
        """{name of a batch norm: (mean, unbiased variance)} of a training forward; {} without batch norms."""
        return cache.statistics or {}

    # --- what the model looks like

    def stages(self) -> list[Stage]:
        """The stages, from the first to the last; most families have several, a ViT has one."""
        raise NotImplementedError

    def rows(self) -> list:
        """The layers in the order of forward, as models.rows.Row: shape, parameters, multiply-adds, numbers written."""
        raise NotImplementedError

    def busiest(self) -> Stage:
        """The stage with most of the blocks, the first of several."""
        return max(self.stages(), key=lambda stage: len(stage.blocks))

    @property
    def tokens(self) -> int:
        """Tokens of one image in the busiest stage."""
        stage = self.busiest()
        return stage.class_token + stage.grid[0] * stage.grid[1]

    @property
    def width(self) -> int:
        """Channels of the busiest stage's tokens."""
        return self.busiest().blocks[0].width

    def block_caches(self, cache: ModelCache) -> list:
        """The BlockCache of every block, from the first to the last, out of forward's cache."""
        raise NotImplementedError

    def attention_maps(self, cache: ModelCache) -> list[np.ndarray]:
        """The attention probabilities of every block, from forward's cache, as the block computes them: rows sum to 1.

        The axes depend on the family, as (B·nW, nh, M², M²) of windows; block.attn.in_image turns the probabilities of
        any family into (nh, N, N) of one image.
        """
        blocks = [block for stage in self.stages() for block in stage.blocks]
        return [block.attn.probs(c.attn) for block, c in zip(blocks, self.block_caches(cache), strict=True)]

    def position_table(self) -> np.ndarray | None:
        """The table that is added to the tokens of the grid, (rows, columns, C), learned or fixed; None without one."""

    def position_tables(self) -> dict[str, PositionTable]:
        """{name: PositionTable} of the parameters that may be resized for another resolution."""
        return {}

    def relative_position_tables(self) -> dict[str, np.ndarray]:
        """{name of the block: (nh, 2M − 1, 2M − 1)}: what head h adds to a score, by row and column of query − key."""
        return {}

    def embed_filters(self) -> np.ndarray:
        """The filters that look at the pixels, (C, in_chans, P, P)."""
        if self.reads_pixels is None:
            raise NotImplementedError
        return self.reads_pixels.weight.data

    def __repr__(self):
        """One line: the preset or family, the number of parameters, images and classes, the dtype."""
        H, W = pair(self.config.img_size)
        dtype = f", {self.dtype}" if hasattr(self, "flat") else ", not materialised"
        images, classes = f"images ({self.config.in_chans}, {H}, {W})", f"{self.config.num_classes} classes"
        title = self.title or type(self).__name__
        return f"<{title}: {self.num_parameters():,} parameters, {images} → {classes}{dtype}>"

    # --- what came with published weights

    classes = None                                   # the names of the classes
    preprocessing = None                             # image → (C, H, W), a function whose str() says what it does
    notes = ()                                       # what was done to the weights, in sentences

    def predict(self, image, top=5):
        """[(class, probability), …] of one image, the most probable first; for a model that load_model made.

        image: a path, a Pillow image or an array of pixels. Classes without names are numbers.
        """
        if self.preprocessing is None:
            raise UserError("this model does not know how its images are prepared: build it with numpyvit.load_model, "
                            "or call it with normalised images")
        logits = self(self.preprocessing(image, self.dtype)[None])[0].astype(np.float64)
        probabilities, _ = softmax_forward(logits)
        check_number("top", top, whole=True, least=1)
        best = (-probabilities).argsort(kind="stable")[:top]
        return [(self.classes[k] if self.classes else int(k), float(probabilities[k])) for k in best]

    # --- what came in

    def check_images(self, images) -> np.ndarray:
        """images, as the model's dtype, or a UserError that says what was expected. (B, in_chans, H, W)"""
        images = np.asarray(images)
        if images.dtype.kind in "USO":
            fail("images", "an array of normalised pixels, as predict prepares from a file", shown(images.tolist()))
        H, W = pair(self.config.img_size)
        expected = (self.config.in_chans, H, W)
        if images.ndim != 4 or images.shape[1:] != expected or len(images) == 0:
            fail("images", f"shape (B, {', '.join(map(str, expected))})",
                 f"{images.shape}; resize the images or create the model with img_size")
        if images.dtype.kind != "f":
            fail("images", "normalised floats", images.dtype)
        return images.astype(self.dtype, copy=False)

    def check_batch(self, batch: int):
        """A UserError where a family cannot be trained on so few images."""

    def check_seeds(self, rng, batch: int) -> np.ndarray | None:
        """One uint64 seed an image for a training forward, or None where no layer is stochastic."""
        if not self.stochastic:
            return None
        if rng is None:
            fail("rng", "an int, a numpy Generator or one uint64 seed an image, for dropout or drop path", "None")
        return image_seeds(rng, batch)

    def check_logits_gradient(self, dlogits, batch: int) -> np.ndarray:
        """dlogits, as the model's dtype, or a UserError. (B, num_classes)"""
        dlogits = np.asarray(dlogits)
        if dlogits.shape != (batch, self.config.num_classes):
            fail("dlogits", f"shape {(batch, self.config.num_classes)}", dlogits.shape)
        if dlogits.dtype.kind not in "fiu":
            fail("dlogits", "real numbers", dlogits.dtype)
        return dlogits.astype(self.dtype, copy=False)


def pair(size) -> tuple[int, int]:
    """n or (h, w) → (h, w)"""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)
