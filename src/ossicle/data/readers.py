"""Manifests of other tools to samples: one small function per style, chosen by the keys of a row.

    messages (ms-swift)      {"messages", "audios"}            typed parts inside `content` too (Hugging Face, OpenAI)
    sharegpt / llava / af3   {"conversations", "audios" | "sound"}
    ltu                      {"instruction", "input", "audio_id", "output"}     `input` becomes the turn's `transcript`
    slam                     {"key", "source", "target", "prompt"?}
    kimi                     {"audio_path", "question", "answer"}
    nemo                     {"audio_filepath", "text", "duration"}
    hf                       {"audio", "question", "answer"} or {"audio", "text" | "sentence" | "transcription"}

Audio paths are relative to the manifest, or to `root`. `.jsonl`, `.json` (a list) and `.gz` of both; `.parquet` and
`.arrow`, whose recordings are unpacked beside them (`NAME_audio`). A row that does
not fit is counted by reason; more than `max_skipped` of them stop the run with file and line of the first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ossicle.data import parquet
from ossicle.data.sample import AUDIO_TAG, AudioRef, FeatureFile, Sample, check
from ossicle.data.source import Need, Source, SourceConfig, SourceContext, too_many_skipped
from ossicle.data.transcripts import Order, clean
from ossicle.errors import DataError

log = logging.getLogger(__name__)

TRANSCRIBE = "Write down what is said."
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
NO_AUDIO = "empty"
"""What OpenASQA writes as `audio_id` where there is no recording."""
SOUND_TAG = re.compile(r"<sound(-\d+)?>\n?|<\|audio\|>")


class MessagesConfig(SourceConfig):
    """Settings of `messages`.

    Attributes:
        path: The manifest, in any of the styles above.
        root: Folder of the audio; None = the manifest's own.
        features: Folder of pre-extracted features (npz) that replace the audio, named as by LTU-AS; None = audio.
        clean_transcripts: How transcripts lose blanks and silence phrases (see `data.transcripts`); None = as is.
        question: Asked where a style has only a transcript.
        max_skipped: Share of unusable rows that is still accepted.
        licence: Terms of the data, for the list of needs.
    """

    kind: str = "messages"
    path: str
    root: str | None = None
    features: str | None = None
    clean_transcripts: Order | None = None
    question: str = TRANSCRIBE
    max_skipped: float = Field(default=0.01, ge=0, le=1)
    licence: str | None = None


class MessagesSource(Source):
    """The rows of a manifest. It is read once to check it; afterwards only row offsets stay in memory."""

    Config: ClassVar[type[SourceConfig]] = MessagesConfig

    def __init__(self, config: MessagesConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self.path = context.path(config.path)
        self.root = context.path(config.root) if config.root else self.path.parent
        self.features = context.path(config.features) if config.features else None
        self._rows: list[dict[str, Any]] | None = None
        self._offsets, self._lines = array("q"), array("q")
        self._durations = array("f")
        self._skips: Counter[str] = Counter()
        self._known: dict[Path, bool] = {}
        self._scan()

    @classmethod
    def needs(cls, config: Any, context: SourceContext) -> list[Need]:
        """Return the manifest."""
        path = context.path(config.path)
        size = path.stat().st_size if path.is_file() else None
        needs = [Need(what=path.name, source=str(path), present=path.is_file(), bytes=size, licence=config.licence)]
        if config.features:
            folder = context.path(config.features)
            needs.append(Need(what=f"features of {path.name}", source=str(folder), present=folder.is_dir()))
        return needs

    @classmethod
    def stand_in(cls, config: MessagesConfig, context: SourceContext) -> MessagesConfig:
        """Write a manifest over synthetic clips; it is read like the one that is missing."""
        from ossicle.data.stand_in import write_manifest

        root = (context.cache_dir or Path()) / "stand_in"
        manifest = str(write_manifest(root, context.seed).resolve())
        return config.model_copy(update={"path": manifest, "root": None, "features": None})

    def __len__(self) -> int:
        """Return how many rows fit."""
        return len(self._offsets)

    def sample(self, index: int) -> Sample:
        """Return the sample of row `index` among those that fit."""
        if self._rows is not None:
            row = self._rows[self._offsets[index]]
        else:
            with self.path.open("rb") as file:
                file.seek(self._offsets[index])
                row = json.loads(file.readline())
        return self._sample(row, self._lines[index])

    def duration_s(self, index: int) -> float:
        """Return the row's `duration`, 0 when it has none."""
        return self._durations[index]

    def skipped(self) -> dict[str, int]:
        """Return how many rows did not fit, by reason."""
        return dict(self._skips)

    def fingerprint(self) -> str:
        """Return a hash of the manifest's bytes."""
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def _scan(self) -> None:
        """Check every row and keep where the good ones are."""
        first = ""
        total = 0
        for line, offset, text in self._items():
            total += 1
            try:
                row = json.loads(text) if isinstance(text, bytes) else text
                sample = self._sample(row, line)
                self._check_files(sample)
            except (ValueError, DataError) as error:
                reason = str(error) if isinstance(error, DataError) else "not JSON"
                self._skips[re.sub(r"'.*?'|\d+", "…", reason)] += 1
                first = first or f"{self.path}:{line}: {reason}"
                continue
            self._offsets.append(offset)
            self._lines.append(line)
            duration = row.get("duration", 0)
            self._durations.append(float(duration) if isinstance(duration, int | float) else 0.0)
        if not total:
            raise DataError(f"{self.path}: holds no samples")
        too_many_skipped(dict(self._skips), total, self.config.max_skipped, first)
        if self._skips:
            log.warning("%s (and %d more rows left out)", first, sum(self._skips.values()) - 1)

    def _items(self) -> Iterator[tuple[int, int, Any]]:
        """Yield (line, offset or index, bytes or row) of each row; whole lists are kept in memory."""
        if not self.path.is_file():
            raise DataError(f"{self.path}: the manifest is not there; give its path as data.<name>.path=…")
        if self.path.suffix in parquet.SUFFIXES:
            self._rows = [self._unpacked(number, row) for number, row in enumerate(parquet.read(self.path), 1)]
            yield from ((index + 1, index, row) for index, row in enumerate(self._rows))
            return
        zipped = self.path.suffix == ".gz"
        if zipped or self.path.suffix == ".json":
            content = gzip.decompress(self.path.read_bytes()) if zipped else self.path.read_bytes()
            self._rows = _whole(content, self.path)
            yield from ((index + 1, index, row) for index, row in enumerate(self._rows))
            return
        with self.path.open("rb") as file:
            offset = 0
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield line, offset, text
                offset += len(text)

    def _unpacked(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row of a Hugging Face file with its recording as a file."""
        folder, name = self.path.with_name(f"{self.path.stem}_audio"), f"{self.path.stem}-{number:06d}"
        if not isinstance(row.get("audio"), dict):
            return row
        found = parquet.recording(row["audio"], folder, name, self.path.parent)
        return {**row, "audio": str(found or row["audio"].get("path") or "")}

    def _sample(self, row: Any, line: int) -> Sample:
        if not isinstance(row, dict):
            raise DataError(f"a row is a mapping, got {type(row).__name__}")
        messages, audios = read_row(row, self.config.question)
        if self.config.clean_transcripts:
            messages = [_cleaned(turn, self.config.clean_transcripts) for turn in messages]
        refs = tuple(self._audio(audio) for audio in audios)
        label = row.get("label")
        name = f"{self.path.name}:{line}"
        label = label if isinstance(label, str) else None
        return check(Sample(messages=tuple(messages), audios=refs, id=name, label=label))

    def _audio(self, audio: Any) -> AudioRef | FeatureFile:
        """Return the recording that a row names, or the features that stand for it."""
        found = _reference(audio, self.root)
        if self.features is not None:
            return FeatureFile(path=feature_path(self.features, found.path))
        return FeatureFile(path=found.path) if found.path.suffix == ".npz" else found

    def _check_files(self, sample: Sample) -> None:
        for audio in sample.audios:
            if isinstance(audio, AudioRef | FeatureFile) and not self._known.setdefault(
                audio.path, audio.path.is_file()
            ):
                raise DataError(f"audio '{audio.path}' is not there")


def feature_path(folder: Path, audio: Path) -> Path:
    """Return the file of a recording's features: its last three folders and its name joined by `_`, or its name alone.

    Source: LTU-AS, official code (`data_collator.py` for training, `inference_batch.py` for evaluation).

    Example:
        >>> feature_path(Path("f"), Path("/a/b/c/d/x.flac")).name
        'b_c_d_x.npz'
    """
    whole = folder / ("_".join([*audio.parts[-4:-1], audio.stem]).replace("/", "") + ".npz")
    plain = folder / f"{audio.stem}.npz"
    return plain if plain.is_file() and not whole.is_file() else whole


def _cleaned(turn: dict[str, str], order: Order) -> dict[str, str]:
    """Return a turn with its transcript cleaned; one that is nothing afterwards is left out."""
    if "transcript" not in turn:
        return turn
    text = clean(turn["transcript"], order)
    kept = {key: value for key, value in turn.items() if key != "transcript"}
    return {**kept, "transcript": text} if text else kept


def read_row(row: dict[str, Any], ask: str = TRANSCRIBE) -> tuple[list[dict[str, str]], list[Any]]:
    """Return the messages and the audios (paths, or mappings with a span) of one row of any known style.

    Raises:
        DataError: No known style, or a key of the wrong type.

    Example:
        >>> read_row({"key": "a", "source": "a.wav", "target": "hi", "prompt": "Say it."})[0][1]["content"]
        'hi'
    """
    for keys, read in STYLES:
        if all(key in row for key in keys):
            messages, audios = read(row, ask)
            if row.get("system") and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": str(row["system"])})
            return messages, audios
    raise DataError(f"no known style; keys {sorted(map(str, row))}, expected for example 'messages' and 'audios'")


def _messages(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    audios = _listed(row.get("audios", row.get("audio")))
    turns = [_turn(turn, "role", "content", audios) for turn in _turns(row["messages"], "messages")]
    return turns, audios


def _sharegpt(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    audios = _listed(row.get("audios", row.get("audio", row.get("sound"))))
    turns = [_turn(turn, "from", "value", audios) for turn in _turns(row["conversations"], "conversations")]
    if "sound" in row:
        turns = [{**turn, "content": SOUND_TAG.sub(AUDIO_TAG, turn["content"])} for turn in turns]
    return turns, audios


def _ltu(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    silent = row["audio_id"] in (None, "", NO_AUDIO)
    turns, audios = _pair(row["instruction"], row["output"], [] if silent else [row["audio_id"]])
    return [{**turns[0], "transcript": str(row["input"])} if row.get("input") else turns[0], turns[1]], audios


def _slam(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    return _pair(row.get("prompt") or ask, row["target"], [row["source"]])


def _kimi(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    return _pair(row["question"], row["answer"], _listed(row["audio_path"]))


def _nemo(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    start = row.get("offset", 0.0)
    end = start + row["duration"] if "offset" in row and "duration" in row else None
    return _pair(
        row.get("question") or ask, row["text"], [{"path": row["audio_filepath"], "start_s": start, "end_s": end}]
    )


def _hugging_face(row: dict[str, Any], ask: str) -> tuple[list[dict[str, str]], list[Any]]:
    held = (row.get(key) for key in ("answer", "text", "sentence", "transcription"))
    said = next((str(value) for value in held if value not in (None, "")), "")
    return _pair(row.get("question") or ask, said, _listed(row["audio"]))


STYLES = (
    (("messages",), _messages),
    (("conversations",), _sharegpt),
    (("instruction", "audio_id", "output"), _ltu),
    (("source", "target"), _slam),
    (("audio_path", "question", "answer"), _kimi),
    (("audio_filepath", "text"), _nemo),
    *((("audio", key), _hugging_face) for key in ("answer", "text", "sentence", "transcription")),
)


def _pair(ask: Any, answer: Any, audios: list[Any]) -> tuple[list[dict[str, str]], list[Any]]:
    content = AUDIO_TAG * len(audios) + str(ask)
    return [{"role": "user", "content": content}, {"role": "assistant", "content": str(answer)}], audios


def _turns(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise DataError(f"'{key}' is {type(value).__name__}, expected a list of turns")
    return value


def _turn(turn: Any, role_key: str, content_key: str, audios: list[Any]) -> dict[str, str]:
    """Return one turn as role and text; audio parts inside a typed content move to `audios`."""
    if not isinstance(turn, dict) or role_key not in turn or content_key not in turn:
        raise DataError(f"a turn needs '{role_key}' and '{content_key}'")
    role, content = ROLES.get(turn[role_key], str(turn[role_key])), turn[content_key]
    if isinstance(content, str):
        said = {"transcript": str(turn["transcript"])} if turn.get("transcript") else {}
        return {"role": role, "content": content, **said}
    if not isinstance(content, list):
        raise DataError(f"'{content_key}' is {type(content).__name__}, expected text or a list of parts")
    text = ""
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            text += str(part.get("text", ""))
        elif kind in ("audio", "audio_url"):
            source = part.get("path") or part.get("audio") or part.get("url") or part.get("audio_url")
            audios.append(source["url"] if isinstance(source, dict) and "url" in source else source)
            text += AUDIO_TAG
        else:
            raise DataError(f"a part of type '{kind}', expected text or audio")
    return {"role": role, "content": text}


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _reference(audio: Any, root: Path) -> AudioRef:
    """Return the recording that a row names: a path, or a mapping with `path` and a span."""
    facts = audio if isinstance(audio, dict) else {"path": audio}
    path = facts.get("path")
    if not isinstance(path, str) or not path:
        raise DataError(f"an audio is {type(audio).__name__}, expected a path")
    start = float(facts.get("start_s", facts.get("offset", 0.0)) or 0.0)
    end = facts.get("end_s")
    if end is None and facts.get("duration") is not None:
        end = start + float(facts["duration"])
    return AudioRef(path=root / path.removeprefix("file://"), start_s=start, end_s=end)


def _whole(content: bytes, path: Path) -> list[Any]:
    """Return the rows of a JSON list, or of JSON lines."""
    try:
        rows = json.loads(content)
        return rows if isinstance(rows, list) else [rows]
    except ValueError as error:
        lines = [line for line in content.splitlines() if line.strip()]
        if path.suffixes[-2:] == [".jsonl", ".gz"]:
            return [_or_none(line) for line in lines]
        where = f"{path}:{getattr(error, 'lineno', 1)}"
        raise DataError(f"{where}: not JSON: {getattr(error, 'msg', 'not text')}") from None


def _or_none(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
