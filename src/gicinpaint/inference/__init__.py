"""From an image with a hole to the filled image, in memory and on files."""

from gicinpaint.inference.inpainter import Inpainter

__all__ = ["Inpainter"]
