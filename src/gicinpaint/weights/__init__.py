"""Weights: models in folders, the authors' TensorFlow checkpoints without TensorFlow, conversion and export."""

from gicinpaint.weights.hub import download_model
from gicinpaint.weights.pretrained import load_generator, save_generator
from gicinpaint.weights.tf_checkpoint import read_checkpoint
from gicinpaint.weights.tf_convert import convert, load_weights, swap_image_channels

__all__ = [
    "convert",
    "download_model",
    "load_generator",
    "load_weights",
    "read_checkpoint",
    "save_generator",
    "swap_image_channels",
]
