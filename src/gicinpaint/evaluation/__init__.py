"""Methods x images x masks, measured alike: one table, with everything needed to repeat it."""

from gicinpaint.evaluation.evaluate import evaluate
from gicinpaint.evaluation.images import EvaluationImages
from gicinpaint.evaluation.masks import MaskFiles
from gicinpaint.evaluation.measuring import Measurement, Result
from gicinpaint.evaluation.methods import Checkpoint
from gicinpaint.evaluation.tables import Table

__all__ = ["Checkpoint", "EvaluationImages", "MaskFiles", "Measurement", "Result", "Table", "evaluate"]
