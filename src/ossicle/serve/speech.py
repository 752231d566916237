"""Tokens to text that may be sent: whole characters, no half of a stop string, no space at either end.

    token ──► new characters ──► held back while they could begin a stop string or be trailing space ──► sent

Source: our choice; what joins across tokens is decoded with the tokens before it, as text-generation servers do.
"""

from __future__ import annotations

from typing import Any

HALF = "\ufffd"
"""What a tokenizer prints for a character whose last bytes have not come yet."""


class Speech:
    """The text of one answer while it grows.

    Args:
        tokenizer: The model's.
        stop: Strings that end the answer.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.ids: list[int] = []
        self.text = ""
        self.stopped = False
        self._sent = self._before = self._read = 0
        self._known = ""

    def push(self, token: int) -> str:
        """Take a token; return what may be sent now."""
        self.ids.append(token)
        whole = self._decode(self.ids[self._before :])
        if len(whole) > len(self._known) and not whole.endswith(HALF):
            self._grow(whole[len(self._known) :])
            self._before, self._read = self._read, len(self.ids)
            self._known = self._decode(self.ids[self._before :])
        return self._send(len(self.text) if self.stopped else len(self.text) - self._held())

    def finish(self) -> str:
        """Return what is left to send at the end."""
        if not self.stopped:
            self._grow(self._decode(self.ids[self._before :])[len(self._known) :])
        self.text = self.text.rstrip()
        return self._send(len(self.text))

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _grow(self, more: str) -> None:
        self.text = (self.text + more).lstrip()
        longest = max(map(len, self.stop), default=0)
        start = max(0, self._sent - longest)
        found = [place for stop in self.stop if (place := self.text.find(stop, start)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)].rstrip(), True

    def _held(self) -> int:
        """Return how many of the last characters may yet turn out not to be part of the answer."""
        held = len(self.text) - len(self.text.rstrip())
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(self.text)), held, -1):
                if self.text.endswith(stop[:size]):
                    held = size
                    break
        rest = self.text[: len(self.text) - held]
        return held + len(rest) - len(rest.rstrip())

    def _send(self, upto: int) -> str:
        piece = self.text[self._sent : max(self._sent, upto)]
        self._sent += len(piece)
        return piece
