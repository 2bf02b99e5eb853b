"""Images in, batches out: reading, cropping, ordering, holes."""

from gicinpaint.data.batch import Batch, PackedBatch
from gicinpaint.data.color_augment import VaryColours
from gicinpaint.data.datamodule import InpaintingDataModule
from gicinpaint.data.dataset import InpaintingDataset
from gicinpaint.data.image_io import ImageError, decode_image, read_image
from gicinpaint.data.listing import DatasetError
from gicinpaint.data.order import EndlessBatchSampler, derive_seed
from gicinpaint.data.packing import Packing, prepare
from gicinpaint.data.sample import SamplePhotographs
from gicinpaint.data.scanning import Scan, scan
from gicinpaint.data.shards import TarShards
from gicinpaint.data.sources import ImageFiles, ImageSource
from gicinpaint.data.transforms import CenterCropResize, RandomCrop, RandomScaleCrop, RepeatedCrop, ResizeThenCrop

__all__ = [
    "Batch",
    "CenterCropResize",
    "DatasetError",
    "EndlessBatchSampler",
    "ImageError",
    "ImageFiles",
    "ImageSource",
    "InpaintingDataModule",
    "InpaintingDataset",
    "PackedBatch",
    "Packing",
    "RandomCrop",
    "RandomScaleCrop",
    "RepeatedCrop",
    "ResizeThenCrop",
    "SamplePhotographs",
    "Scan",
    "TarShards",
    "VaryColours",
    "decode_image",
    "derive_seed",
    "prepare",
    "read_image",
    "scan",
]
