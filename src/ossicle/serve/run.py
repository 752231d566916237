"""From a model's name to an open port: the port first, the model behind it, a drain at the end.

    checks ──► port bound ──► /health answers ──► model loads in a thread ──► /ready ──► SIGTERM: finish, then stop

Source: our choice.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle.errors import CheckpointError, ConfigError, require
from ossicle.serve.cores import share_the_machine
from ossicle.serve.keys import Keys, is_loopback
from ossicle.serve.limits import Limits
from ossicle.serve.state import State

DRAIN_S = 30
HEAD_S = 10.0
"""Seconds in which a new connection must send the head of a request; then it is closed."""
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve.

    Attributes:
        model: A model folder, or the name of a model that ships.
        host: Address to listen on.
        port: Port; 0 = a free one.
        name: What clients call the model; None = the folder's name.
        keys: Who is let in.
        limits: What is accepted.
        handle_bytes: Bytes of audio handles kept at most.
        page: Serve the page at `/`.
        device: As in `load`; so is `dtype`.
        dtype: Number format of the weights.
    """

    model: str = "nano"
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    handle_bytes: int = 1 << 30
    page: bool = True
    device: str = "auto"
    dtype: str = "auto"

    @property
    def served_name(self) -> str:
        """What clients call the model."""
        return self.name or Path(self.model).name


def serve(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        tell: Takes lines for whoever started it: the address, then the model's setting.

    Raises:
        ConfigError: No keys beyond loopback, an address that cannot be listened on, a port in use.
        CheckpointError: No such model, or one that cannot be loaded.
    """
    require("uvicorn", "serve")
    opened = checked(settings)
    log_requests()
    state = State(settings.served_name, settings.keys, settings.limits, settings.handle_bytes)
    state.page = _page(state) if settings.page else None
    server = server_of(state)
    server.capture_signals = lambda: drained_by_signals(server)
    failed: list[BaseException] = []
    threading.Thread(target=_load, args=(settings, state, server, failed, tell), daemon=True).start()
    tell(f"listening on {listening(settings, opened)}")
    try:
        server.run(sockets=[opened])
    finally:
        opened.close()
        if state.worker is not None:
            state.worker.close()
    if failed:
        raise failed[0]


def server_of(state: State, *, app: Any = None, drain_s: int = DRAIN_S, head_s: float = HEAD_S) -> Any:
    """Return a uvicorn server of a state; connections that send nothing are closed.

    Args:
        state: What is served.
        app: Served instead of the state's own endpoints.
        drain_s: Seconds that running requests have at the end.
        head_s: Seconds in which a connection must send the head of its first request.
    """
    uvicorn = require("uvicorn", "serve")
    protocol = importlib.import_module("uvicorn.protocols.http.auto").AutoHTTPProtocol
    from ossicle.serve.api import build_app

    class Impatient(protocol):  # type: ignore[misc,valid-type]
        """HTTP as uvicorn speaks it, with an end to connections that only stand there."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(head_s, self._late)

        def _late(self) -> None:
            idle = self.cycle is None and self.transport.get_protocol() is self
            if idle and not self.transport.is_closing():
                self.transport.close()

    settings = {"log_config": None, "timeout_graceful_shutdown": drain_s, "server_header": False}
    return uvicorn.Server(uvicorn.Config(build_app(state) if app is None else app, http=Impatient, **settings))


def checked(settings: Settings) -> socket.socket:
    """Return a listening socket for settings that can be served.

    Raises:
        ConfigError: No keys beyond loopback, an address that cannot be listened on, a port in use.
        CheckpointError: No such model.
    """
    if not settings.keys and not is_loopback(settings.host):
        raise ConfigError(
            f"--host {settings.host}: without an API key only loopback is served; set OSSICLE_API_KEY or --api-key-file"
        )
    _check_model(settings.model)
    return open_port(settings.host, settings.port)


def listening(settings: Settings, opened: socket.socket) -> str:
    """Return where a server listens and who is let in."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    who = "API key needed" if settings.keys else "no key: this machine only"
    return f"http://{host}:{opened.getsockname()[1]} ({who})"


def open_port(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The host is unknown, or the port is in use or not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError, OverflowError):
        raise ConfigError(f"--host {host} --port {port}: no such address; try --host 127.0.0.1") from None
    # With TCP named: asyncio sends small pieces at once only then, else each answer waits 40 ms for an acknowledgement.
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(1024)
    except (OSError, OverflowError) as error:
        opened.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({reason}); try --port {port + 1}"
        ) from None
    return opened


def _check_model(model: str) -> None:
    """Refuse a model that is not there before a port is opened."""
    if not any((folder / model / "config.json").is_file() for folder in (Path(), PACKAGE)):
        raise CheckpointError(f"model '{model}': no folder with a config.json there; give a model folder or: nano")


def _load(
    settings: Settings, state: State, server: Any, failed: list[BaseException], tell: Callable[[str], None]
) -> None:
    try:
        from ossicle.inference.engine import load
        from ossicle.serve.worker import Worker

        engine = load(settings.model, device=settings.device, dtype=settings.dtype)
        share_the_machine()
        state.worker = Worker(engine, state.store, settings.limits, state.metrics)
        tell(f"{state.name} is ready: {engine.setting}")
        if state.page is not None:
            state.page.build()
    except BaseException as error:  # noqa: BLE001 - raised again by `serve`, in the main thread
        failed.append(error)
        server.should_exit = True


def _page(state: State) -> Any:
    from ossicle.serve.page import Page

    return Page(state)


@contextlib.contextmanager
def drained_by_signals(server: Any) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT finish what runs, the second stop at once."""

    def stop(*_: Any) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_requests() -> None:
    """Write one JSON line per request to stderr."""
    logger = logging.getLogger("ossicle.serve.requests")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
