"""Where the holes are: samplers of hole masks, one box per image for the local critic beside them."""

from gicinpaint.masks.augment import MaskAugment
from gicinpaint.masks.files import MaskFolder, grown, hole_of_image, read_mask_file
from gicinpaint.masks.fixed import FixedMasks, free_form, paper_center, paper_random
from gicinpaint.masks.free_form import FreeFormMask
from gicinpaint.masks.free_form_v2 import FreeFormV2Mask
from gicinpaint.masks.rectangle import CenterMask, RectangleMask
from gicinpaint.masks.sampler import MaskSampler, MixedMask

__all__ = [
    "CenterMask",
    "FixedMasks",
    "FreeFormMask",
    "FreeFormV2Mask",
    "MaskAugment",
    "MaskFolder",
    "MaskSampler",
    "MixedMask",
    "RectangleMask",
    "free_form",
    "grown",
    "hole_of_image",
    "paper_center",
    "paper_random",
    "read_mask_file",
]
