"""Train the inpainting networks.

python train.py                                            the paper's setting on the sample photographs
python train.py experiment=quickstart                      five minutes on two CPU cores
python train.py dataset=celeba_hq trainer.devices=4        your own copy of CelebA-HQ on four GPUs
python train.py -m attention=unfold,reference seed=0,1     four runs, one after the other
python train.py --help                                     all settings
"""

import sys

from gicinpaint.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
