"""Random changes of an image's colours: many palettes from few photographs."""

import torch
from torch import Tensor


class VaryColours:
    """Change the colours of a whole image at random: grey, exchanged channels, contrast, brightness, negative.

    A completion has to take its colours from the known pixels. A network that sees few photographs learns their
    palette instead; one that sees every palette cannot. The released code does without: its datasets are large.

    Args:
        grey: Probability that the image loses its colour.
        shuffle: Probability that the three channels change places.
        contrast: Largest share of the contrast that is taken away, at least 0 and below 1; what is free of the range
            afterwards moves the brightness of each channel.
        negative: Probability that light and dark change places.

    Raises:
        ValueError: If a probability or share is out of range.
    """

    def __init__(self, grey: float = 0.3, shuffle: float = 0.5, contrast: float = 0.5, negative: float = 0.25) -> None:
        for name, value in (("grey", grey), ("shuffle", shuffle), ("negative", negative)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability in 0..1, got {value}; 0 switches it off")
        if not 0 <= contrast < 1:
            raise ValueError(f"contrast must be a share of at least 0 and below 1, got {contrast}; 0 switches it off")
        self.grey = grey
        self.shuffle = shuffle
        self.contrast = contrast
        self.negative = negative

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return the image (3, H, W) in [-1, 1] with other colours, in the same range."""
        grey, shuffle, contrast, negative = torch.rand(4, generator=generator).tolist()
        order = torch.randperm(3, generator=generator)
        centre = torch.rand(3, 1, 1, generator=generator) * 2 - 1
        if grey < self.grey:
            image = image.mean(0, keepdim=True).expand_as(image)
        if shuffle < self.shuffle:
            image = image[order]
        kept = 1 - self.contrast * contrast
        image = kept * image + (1 - kept) * centre
        return -image if negative < self.negative else image
