"""What is installed: a wheel with every module and every yaml, in an environment without torchvision."""

import ast
import importlib.util
import inspect
import operator
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src" / "gicinpaint").rglob("*.py"))


def output_of(program: str) -> str:
    """Return what a program prints in a process of its own."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_the_package_and_composes(tmp_path: Path) -> None:
    source = tmp_path / "a source"  # a copy: building leaves folders beside the sources
    tracked = [path for folder in ("src", "conf") for path in (ROOT / folder).rglob("*") if path.is_file()]
    tracked = [path for path in tracked if "__pycache__" not in path.parts and ".egg-info" not in str(path)]
    for path in [*tracked, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))]:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    shutil.copytree(ROOT / "weights", source / "weights")
    build = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--no-index"]
    build += ["--wheel-dir", str(tmp_path), str(source)]
    built = subprocess.run(build, check=True, capture_output=True, text=True)
    assert "would be ignored" not in built.stdout + built.stderr  # setuptools, of folders that packages does not name
    (wheel,) = tmp_path.glob("gicinpaint-*.whl")
    assert wheel.stat().st_size < 3e6
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    expected = {path.relative_to(ROOT / "src") for path in (ROOT / "src" / "gicinpaint").rglob("*.py")}
    expected |= {Path("gicinpaint") / path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    expected.add(Path("gicinpaint/py.typed"))
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*")}
    assert expected <= found
    shipped = Path("gicinpaint/weights/shipped")
    assert [path for path in found if path.suffix == ".safetensors"] == [shipped / "photos_256/model.safetensors"]
    cards = {path.parent.name for path in (ROOT / "weights").glob("*/config.json")}
    assert {shipped / "models.yaml", *(shipped / name / "README.md" for name in cards)} <= found
    program = (
        "import gicinpaint, gicinpaint.conf\n"
        f"assert gicinpaint.__file__.startswith({str(unpacked)!r}), gicinpaint.__file__\n"
        "from gicinpaint.cli import main\n"
        "raise SystemExit(main(['train', 'experiment=quickstart', '--cfg', 'job']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "gicinpaint.training.module.InpaintingModule" in result.stdout
    program = (
        "import numpy as np\n"
        "image, mask = np.full((16, 24, 3), 200, np.uint8), np.zeros((16, 24), bool)\n"
        "mask[4:9, 5:12] = True\n"
        "from gicinpaint import Inpainter\n"  # the three lines of the README
        "inpainter = Inpainter.default(device='cpu')\n"
        "filled = inpainter(image, mask)\n"
        "assert (filled == image)[~mask].all() and filled.shape == image.shape\n"
        "from gicinpaint.weights.hub import shipped_models\n"
        "print(shipped_models())\n"
    )
    environment["TORCH_HOME"] = str(tmp_path / "home")
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "['photos_256']\n"), result.stderr


def test_torchvision_is_absent() -> None:
    # beside a CPU build of torch it breaks the import of lightning and of torchmetrics
    assert importlib.util.find_spec("torchvision") is None


def test_importing_the_package_loads_no_framework() -> None:
    program = "import sys, gicinpaint; print('lightning' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_no_module_needs_what_windows_lacks_when_it_is_imported() -> None:
    """An import hook forbids the package, not the libraries, to import modules of Unix alone."""
    program = (
        "import builtins, importlib, pkgutil\n"
        "original = builtins.__import__\n"
        "def hook(name, globals=None, *rest, **named):\n"
        "    importer = (globals or {}).get('__name__', '')\n"
        "    unix = name in ('fcntl', 'resource', 'pwd', 'grp', 'termios', 'posix')\n"
        "    assert not (unix and importer.startswith('gicinpaint')), (importer, name)\n"
        "    return original(name, globals, *rest, **named)\n"
        "builtins.__import__ = hook\n"
        "import gicinpaint\n"
        "names = [found.name for found in pkgutil.walk_packages(gicinpaint.__path__, 'gicinpaint.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    modules = [path for path in MODULES if path != ROOT / "src" / "gicinpaint" / "__init__.py"]
    assert int(output_of(program)) >= len(modules)


def test_every_public_name_is_there() -> None:
    import gicinpaint

    assert all(getattr(gicinpaint, name) is not None for name in gicinpaint.__all__)
    assert set(gicinpaint.__all__) <= set(dir(gicinpaint))
    with pytest.raises(AttributeError, match="module 'gicinpaint' has no attribute 'Generators'"):
        _ = gicinpaint.Generators


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (
            "ContextualAttention",
            "patch_size=3, rate=2, propagation_size=3, softmax_scale=10.0, propagate=True, backend=None",
        ),
        ("ContextualAttention.forward", "self, foreground, background=None, mask=None, return_offset=False"),
        ("Generator", "width=32, attention=..., padding='zeros'"),
        ("Generator.forward", "self, masked, mask, return_offset=False"),
        ("GatedGenerator", "width=48, attention=..., padding='zeros', guided=False"),
        ("GlobalCritic", "width=64, image_size=(256, 256)"),
        ("LocalCritic", "width=64, image_size=(128, 128)"),
        ("PatchCritic", "width=64, in_channels=4"),
        ("PatchCritic.forward", "self, image, mask=None"),
        ("losses.spatial_discount", "height, width, gamma=0.9"),
        ("losses.gradient_penalty", "critic, real, fake, mask, alpha=None"),
        ("mask_out", "image, mask"),
        ("composite", "image, prediction, mask"),
        ("Inpainter.from_checkpoint", "path, device='auto'"),
        ("Inpainter.__call__", "self, image, mask=None"),
    ],
)
def test_published_arguments_keep_names_order_and_defaults(name: str, first: str) -> None:
    import gicinpaint

    arguments, required = [], set()
    for parameter in inspect.signature(operator.attrgetter(name)(gicinpaint)).parameters.values():
        default = parameter.default
        if isinstance(default, gicinpaint.ContextualAttention):
            assert repr(default) == repr(gicinpaint.ContextualAttention())
            arguments.append(f"{parameter.name}=...")
        elif default is not parameter.empty:
            arguments.append(f"{parameter.name}={default!r}")
        else:
            arguments.append(parameter.name)
            required |= {parameter.name} if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else set()
    assert f"{', '.join(arguments)}, ".startswith(f"{first}, ")
    assert required <= set(first.split(", "))  # what came later may be left out


def test_the_old_name_of_the_authors_weights_goes_on_working_and_says_where_it_moved() -> None:
    program = (
        "import warnings; warnings.simplefilter('error', FutureWarning)\n"
        "import gicinpaint.official\n"
        "from gicinpaint import weights\n"
        "try: gicinpaint.official.read_checkpoint\n"
        "except FutureWarning as warning: print(warning)\n"
        "warnings.simplefilter('ignore', FutureWarning)\n"
        "from gicinpaint.official import convert, load_weights, read_checkpoint\n"
        "print(convert is weights.convert, load_weights is weights.load_weights)\n"
    )
    assert output_of(program) == "gicinpaint.official moved to gicinpaint.weights; import from there\nTrue True\n"


def test_every_module_that_moved_can_be_imported_by_its_old_name_with_the_classes_that_were_renamed() -> None:
    """`callbacks.AverageGenerator` moved and has another name; `inpainter` and `record` moved alone."""
    program = (
        "import warnings; warnings.simplefilter('ignore', FutureWarning)\n"
        "from gicinpaint.callbacks import AverageGenerator\n"
        "from gicinpaint.inpainter import Inpainter\n"
        "from gicinpaint.record import write_record\n"
        "import gicinpaint.generator\n"
        "from gicinpaint.training.callbacks import GeneratorEMA\n"
        "print(AverageGenerator is GeneratorEMA, Inpainter.__module__, write_record.__module__)\n"
        "print(hasattr(gicinpaint.generator, 'Generator'), hasattr(gicinpaint.generator, 'Generators'))\n"
    )
    expected = "True gicinpaint.inference.inpainter gicinpaint.training.run_record\nTrue False\n"
    assert output_of(program) == expected


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_classes_have_one_name() -> None:
    found = [node for path in MODULES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = Counter(node.name for node in found if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_the_version_and_every_name_are_listed() -> None:
    import gicinpaint

    assert gicinpaint.__version__ == version("gicinpaint")
    assert sorted([*gicinpaint.__all__, "__version__"]) == dir(gicinpaint)
