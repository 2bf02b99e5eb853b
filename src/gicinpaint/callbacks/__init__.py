"""What happens around the training steps, counted in generator updates."""

from gicinpaint.callbacks.advice import Advise
from gicinpaint.callbacks.averaging import AverageGenerator
from gicinpaint.callbacks.measurements import LogMeasurements
from gicinpaint.callbacks.pictures import SavePictures
from gicinpaint.callbacks.progress import UpdatesProgressBar
from gicinpaint.callbacks.saving import SaveByUpdates
from gicinpaint.callbacks.stopping import StopAtUpdates

__all__ = [
    "Advise",
    "AverageGenerator",
    "LogMeasurements",
    "SaveByUpdates",
    "SavePictures",
    "StopAtUpdates",
    "UpdatesProgressBar",
]
