"""Time and memory of attention backends, generators and training steps, compared within one run; figures of the data.

To add a benchmark, write a class that is a `Benchmark` or a `FigureBenchmark`, and a yaml in `conf/benchmark`.
"""

from gicinpaint.benchmark.cases import Benchmark, Case, Figure, FigureBenchmark, Work, list_cases
from gicinpaint.benchmark.data import DataBenchmark
from gicinpaint.benchmark.measure import BenchmarkLimits, CaseResult, Measuring
from gicinpaint.benchmark.networks import AttentionBenchmark, GeneratorBenchmark, TrainingStepBenchmark
from gicinpaint.benchmark.roofline import RooflineBenchmark

__all__ = [
    "AttentionBenchmark",
    "Benchmark",
    "BenchmarkLimits",
    "Case",
    "CaseResult",
    "DataBenchmark",
    "Figure",
    "FigureBenchmark",
    "GeneratorBenchmark",
    "Measuring",
    "RooflineBenchmark",
    "TrainingStepBenchmark",
    "Work",
    "list_cases",
]
