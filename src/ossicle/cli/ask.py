"""`ossicle ask AUDIO… [QUESTION]`: one answer per clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.clips import list_clips, read_clips, split_question
from ossicle.cli.options import (
    DeviceOption,
    DtypeOption,
    InputModeOption,
    JsonOption,
    ModelOption,
    TranscribeOption,
)
from ossicle.errors import ConfigError, UserError

if TYPE_CHECKING:
    from ossicle.inference.engine import Answer, Engine
    from ossicle.types import Waveform

BATCH = 16

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": False})
def command(
    words: Annotated[list[str], typer.Argument(metavar="AUDIO... [QUESTION]", help="Files, folders, globs, or - .")],
    model: ModelOption = "nano",
    json: JsonOption = False,
    trace: Annotated[bool, typer.Option("--trace", help="Show what each stream heard and what fired.")] = False,
    when: Annotated[bool, typer.Option("--when", help="Show when it listened: what muting each second costs.")] = False,
    input_mode: InputModeOption = "joint",
    transcribe: TranscribeOption = "",
    transcript: Annotated[str, typer.Option("--transcript", help="What is said in it, where that is known.")] = "",
    picture: Annotated[
        Path | None, typer.Option("--picture", help="With --when: an SVG over the spectrogram; one clip.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 64,
    into: Annotated[
        Path | None, typer.Option("--output", help="JSON lines, written as answers come; run again to go on.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Ask a question about recordings; one answer per clip.

    The last word is the question; without one it is "What do you hear?".

    Example: ossicle ask clip.wav "How many sounds are there?"
    """
    audio, question = split_question(words)
    if into is not None:
        _check_output(trace or when or picture is not None, bool(transcribe or transcript) or input_mode != "joint")
        told = _written(into, list_clips(audio), question, model, max_new_tokens, device, dtype)
        output.emit(told, json=json, text=_told(told))
        return
    clips = read_clips(audio)
    _check_picture(picture, when, len(clips.waveforms))
    for row in clips.skipped:
        output.warn(f"skipped: {row['reason']}")

    from ossicle.inference.engine import load
    from ossicle.inference.transcribe import hearing

    heard = hearing(input_mode, transcribe, transcript)
    engine = load(model, device=device, dtype=dtype)
    engine.hearing = heard
    output.note_setting_line(engine.setting)
    rows = [
        _row(engine, wave, question, answer, trace=trace, when=when)
        for wave, answer in _answers(engine, clips.waveforms, question, max_new_tokens)
    ]
    result = _result(engine, rows, many=len(rows) > 1 or len(clips.waveforms) + len(clips.skipped) > 1)
    if clips.skipped:
        result["skipped"] = clips.skipped
    if picture is not None:
        result["picture"] = _drawn(picture, clips.waveforms[0], rows[0]["when"])
    output.emit(result, json=json, text="\n".join(_lines(rows)))


def _check_output(shows_more: bool, hears_otherwise: bool) -> None:
    if shows_more:
        raise UserError("--output keeps answers alone; leave --trace, --when and --picture away")
    if hears_otherwise:
        raise UserError("--output asks with the audio alone; leave --transcribe, --transcript and --input-mode away")


def _drawn(path: Path, wave: Waveform, when: dict[str, Any]) -> str:
    """Write the picture of when one clip was listened to; return its path."""
    from ossicle.serve.picture import figure

    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(figure(wave, when), encoding="utf-8")
    aside.replace(path)
    return str(path)


def _written(
    into: Path, paths: list[Path], question: str, model: str, max_new_tokens: int, device: str, dtype: str
) -> dict[str, Any]:
    """Write answers to a file, with a progress bar; return what `--json` prints."""
    from tqdm import tqdm

    from ossicle.inference.answers import answer_into
    from ossicle.inference.engine import load

    engine = load(model, device=device, dtype=dtype)
    output.note_setting_line(engine.setting)
    with tqdm(total=len(paths), unit="clip", disable=len(paths) <= BATCH) as bar:
        done = answer_into(into, engine, paths, question, max_new_tokens=max_new_tokens, tell=bar.update)
    for row in done.skipped:
        output.warn(f"skipped: {row['reason']}")
    if not done.rows:
        raise UserError(f"none of {len(paths)} recordings could be read; the first: {done.skipped[0]['reason']}")
    names = ("path", "duration_s", "tokens", "truncated")
    return {
        "answer": done.rows[0]["answer"],
        "model": engine.name,
        "audio": [{name: row[name] for name in names if name in row} for row in done.rows],
        "timing_s": {"load": engine.load_s},
        "output": into,
        "answered": len(done.rows) - done.before,
        "before": done.before,
        "skipped": done.skipped,
    }


