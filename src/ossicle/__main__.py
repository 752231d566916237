"""Entry point of the `ossicle` command and of `python -m ossicle`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from ossicle.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
