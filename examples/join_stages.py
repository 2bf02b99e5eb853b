"""Join a first stage that adds to a smooth filling with a second stage that makes images: residual="coarse".

python examples/join_stages.py FIRST SECOND OUTPUT      names in weights, folders or checkpoints; a new folder
"""

import argparse

from gicinpaint import Generator
from gicinpaint.weights import load_generator, save_generator


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="model whose first stage to take, trained with model.generator.residual=true")
    parser.add_argument("second", help="model whose second stage to take, trained without it")
    parser.add_argument("output", help="folder to write")
    options = parser.parse_args()
    first, second = load_generator(options.first), load_generator(options.second)
    if not (isinstance(second, Generator) and first.arguments["width"] == second.arguments["width"]):
        parser.error("both models must be generators of the same width, the second with two stages")
    if not first.get_submodule("coarse_network").residual or second.refinement_network.residual:
        parser.error("the first model must have been trained with model.generator.residual=true, the second without")
    joined = Generator(**{**second.arguments, "residual": "coarse"})
    for name, source in (("coarse_network", first), ("refinement_network", second)):
        joined.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())
    save_generator(joined, options.output)
    print(f"model {options.output}")


if __name__ == "__main__":
    main()
