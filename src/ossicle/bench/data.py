"""How fast the data engine is on this machine, per core: closed questions from facts in memory, and describing audio.

    rate = questions or seconds of audio / seconds of processor time         one process, no disk

The paper's set (9,641,740 questions about roughly a million clips of 10 s) is scaled from these rates, linearly;
nothing of that size was run. What its 6.69 million open questions take from a language model is counted in requests and
tokens, ten questions a request, from the length of the prompt about a clip of two labels and a transcript: money is
tokens times the endpoint's price. Source: our choice; LTU-AS (arXiv 2309.14405) for the numbers of questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.types import SAMPLE_RATE_HZ, Waveform

LABELS = 50
PAPER_QUESTIONS, PAPER_CLIPS, PAPER_CLIP_S = 9_641_740, 1_000_000, 10.0
PAPER_OPEN, OPEN_PER_CALL = 6_690_000, 10
MACHINES = (1, 8, 64)


def run(*, clips: int = 3000, rounds: int = 3, cores: int = 16, seed: int = 0) -> dict[str, Any]:
    """Return rates of this machine and what they mean for the paper's set.

    Args:
        clips: Labelled clips that are asked about.
        rounds: Of each measurement; the fastest counts, for other work can only slow one down.
        cores: Of a machine, for the scaling.
        seed: Of facts and sounds.
    """
    closed = max(_closed_rate(clips, seed) for _ in range(rounds))
    sounds = [_voice(np.random.default_rng([seed, n])) for n in range(2)]
    seconds = min(_seconds(lambda: [_describe(sound) for sound in sounds]) for _ in range(rounds)) / len(sounds)
    describe_h = PAPER_CLIPS * seconds / 3600
    closed_h = PAPER_QUESTIONS / closed / 3600
    return {
        "closed_questions_per_s": round(closed),
        "describe_ms_per_10s": round(1000 * seconds, 1),
        "describe_times_real_time": round(10 / seconds),
        "paper_set": {
            "questions": PAPER_QUESTIONS,
            "clips": PAPER_CLIPS,
            "core_hours": {"describe": round(describe_h, 2), "closed_questions": round(closed_h, 3)},
            "hours": {str(n): round((describe_h + closed_h) / (n * cores), 3) for n in MACHINES},
            "cores_per_machine": cores,
            "open_questions": _open_questions(),
        },
    }


def _open_questions() -> dict[str, int]:
    """Return the requests and tokens that the paper's open questions take."""
    from ossicle.data.clip import Clip
    from ossicle.questions.ask_model import estimate, units_of
    from ossicle.questions.corpus import Corpus
    from ossicle.questions.endpoint import EndpointConfig

    clip = Clip(path=Path("/a.wav"), source="bench", labels=("Speech", "Rain"), transcript="some words are said here")
    config = EndpointConfig(url="http://localhost/v1", model="model")
    told = estimate(list(units_of([clip], Corpus(), config, pairs=OPEN_PER_CALL)), None, config)
    calls = PAPER_OPEN // OPEN_PER_CALL
    return {"calls": calls, "tokens_in": calls * told["tokens_in"], "tokens_out": calls * told["tokens_out"]}


def _seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _closed_rate(count: int, seed: int) -> float:
    from ossicle.data.clip import Clip
    from ossicle.questions.corpus import survey
    from ossicle.questions.generate import Plan, rows_of

    rng = np.random.default_rng(seed)
    clips = [
        Clip(
            path=Path(f"/{n}.wav"),
            source="bench",
            labels=(f"label {rng.integers(LABELS)}",),
            transcript="some words are said",
            gender=("female", "male")[n % 2],
            duration_s=float(rng.uniform(1, 10)),
            facts={
                "rms_db": float(rng.uniform(-60, -10)),
                "f0_median_hz": float(rng.uniform(80, 300)),
                "words_per_s": float(rng.uniform(1, 5)),
            },
        )
        for n in range(count)
    ]
    corpus, plan = survey(clips), Plan(seed=seed)
    rows_of(clips[:100], corpus, plan)
    made: list[Any] = []
    seconds = _seconds(lambda: made.extend(rows_of(clips, corpus, plan)))
    return len(made) / seconds


def _voice(rng: np.random.Generator) -> Waveform:
    """Return ten seconds of a gliding, pausing harmonic sound over noise."""
    time_s = np.arange(10 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * np.cumsum(130 + 30 * np.sin(2 * np.pi * 0.4 * time_s)) / SAMPLE_RATE_HZ
    voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * (np.sin(2 * np.pi * 1.7 * time_s) > -0.5)
    return Waveform(samples=(0.1 * voice + rng.normal(0, 0.003, len(time_s))).astype(np.float32))


def _describe(sound: Waveform) -> Any:
    from ossicle.audio.acoustics import measure

    return measure(sound)
