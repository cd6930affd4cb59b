"""Signals while a lock is taken or released or a context is entered: they stop the run after it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from cpstage.errors import Stopped
from cpstage.runner.signals import Interrupts

LONGEST = 60.0
interrupt = partial(signal.raise_signal, signal.SIGTERM)
"""Is no Python function: the handler finds the frame of the one that calls it."""


def condition_with(**steps: Any) -> threading.Condition:
    """A condition whose lock does nothing but some steps."""

    def nothing(*_: object) -> bool:
        return True

    names = ("acquire", "release", "__exit__", "_release_save", "_acquire_restore", "_is_owned")
    lock: Any = SimpleNamespace(**{**dict.fromkeys(names, nothing), **steps})
    return threading.Condition(lock)


def test_a_lock_that_is_taken_can_be_released_before_the_run_stops() -> None:
    """Else it would stay taken, and who cleans up would wait for it."""
    done = []
    condition = condition_with(__enter__=interrupt)

    def take_and_wait() -> None:
        condition.__enter__()
        done.append("taken")
        condition.__exit__(None, None, None)
        done.append("released")
        threading.Event().wait(LONGEST)

    with Interrupts() as interrupts, interrupts.stopping(), pytest.raises(Stopped):
        take_and_wait()

    assert done == ["taken", "released"]


def test_a_lock_that_is_released_to_wait_is_taken_again_before_the_run_stops() -> None:
    """Else its release at the end would fail, and look like a bug: release unlocked lock."""
    done = []
    condition = condition_with(
        _release_save=interrupt, _acquire_restore=lambda _: done.append("taken again")
    )

    with Interrupts() as interrupts, interrupts.stopping(), pytest.raises(Stopped):
        condition.wait(LONGEST)

    assert done == ["taken again"]


def test_a_context_that_is_entered_is_left_when_the_run_stops() -> None:
    """Else what it has made would stay."""
    done = []

    class Made:
        """What a function with ``yield`` returns."""

        __next__ = interrupt

        def throw(self, *error: object) -> None:  # Python before 3.12 gives its type first
            done.append("removed")
            raise next(one for one in error if isinstance(one, BaseException))

    made: Any = Made

    with (
        Interrupts() as interrupts,
        interrupts.stopping(),
        pytest.raises(Stopped),
        contextmanager(made)(),
    ):
        threading.Event().wait(LONGEST)

    assert done == ["removed"]
