"""An hour at 44.1 kHz in stereo is answered, and memory grows with its length and no faster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE_HZ = 44_100
PROBE = """
import json, sys
from pathlib import Path
from ossicle.inference.engine import load

def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

engine, rows = load("nano"), []
engine.model.config.focus = None  # all of it, not what stands out
for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # what loading took does not hide what an answer takes
    answer = engine.answer([(path, "What do you hear?")])[0]
    rows.append({"text": answer.text, "tokens": answer.audio_tokens, "peak_mb": peak_mb(), **answer.timing_s})
print(json.dumps(rows))
"""


def recording(path: Path, seconds: int) -> Path:
    """Write a stereo recording whose two sides differ: a tone that beeps, and noise."""
    time_s = np.arange(10 * RATE_HZ) / RATE_HZ
    beeps = 0.3 * np.sin(2 * np.pi * 880 * time_s) * (time_s % 1 < 0.3)
    noise = np.random.default_rng(0).normal(0, 0.02, len(time_s))
    block = np.stack([beeps, noise], 1).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, subtype="PCM_16") as file:
        for start in range(0, seconds, 10):
            file.write(block[: (seconds - start) * RATE_HZ])
    return path


@pytest.mark.slow
@pytest.mark.alone
def test_an_hour_is_answered_in_memory_that_grows_linearly(tmp_path: Path) -> None:
    lengths_s = (10, 900, 3600)
    paths = [str(recording(tmp_path / f"{seconds}.wav", seconds)) for seconds in lengths_s]
    done = subprocess.run([sys.executable, "-c", PROBE, *paths], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    short, quarter, hour = json.loads(done.stdout)
    print(json.dumps([short, quarter, hour]))
    assert all(row["text"] for row in (short, quarter, hour))
    assert hour["tokens"] == pytest.approx(4 * quarter["tokens"], rel=0.01)
    assert hour["peak_mb"] - short["peak_mb"] < 5 * (quarter["peak_mb"] - short["peak_mb"])
    assert hour["peak_mb"] - short["peak_mb"] < 3_500
