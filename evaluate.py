"""Measure methods on images and masks.

python evaluate.py                                                    the classical methods on the sample photographs
python evaluate.py dataset=folder dataset.validation.path=/photos/val count=100
python evaluate.py +checkpoints.full=outputs/train/RUN/checkpoints/last.ckpt
python evaluate.py runs=outputs/multirun/RUN                          compare the runs of a multirun
python evaluate.py --help                                             all settings
"""

import sys

from gicinpaint.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
