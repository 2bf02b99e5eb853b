"""What happens around the training steps, counted in generator updates."""

from gicinpaint.training.callbacks.ema import GeneratorEMA
from gicinpaint.training.callbacks.progress import UpdatesProgressBar
from gicinpaint.training.callbacks.sample_images import SavePictures
from gicinpaint.training.callbacks.save_checkpoints import SaveByUpdates
from gicinpaint.training.callbacks.stopping import StopAtUpdates
from gicinpaint.training.callbacks.throughput import ThroughputMonitor
from gicinpaint.training.callbacks.training_health import TrainingHealth

__all__ = [
    "GeneratorEMA",
    "SaveByUpdates",
    "SavePictures",
    "StopAtUpdates",
    "ThroughputMonitor",
    "TrainingHealth",
    "UpdatesProgressBar",
]
