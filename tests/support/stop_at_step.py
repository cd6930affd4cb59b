"""Runs a command of cpstage that sends itself a signal at a step which no network shows.

    python stopping.py SIGKILL publishing 3 fetch JOB_ID --replace
    python stopping.py SIGTERM 'opening f7' 1 fetch JOB_ID
    python stopping.py SIGTERM 'removing f*' 1 fetch JOB_ID
    python stopping.py SIGTERM 'importing click' 1 run JOB_ID -- true

    python stopping.py SIGTERM 'making .*' 1 get-job-details --job-id JOB_ID --save FILE

The steps are what Python tells its audit hooks before it does it: nothing of cpstage is changed.
``making`` comes as soon as a file is there: a tracer looks for it after each instruction.
"""

from __future__ import annotations

import fnmatch
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

Step = Callable[[str, tuple[Any, ...]], bool]


def stopping(number: signal.Signals, steps: str, nth: int, *arguments: str) -> list[str]:
    """The command line of a command that is stopped before a step; see the head of this file."""
    script = str(Path(__file__).resolve())
    return [sys.executable, script, number.name, steps, str(nth), *arguments]


def stop_before(number: signal.Signals, steps: str, nth: int) -> None:
    """Send this process a signal before the nth step of some kind."""
    kind, _, name = steps.partition(" ")
    if kind == "making":
        _stop_after_making(number, name)
        return
    kinds = {
        "publishing": _publishing,
        "opening": _opening,
        "removing": _removing,
        "importing": _importing,
    }
    is_step = kinds[kind](name)
    left = nth

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if is_step(event, arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    sys.addaudithook(watch)


def _stop_after_making(number: signal.Signals, name: str) -> None:
    """Send this process a signal when a file is in the current directory."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if event == "call":
            module = str(frame.f_globals.get("__name__"))
            if not module.startswith(("cpstage.", "tempfile")):
                return None
            frame.f_trace_opcodes = True
        elif fnmatch.filter(os.listdir("."), name):
            sys.settrace(None)
            os.kill(os.getpid(), number)
        return trace

    sys.settrace(trace)


def _publishing(_: str) -> Step:
    """Each rename from that of the journal on, its removal, and the clearing up after it."""
    begun = False

    def is_step(event: str, arguments: tuple[Any, ...]) -> bool:
        nonlocal begun
        if event == "os.rename" and str(arguments[1]).endswith("journal.json"):
            begun = True
        return begun and (
            event in ("os.rename", "os.rmdir")
            or (event == "os.remove" and str(arguments[0]).endswith("journal.json"))
            or (event == "ctypes.dlsym" and arguments[1] == "renameat2")
        )

    return is_step


def _opening(name: str) -> Step:
    """Each time that a file is opened whose name matches a glob, in whatever directory."""

    def is_step(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "open" and fnmatch.fnmatch(os.path.basename(str(arguments[0])), name)

    return is_step


def _removing(name: str) -> Step:
    """Each time that a file or directory is removed whose name matches a glob."""

    def is_step(event: str, arguments: tuple[Any, ...]) -> bool:
        is_removal = event in ("os.remove", "os.rmdir")
        return is_removal and fnmatch.fnmatch(os.path.basename(str(arguments[0])), name)

    return is_step


def _importing(name: str) -> Step:
    """Each time that a module is loaded."""

    def is_step(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "import" and arguments[0] == name

    return is_step


if __name__ == "__main__":
    from cpstage.__main__ import main

    stop_before(signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
    main(sys.argv[4:])
