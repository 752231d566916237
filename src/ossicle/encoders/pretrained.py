"""Encoders whose network is a model of transformers: architecture in the config, weights from a published folder.

    pretrained: openai/whisper-tiny ──► config.json ──► `architecture: {…}` (written by `resolved`)
                                    └─► *.safetensors ──► read once, when a new model is made

A saved ossicle model holds the architecture and the weights, and needs the published folder no more. Weights are read
by transformers itself, because published names and module names differ from version to version; only safetensors, and
strictly: a tensor that is missing is an error, and what was left unread is reported.
Source: our choice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ossicle.encoders.base import Encoder, EncoderConfig
from ossicle.errors import CheckpointError, ConfigError, suggest

log = logging.getLogger(__name__)

WEIGHT_FILES = ["model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"]
NOT_ARCHITECTURE = {"architectures", "dtype", "torch_dtype", "transformers_version", "model_type", "_name_or_path"}


class PublishedConfig(EncoderConfig):
    """Settings of an encoder that transformers implements.

    Attributes:
        architecture: Fields of the transformers config that differ from the family's base size; None = those of
            `pretrained`, or the base size without it.
    """

    architecture: dict[str, Any] | None = None

    network_config: ClassVar[type[PretrainedConfig]]
    section: ClassVar[str | None] = None
    """Key of `config.json` under which the encoder's own fields lie, None = at the top."""

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        known = self.network_config().to_dict()
        for key in self.architecture or {}:
            if key not in known:
                raise ValueError(f"unknown key 'architecture.{key}'; {suggest(key, list(known))}")
        return self

    @cached_property
    def network(self) -> PretrainedConfig:
        """The transformers config of the network that is built."""
        config = self.resolved()
        return config.adjusted(config.network_config(**(config.architecture or {})))

    def adjusted(self, network: PretrainedConfig) -> PretrainedConfig:
        """Return the network's config with our own settings (a shorter window) written into it."""
        return network

    def front_end(self, folder: Path) -> dict[str, Any]:
        """Return the fields of this config that a published folder's `preprocessor_config.json` sets."""
        return {}

    def resolved(self) -> Self:
        """Return the config with architecture, front end and exact revision of `pretrained` written into it."""
        if self.pretrained is None or self.architecture is not None:
            return self
        folder = fetch(self.pretrained, self.revision)
        architecture = read_architecture(folder, self.network_config, self.section)
        found = {"architecture": architecture, "revision": pinned(self.pretrained, folder), **self.front_end(folder)}
        return type(self).model_validate(self.model_dump() | found)

    def num_blocks(self) -> int:
        """Return how many blocks `layers` can tap."""
        return int(self.network.num_hidden_layers)

    def taps(self) -> list[int]:
        """Return the tapped blocks, counted from 0, first one first; empty = the output after the family's final norm.

        Raises:
            ConfigError: There is no such block.
        """
        return choose_taps(self.kind, self.layers, self.num_blocks())


def choose_taps(kind: str, layers: Literal["last", "all"] | list[int], blocks: int) -> list[int]:
    """Return the blocks that `layers` names, counted from 0, first one first; empty for `last`.

    Raises:
        ConfigError: There is no such block.

    Example:
        >>> choose_taps("whisper", [-1, 0], 4)
        [0, 3]
    """
    if layers == "last":
        return []
    wanted = list(range(blocks)) if layers == "all" else layers
    for index in wanted:
        if not -blocks <= index < blocks:
            raise ConfigError(f"{kind}: layers holds {index}; this encoder has blocks 0 to {blocks - 1}")
    if not wanted:
        raise ConfigError(f"{kind}: layers is empty; name at least one block, or 'last'")
    return sorted({index % blocks for index in wanted})


