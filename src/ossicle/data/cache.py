"""Outputs of frozen encoders, computed once and kept on disk.

    key of a folder = hash(encoder weights, adapters included · settings · what of long clips is heard · dtype)
    key of a clip   = hash(the audio: file, size, date and span; or generator, settings and number; or samples)

    FOLDER/<encoder hash>/shard-<hash>.safetensors      memory-mapped; written whole, then renamed: `data.cache_shard`

Several processes may fill one folder: each file is made by one of them, and the others take it. A clip is checked when
it is first read; a damaged one is encoded again. Refused for an encoder that trains in the stage, and for endless or
augmented sources, whose clips never come again.
Source: our choice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.data.cache_shard import Energies, Features, Shard, claim, pack, write
from ossicle.data.sample import Audio, identity, waveform
from ossicle.errors import ConfigError, DataError
from ossicle.processor import as_samples
from ossicle.types import SAMPLE_RATE_HZ, AudioTokens

CLIPS_PER_PASS = 16
PASSES_PER_SHARD = 16
HELD_SAMPLES = 1800 * SAMPLE_RATE_HZ
"""Half an hour of audio, 115 MB, is laid by length before it is encoded."""
log = logging.getLogger(__name__)


class FeatureCache:
    """Kept encoder outputs of one model.

    Args:
        folder: Where caches of all models lie.
        model: An `AudioLM`; all its encoders must be frozen.
        dtype: What is kept: float32, float16, bfloat16 or int8; a clip that does not fit into it is kept in float32.

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
        self.shards: list[Shard] = []
        self.where: dict[str, int] = {}
        self.opened: set[Path] = set()
        self.damaged = 0
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
        if key in self.where:
            kept = self.shards[self.where[key]].get(key, self.rates_hz)
            if kept is not None:
                return kept
            self._lose(key)
        return self._encode([as_samples(waveform(audio), 0)])[0]

    def verify(self) -> int:
        """Read everything that is kept, and return how many clips are damaged; `fill` makes them again."""
        for key, shard in list(self.where.items()):
            if not self.shards[shard].whole(key):
                self._lose(key)
        return self.damaged

    def loss(self) -> dict[str, float]:
        """Return what the dtype costs by stream: the relative root mean square error over all that is kept."""
        total = Energies()
        for shard in {self.shards[number] for number in set(self.where.values())}:
            for name, (lost, whole) in shard.energies.items():
                total.add(name, lost, whole)
        return total.loss()

    def _lose(self, key: str) -> None:
        self.damaged += 1
        del self.where[key]
        log.warning("feature cache %s: a clip is damaged and is encoded again", self.folder)

    def fill(self, audios: Iterable[Audio]) -> Iterator[int]:
        """Encode and keep every clip that is not kept yet; yield how many clips each finished shard had.

        Clips go through in groups that depend only on their order and lengths, so that an interrupted filling goes on
        to the same numbers. A clip that cannot be read is left out here, and met again, and counted, when it is drawn.
        """
        elsewhere = []
        for group in _groups(audios):
            if self._shard(group, wait=False):
                yield len(group)
            else:
                elsewhere.append(group)
        for group in elsewhere:  # another process had begun them: its result is taken, or made where it died
            self._shard(group, wait=True)
            yield len(group)

    def _shard(self, audios: Sequence[Audio], *, wait: bool) -> bool:
        """Have what is kept of some clips; False = another process makes it."""
        keys = [identity(audio) for audio in audios]
        name = hashlib.blake2b("".join(keys).encode(), digest_size=8).hexdigest()
        path = self.folder / f"shard-{name}.safetensors"
        if all(key in self.where for key in keys):
            return True
        with claim(path, wait=wait) as mine:
            if not mine:
                return False
            if path not in self.opened and path.is_file():
                self._open(path)
            missing = [audio for audio in audios if identity(audio) not in self.where]
            if not path.is_file():
                self._make(missing, path)
            elif any(_read(audio) is not None for audio in missing):  # something of this file was damaged
                self._make(audios, path)
        return True

    def _make(self, audios: Sequence[Audio], path: Path) -> None:
        tensors: dict[str, Tensor] = {}
        energies = Energies()
        for clips in _alike(audios):
            features = self._encode([samples for _, samples in clips])
            for (audio, _), kept in zip(clips, features, strict=True):
                tensors |= pack(identity(audio), kept, self.dtype, energies)
        write(path, tensors, energies)
        self._open(path)

    def _open(self, path: Path) -> None:
        self.opened.add(path)
        try:
            shard = Shard(path)
        except DataError as error:
            log.warning("%s; it is made again", error)
            self.damaged += 1
            return
        self.where |= dict.fromkeys(shard.names, len(self.shards))
        self.shards.append(shard)

    @torch.no_grad()
    def _encode(self, clips: Sequence[np.ndarray]) -> list[Features]:
        waves = [torch.from_numpy(samples) for samples in clips]
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


def _groups(audios: Iterable[Audio]) -> Iterator[list[Audio]]:
    """Yield the clips of one file after the other, each clip once."""
    pending: list[Audio] = []
    seen: set[str] = set()
    for audio in audios:
        key = identity(audio)
        if key in seen:
            continue
        seen.add(key)
        pending.append(audio)
        if len(pending) == CLIPS_PER_PASS * PASSES_PER_SHARD:
            yield pending
            pending = []
    if pending:
        yield pending


def _alike(audios: Sequence[Audio]) -> Iterator[list[tuple[Audio, np.ndarray]]]:
    """Yield the clips that can be read in groups of like length, so that little of a group is padding."""
    held: list[tuple[Audio, np.ndarray]] = []
    for number, audio in enumerate(audios, 1):
        samples = _read(audio)
        if samples is not None:
            held.append((audio, samples))
        if number == len(audios) or sum(len(samples) for _, samples in held) > HELD_SAMPLES:
            held.sort(key=lambda clip: len(clip[1]))
            yield from (held[i : i + CLIPS_PER_PASS] for i in range(0, len(held), CLIPS_PER_PASS))
            held = []


def _read(audio: Audio) -> np.ndarray | None:
    """Return a clip's samples, None where it cannot be read."""
    from ossicle.errors import AudioError

    try:
        return as_samples(waveform(audio), 0)
    except AudioError:
        return None


def fingerprint(model: Any, dtype: torch.dtype) -> str:
    """Return a hash of everything in a model that encoder outputs depend on."""
    digest = hashlib.blake2b(str(dtype).encode(), digest_size=12)
    if model.config.focus is not None:
        digest.update(json.dumps(["focus", model.config.focus], sort_keys=True).encode())
    for name, stream in model.streams.items():
        if stream.encoder is None:
            continue
        align = getattr(stream.encoder.config, "align", "overlap")  # how a mixture joins its members
        if align != "overlap":
            digest.update(json.dumps([name, "align", align]).encode())
        for part in stream.encoder.feature_parts():
            settings = part.config.model_dump(
                mode="json", exclude={"pretrained", "revision"}
            )  # where weights came from
            digest.update(json.dumps([name, settings], sort_keys=True).encode())
            for key, tensor in part.state_dict().items():
                digest.update(key.encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
