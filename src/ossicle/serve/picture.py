"""A spectrogram as an SVG that stands alone, with lanes above it for when the model listened; numpy alone.

    muting costs  ▁▁▁███▁▁       one lane for each kind of evidence, the heaviest stretch framed below
    it looks at   ▁▂▁▇▅▁▁▁
    kHz 8 ┌──────────────┐
          │ spectrogram  │       75 dB below the loudest
        0 └──────────────┘
          0 s    2     4

Source: our choice.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from typing import Any

import numpy as np

from ossicle.types import Waveform

WIDTH, HEIGHT = 800, 200
LEFT, TOP, LANE, BELOW = 112, 8, 34, 34
RANGE_DB = 75.0
COLOURS = np.array([[13, 17, 40], [70, 30, 110], [190, 55, 85], [250, 150, 50], [252, 250, 190]], np.float32)
WINDOW = 512
LANES = {"occlusion": ("muting it costs", "#0a7d6f"), "attention": ("it looks at", "#5b5fc7")}
TICKS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200)


def figure(wave: Waveform, when: dict[str, Any] | None = None) -> str:
    """Return an SVG.

    Args:
        wave: The clip.
        when: From `inference.listen.listened`, of a question about this clip alone; None = no lanes.
    """
    shown = [kind for kind in LANES if when is not None and "seconds" in when.get(kind, {})]
    top = TOP + LANE * len(shown)
    height = top + HEIGHT + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 12} {height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{html.escape(_title(wave, when))}</title>",
        '<rect width="100%" height="100%" fill="#ffffff" rx="6"/>',
        f'<image x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{base64.b64encode(png(spectrogram(wave))).decode()}"/>',
    ]
    for number, kind in enumerate(shown):
        parts += _lane(kind, when[kind]["seconds"], wave.duration_s, TOP + LANE * number)  # type: ignore[index]
    if when is not None:
        parts += _frame(when["seconds"], wave.duration_s, top)
    parts += _axes(wave, top)
    return "".join([*parts, "</svg>"])


def _title(wave: Waveform, when: dict[str, Any] | None) -> str:
    heaviest = _heaviest(when["seconds"]) if when is not None else None
    told = f"; heaviest from {heaviest['start_s']:.1f} to {heaviest['end_s']:.1f} s" if heaviest else ""
    return f"spectrogram of {wave.duration_s:.1f} s{told}"


def _heaviest(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    heaviest = max(rows, key=lambda row: row["weight"], default=None)
    return heaviest if heaviest is not None and heaviest["weight"] > 0 else None


def _lane(kind: str, rows: list[dict[str, Any]], duration_s: float, top: float) -> list[str]:
    """Return bars as high as their stretch's weight, the heaviest full."""
    said, colour = LANES[kind]
    base, most = top + LANE - 6, max((row["weight"] for row in rows), default=0.0)
    out = [
        f'<text x="{LEFT - 8}" y="{base - 6}" text-anchor="end" fill="{colour}">{said}</text>',
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{base}" y2="{base}" stroke="#d5d5dd"/>',
    ]
    for row in rows if most > 0 else []:
        left, right = (LEFT + row[side] / duration_s * WIDTH for side in ("start_s", "end_s"))
        tall = row["weight"] / most * (LANE - 10)
        out.append(
            f'<rect x="{left + 0.5:.1f}" y="{base - tall:.1f}" width="{max(1.0, right - left - 1):.1f}" '
            f'height="{tall:.1f}" rx="1.5" fill="{colour}"/>'
        )
    return out


def _frame(rows: list[dict[str, Any]], duration_s: float, top: float) -> list[str]:
    """Return a frame around the heaviest stretch of what is shown first."""
    heaviest = _heaviest(rows)
    if heaviest is None:
        return []
    left, right = (LEFT + heaviest[side] / duration_s * WIDTH for side in ("start_s", "end_s"))
    return [
        f'<rect x="{left:.1f}" y="{top + 1}" width="{right - left:.1f}" height="{HEIGHT - 2}" fill="#ffffff" '
        'fill-opacity="0.12" stroke="#ffffff" stroke-width="2" stroke-dasharray="5 4"/>'
    ]


def _axes(wave: Waveform, top: float) -> list[str]:
    """Return seconds below and kHz at the left."""
    grey, base = "#55555f", top + HEIGHT
    out = []
    for khz in (0, 2, 4, 6, 8):
        y = base - khz * 2000 / wave.sample_rate_hz * HEIGHT
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{grey}">{khz}</text>')
    out.append(f'<text x="16" y="{top + HEIGHT / 2 + 4}" fill="{grey}">kHz</text>')
    step = next((tick for tick in TICKS if wave.duration_s / tick <= 10), 3600)
    for number in range(int(wave.duration_s / step + 1e-6) + 1):
        x = LEFT + number * step / wave.duration_s * WIDTH
        unit = " s" if number == 0 else ""
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 5}" stroke="{grey}"/>')
        out.append(
            f'<text x="{x:.1f}" y="{base + 20}" text-anchor="middle" fill="{grey}">{number * step:g}{unit}</text>'
        )
    return out


def spectrogram(wave: Waveform) -> np.ndarray:
    """Return (200, 800, 3) uint8, time to the right, 0 Hz to half the sampling rate upwards."""
    samples = np.pad(wave.samples.astype(np.float32), (0, WINDOW))
    starts = np.linspace(0, max(0, len(samples) - WINDOW), WIDTH).astype(int)
    frames = samples[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    level_db = 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-20), 1e-12))
    shade = np.clip(1 + level_db / RANGE_DB, 0, 1).T[::-1]
    rows = np.linspace(0, len(shade) - 1, HEIGHT).astype(int)
    place = shade[rows] * (len(COLOURS) - 1)
    low = np.minimum(place.astype(int), len(COLOURS) - 2)
    part = (place - low)[..., None]
    return (COLOURS[low] * (1 - part) + COLOURS[low + 1] * part).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """Return (H, W, 3) uint8 as a PNG file. Source: PNG specification (W3C), third edition."""
    height, width, _ = image.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
