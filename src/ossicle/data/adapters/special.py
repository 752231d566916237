"""Layouts that no table says: several files per recording, headers of two rows, facts hidden in file names.

Each reader is `f(root, layout, tally) -> clips`; licence, page and the rest stand in the YAML of the same name.
Source: the owners' pages named there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from ossicle.audio.io import is_audio_path
from ossicle.data.adapters.table import Layout, Table, make_clip, table_rows
from ossicle.data.clip import Clip
from ossicle.data.manifest import clip_of
from ossicle.data.rows import Tally
from ossicle.errors import DataError

GENDERS = {"F": "female", "M": "male"}
MOST_YEARS = 120
EMODB_SPEAKERS = {
    "03": ("male", 31), "08": ("female", 34), "09": ("female", 21), "10": ("male", 32), "11": ("male", 26),
    "12": ("male", 30), "13": ("female", 32), "14": ("female", 35), "15": ("male", 25), "16": ("female", 31),
}  # fmt: skip
EMODB_EMOTIONS = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral"
}  # fmt: skip
IEMOCAP_EMOTIONS = {
    "ang": "anger", "hap": "happiness", "exc": "excitement", "sad": "sadness", "neu": "neutral", "fru": "frustration",
    "fea": "fear", "sur": "surprise", "dis": "disgust",
}  # fmt: skip


def librispeech(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield utterances: SPLIT/SPEAKER/CHAPTER/*.flac with one *.trans.txt per chapter, and SPEAKERS.TXT."""
    speakers = {}
    for line in _lines(root / "SPEAKERS.TXT"):
        parts = [part.strip() for part in line.split("|")]
        if not line.startswith(";") and len(parts) > 1:
            speakers[parts[0]] = GENDERS.get(parts[1])
    for script in sorted(root.rglob("*.trans.txt")):
        for line in _lines(script):
            name, _, words = line.partition(" ")
            yield from _utterance(script.parent / f"{name}.flac", words, speakers, root, layout, tally)
    if not tally.taken:
        raise DataError(f"{root}: no *.trans.txt below; expected SPLIT/SPEAKER/CHAPTER/ as LibriSpeech is published")


