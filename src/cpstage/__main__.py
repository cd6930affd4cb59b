"""The start of the command: ``cpstage``, and ``python -m cpstage``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

_OBJECTS_BETWEEN_COLLECTIONS = 400_000
"""What a start makes are some 250,000 objects of modules, which stay: to look through them at every
700 new ones, as Python does by itself, takes a fifth of the start."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and exit with its code."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)

    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a traceback, until ours is there

    from cpstage._posix import hold_signals

    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["run"] and "--report" in given:
        hold_signals()  # it has to report them, and is still to be loaded

    from cpstage.cli import main as run_command

    run_command(given)


if __name__ == "__main__":
    main()
