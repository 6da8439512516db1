"""Weights of a model to and from files of several formats."""
from .load import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