def libritts(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield utterances: SPLIT/SPEAKER/CHAPTER/*.wav, each with *.normalized.txt, and speakers.tsv."""
    table = Table(file="speakers.tsv", delimiter="\t", header=["reader", "gender", "subset", "name"])
    speakers = {row["reader"]: GENDERS.get(str(row["gender"])) for row in table_rows(root, table)}
    for path in sorted(root.rglob("*.normalized.txt")):
        sound = path.with_name(path.name.removesuffix(".normalized.txt") + ".wav")
        yield from _utterance(sound, path.read_text(encoding="utf-8").strip(), speakers, root, layout, tally)
    if not tally.taken:
        raise DataError(f"{root}: no *.normalized.txt below; expected SPLIT/SPEAKER/CHAPTER/ as LibriTTS is published")


def _utterance(
    path: Path, words: str, speakers: dict[str, str | None], root: Path, layout: Layout, tally: Tally
) -> Iterator[Clip]:
    tally.taken += 1
    if not path.is_file():
        tally.skip("no recording", str(path))
        return
    speaker = path.parent.parent.name
    row = {"path": str(path), "transcript": words, "speaker": speaker, "gender": speakers.get(speaker)}
    row |= {"split": path.parent.parent.parent.name, "language": layout.language, "licence": layout.licence}
    yield clip_of(row, root, source=layout.name)


def emodb(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield utterances whose names say all: 03a01Fa = speaker 03, text a01, emotion F, take a."""
    for path in sorted(root.rglob("*.wav")):
        tally.taken += 1
        match = re.fullmatch(r"(\d\d)([ab]\d\d)([A-Z])[a-z]", path.stem)
        if match is None or match[1] not in EMODB_SPEAKERS or match[3] not in EMODB_EMOTIONS:
            tally.skip("name does not fit the layout", path.name)
            continue
        gender, age = EMODB_SPEAKERS[match[1]]
        row = {"path": str(path), "speaker": match[1], "gender": gender, "age": age, "sentence_code": match[2]}
        row |= {"emotion": EMODB_EMOTIONS[match[3]], "language": "de", "licence": layout.licence}
        yield clip_of(row, root, source=layout.name)


def iemocap(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield turns: SessionN/dialog/EmoEvaluation/*.txt, …/transcriptions/*.txt, SessionN/sentences/wav/DIALOG/*.wav."""
    turn = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\w+)\s")
    said = re.compile(r"(\S+) \[[\d.]+-[\d.]+\]:\s*(.*)")
    for judged in sorted(root.glob("Session*/dialog/EmoEvaluation/*.txt")):
        session = judged.parents[2]
        script = session / "dialog" / "transcriptions" / judged.name
        words = {m[1]: m[2] for line in _lines(script) if (m := said.match(line))}
        for line in _lines(judged):
            if not (match := turn.match(line)):
                continue
            tally.taken += 1
            name, emotion = match[1], IEMOCAP_EMOTIONS.get(match[2])
            path = session / "sentences" / "wav" / judged.stem / f"{name}.wav"
            if not path.is_file() or emotion is None:
                tally.skip("no recording" if emotion else "emotion not agreed", name)
                continue
            gender = GENDERS.get(name.split("_")[-1][:1])
            row = {"path": str(path), "transcript": words.get(name), "emotion": emotion, "gender": gender}
            row |= {"speaker": f"{name[:5]}{gender}", "group": session.name, "licence": layout.licence}
            yield clip_of({**row, "language": "en"}, root, source=layout.name)
    if not tally.taken:
        raise DataError(f"{root}: no Session*/dialog/EmoEvaluation/*.txt; expected IEMOCAP as it is published")


def voxceleb2(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield utterances: SPLIT/aac/SPEAKER/VIDEO/*.m4a (or converted), vox2_meta.csv, and an age table where it lies.

    The ages are of a third party, by speaker and video (option `ages`); a speaker grows older between videos.
    """
    meta, ages = layout.tables
    genders = {row["VoxCeleb2 ID"]: GENDERS.get(str(row["Gender"]).upper()) for row in table_rows(root, meta)}
    found = table_rows(root, ages) if any(root.glob(ages.file)) else iter(())
    age_of = {(row["VoxCeleb_ID"], row["video_id"]): row["speaker_age"] for row in found}
    for path in filter(is_audio_path, sorted(root.glob("*/*/id*/*/*"))):
        tally.taken += 1
        split, _, speaker, video, _ = path.relative_to(root).parts
        row = {"path": str(path), "speaker": speaker, "gender": genders.get(speaker), "split": split}
        row |= {"age": _years(age_of.get((speaker, video))), "recording": f"youtube {video}"}
        yield clip_of({**row, "licence": layout.licence}, root, source=layout.name)
    if not tally.taken:
        raise DataError(f"{root}: no SPLIT/aac/SPEAKER/VIDEO/*.m4a below; expected VoxCeleb2 as it is published")


def _years(text: str | None) -> str | None:
    """Return an age in whole years; None for none, `nan`, or what no person is."""
    try:
        years = round(float(text or ""))
    except ValueError:
        return None
    return str(years) if 0 < years < MOST_YEARS else None


def fma(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield tracks: fma_metadata/tracks.csv has a header of two rows; 000002.mp3 lies in a folder 000."""
    table = next(iter(sorted(root.rglob("tracks.csv"))), None)
    if table is None:
        raise DataError(f"{root}: no tracks.csv; expected fma_metadata beside the recordings")
    sounds = {path.stem: path for path in root.rglob("*") if is_audio_path(path.name)}
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        columns = {pair: i for i, pair in enumerate(zip(next(rows), next(rows), strict=True))}
        for row in rows:
            if not row[0].isdigit():
                continue
            tally.taken += 1
            path = sounds.get(f"{int(row[0]):06d}")
            if path is None:
                tally.skip("no recording", row[0])
                continue
            genre, title = (row[columns["track", name]] for name in ("genre_top", "title"))
            values = {"path": str(path), "genres": [genre] if genre else [], "title": title or None}
            values |= {"split": row[columns["set", "split"]], "licence": row[columns["track", "license"]]}
            yield clip_of({**values, "group": row[columns["artist", "id"]]}, root, source=layout.name)


def audioset_strong(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield segments with their events: one row of the table is one event, NAME_30000 begins at 30 s of NAME."""
    names = {row["mid"]: row["name"] for row in table_rows(root, layout.tables[1])}
    events: dict[str, list[tuple[str, float, float]]] = {}
    for row in table_rows(root, layout.tables[0]):
        if row["start_time_seconds"] == "start_time_seconds":
            continue  # the line of names, which the owner's page does not show
        label = names.get(row["label"], row["label"])
        span = float(row["start_time_seconds"]), float(row["end_time_seconds"])
        events.setdefault(row["segment_id"], []).append((label, *span))
    sounds = {path.stem: path for path in (root / "audio").rglob("*") if is_audio_path(path.name)}
    for segment, found in events.items():
        tally.taken += 1
        video, _, milliseconds = segment.rpartition("_")
        path = sounds.get(segment) or sounds.get(video)
        if path is None:
            tally.skip("no recording", segment)
            continue
        found.sort(key=lambda event: event[1])
        clip = make_clip(root, layout, {"recording": video, "start": milliseconds}, path)
        labels = tuple(dict.fromkeys(label for label, _, _ in found))
        yield clip_of(
            {"path": str(path), "labels": list(labels), "events": found, "recording": clip.recording,
             "licence": layout.licence}, root, source=layout.name,
        )  # fmt: skip


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
