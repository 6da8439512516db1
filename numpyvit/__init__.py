"""numpyvit: vision transformers in NumPy and Numba, every forward and every backward pass written by hand.

    import numpyvit
    model = numpyvit.create_model("vit_tiny_patch4_32", num_classes=10, seed=0)
    logits, cache = model.forward(images, train=True, rng=0)
    dimages = model.backward(dlogits, cache)

Names used everywhere: B batch · N tokens · S keys, where they are not the tokens · C channels · nh, hd heads and head width
(C = nh·hd) · E MLP width · H, W grid · P patch · M window side · nW windows · K classes. dNAME is the gradient of NAME.
"""
import importlib

__version__ = "0.1.0"

_PUBLIC = {"list_models": "models", "create_model": "models", "count_parameters": "models", "save_weights": "weights",
           "load_weights": "weights"}
__all__ = [*_PUBLIC]


def __getattr__(name):                       # imports on first use: `import numpyvit` alone does not wait for numba
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *_PUBLIC]
