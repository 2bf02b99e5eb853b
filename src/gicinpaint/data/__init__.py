"""Images in, batches out: reading, cropping, ordering, holes."""

from gicinpaint.data.datamodule import InpaintingDataModule
from gicinpaint.data.dataset import Batch, InpaintingDataset
from gicinpaint.data.datasets import SamplePhotographs
from gicinpaint.data.image_io import ImageError, decode_image, read_image
from gicinpaint.data.order import EndlessBatchSampler, derive_seed
from gicinpaint.data.packing import Packing
from gicinpaint.data.prepare import Scan, prepare, scan
from gicinpaint.data.shards import TarShards
from gicinpaint.data.sources import DatasetError, ImageFiles, ImageSource
from gicinpaint.data.transforms import (
    CenterCropResize,
    ColorJitter,
    RandomCrop,
    RandomScaleCrop,
    RepeatedCrop,
    ResizeThenCrop,
)

__all__ = [
    "Batch",
    "CenterCropResize",
    "ColorJitter",
    "DatasetError",
    "EndlessBatchSampler",
    "ImageError",
    "ImageFiles",
    "ImageSource",
    "InpaintingDataModule",
    "InpaintingDataset",
    "Packing",
    "RandomCrop",
    "RandomScaleCrop",
    "RepeatedCrop",
    "ResizeThenCrop",
    "SamplePhotographs",
    "Scan",
    "TarShards",
    "decode_image",
    "derive_seed",
    "prepare",
    "read_image",
    "scan",
]
