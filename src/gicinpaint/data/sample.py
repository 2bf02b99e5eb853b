"""The built-in sample set: nine photographs that come with scikit-image, for a first run without a download."""

import importlib.util
from pathlib import Path

from PIL import Image

from gicinpaint.data.image_io import read_image
from gicinpaint.data.listing import DatasetError
from gicinpaint.data.sources import ImageSource

TRAIN = ("astronaut.png", "coffee.png", "rocket.jpg", "brick.png", "grass.png", "coins.png")
VALIDATION = ("chelsea.png", "camera.png", "gravel.png")


class SamplePhotographs(ImageSource):
    """Photographs inside scikit-image's package: six to train on, three others to validate on.

    They are read from the installed package as files; nothing is downloaded. The two parts share no photograph, so
    that a validation crop was never seen in training.

    Args:
        names: Files of scikit-image's data folder; see `TRAIN` and `VALIDATION`.
        repeat: How often each photograph counts in an epoch. Each time has its own crop, flip and mask.

    Raises:
        DatasetError: If scikit-image or one of the files is not installed.
    """

    def __init__(self, names: tuple[str, ...] | list[str] = TRAIN, repeat: int = 1) -> None:
        self.names = tuple(names)
        self.repeat = repeat
        package = importlib.util.find_spec("skimage")
        if package is None or not package.submodule_search_locations:
            raise DatasetError("looked for the sample photographs in scikit-image: it is not installed; install it")
        folder = Path(package.submodule_search_locations[0]) / "data"
        self.paths = [folder / name for name in self.names]
        missing = [path.name for path in self.paths if not path.is_file()]
        if missing or not self.paths or repeat < 1:
            raise DatasetError(
                f"looked for the sample photographs {', '.join(missing) or '(none named)'} in {folder}: found none; "
                "reinstall scikit-image, or choose another dataset"
            )
        self._decoded: dict[int, Image.Image] = {}

    @classmethod
    def train(cls, repeat: int = 32) -> "SamplePhotographs":
        """Return the training part."""
        return cls(TRAIN, repeat)

    @classmethod
    def validation(cls, repeat: int = 1) -> "SamplePhotographs":
        """Return the validation part."""
        return cls(VALIDATION, repeat)

    def __len__(self) -> int:
        return len(self.paths) * self.repeat

    def read(self, index: int) -> Image.Image:
        """Return photograph `index` as 8-bit RGB; all nine together stay decoded in 6 MB."""
        place = index % len(self.paths)
        if place not in self._decoded:
            self._decoded[place] = read_image(self.paths[place])
        return self._decoded[place]

    def name(self, index: int) -> str:
        """Return the photograph's file name."""
        return self.names[index % len(self.paths)]
