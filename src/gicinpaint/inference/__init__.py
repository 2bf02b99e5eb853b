"""From an image with a hole to the filled image: kinds of images, padding, large images, blending, files."""

from gicinpaint.inference.inpainter import Inpainter

__all__ = ["Inpainter"]
