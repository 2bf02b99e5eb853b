"""Where the holes are: samplers of hole masks, one box per image for the local critic beside them."""

from gicinpaint.masks.files import MaskFolder
from gicinpaint.masks.fixed import FixedMasks, free_form, paper_center, paper_random
from gicinpaint.masks.free_form import FreeFormMask
from gicinpaint.masks.mixed import MixedMask
from gicinpaint.masks.rectangle import CenterMask, RectangleMask
from gicinpaint.masks.sampler import MaskSampler

__all__ = [
    "CenterMask",
    "FixedMasks",
    "FreeFormMask",
    "MaskFolder",
    "MaskSampler",
    "MixedMask",
    "RectangleMask",
    "free_form",
    "paper_center",
    "paper_random",
]
