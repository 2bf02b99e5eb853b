"""Where the holes are: samplers of hole masks, one box per image for the local critic beside them."""

from gicinpaint.masks.mixed import MixedMask
from gicinpaint.masks.rectangle import CenterMask, RectangleMask
from gicinpaint.masks.sampler import MaskSampler
from gicinpaint.masks.strokes import FreeFormMask

__all__ = ["CenterMask", "FreeFormMask", "MaskSampler", "MixedMask", "RectangleMask"]
