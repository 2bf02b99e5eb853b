"""Make one model of two of the same width, without training.

python examples/combine_models.py join FIRST SECOND OUTPUT
    the first stage of one, which adds to a smooth filling, and the second stage of another, which makes images
python examples/combine_models.py average FIRST SECOND OUTPUT [--share 0.3]
    weights between those of two models, one of which was trained on from the other: sharper or closer to the truth

FIRST and SECOND are names in weights, folders or checkpoints, OUTPUT a new folder.
"""

import argparse

from gicinpaint import Generator
from gicinpaint.weights import load_generator, save_generator


def join(first: Generator, second: Generator) -> Generator:
    """Return the first stage of one generator with the second of another."""
    if not first.coarse_network.residual or second.refinement_network.residual:
        raise SystemExit("FIRST must have been trained with model.generator.residual=true, SECOND without")
    joined = Generator(**{**second.arguments, "residual": "coarse"})
    joined.coarse_network.load_state_dict(first.coarse_network.state_dict())
    joined.refinement_network.load_state_dict(second.refinement_network.state_dict())
    return joined


def average(first: Generator, second: Generator, share: float) -> Generator:
    """Return a generator whose weights lie between those of two; `share` is the second one's, from 0 to 1."""
    if first.settings != second.settings:
        raise SystemExit(f"both must have the same settings, got {first.settings} and {second.settings}")
    averaged, other = Generator(**first.arguments), second.state_dict()
    averaged.load_state_dict({name: value.lerp(other[name], share) for name, value in first.state_dict().items()})
    return averaged


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", choices=("join", "average"))
    parser.add_argument("models", nargs=2, metavar=("FIRST", "SECOND"))
    parser.add_argument("output")
    parser.add_argument("--share", type=float, default=0.5, help="of SECOND in an average (default: 0.5)")
    options = parser.parse_args()
    first, second = (load_generator(model) for model in options.models)
    if not (isinstance(first, Generator) and isinstance(second, Generator)):
        parser.error("both models must be two-stage generators")
    one = join(first, second) if options.how == "join" else average(first, second, options.share)
    save_generator(one, options.output)
    print(f"model {options.output}")


if __name__ == "__main__":
    main()