class PublishedEncoder(Encoder):
    """An encoder around a transformers model. Subclasses set `network_class` and `blocks`, and encode windows."""

    network_class: ClassVar[type[PreTrainedModel]]
    renames: ClassVar[dict[str, str]] = {}
    """Patterns that turn published names of tensors into the network's, where it is a part of what is published."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__(config.resolved())
        self.model: Any = self.network_class(self.config.network)

    def blocks(self) -> nn.ModuleList:
        """Return the network's blocks, whose outputs can be tapped."""
        raise NotImplementedError

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return published tensors cut to this network (fewer positions)."""
        return state

    def tapped(self, run: Callable[[], Tensor]) -> list[Tensor]:
        """Run the network and return what `config.layers` asks for: one (W, N, D) tensor per tap."""
        wanted = self.config.taps()
        return outputs_of(self.blocks(), wanted, run) if wanted else [run()]

    def load_pretrained(self) -> None:
        """Read the published weights.

        Raises:
            CheckpointError: No safetensors there, another architecture, or tensors missing.
        """
        if self.config.pretrained is None:
            return
        state = read_weights(self.network_class, self.config.pretrained, self.config.revision, self.renames)
        try:
            self.model.load_state_dict(self.fitted(state))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise CheckpointError(f"{self.config.pretrained} does not fit the config: {reason}") from None


def outputs_of(blocks: nn.ModuleList, wanted: list[int], run: Callable[[], Any]) -> list[Tensor]:
    """Return the outputs of some blocks while `run` runs the network around them.

    Example:
        >>> blocks = nn.ModuleList([nn.Identity(), nn.Tanh()])
        >>> outputs_of(blocks, [0], lambda: blocks[1](blocks[0](torch.ones(1))))
        [tensor([1.])]
    """
    found: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[index] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [blocks[index].register_forward_hook(keep(index)) for index in set(wanted)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [found[index] for index in wanted]


@lru_cache(maxsize=64)
def fetch(pretrained: str, revision: str | None, *, weights: bool = False) -> Path:
    """Return the folder of a published model: a local one, or from the hub (cache), configs only unless `weights`.

    Raises:
        CheckpointError: Neither a folder nor a hub id that can be had.
    """
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = ["config.json", "preprocessor_config.json", *(WEIGHT_FILES if weights else [])]
    try:
        return Path(snapshot_download(pretrained, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"'{pretrained}' is no local folder, and the hub did not give it: {reason}; "
            "name a folder that holds config.json and model.safetensors"
        ) from None


def pinned(pretrained: str, folder: Path) -> str | None:
    """Return the commit that a hub id was fetched at, None for a local folder."""
    return None if Path(pretrained).expanduser().is_dir() else folder.name


def read_architecture(folder: Path, network_config: type[PretrainedConfig], section: str | None) -> dict[str, Any]:
    """Return the fields of a folder's `config.json` that differ from the family's base size.

    Raises:
        CheckpointError: No `config.json`, or one of another family.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"'{folder}' holds no config.json; expected a folder written by save_pretrained")
    values = json.loads(path.read_text(encoding="utf-8"))
    if section is not None and section in values:
        values = values[section]
    if values.get("model_type") != network_config.model_type:
        raise CheckpointError(
            f"'{path}' is of type '{values.get('model_type')}'; expected '{network_config.model_type}'"
        )
    base = network_config().to_dict()
    found = network_config.from_dict(values).to_dict()
    different = {key: value for key, value in found.items() if key in base and value != base[key]}
    return {key: value for key, value in different.items() if key not in NOT_ARCHITECTURE}


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Return `preprocessor_config.json` of a published folder, empty without one."""
    path = folder / "preprocessor_config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def read_weights(
    network: type[PreTrainedModel], pretrained: str, revision: str | None, renames: dict[str, str]
) -> dict[str, Tensor]:
    """Return all tensors of a network from a published folder, in float32.

    Raises:
        CheckpointError: No safetensors there, or tensors of the network missing.
    """
    folder = _weights_of(pretrained, revision)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model, report = network.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            key_mapping=renames or None,
            output_loading_info=True,
            dtype=torch.float32,
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    state = dict(model.state_dict())
    ours = {name.split(".")[0] for name in state}
    unread = sorted(report["unexpected_keys"])
    strange = [name for name in unread if name.split(".")[0] in ours]
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing or strange:
        what = f"{len(missing)} tensors missing or of another shape" if missing else f"{len(strange)} unknown tensors"
        raise CheckpointError(f"'{pretrained}': {what}, first '{(missing or strange)[0]}'; is it a {network.__name__}?")
    others = sorted({name.split(".")[0] for name in unread})
    log.info("%s: read %d tensors; left %d unread (%s)", pretrained, len(state), len(unread), ", ".join(others) or "-")
    return state


def load_renamed(
    module: nn.Module, pretrained: str, revision: str | None, our_name: Callable[[str], str | None]
) -> None:
    """Fill a network of our own from a published folder.

    Args:
        module: The network; every one of its tensors must be there.
        pretrained: Hub id or local folder.
        revision: Commit of the hub repository.
        our_name: Name of a published tensor in `module`; None, or a name that it does not have, leaves it unread.

    Raises:
        CheckpointError: No safetensors there, or tensors missing or of another shape.
    """
    files = sorted(_weights_of(pretrained, revision).glob("*.safetensors"))
    published = {name: value for file in files for name, value in load_file(file).items()}
    ours = set(module.state_dict())
    names = {name: our_name(name) for name in published}
    state = {new: published[old].float() for old, new in names.items() if new in ours}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"'{pretrained}' does not fit {type(module).__name__}: {reason}") from None
    log.info("%s: read %d tensors; left %d unread", pretrained, len(state), len(published) - len(state))


def _weights_of(pretrained: str, revision: str | None) -> Path:
    """Return a published folder that holds safetensors."""
    folder = fetch(pretrained, revision, weights=True)
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"'{pretrained}' holds no .safetensors file; ossicle reads no pickled weights")
    return folder
