"""Fill holes in pictures.

python inpaint.py input=photo.jpg masks=mask.png output=filled        one picture
python inpaint.py input=photos masks=masks output=filled              a folder; masks of the same names
python inpaint.py input=photos hole_colour=white output=filled       holes that are painted white
python inpaint.py input=photos masks=masks trainer.devices=4          four devices share the folder
python inpaint.py --help                                             all settings
"""

import sys

from gicinpaint.cli import main

if __name__ == "__main__":
    sys.exit(main(["inpaint", *sys.argv[1:]]))
