"""Files to read for the data benchmark: photographs of noise, and folders of empty files."""

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 500, 375
_QUALITY = 92  # with the spectrum below a file has about 58 KB, the average of Places2
_ROUGHNESS = 1.48  # amplitudes fall with this power of the frequency; those of photographs with about 1


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEGs of 500 x 375 whose spectrum and size are those of photographs."""
    folder.mkdir(parents=True)
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / WIDTH) ** _ROUGHNESS
    for number in range(count):
        noise = np.random.default_rng(number).standard_normal((4, HEIGHT, WIDTH))
        planes = np.fft.irfft2(np.fft.rfft2(noise) * amplitude, (HEIGHT, WIDTH))
        planes /= planes.std((1, 2), keepdims=True)
        colour = 128 + 45 * planes[0] + 12 * planes[1:]  # mostly light and dark
        pixels = colour.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=_QUALITY)


def make_empty_files(folder: Path, count: int, folders: int) -> None:
    """Spread empty files with an image's suffix over folders."""
    for number in range(folders):
        inner = folder / f"{number:04d}"
        inner.mkdir(parents=True)
        for place in range(number, count, folders):
            (inner / f"{place:08d}.jpg").touch()
