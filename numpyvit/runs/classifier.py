"""A finished or unfinished run as a classifier: its newest checkpoint, and what it says about images."""
import numpy as np

from ..data import hold_out, load, normalise, read_image
from ..data.views import mean_logits
from ..errors import UserError
from ..module import pair
from ..ops.softmax import softmax_forward
from ..threads import Pool, evaluation_logits
from ..weights import load_weights
from .config import build_model, records_of
from .folder import RunFolder


class Classifier:
    """The model of a run with the weights that count: the running average where the run keeps one, else the last."""

    def __init__(self, path):
        self.run = RunFolder(path)
        self.config = self.run.read_config()
        checkpoint = self.run.read_checkpoint()
        self.model = build_model(self.config, checkpoint)
        if checkpoint:
            checkpoint.restore(self.model)
            self.step = checkpoint.position.step
        elif self.run.is_finished():                                         # somebody deleted its checkpoints
            load_weights(self.model, self.run.file("weights.safetensors"))
            self.step = self.config.plan.steps
        else:
            raise UserError(f"{path}: the run has no checkpoint yet; train on with --resume {path}")
        self.classes = self.config.data.classes
        self.mean, self.std = np.array(self.config.data.mean), np.array(self.config.data.std)

    def logits(self, images, threads=None, world=None, tta="none"):
        """images (n, C, H, W) uint8 → (n, K).   world: the ranks that share the work.   tta: whose views' logits are
        averaged, see data/views.py"""
        def logits_of(views):
            def load_images(lo, hi):
                return normalise(views[lo:hi], self.mean, self.std, self.model.dtype)

            return evaluation_logits(self.model, len(views), load_images, block, pool, world)

        block = 2 * self.config.lanes.micro_batch
        with Pool(threads) as pool:
            return mean_logits(logits_of, images, tta)

    def predict(self, paths, tta="none"):
        """PNG or JPEG files → class probabilities (n, K) float64. Raises UserError for one that cannot be read."""
        side = pair(self.model.config.img_size)[0]
        images = np.stack([read_image(path, side, self.model.config.in_chans) for path in paths])
        probabilities, _ = softmax_forward(self.logits(images, tta=tta).astype(np.float64))
        return probabilities

    def split(self, name, data_dir=None):
        """"test", or the "val" images that the run held out: → images (n, C, H, W) uint8, labels (n,)"""
        recorded, recipe = self.config.data, self.config.recipe
        dataset = load(recorded.name, data_dir or recipe.data_dir, pair(self.model.config.img_size)[0])
        if records_of(dataset) != recorded.checksum:
            raise UserError(f"the data set is not the one of this run: its checksum is {records_of(dataset)}, expected "
                            f"{recorded.checksum}")
        if name == "test":
            return dataset.test.images, dataset.test.labels
        _, images, labels = hold_out(dataset, recorded.val, recipe.seed)
        if not len(labels):
            raise UserError(f"{self.run.path}: the run held out no validation images (--val 0); use --split test")
        return images[:], labels


def confusion_matrix(labels, predicted, K):
    """How often class i (row) was taken for class j (column): (K, K) int64"""
    return np.bincount(labels * K + predicted, minlength=K * K).reshape(K, K)
