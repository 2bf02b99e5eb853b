"""Draw the validation curves of runs: python examples/plot_curves.py NAME=RUN ... PICTURE.

Solid lines are the completed images, dashed ones the first stage's.
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

_LINES = {"completed": "-", "coarse": "--"}


def read_curve(run: Path, image: str) -> tuple[list[float], list[float]]:
    """Return the generator updates at which a run was validated and the hole PSNR in dB."""
    key = f"validation/{image}/hole/psnr"
    with (run / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [float(row["step"]) for row in rows], [float(row[key]) for row in rows]


def main(arguments: list[str]) -> None:
    """Draw one colour per run."""
    if len(arguments) < 2 or not all("=" in text for text in arguments[:-1]):
        sys.exit(f"expected NAME=RUN ... PICTURE, got {' '.join(arguments) or 'nothing'}")
    *named, picture = arguments
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
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
