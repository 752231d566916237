"""The bundled scenes: four short recordings made by this world, with questions and true answers.

    for scene in demo.scenes():
        scene.path, scene.title, scene.truth, scene.questions       # questions: (question, answer) pairs

Speech by espeak-ng, sounds by the parametric sources; `make.py` wrote them from fixed seeds.

Source: our choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.types import Waveform
from ossicle.world.truth import Event, Room, Scene

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoScene:
    """A bundled recording and the truth about it.

    Attributes:
        name: File name without its ending.
        title: What happens, in a line.
        path: The recording (Ogg Vorbis, 16 kHz mono).
        truth: What `Scene.truth()` said when it was made.
        questions: (question, true answer) pairs.
    """

    name: str
    title: str
    path: Path
    truth: dict[str, Any]
    questions: tuple[tuple[str, str], ...]

    def load(self) -> Scene:
        """Return the recording and its truth as a scene."""
        import soundfile

        samples, rate_hz = soundfile.read(self.path, dtype="float32")
        background, room = self.truth["background"], self.truth["room"]
        return Scene(
            waveform=Waveform(samples=np.asarray(samples), sample_rate_hz=rate_hz, name=self.name),
            events=tuple(Event(**event) for event in self.truth["events"]),
            background=Event(**background) if background else None,
            snr_db=self.truth["snr_db"],
            room=Room(**room) if room else None,
        )


def scenes() -> list[DemoScene]:
    """Return the bundled scenes, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*.json"))]


def _read(path: Path) -> DemoScene:
    told = json.loads(path.read_text())
    return DemoScene(
        name=path.stem,
        title=told["title"],
        path=path.with_name(told["audio"]),
        truth=told["truth"],
        questions=tuple((pair["question"], pair["answer"]) for pair in told["questions"]),
    )