def _told(result: dict[str, Any]) -> str:
    """Return a line about a file of answers."""
    parts = [f"{result['answered']} answers written to {result['output']}"]
    parts += [f"{result['before']} stood there before"] if result["before"] else []
    parts += [f"{len(result['skipped'])} skipped"] if result["skipped"] else []
    return ", ".join(parts)


def _answers(
    engine: Engine, waves: Sequence[Waveform], question: str, max_new_tokens: int
) -> Iterator[tuple[Waveform, Answer]]:
    """Yield every clip with its answer, a batch at a time, with a progress bar when there are many."""
    from tqdm import tqdm

    with tqdm(total=len(waves), unit="clip", disable=len(waves) <= BATCH) as bar:
        for start in range(0, len(waves), BATCH):
            batch = waves[start : start + BATCH]
            said = engine.answer([(wave, question) for wave in batch], max_new_tokens=max_new_tokens)
            bar.update(len(batch))
            yield from zip(batch, said, strict=True)


def _row(engine: Engine, wave: Waveform, question: str, answer: Answer, *, trace: bool, when: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "answer": answer.text,
        "audio": {
            "path": wave.name,
            "duration_s": round(wave.duration_s, 3),
            "tokens": answer.audio_tokens,
            "truncated": wave.truncated,
        },
        "timing_s": {stage: answer.timing_s.get(stage, 0.0) for stage in ("encode", "prefill", "decode")},
    }
    if engine.hearing.transcriber is not None or engine.hearing.given:
        row["transcript"] = answer.transcript
    if wave.truncated:
        row["audio"]["lost_s"] = round(wave.lost_s, 3)
    if answer.stretches is not None:
        row["audio"]["heard_s"] = [list(stretch) for stretch in answer.stretches]
    if trace:
        from ossicle.inference.trace import trace as traced

        row["trace"] = traced(engine, wave, question)
    if when:
        from ossicle.inference.listen import listened

        row["when"] = listened(engine, wave, question, answer.text)
    return row


def _result(engine: Engine, rows: list[dict[str, Any]], *, many: bool) -> dict[str, Any]:
    """Return what `--json` prints: the first clip's answer on top, all of them under `answers`."""
    stages = ("encode", "prefill", "decode")
    result = {
        **rows[0],
        "model": engine.name,
        "audio": [row["audio"] for row in rows],
        "timing_s": {"load": engine.load_s, **{stage: rows[0]["timing_s"][stage] for stage in stages}},
    }
    if many:
        result["answers"] = [{"path": row["audio"]["path"], **row} for row in rows]
    return result


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        prefix = f"{row['audio']['path']}: " if len(rows) > 1 else ""
        yield f"{prefix}{row['answer']}"
        if "heard_s" in row["audio"]:
            stretches = (f"{_clock(start)}–{_clock(end)}" for start, end in row["audio"]["heard_s"])
            yield f"    heard what stands out: {', '.join(stretches)}"
        if "transcript" in row:
            yield f"    read: {row['transcript'] or 'nothing'}"
        if "trace" in row:
            from ossicle.inference.trace import lines

            yield from (f"    {line}" for line in lines(row["trace"]))
        yield from _when(row["when"]) if "when" in row else ()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _when(when: dict[str, Any]) -> Iterator[str]:
    """Yield what muting each stretch costs and, beside it, how much is looked at it."""
    looked = when["attention"].get("seconds")
    yield f"    when it listened: {when['method']}" + (", then attention" if looked else "")
    for index, second in enumerate(when["seconds"]):
        beside = f"  {looked[index]['weight']:.2f}" if looked else ""
        weight = second["weight"]
        yield f"    {second['start_s']:6.1f} s  {weight:.2f}{beside}  {'▇' * round(40 * weight)}".rstrip()
    if not looked:
        yield f"    attention: {when['attention']['unavailable']}"


def _check_picture(picture: Path | None, when: bool, num_clips: int) -> None:
    if picture is None:
        return
    if not when or num_clips != 1:
        raise ConfigError(f"--picture {picture}: shows when one clip was listened to; give one clip and --when")
    if picture.suffix != ".svg" or not picture.absolute().parent.is_dir():
        raise ConfigError(f"--picture {picture}: expected a name that ends in .svg, in a folder that is there")
