"""Networks that write themselves to a folder or a hub repository, and come back from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from gicinpaint.attention import ContextualAttention
from gicinpaint.models.model_folder import CONFIG_FILE, DIGEST_FILE, WEIGHTS_FILE, read_folder, write_folder

_ATTENTION_SETTINGS = ("patch_size", "rate", "propagation_size", "softmax_scale", "propagate")
_CARD: dict[str, Any] = {"library_name": "gicinpaint", "pipeline_tag": "image-to-image", "tags": ["inpainting"]}

if TYPE_CHECKING:
    HubModel: Any = object
else:
    try:
        from huggingface_hub import ModelHubMixin as HubModel
    except ImportError:

        class HubModel:
            """Stand in for huggingface_hub's mixin where that is not installed: everything else works without it."""

            def __init_subclass__(cls, **_: object) -> None:
                super().__init_subclass__()

            def save_pretrained(self, *_: object, **__: object) -> None:
                """Say what is missing."""
                raise ImportError("this needs the package huggingface_hub; pip install 'gicinpaint[hub]'")

            from_pretrained = classmethod(save_pretrained)
            push_to_hub = save_pretrained


class StoredNetwork(nn.Module, HubModel, **_CARD):
    """A network of two stages or one that keeps its settings in its layers.

    `save_pretrained(folder)`, `from_pretrained(folder_or_repository)` and `push_to_hub(repository)` are those of
    huggingface_hub's model mixin; a folder holds model.safetensors with its SHA-256, and config.json.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """Plain data from which `build` builds a network like this one."""
        coarse: Any = self.coarse_network
        refinement = getattr(self, "refinement_network", None)
        stem = coarse.encoder.stem
        settings: dict[str, Any] = {
            "network": type(self).__name__,
            "width": stem.out_channels,
            "padding": "mirror" if stem.mirror else "zeros",
            "residual": coarse.residual,
        }
        if refinement is not None:
            attention = refinement.attention
            settings["attention"] = attention and {name: getattr(attention, name) for name in _ATTENTION_SETTINGS}
        return settings

    @classmethod
    def build(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Self:
        """Return the network that settings describe with its weights, for evaluation; the attention's backend is ours.

        It is sized without memory first, so settings that do not fit the weights cost nothing. Weights that are stored
        in another type, such as float16, become float32.

        Args:
            settings: As the property of that name; other keys of an attention, such as its backend, are left out.
            state: State dict.
            name: What to call the model in messages.

        Raises:
            ValueError: If the settings describe no such network, or the weights do not fit it.
        """
        arguments = {key: value for key, value in settings.items() if key not in ("network", "_target_")}
        try:
            if isinstance(attention := arguments.get("attention"), Mapping):
                known = {key: attention[key] for key in _ATTENTION_SETTINGS if key in attention}
                arguments["attention"] = ContextualAttention(**known)
            with torch.device("meta"):
                network = cls(**arguments)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{name}: its settings describe no {cls.__name__}: {reason}; copy them again") from error
        _check_shapes(network.state_dict(), state, name)
        network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
        return network.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        write_folder(save_directory, self.settings, self.state_dict())

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **download: Any) -> Self:
        settings, state = read_folder(fetch(model_id, **download))
        if settings.get("network") != cls.__name__:
            raise ValueError(
                f"{model_id} must hold a {cls.__name__}, got {settings.get('network')!r}; load it with "
                "gicinpaint.weights.load_generator"
            )
        return cls.build(settings, state, model_id)


def fetch(model_id: str, **download: Any) -> Path:
    """Return the folder of a model: itself, or a copy of a hub repository's files.

    Args:
        model_id: A folder, or the name of a repository.
        download: Options of huggingface_hub's mixin, such as `revision`, `cache_dir` and `local_files_only`; others
            are left out.
    """
    if Path(model_id).is_dir():
        return Path(model_id)
    from huggingface_hub import snapshot_download

    names = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    options = {name: download[name] for name in names if name in download}
    return Path(snapshot_download(model_id, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, DIGEST_FILE], **options))


def _check_shapes(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> None:
    shapes = [{key: tuple(value.shape) for key, value in state.items()} for state in (expected, given)]
    wrong = sorted(key for key in expected.keys() | given.keys() if shapes[0].get(key) != shapes[1].get(key))
    if wrong:
        raise ValueError(
            f"{name}: its weights must be those of its settings, {len(wrong)} differ, the first {wrong[0]}: expected "
            f"{shapes[0].get(wrong[0])}, got {shapes[1].get(wrong[0])}; copy settings and weights from one model"
        )
