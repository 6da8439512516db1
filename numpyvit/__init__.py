"""numpyvit: vision transformers in NumPy and Numba, every forward and every backward pass written by hand.

    import numpyvit
    model = numpyvit.create_model("vit_tiny_patch4_32", num_classes=10, seed=0)
    logits, cache = model.forward(images, train=True, rng=0)
    dimages = model.backward(dlogits, cache)

Names used everywhere: B batch · N tokens · S keys, where they are not the tokens · C channels · nh, hd heads and head
width (C = nh·hd) · E MLP width · H, W grid · P patch · M window side · nW windows · K classes.
dNAME is the gradient of NAME.
"""
import importlib

__version__ = "0.2.0"

_FUNCTIONS = {"list_models": "models", "create_model": "models", "count_parameters": "models",
              "save_weights": "weights", "load_weights": "weights", "load_model": "runs.classifier",
              "fit": "training.fit"}
_MODULES = {"analysis": "inspection.attention", "plots": "inspection.plots", "summary": "inspection.summary",
            "trace": "inspection.trace", "gradcheck": "gradcheck", "data": "data"}
__all__ = [*_FUNCTIONS, *_MODULES]


def __getattr__(name):                       # imports on first use: `import numpyvit` alone does not wait for numba
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
