"""Weights of a model to and from files of several libraries. README.md lists the formats and what differs between
them.
"""
from .build import load_model
from .load import load_weights
from .save import save_weights

__all__ = ["load_model", "load_weights", "save_weights"]
