"""The authors' TensorFlow checkpoints, read without TensorFlow."""

from gicinpaint.official.channels import swap_image_channels
from gicinpaint.official.checkpoint import read_checkpoint
from gicinpaint.official.conversion import convert, load_weights

__all__ = ["convert", "load_weights", "read_checkpoint", "swap_image_channels"]
