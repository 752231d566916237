"""What `import ossicle` promises; a change here is a change for every user."""

from __future__ import annotations

import subprocess
import sys

import ossicle

PUBLIC = [
    "AudioLM",
    "AudioLMConfig",
    "AudioProcessor",
    "AudioTokens",
    "OssicleError",
    "Waveform",
    "__version__",
    "load",
    "load_audio",
]


def test_the_public_names_are_pinned():
    assert sorted(ossicle.__all__) == PUBLIC
    assert len(PUBLIC) <= 25


def test_every_public_name_is_there_and_documented():
    for name in set(PUBLIC) - {"__version__"}:
        assert getattr(ossicle, name).__doc__, name


def test_importing_ossicle_imports_nothing_heavy():
    code = "import sys, ossicle; print(sorted({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
