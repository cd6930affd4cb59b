"""The start of the command: ``cpstage``, and ``python -m cpstage``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from cpstage._posix import hold_signals


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["run"] and "--report" in given:
        hold_signals()  # it has to report them, and is still to be loaded

    from cpstage.cli import main as run_command

    run_command(given)


if __name__ == "__main__":
    main()
