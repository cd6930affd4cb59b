"""Several runs in a workspace that one of them makes, and removes when it fails."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from cpstage.errors import WorkspaceInUse
from cpstage.workspace.layout import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Enter = Callable[[Workspace, float], AbstractContextManager[object]]


def test_a_run_that_is_refused_leaves_what_another_one_stages(tmp_path: Path) -> None:
    """The first one has made the directory; the other one came between its two locks."""
    refused, other = Workspace(tmp_path / "new"), Workspace(tmp_path / "new")
    with ExitStack() as stack:
        with suppress(WorkspaceInUse), refused.occupied("job"):
            stack.enter_context(other.locked())
            staging = stack.enter_context(other.staging())
            stack.enter_context(refused.locked())

        assert staging.is_dir()
        (staging / "file").write_text("x")
        other.publish([])
    assert not staging.exists()


def test_a_run_that_fails_alone_removes_what_it_made(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "new/deep")

    with pytest.raises(ZeroDivisionError), place.occupied("job"), place.locked():
        raise ZeroDivisionError

    assert os.listdir(tmp_path) == []


def _occupied(place: Workspace, wait: float) -> AbstractContextManager[object]:
    return place.occupied("job", wait)


@pytest.mark.parametrize("enter", [Workspace.locked, _occupied])
def test_a_run_that_waits_for_one_that_fails_begins(tmp_path: Path, enter: Enter) -> None:
    for nth in range(20):
        new = tmp_path / str(nth)
        _fail_while_another_one_waits(new, enter)
        assert (new / ".cpstage").is_dir()


def _fail_while_another_one_waits(new: Path, enter: Enter) -> None:
    place, failures = Workspace(new), list[BaseException]()

    def wait() -> None:
        try:
            with enter(Workspace(new), 30), Workspace(new).staging() as staging:
                (staging / "file").write_text("x")
        except BaseException as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    with suppress(ZeroDivisionError), enter(place, 0):
        waiting.start()
        while not _is_in(waiting, "_acquire"):
            pass
        raise ZeroDivisionError
    waiting.join(60)
    assert failures == []


def _is_in(thread: threading.Thread, function: str) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return function in (one.name for one in traceback.extract_stack(frame))
