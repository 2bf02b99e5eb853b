"""What the web page and its API take at most, and the errors beyond that."""

from typing import NamedTuple


class Limits(NamedTuple):
    """What the server takes.

    Attributes:
        upload: Bytes of one file.
        pixels: Width x height of an image, checked before it is decoded.
        waiting: Requests that may wait for the model; more are turned away.
        disk: Bytes of uploads that are being received or wait, all together.
    """

    upload: int = 20_000_000
    pixels: int = 25_000_000
    waiting: int = 32
    disk: int = 2_000_000_000


class BusyError(RuntimeError):
    """There is no room for another request now."""


class TooLargeError(ValueError):
    """A request, a file or an image is above a limit."""
