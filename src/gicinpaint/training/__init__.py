"""Training: the algorithm, its checkpoints and logs, and the job that runs it."""

from gicinpaint.training.module import InpaintingModule

__all__ = ["InpaintingModule"]
