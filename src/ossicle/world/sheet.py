"""The listening sheet: one page with a player, a picture and the truth for every source and a handful of scenes.

    FOLDER/index.html · FOLDER/audio/*.wav · FOLDER/pictures/*.png

Source: our choice.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ossicle.errors import require
from ossicle.types import SAMPLE_RATE_HZ
from ossicle.world import demo
from ossicle.world.items import Item, sound
from ossicle.world.scenes import Event, Room, Scene, compose, random_scene
from ossicle.world.sounds import SOURCES

COLOURS: dict[str, Any] = {"cmap": "magma", "vmin": -75.0, "vmax": 0.0}
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8889; }
body { font: 15px/1.45 sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h2 { margin-top: 2.5rem; } h3 { margin: 0 0 .4rem; font-size: 1rem; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; overflow-x: auto; }
.card img { width: 100%; min-height: 7rem; border-radius: .25rem; }
audio { width: 100%; height: 2.2rem; margin: .3rem 0; }
.wide { margin-bottom: 1rem; } table { border-collapse: collapse; width: 100%; font-size: .85rem; }
td, th { text-align: left; padding: .15rem .5rem .15rem 0; border-top: 1px solid var(--line); vertical-align: top; }
.soft { color: var(--soft); font-size: .85rem; margin: .2rem 0; }
"""


def render_sheet(
    folder: Path, seed: int = 0, names: Iterable[str] = tuple(SOURCES), progress: Callable[[str], None] | None = None
) -> Path:
    """Render the sheet and return the path of its page.

    Args:
        folder: Where to write; made when it is not there.
        seed: Seed of all sounds and scenes.
        names: Sources to show.
        progress: Receives a line now and then.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval")
    for part in ("audio", "pictures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cards: dict[str, list[str]] = {}
    for name in names:
        item = sound(name, rng)
        cards.setdefault(SOURCES[name].family, []).append(_source_card(folder, item))
    if progress:
        progress(f"ossicle: {sum(map(len, cards.values()))} sources rendered, scenes follow")
    scenes = [_scene_card(folder, title, scene) for title, scene in _scenes(rng)]
    bundled = [_demo_card(folder, scene) for scene in demo.scenes()]
    page = folder / "index.html"
    _write(page, _page(cards, scenes, bundled, seed).encode())
    return page


def _scenes(rng: np.random.Generator) -> list[tuple[str, Scene]]:
    """Return titled scenes that show what a scene can be."""
    three = [sound("beeps", rng, count=3), sound("siren", rng), sound("knocking", rng, count=4)]
    return [
        ("Three beeps, a siren, four knocks", compose(rng, three)),
        ("The same in a large room", compose(rng, three, room=Room(sixty_s=1.2, direct_db=2.0))),
        ("The same in wind, 6 dB under the events", compose(rng, three, background="wind", snr_db=6.0)),
        ("Overlapping events", compose(rng, three, gap_s=(-0.5, -0.2))),
        *[(f"Random scene {number}", random_scene(rng, duration_s=6.0)) for number in (1, 2, 3, 4)],
    ]


def _source_card(folder: Path, item: Item) -> str:
    slug = item.label.replace(" ", "-")
    _audio(folder / "audio" / f"{slug}.wav", item.samples)
    _write(folder / "pictures" / f"{slug}.png", picture(item.samples))
    facts = [f"{item.duration_s:.2f} s"]
    facts += [f"F0 {item.f0_hz:.1f} Hz"] if item.f0_hz else []
    facts += [f"count {item.count}"] if item.count else []
    settings = ", ".join(f"{name} {value:.3g}" for name, value in item.parameters.items() if name != "seed")
    return (
        f'<div class="card"><h3>{html.escape(item.spoken)}</h3>'
        f'<img loading="lazy" src="pictures/{slug}.png" alt="spectrogram of {html.escape(item.spoken)}">'
        f'<audio controls preload="none" src="audio/{slug}.wav"></audio>'
        f'<p>{" · ".join(facts)}</p><p class="soft">{html.escape(settings)}</p></div>'
    )


def _scene_card(folder: Path, title: str, scene: Scene, below: str = "") -> str:
    slug = "scene-" + "".join(c if c.isalnum() else "-" for c in title.lower())
    _audio(folder / "audio" / f"{slug}.wav", scene.waveform.samples)
    _write(folder / "pictures" / f"{slug}.png", timeline(scene))
    facts = [f"{scene.duration_s:.2f} s"]
    if scene.background:
        facts.append(
            f"behind it {scene.background.spoken}" + (f", {scene.snr_db:.0f} dB under" if scene.snr_db else "")
        )
    if scene.room:
        facts.append(f"room {scene.room.sixty_s:.1f} s, direct {scene.room.direct_db:.0f} dB over the tail")
    return (
        f'<div class="card wide"><h3>{html.escape(title)}</h3><img loading="lazy" src="pictures/{slug}.png" '
        f'alt="spectrogram"><audio controls preload="none" src="audio/{slug}.wav"></audio>'
        f'<p class="soft">{" · ".join(facts)}</p>{_table(scene.events)}{below}</div>'
    )


def _demo_card(folder: Path, scene: demo.DemoScene) -> str:
    asked = "".join(f"<tr><td>{html.escape(q)}</td><td>{html.escape(a)}</td></tr>" for q, a in scene.questions)
    return _scene_card(folder, scene.title, scene.load(), f"<table><tr><th>asked<th>answer</tr>{asked}</table>")


def _table(events: tuple[Event, ...]) -> str:
    rows = [
        [e.spoken, e.text or "", f"{e.start_s:.2f}", f"{e.end_s:.2f}", f"{e.level_db:.1f}",
         f"{e.f0_hz:.1f}" if e.f0_hz else "", str(e.count or ""), e.source]
        for e in events
    ]  # fmt: skip
    head = "".join(f"<th>{name}" for name in ("what", "says", "from s", "to s", "dB", "F0 Hz", "count", "source"))
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def picture(samples: np.ndarray) -> bytes:
    """Return a PNG of the bare spectrogram, 0 to 8 kHz from bottom to top.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    stream = io.BytesIO()
    image = spectrogram_db(samples).T[:256:2]
    require("matplotlib.image", "eval").imsave(stream, image, format="png", origin="lower", **COLOURS)
    return stream.getvalue()


