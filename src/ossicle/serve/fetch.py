"""Audio by URL, without becoming a way into a private network.

    URL ──► scheme, host on the allow-list ──► resolved once ──► every address public ──► connected to that very address

No redirects, no credentials in the URL, bounded bytes and seconds. The address is resolved once and pinned, so that a
name that changes its address between check and connect gains nothing. Source: our choice.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from ossicle.serve.limits import ApiError

PIECE_BYTES = 1 << 16
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a gateway turns into IPv4 ones."""
TRANSLATED_HERE = ipaddress.ip_network("64:ff9b:1::/48")
"""The same by a site's own rule (RFC 8215), which nobody outside knows."""


def is_public(address: str) -> bool:
    """Return whether an address lies on the open Internet.

    Example:
        >>> is_public("8.8.8.8"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1")
        (True, False, False)
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inside is not None:
            return is_public(str(inside))
        if ip in TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip in TRANSLATED_HERE or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def fetch(
    url: str,
    domains: tuple[str, ...],
    *,
    max_bytes: int,
    timeout_s: float,
    public: Callable[[str], bool] = is_public,
    resolve: Callable[..., list[tuple]] = socket.getaddrinfo,
) -> bytes:
    """Return what a URL holds.

    Args:
        url: http or https.
        domains: Hosts that are allowed, `host` or `host:port`; a port must be named unless it is 80 or 443.
        max_bytes: Most bytes.
        timeout_s: Most seconds for all of it.
        public: Which addresses may be connected to.
        resolve: As `socket.getaddrinfo`.

    Raises:
        ApiError: Not allowed, not there, too large or too slow.
    """
    parts, port = _checked(url, domains)
    host = parts.hostname or ""
    until = time.monotonic() + timeout_s
    try:
        addresses = [row[4][0] for row in resolve(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise ApiError("audio_url: the host could not be found", code="fetch_failed") from None
    if not addresses or not all(public(address) for address in addresses):
        raise ApiError("audio_url: the host does not have a public address", status=403, code="host_not_allowed")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=timeout_s)
    connection._create_connection = lambda *_, **__: socket.create_connection((addresses[0], port), timeout_s)  # type: ignore[attr-defined]
    opened: list[socket.socket] = []
    alarm = threading.Timer(max(0.0, until - time.monotonic()), _hang_up, (opened,))
    alarm.start()  # a host that sends a byte now and then never lets the socket's own timeout pass
    try:
        connection.connect()
        opened.append(connection.sock)
        found = _read(connection, parts, max_bytes)
    except (OSError, http.client.HTTPException, ValueError):
        found = None
    finally:
        alarm.cancel()
        connection.close()
    if time.monotonic() >= until:
        raise ApiError("audio_url: took too long", code="fetch_failed")
    if found is None:
        raise ApiError("audio_url: could not be fetched", code="fetch_failed")
    return found


def _hang_up(opened: list[socket.socket]) -> None:
    """End connections that another thread reads from."""
    for one in opened:
        with contextlib.suppress(OSError):  # it is closed already
            one.shutdown(socket.SHUT_RDWR)


def _checked(url: str, domains: tuple[str, ...]) -> tuple[SplitResult, int]:
    """Return a URL's parts and port when its host is on the list."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ApiError("audio_url: is not a URL", code="invalid_url") from None
    host = (parts.hostname or "").lower().rstrip(".")
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise ApiError("audio_url: expected https://host/path without a user", code="invalid_url")
    if any(ord(letter) < 33 or ord(letter) == 127 for letter in url):
        raise ApiError("audio_url: holds a space or control character", code="invalid_url")
    allowed = {domain.lower() for domain in domains}
    if f"{host}:{port}" not in allowed and not (host in allowed and port in (80, 443)):
        raise ApiError("audio_url: this server does not fetch from that host", status=403, code="host_not_allowed")
    return parts, port


def _read(connection: http.client.HTTPConnection, parts: SplitResult, max_bytes: int) -> bytes:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request(
        "GET", path.encode("ascii", "ignore").decode(), headers={"User-Agent": "ossicle", "Accept": "audio/*, */*"}
    )
    answer = connection.getresponse()
    if answer.status != 200:
        raise ApiError(f"audio_url: answered {answer.status}, expected 200 (no redirects)", code="fetch_failed")
    pieces, size = [], 0
    while piece := answer.read1(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise ApiError(f"audio_url: holds more than {max_bytes:,} bytes", status=413, code="audio_too_large")
    return b"".join(pieces)
