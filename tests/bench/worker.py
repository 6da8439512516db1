"""One competitor in a process of its own, driven over pipes.

    argument: {"who": …, and the arguments of its function} as JSON
    → {"ready": seconds to import and build, "first_step": seconds}, or {"error": "…"}
    "3\\n" on standard input   → {"seconds": [three numbers], "peak_mb": the process's largest resident memory so far}

Imports stand inside the functions: a process holds the memory of its own library only.
"""
import itertools
import json
import os
import sys
import time


def numpyvit_step(family, fields, batch, threads, inference=False, shards=None, micro_batch=None, without="", optimizer="adamw",
                  whole=False):
    """without: a file of kernels/ that is left out, its definitions taking its place.

    whole: a step as `numpyvit train` takes it, with augmented images of uint8 and clipping.
    """
    import importlib

    import numpy as np

    import numpyvit
    from numpyvit import functional as F
    from numpyvit.training.lanes import Lanes
    from numpyvit.training.optim import Optimizer
    for name, function in list(vars(F).items()):
        if without and getattr(function, "__module__", "") == f"numpyvit.kernels.{without}":
            setattr(F, name, getattr(importlib.import_module(f"numpyvit.ops.{without}"), name))
    model = numpyvit.create_model(family, **fields)
    if whole:
        return whole_step(model, batch, threads, dict(model=family, optimizer=optimizer, shards=shards, micro_batch=micro_batch))
    images, labels = batch_of(np, fields, batch)
    lanes = Lanes(model, threads, shards, micro_batch).__enter__()          # for as long as the process lives
    if inference:
        return lambda: lanes.logits(batch, lambda lo, hi: images[lo:hi])
    optimizer = Optimizer(model, optimizer)
    step = 0

    def train():
        nonlocal step
        step += 1
        lanes.gradient(batch, lambda lo, hi: (images[lo:hi], labels[lo:hi], None))
        optimizer.step(1e-4, step, 0.0, lanes.pool)                          # nothing is clipped: the norm is not needed
    return train


def whole_step(model, batch, threads, settings):
    """A step of the run that trains this model with CIFAR-10's recipe, on random pixels, in memory."""
    import dataclasses

    import numpy as np

    from numpyvit.runs.folder import FollowedRun
    from numpyvit.training import prepare
    from numpyvit.training.recipe import recipe_for
    from numpyvit.training.trainer import Trainer
    dataset = random_dataset(np, dataclasses.asdict(model.config), 4 * batch)
    recipe = recipe_for(data="cifar10", batch_size=batch, steps=1000, val=0, model_fields=dataclasses.asdict(model.config), **settings)
    trainer = Trainer(FollowedRun(), prepare.new_config(recipe, dataset, model), dataset, model, threads)
    trainer.lanes.__enter__()
    steps = itertools.count()
    return lambda: trainer.update(next(steps), 1e-4)


def run_step(family, fields, batch, threads, shards=None, micro_batch=None, optimizer="adamw"):
    """A step of `numpyvit.fit` with a folder, of random pixels: augmented images, the step, its line of metrics, progress.

    The run is a thread whose callback waits for the next call. Its checkpoints, one a minute, fall into the calls, too.
    """
    import tempfile
    import threading

    import numpy as np
    from rich.console import Console

    import numpyvit
    model, dataset = numpyvit.create_model(family, **fields), random_dataset(np, fields, 4 * batch)
    asked, taken, troubles = threading.Semaphore(0), threading.Semaphore(0), []

    def after_a_step(entry):
        taken.release()
        asked.acquire()

    def run():
        asked.acquire()
        try:
            with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
                numpyvit.fit(model, dataset, out=f"{folder}/run", threads=threads, callback=after_a_step, console=Console(file=nowhere),
                             batch_size=batch, optimizer=optimizer, shards=shards, micro_batch=micro_batch, steps=10**6, val=0)
        except BaseException as e:                                           # raised in the caller's thread instead
            troubles.append(e)
            taken.release()

    threading.Thread(target=run, daemon=True).start()

    def step():
        asked.release()
        taken.acquire()
        if troubles:
            raise troubles[0]
    return step


