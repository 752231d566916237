"""Outputs of frozen encoders, computed once and kept on disk.

    key of a folder = hash(encoder weights, adapters included · settings · dtype)
    key of a clip   = hash(the audio: file, size, date and span; or generator, settings and number; or samples)

    FOLDER/<encoder hash>/shard-<hash>.safetensors      memory-mapped; each written whole, then renamed

Refused for an encoder that trains in the stage, and for endless or augmented sources, whose clips never come again.
Source: our choice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ossicle.data.sample import Audio, identity, waveform
from ossicle.errors import ConfigError, DataError
from ossicle.processor import as_samples
from ossicle.types import AudioTokens

CLIPS_PER_PASS = 16
PASSES_PER_SHARD = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What is kept of one clip.

    Attributes:
        num_samples: Its length at 16 kHz.
        values: (N, D) tokens of each encoder, by the name of the stream that owns it.
        rates_hz: Tokens per second of each.
    """

    num_samples: int
    values: dict[str, Tensor]
    rates_hz: dict[str, float]


class FeatureCache:
    """Kept encoder outputs of one model.

    Args:
        folder: Where caches of all models lie.
        model: An `AudioLM`; all its encoders must be frozen.
        dtype: Dtype that is kept; a clip that does not fit into it is kept in float32.

    Raises:
        ConfigError: An encoder trains.
    """

    def __init__(self, folder: Path, model: Any, *, dtype: torch.dtype = torch.float16) -> None:
        self.model = model
        self.dtype = dtype
        self.rates_hz = {}
        for name, stream in model.streams.items():
            if stream.encoder is None:
                continue
            parts = stream.encoder.feature_parts()
            if any(parameter.requires_grad for part in parts for parameter in part.parameters()):
                raise ConfigError(f"feature_cache: the encoder of stream '{name}' trains in this stage; switch it off")
            self.rates_hz[name] = parts[0].facts.rate_hz
        self.folder = folder / fingerprint(model, dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shards: list[Any] = []
        self.where: dict[str, int] = {}
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            self._open(path)

    def __contains__(self, audio: Audio) -> bool:
        return identity(audio) in self.where

    def __len__(self) -> int:
        return len(self.where)

    def get(self, audio: Audio) -> Features:
        """Return what is kept of a clip; one that `fill` did not see is encoded now, and not kept.

        Raises:
            AudioError: It has to be encoded and cannot be read.
        """
        key = identity(audio)
        if key not in self.where:
            return self._encode([audio])[0]
        shard = self.shards[self.where[key]]
        values = {name: shard.get_tensor(f"{key}|{name}") for name in self.rates_hz}
        return Features(num_samples=int(shard.get_tensor(f"{key}|samples")), values=values, rates_hz=self.rates_hz)

    def fill(self, audios: Iterable[Audio]) -> Iterator[int]:
        """Encode and keep every clip that is not kept yet; yield how many clips each finished shard had.

        Clips go through in groups that depend only on their order, so that an interrupted filling goes on to the same
        numbers. A clip that cannot be read is left out here, and met again, and counted, when it is drawn.
        """
        pending: list[Audio] = []
        seen: set[str] = set()
        for audio in audios:
            key = identity(audio)
            if key in seen:
                continue
            seen.add(key)
            pending.append(audio)
            if len(pending) == CLIPS_PER_PASS * PASSES_PER_SHARD:
                yield self._shard(pending)
                pending = []
        if pending:
            yield self._shard(pending)

    def _shard(self, audios: Sequence[Audio]) -> int:
        from safetensors.torch import save_file

        from ossicle.errors import AudioError

        keys = [identity(audio) for audio in audios]
        if all(key in self.where for key in keys):
            return len(keys)
        tensors: dict[str, Tensor] = {}
        for start in range(0, len(audios), CLIPS_PER_PASS):
            group = audios[start : start + CLIPS_PER_PASS]
            try:
                features = self._encode(group)
            except AudioError:
                group = [audio for audio in group if _readable(audio)]
                features = self._encode(group) if group else []
            for audio, kept in zip(group, features, strict=True):
                key = identity(audio)
                tensors[f"{key}|samples"] = torch.tensor(kept.num_samples)
                tensors.update({f"{key}|{name}": self._narrow(values) for name, values in kept.values.items()})
        name = hashlib.blake2b("".join(keys).encode(), digest_size=8).hexdigest()
        path = self.folder / f"shard-{name}.safetensors"
        temporary = path.with_suffix(f".writing{os.getpid()}")  # rows of a study may fill one folder at once
        try:
            save_file(tensors, temporary)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DataError(f"feature cache {self.folder}: cannot be written ({error.strerror or error})") from None
        temporary.replace(path)
        self._open(path)
        return len(keys)

    def _narrow(self, values: Tensor) -> Tensor:
        narrow = values.to(self.dtype)
        return (narrow if bool(narrow.isfinite().all()) else values.float()).contiguous()

    def _open(self, path: Path) -> None:
        from safetensors import safe_open

        shard = safe_open(path, framework="pt")
        for key in shard.keys():  # noqa: SIM118 (not a mapping)
            clip, _, what = key.rpartition("|")
            if what == "samples":
                self.where[clip] = len(self.shards)
        self.shards.append(shard)

    @torch.no_grad()
    def _encode(self, audios: Sequence[Audio]) -> list[Features]:
        waves = [torch.from_numpy(as_samples(waveform(audio), 0)) for audio in audios]
        lengths = torch.tensor([len(wave) for wave in waves])
        device = self.model.device
        values = nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
        encoded: dict[str, AudioTokens] = self.model.encode(values, lengths.to(device), every=True)
        counts = {name: tokens.counts().tolist() for name, tokens in encoded.items()}
        return [
            Features(
                num_samples=int(lengths[row]),
                values={name: tokens.values[row, : counts[name][row]].cpu() for name, tokens in encoded.items()},
                rates_hz=self.rates_hz,
            )
            for row in range(len(waves))
        ]


def _readable(audio: Audio) -> bool:
    from ossicle.errors import AudioError

    try:
        waveform(audio)
    except AudioError:
        return False
    return True


def fingerprint(model: Any, dtype: torch.dtype) -> str:
    """Return a hash of everything in a model that encoder outputs depend on."""
    digest = hashlib.blake2b(str(dtype).encode(), digest_size=12)
    for name, stream in model.streams.items():
        if stream.encoder is None:
            continue
        for part in stream.encoder.feature_parts():
            settings = part.config.model_dump(
                mode="json", exclude={"pretrained", "revision"}
            )  # where weights came from
            digest.update(json.dumps([name, settings], sort_keys=True).encode())
            for key, tensor in part.state_dict().items():
                digest.update(key.encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
