"""Signals that ask a run to end: noted when they come, acted on between two batches."""

import signal
from types import FrameType
from typing import Any

CAUGHT = (signal.SIGTERM, signal.SIGINT)  # preemption and Ctrl+C


class InterruptionError(Exception):
    """A run that was asked to end and has saved its state.

    Args:
        number: Signal that asked for it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that a signal has ended."""
        return 128 + self.number


class SignalNote:
    """Remember the first signal that asks the run to end; a second Ctrl+C interrupts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Start to listen, in place of what listened before."""
        for number in CAUGHT:
            self._before.setdefault(number, signal.signal(number, self._note))

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
