"""API keys: read from the environment or a file, compared in constant time, each with a scope of its own.

A scope is a hash of the key; handles and names of one scope are never found by another. Source: our choice.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from ossicle.errors import ConfigError

VARIABLE = "OSSICLE_API_KEY"


class Keys:
    """The keys that a server accepts; without any, everyone is let in under one scope.

    Args:
        keys: The keys.
        shared: All keys share one scope.
    """

    def __init__(self, keys: Iterable[str] = (), *, shared: bool = False) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in dict.fromkeys(keys)]
        self.shared = shared

    def __bool__(self) -> bool:
        return bool(self._digests)

    def scope(self, key: str) -> str | None:
        """Return the scope of a key, or None for a wrong one; every known key is compared, whichever fits.

        Example:
            >>> Keys(["a"]).scope("b") is None
            True
        """
        if not self._digests:
            return ""
        given = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        right = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(right):
            return None
        return "" if self.shared else given.hex()[:16]

    def bearer(self, header: str) -> str | None:
        """Return the scope of an `Authorization: Bearer KEY` header, or None."""
        kind, _, key = header.partition(" ")
        return self.scope(key.strip() if kind.lower() == "bearer" else "")


def read_keys(path: Path | None) -> list[str]:
    """Return the keys of `OSSICLE_API_KEY` (comma-separated) and of a file (one a line, `#` starts a comment).

    Raises:
        ConfigError: The file cannot be read or holds no key.
    """
    keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]
    if path is None:
        return keys
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--api-key-file '{path}': cannot be read ({getattr(error, 'strerror', None) or 'not text'})"
        ) from None
    found = [line.split("#", 1)[0].strip() for line in lines]
    if not any(found):
        raise ConfigError(f"--api-key-file '{path}': holds no key; write one key a line")
    return keys + [key for key in found if key]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine alone.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
