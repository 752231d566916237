"""The `ossicle` command: finds the verb in the arguments, imports that one module, and runs it inside the boundary.

argv ──► first word that is a verb ──► its real commands; every other verb is a stub that only has a help line
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli import VERBS, output
from ossicle.deferred import work_alone

HELP = """Give language models ears: ask recordings questions, and build, train, evaluate and serve audio LLMs.

Start with: ossicle demo, then: ossicle ask YOUR.wav "What do you hear?" """


def available() -> dict[str, str]:
    """Return verb to help line for the verbs whose module is here."""
    here = Path(__file__).parent
    return {verb: text for verb, text in VERBS.items() if (here / f"{verb}.py").exists()}


def build(verb: str | None = None) -> typer.Typer:
    """Return the application with one verb's real commands, and stubs for the others."""
    app = typer.Typer(
        name="ossicle", help=HELP, invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    for name, text in available().items():
        if name == verb:
            _add(app, name, text)
        else:
            app.command(name, help=text)(_stub)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after `ossicle`; None = those of the process.

    Returns:
        Exit code: 0 done, 2 the user's error, 1 ours.
    """
    work_alone()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, words = _take_debug(words)
    as_json = "--json" in words
    with output.boundary(debug=debug, as_json=as_json) as status:
        completing = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
        typed = shlex.split(completing)[1:] if completing and "_OSSICLE_COMPLETE" in os.environ else words
        verb = next((word for word in typed if not word.startswith("-")), None)
        _check_verb(verb, completing=bool(completing))
        value = typer.main.get_command(build(verb))(args=words, prog_name="ossicle", standalone_mode=False)
        status.code = value if isinstance(value, int) else 0
        if status.code == output.STOPPED:  # typer turns Ctrl-C into a silent exit
            output.note("ossicle: stopped")
    return status.code


def _check_verb(verb: str | None, *, completing: bool) -> None:
    from ossicle.errors import UserError, suggest

    if verb is not None and not completing and verb not in available():
        raise UserError(f"'{verb}' is no verb of ossicle; {suggest(verb, list(available()))}; see 'ossicle --help'")


def _take_debug(words: list[str]) -> tuple[bool, list[str]]:
    """Take `--debug` out of the words before `--`: it means the same everywhere."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"] + words[end:]
    return len(kept) < len(words) or bool(os.environ.get("OSSICLE_DEBUG")), kept


def _add(app: typer.Typer, verb: str, text: str) -> None:
    """Hang a verb's module in: one command is the verb itself, several are its sub-commands."""
    module: Any = importlib.import_module(f"ossicle.cli.{verb}")
    inner: typer.Typer = module.app
    if len(inner.registered_commands) == 1 and not inner.registered_groups and not inner.registered_callback:
        command = inner.registered_commands[0]
        command.name = verb
        app.registered_commands.append(command)
    else:
        app.add_typer(inner, name=verb, help=text)


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; works after the verb too.")] = False,
) -> None:
    if version:
        from ossicle import __version__

        typer.echo(f"ossicle {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _stub() -> None:
    raise AssertionError("a verb's stub was called")
