"""Weights of a model to and from files of several libraries, recognised by the names of the tensors.

    format        families         written as                    what differs there, and is handled
    numpyvit      all              .safetensors                  –
    timm          ViT, Swin        .safetensors .pth             Swin: shifts before it pads (said, not imitated)
    huggingface   ViT, Swin, CvT   a folder                      epsilon 1e-12 (ViT); q, k, v apart; CvT: GELU by erf
    torchvision   ViT, Swin        .safetensors .pth             Swin: no window smaller than the others (said)
    google        ViT              .npz                          GELU by tanh; (in, out); mean pooling behind the norm
    big_vision    ViT              read only                     as Google; class token without position; stacked blocks
    microsoft     Swin, CvT        .safetensors .pth             Swin: index and mask in the file, checked and left out

sources: what is in a file · names, tables: whose tensor is which parameter · recognise: which library's names these
are · fit: what may be resized · huggingface, timm, infer: the config · images, processors: how images are prepared ·
load, save, build: the verbs.
"""
from .build import load_model
from .load import load_weights
from .save import save_weights

__all__ = ["load_model", "load_weights", "save_weights"]
