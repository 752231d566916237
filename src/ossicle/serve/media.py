"""Audio parts of a request to recordings at 16 kHz.

    base64 · data: URL ─────────────┐
    https: URL (allow-listed) ──────┼──► bytes ──► decoded, at most `audio_s` ──► Recording
    file: URL, path (one folder) ───┘
    uuid alone ─────────────────────────► what the store remembers

Source: our choice.
"""

from __future__ import annotations

import binascii
import logging
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ossicle.chat import AUDIO_TAG
from ossicle.errors import AudioError
from ossicle.inference.store import HandleStore, Recording, recording
from ossicle.serve.fetch import fetch
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.schema import Message, Part
from ossicle.types import SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)


class Media:
    """Reads clips within a server's limits.

    Args:
        limits: What is accepted.
        store: Remembers clients' names for clips.
    """

    def __init__(self, limits: Limits, store: HandleStore) -> None:
        self.limits, self.store = limits, store

    def read(self, messages: list[Message], scope: str) -> tuple[list[dict[str, Any]], list[Recording]]:
        """Return plain messages with one `<audio>` tag per clip, and the clips.

        Text cannot forge a tag: where it holds one it is broken up.

        Raises:
            ApiError: Too many clips, or one that cannot be had, decoded or is too long.
        """
        plain, clips = [], list[Recording]()
        for row, message in enumerate(messages):
            parts = message.content
            parts = [Part(type="text", text=parts or "")] if parts is None or isinstance(parts, str) else parts
            text = ""
            for column, part in enumerate(parts):
                if part.type == "text":
                    text += untagged(part.text or "")
                    continue
                where = f"messages.{row}.content.{column}"
                if len(clips) == self.limits.audios:
                    raise ApiError(
                        f"more than {self.limits.audios} clips in one request", param=where, code="too_many_clips"
                    )
                if message.role == "assistant":
                    raise ApiError("audio belongs to user or system messages", param=where)
                text += AUDIO_TAG
                clips.append(self.clip(part, scope, where))
                if sum(clip.num_samples for clip in clips) > self.limits.audio_s * SAMPLE_RATE_HZ:
                    raise ApiError(
                        f"more than {self.limits.audio_s:g} s of audio in one request",
                        param=where,
                        status=413,
                        code="audio_too_long",
                    )
            role = "system" if message.role == "developer" else message.role
            plain.append({"role": role, "content": text})
        return plain, clips

    def clip(self, part: Part, scope: str, where: str) -> Recording:
        """Return one clip; one with a `uuid` is remembered under it."""
        source = part.source()
        if source is None:
            known = self.store.named(scope, part.uuid or "")
            if known is None:
                raise ApiError("no clip is known by that uuid; send its audio", param=where, code="unknown_uuid")
            return known
        found = self.decode(self.load(source, where), where)
        if part.uuid:
            self.store.name(scope, part.uuid, found)
        return found

    def decode(self, data: bytes, where: str | None = None) -> Recording:
        """Return the recording that bytes hold.

        Raises:
            ApiError: Not audio, empty, or longer than allowed.
        """
        from ossicle.audio.io import load_audio

        try:
            wave = load_audio(data, duration_s=self.limits.audio_s + 1.0)
        except AudioError as error:
            reason = str(error).removeprefix("<bytes>: ")
            raise ApiError(f"the audio {reason}", param=where, code="invalid_audio") from None
        except MemoryError:
            raise ApiError("the audio is too large", status=413, param=where, code="audio_too_large") from None
        if len(wave.samples) > self.limits.audio_s * SAMPLE_RATE_HZ:
            raise ApiError(
                f"the audio is longer than {self.limits.audio_s:g} s", status=413, param=where, code="audio_too_long"
            )
        return recording(wave)

    def load(self, source: str, where: str) -> bytes:
        """Return the bytes that a part names or holds."""
        scheme = source[:8].lower()
        if scheme.startswith("data:"):
            return _data_url(source, where)
        if scheme.startswith(("http://", "https://")):
            if not self.limits.media_domains:
                raise ApiError("this server does not fetch audio by URL", status=403, param=where, code="urls_disabled")
            most = self.limits.body_bytes
            return fetch(source, self.limits.media_domains, max_bytes=most, timeout_s=self.limits.fetch_s)
        if scheme.startswith("file:"):
            return self._local(_file_path(source, where), where)
        if "://" in source[:16]:
            raise ApiError("expected a data:, https: or file: URL", param=where, code="invalid_url")
        if self.limits.media_folder is not None and len(source) < 4096 and Path(source).suffix:
            return self._local(source, where)
        return _base64(source, where)

    def _local(self, path: str, where: str) -> bytes:
        """Return a file under the one folder that is allowed; nothing else is even looked at twice."""
        folder = self.limits.media_folder
        said = "local audio is read only from this server's media folder"
        refused = ApiError(said, status=403, param=where, code="path_not_allowed")
        if folder is None:
            raise refused
        try:
            found = (folder / path).resolve(strict=True)
            if not found.is_relative_to(folder.resolve()) or not found.is_file():
                raise refused
            if found.stat().st_size > self.limits.body_bytes:
                raise ApiError("the file is too large", status=413, param=where, code="audio_too_large")
            return found.read_bytes()
        except (OSError, ValueError, RuntimeError):
            raise refused from None


def untagged(text: str) -> str:
    """Return text in which no clip's tag is left.

    Example:
        >>> untagged("say <audio>")
        'say < audio>'
    """
    return text.replace(AUDIO_TAG, f"{AUDIO_TAG[0]} {AUDIO_TAG[1:]}")


def _data_url(url: str, where: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise ApiError("a data: URL needs a comma", param=where, code="invalid_url")
    return _base64(unquote(body), where) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _file_path(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ApiError("is not a URL", param=where, code="invalid_url") from None
    if parts.netloc not in ("", "localhost"):
        raise ApiError("a file: URL must not name a host", param=where, code="invalid_url")
    return unquote(parts.path)


def _base64(text: str, where: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        pass  # broken into lines, of the alphabet for URLs, without its end, or none at all
    try:
        packed = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
        return binascii.a2b_base64(packed + "=" * (-len(packed) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise ApiError("is not base64 audio", param=where, code="invalid_audio") from None
