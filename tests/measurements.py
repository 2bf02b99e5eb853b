"""Small evaluations: seven photographs of noise, measured in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Fabric
from PIL import Image

from gicinpaint.data import CenterCropResize, ImageFiles
from gicinpaint.evaluation import EvaluationImages, Measurement
from gicinpaint.masks import paper_random
from gicinpaint.metrics import evaluation_metrics

SIZE = 32


def save_photographs(folder: Path, count: int = 7, size: int = 40) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        levels = random.integers(0, 256, (size, size + number, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"photograph {number}.png")
    return folder


def images(folder: Path, count: int | None = None) -> EvaluationImages:
    return EvaluationImages(ImageFiles(save_photographs(folder)), CenterCropResize(), SIZE, SIZE, count)


def measurement(folder: Path, **changes: Any) -> Measurement:
    parts: dict[str, Any] = {
        "images": images(folder / "photographs"),
        "masks": paper_random((16, 16)),
        "metrics": evaluation_metrics(),
        "folder": folder / "out",
        "pictured": [1, 4],
        "fabric": Fabric(accelerator="cpu", devices=1),
        "batch_size": 3,
    }
    return Measurement(**{**parts, **changes})
