"""What the terminal sees: results on stdout, notes on stderr, one line for every error, and an exit code.

    0 done · 2 the user's error (usage errors too) · 1 ours · 130 stopped by Ctrl-C

With `--json` only `emit` reaches stdout; whatever a library prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import errno
import json as jsonlib
import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, TextIO

from ossicle.errors import UserError

STOPPED = 130
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|cannot allocate memory", re.I)
MEMORY_HELP = (
    "out of memory; three things help: shorter or fewer clips at once (in training a smaller batch with more "
    "accumulation), --dtype bf16, and a connector that gives fewer audio tokens (pool, stack)"
)
USERS_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EISDIR,
              errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EADDRINUSE, errno.EMFILE}  # fmt: skip


@dataclass(slots=True)
class Status:
    """The exit code that a boundary leaves behind."""

    code: int = 0


class _Streams:
    """Where results go while stdout is turned away; None = wherever `sys.stdout` points now."""

    results: TextIO | None = None
    noted: str | None = None


def emit(result: Mapping[str, Any], *, json: bool, text: str = "") -> None:
    """Write a result to stdout, once per run.

    Args:
        result: What `--json` prints: exactly one object. Paths, dataclasses and NaN (as null) are converted.
        json: Print the object; else the text.
        text: The same for people.
    """
    write(jsonlib.dumps(_plain(result), ensure_ascii=False, allow_nan=False) if json else text)


def write(text: str, *, end: str = "\n") -> None:
    """Write text to stdout at once (a streamed answer, for example)."""
    stream = _Streams.results or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)  # names of files may be any bytes
    stream.flush()


def note(text: str) -> None:
    """Write one line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints


def warn(text: str) -> None:
    """Write one warning line to stderr."""
    note(f"ossicle: warning: {text}")


def note_setting_line(setting: str) -> None:
    """Say on stderr, once per run, which device, dtype and attention backend were chosen (`engine.setting`)."""
    if _Streams.noted != setting:
        _Streams.noted = setting
        note(f"ossicle: {setting}")


@contextlib.contextmanager
def boundary(*, debug: bool = False, as_json: bool = False) -> Iterator[Status]:
    """Run a verb: every failure becomes one line on stderr and an exit code.

    Args:
        debug: Show the traceback too.
        as_json: Keep stdout for `emit` alone.
    """
    status = Status()
    _Streams.results, _Streams.noted = (sys.stdout if as_json else None), None
    try:
        with _quiet(debug), contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            yield status
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain while flushing at exit, so stdout goes nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BaseException as error:
        if isinstance(error, GeneratorExit):
            raise
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc(file=sys.stderr)
        status.code = _report(error)
    finally:
        _Streams.results = None


def _report(error: BaseException) -> int:
    """Print the one line of an error and return its exit code."""
    code, text = explain(error)
    if text:
        note(f"ossicle: {text}" if code == STOPPED else f"ossicle: error: {' '.join(text.split())}")
    return code


def explain(error: BaseException) -> tuple[int, str]:
    """Return exit code and message of a failure."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return 0, ""  # typer leaves with 1 when the reader of stdout has gone
    if isinstance(error, SystemExit):
        return (error.code, "") if isinstance(error.code, int) else (0 if error.code is None else 2, str(error.code))
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return STOPPED, "stopped"
    if isinstance(error, UserError):
        return 2, str(error)
    if hasattr(error, "format_message"):
        return 2, _usage(error)
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return 2, MEMORY_HELP
    if isinstance(error, OSError) and error.errno in USERS_DISK:
        where = f" '{error.filename}'" if error.filename else ""
        return 2, f"{error.strerror or error}{where}; check the path, its permissions and the space left"
    return 1, f"internal: {type(error).__name__}: {error}; run it again with --debug for the traceback, and report it"


def _usage(error: Any) -> str:
    """Return a usage error of the command line parser as one clause with where to look."""
    path = error.ctx.command_path if getattr(error, "ctx", None) else "ossicle"
    if type(error).__name__ == "NoArgsIsHelpError":
        return f"'{path}' wants a command; see '{path} --help'"
    return f"{error.format_message().rstrip('.')}; see '{path} --help'"


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep libraries' chatter off the terminal, and show our own log records from WARNING up."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if debug else "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if debug else "1")  # one bar per file read is chatter
    logger, handler = logging.getLogger("ossicle"), _Notes()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class _Notes(logging.Handler):
    """Log records read `ossicle: warning: …`, like every other line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"ossicle: {record.levelname.lower()}: {self.format(record)}")


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
