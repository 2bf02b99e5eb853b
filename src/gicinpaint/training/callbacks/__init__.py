"""What happens around the training steps, counted in generator updates."""

from gicinpaint.training.callbacks.ema import GeneratorEMA
from gicinpaint.training.callbacks.health import ThroughputMonitor, TrainingHealth
from gicinpaint.training.callbacks.progress import SavePictures, UpdatesProgressBar
from gicinpaint.training.callbacks.save_and_stop import SaveByUpdates, StopAtUpdates

__all__ = [
    "GeneratorEMA",
    "SaveByUpdates",
    "SavePictures",
    "StopAtUpdates",
    "ThroughputMonitor",
    "TrainingHealth",
    "UpdatesProgressBar",
]
