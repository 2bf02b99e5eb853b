"""The field's words find the code: a search by file names, then by first lines, gives the right file first."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "gicinpaint"
GLOSSARY = {
    "attention map": "attention/attention_map.py",
    "augmentation": "data/transforms.py",
    "baseline": "evaluation/baselines.py",
    "checkpoint": "training/checkpoint.py",
    "critic": "models/critics.py",
    "dilated convolution": "models/layers.py",
    "discriminator": "models/critics.py",
    "early stopping": "training/callbacks/save_and_stop.py",
    "EMA": "training/callbacks/ema.py",
    "FID": "metrics/perceptual.py",
    "fine-tuning": "weights/fine_tuning.py",
    "free-form": "masks/free_form.py",
    "fusion": "attention/reference.py",
    "gradient accumulation": "training/gradients.py",
    "gradient clipping": "training/gradients.py",
    "gradient penalty": "losses/adversarial.py",
    "hole ratio": "masks/sampler.py",
    "large image": "inference/regions.py",
    "learning rate": "training/callbacks/health.py",
    "logger": "training/loggers.py",
    "LPIPS": "metrics/perceptual.py",
    "mask convention": "models/compositing.py",
    "micro-batch": "training/gradients.py",
    "ONNX": "weights/onnx_file.py",
    "optical flow": "attention/attention_map.py",
    "Poisson blending": "inference/blending.py",
    "pretrained": "weights/pretrained.py",
    "propagation": "attention/reference.py",
    "PSNR": "metrics/region.py",
    "reproducibility": "training/run_record.py",
    "resume": "training/resume.py",
    "run record": "training/run_record.py",
    "seed": "data/order.py",
    "shard": "data/shards.py",
    "spatial discount": "losses/reconstruction.py",
    "SSIM": "metrics/region.py",
    "temperature": "attention/layer.py",
    "throughput": "training/callbacks/health.py",
    "total variation": "metrics/region.py",
    "Wasserstein": "losses/adversarial.py",
}


def plain(text: str) -> str:
    """Return words in lower case with single blanks, so that micro_batches, micro-batch and "micro batch" are alike."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def search(term: str) -> list[str]:
    """Return the files that a term finds, best first: by name alone, by a part of the name, by the first line."""
    word = plain(term)
    found = []
    for path in SOURCE.rglob("*.py"):
        name = plain(path.stem if path.stem != "__init__" else path.parent.name)
        first = plain((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0])
        ranks = (
            name.removesuffix("s") == word.removesuffix("s"),
            f" {name}".find(f" {word}") >= 0,
            f" {word}" in f" {first}",
        )
        if any(ranks):
            found.append((ranks.index(True), path.relative_to(SOURCE).as_posix()))
    return [path for _, path in sorted(found)]


@pytest.mark.parametrize("term", GLOSSARY)
def test_the_first_file_that_a_term_finds_is_the_right_one(term: str) -> None:
    assert search(term)[:1] == [GLOSSARY[term]], f"{term}: found {search(term)}"