def torch_step(family, fields, batch, threads, inference=False, compiled=False, optimizer="adamw", whole=False):
    """optimizer "muon": torch's own, of the same parameters as ours.

    whole: with images of uint8, moved, mirrored and normalised.
    """
    import numpy as np
    import torch

    import torch_models
    torch.set_num_threads(threads)
    model = torch_models.build(family, **fields).train(not inference)
    images, labels = map(torch.tensor, batch_of(np, fields, batch))
    forward = torch.compile(model) if compiled else model
    if inference:
        return torch.inference_mode()(lambda: forward(images))
    hidden = hidden_parameters(model) if optimizer == "muon" else {}
    rest = [p for name, p in model.named_parameters() if name not in hidden]
    optimizers = [torch.optim.AdamW(rest, lr=1e-4, weight_decay=0.05, fused=True)]
    matrices = {name: torch.nn.Parameter(p.data.flatten(1)) for name, p in hidden.items()}           # in the same memory
    if matrices:
        optimizers.append(torch.optim.Muon(matrices.values(), lr=1e-4, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"))
    pixels, _ = pixels_of(np, fields, 4 * batch) if whole else (None, None)
    starts = itertools.cycle(range(0, 4 * batch, batch))

    def train():
        of_step = images
        if whole:
            start = next(starts)
            of_step = augmented(torch, torch.from_numpy(pixels[start:start + batch]))
        model.zero_grad()
        torch.nn.functional.cross_entropy(forward(of_step), labels).backward()
        for name, matrix in matrices.items():
            matrix.grad = hidden[name].grad.flatten(1)
        if whole:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in optimizers:
            part.step()
    return train


def hidden_parameters(model):
    """{name: parameter} of what Muon takes: weight matrices and kernels of convolutions between hidden layers, see
    numpyvit.training.optim.hidden_matrices. torch's Muon wants matrices: a kernel (out, in, kh, kw) is one (out, in·kh·kw).
    """
    weights = {name: p for name, p in model.named_parameters() if p.ndim in (2, 4) and "table" not in name}
    pixels = next(name for name, p in weights.items() if p.ndim == 4)        # the first convolution
    return {name: p for name, p in weights.items() if name != pixels and not name.startswith("head.") and p.shape[1] > 1}


def augmented(torch, pixels):
    """Padded by 4 reflected pixels, cropped at a random place, mirrored with probability ½.   (B, C, H, W) uint8   →   float32"""
    B, C, H, W = pixels.shape
    padded = torch.nn.functional.pad((pixels.float() / 255 - 0.5) / 0.25, (4, 4, 4, 4), mode="reflect")
    rows, columns = (torch.randint(0, 9, (B, 1)) + torch.arange(n) for n in (H, W))
    columns = torch.where(torch.rand(B, 1) < 0.5, columns, columns.flip(1))
    images, channels = torch.arange(B)[:, None, None, None], torch.arange(C)[:, None, None]
    return padded[images, channels, rows[:, None, :, None], columns[:, None, None, :]]


def numpy_product(threads, size=2048):
    """As many float32 products (size)³ as threads, each in a Python thread with a BLAS of one thread."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import threadpoolctl
    threadpoolctl.threadpool_limits(1, user_api="blas")
    rng = np.random.default_rng(0)
    work = [[rng.standard_normal((size, size), dtype=np.float32) for _ in range(3)] for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda abc: np.matmul(abc[0], abc[1], out=abc[2]), work))


def torch_product(threads, size=2048):
    """One float32 product of as many FLOPs as numpy_product's together, by torch's own threads."""
    import torch
    torch.set_num_threads(threads)
    a, b = torch.randn(threads * size, size), torch.randn(size, size)
    out = torch.empty(threads * size, size)
    return lambda: torch.mm(a, b, out=out)


COMPETITORS = {"numpyvit": numpyvit_step, "run": run_step, "torch": torch_step, "numpy_product": numpy_product, "torch_product": torch_product}


def batch_of(np, fields, batch):
    """images (batch, in_chans, H, W), labels (batch,)"""
    size = fields["img_size"]
    H, W = size if isinstance(size, (tuple, list)) else (size, size)
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, fields["in_chans"], H, W), dtype=np.float32), rng.integers(0, fields["num_classes"], batch)


def pixels_of(np, fields, count):
    """images (count, in_chans, H, W) uint8, labels (count,)"""
    images, labels = batch_of(np, fields, count)
    return (images * 40 + 128).clip(0, 255).astype(np.uint8), labels


def random_dataset(np, fields, count):
    """A Dataset of so many images of random pixels, with CIFAR-10's name."""
    from numpyvit.data.dataset import Dataset, ImageSet
    images = ImageSet(*pixels_of(np, fields, count))
    return Dataset("cifar10", tuple(map(str, range(fields["num_classes"]))), images, images, "random")


def peak_mb():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20    # not Linux: bytes


def main(arguments):
    spec = json.loads(arguments[0])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                    # what a library prints does not get among the answers

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    try:
        start = time.perf_counter()
        step = COMPETITORS[spec.pop("who")](**spec)
        built = time.perf_counter()
        step()
        answer(ready=built - start, first_step=time.perf_counter() - built)
        for line in sys.stdin:
            answer(seconds=[timed(step) for _ in range(int(line))], peak_mb=peak_mb())
    except Exception as e:                           # also a compiler that is not there
        answer(error=f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}")


def timed(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
