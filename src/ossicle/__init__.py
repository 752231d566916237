"""ossicle gives language models ears: build, train, evaluate and serve audio LLMs.

    Waveform ──► Encoder ──► Connector ──► Integration ──► an unmodified decoder LM ──► answer

Names are imported when first used, so that `import ossicle` and `ossicle --help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "AudioLM": "ossicle.model",
    "AudioLMConfig": "ossicle.model",
    "AudioProcessor": "ossicle.processor",
    "AudioTokens": "ossicle.types",
    "Waveform": "ossicle.types",
    "OssicleError": "ossicle.errors",
    "load_audio": "ossicle.audio.io",
    "load": "ossicle.inference.engine",
}
__all__ = [*sorted(_EXPORTS), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ossicle' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