def timeline(scene: Scene) -> bytes:
    """Return a PNG of a scene's spectrogram with axes, its events marked above it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures: Any = require("matplotlib.figure", "eval")
    figure = figures.Figure(figsize=(8.0, 2.4), dpi=90)
    axes = figure.add_axes((0.06, 0.17, 0.93, 0.8))
    extent = (0.0, scene.duration_s, 0.0, SAMPLE_RATE_HZ / 2000.0)
    image = spectrogram_db(scene.waveform.samples).T
    axes.imshow(image, origin="lower", aspect="auto", extent=extent, **COLOURS)
    for index, event in enumerate(scene.events):
        height = 7.0 - 0.9 * (index % 3)
        axes.plot([event.start_s, event.end_s], [height, height], color="white", linewidth=2.0)
        axes.text(event.start_s, height + 0.1, event.text or event.label, color="white", fontsize=8, va="bottom")
    axes.set_xlabel("s", fontsize=8)
    axes.set_ylabel("kHz", fontsize=8)
    axes.tick_params(labelsize=7)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def spectrogram_db(samples: np.ndarray, window: int = 512, hop: int = 128) -> np.ndarray:
    """Return (T, 257) power in dB under the strongest point."""
    padded = np.pad(samples.astype(np.float64), (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return 10.0 * np.log10(np.maximum(power / max(float(power.max()), 1e-20), 1e-12))


def _page(cards: dict[str, list[str]], scenes: list[str], bundled: list[str], seed: int) -> str:
    families = "".join(
        f'<h2>{family}</h2><div class="grid">{"".join(group)}</div>' for family, group in sorted(cards.items())
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>ossicle: the sound world</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style><h1>The sound world</h1>'
        f"<p>{sum(map(len, cards.values()))} parametric sources and {len(scenes) + len(bundled)} scenes, seed {seed}. "
        f"Pictures show 0 to 8 kHz, 75 dB; levels are RMS in dB of full scale over the event.</p>"
        f"<h2>Bundled scenes</h2>{''.join(bundled)}<h2>Scenes</h2>{''.join(scenes)}{families}</html>\n"
    )


def _audio(path: Path, samples: np.ndarray) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    _write(path, stream.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Write under another name first, so that nothing half-written is ever seen."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)
