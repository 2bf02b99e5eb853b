"""Methods x images x masks, one table, with everything needed to repeat it."""

from gicinpaint.evaluation.evaluate import evaluate
from gicinpaint.evaluation.images import EvaluationImages, MaskFiles
from gicinpaint.evaluation.measuring import Measurement, MethodResult
from gicinpaint.evaluation.methods import Checkpoint
from gicinpaint.evaluation.tables import Table

__all__ = ["Checkpoint", "EvaluationImages", "MaskFiles", "Measurement", "MethodResult", "Table", "evaluate"]
