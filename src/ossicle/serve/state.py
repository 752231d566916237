"""What the endpoints share: settings from the start, the model once it is loaded.

Source: our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ossicle.inference.store import HandleStore
from ossicle.serve.keys import Keys
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.media import Media
from ossicle.serve.metrics import Metrics

if TYPE_CHECKING:
    from ossicle.serve.worker import Worker


class State:
    """One server.

    Args:
        name: What clients call the model.
        keys: Who is let in.
        limits: What is accepted.
        handle_bytes: Bytes of audio handles kept at most.
    """

    def __init__(self, name: str, keys: Keys, limits: Limits, handle_bytes: int = 1 << 30) -> None:
        self.name, self.keys, self.limits = name, keys, limits
        self.store = HandleStore(handle_bytes)
        self.metrics = Metrics()
        self.media = Media(limits, self.store)
        self.worker: Worker | None = None
        self.page: Any = None

    def ready(self) -> Worker:
        """Return the worker.

        Raises:
            ApiError: 503 while the model is loading.
        """
        if self.worker is None:
            raise ApiError("the model is loading", status=503, code="loading", retry_s=2)
        return self.worker

    def check_model(self, name: str | None) -> None:
        """Raise ApiError 404 for a model that is not served here."""
        if name not in (None, "", self.name):
            raise ApiError(
                f"model '{name[:100]}' is not served here; use '{self.name}'",
                status=404,
                param="model",
                code="model_not_found",
            )
