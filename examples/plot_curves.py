"""Draw the validation curves of runs: python examples/plot_curves.py NAME=RUN ... PICTURE.

Solid lines are the completed images, dashed ones the first stage's, dotted ones the mean colour of the known pixels.
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_LINES = {"completed": "-", "coarse": "--", "mean_colour": ":"}


def read_curve(run: Path, image: str) -> tuple[list[float], list[float]]:
    """Return the generator updates at which a run was validated and the hole PSNR in dB."""
    key = f"validation/{image}/hole/psnr"
    with (run / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [float(row["step"]) for row in rows], [float(row[key]) for row in rows]


def main(arguments: list[str]) -> None:
    """Draw one colour per run."""
    *named, picture = arguments
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, (name, _, run) in enumerate(text.partition("=") for text in named):
        for image, line in _LINES.items():
            curve = read_curve(Path(run), image)
            axes.plot(*curve, line, color=f"C{number}", label=name if image == "completed" else None, marker=".")
    axes.set(xlabel="generator updates", ylabel="PSNR in the hole, dB")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
