"""Publishing: all or nothing, also where the process is killed between any two of its steps."""

from __future__ import annotations

import json
import math
import shutil
import signal
from itertools import count
from typing import TYPE_CHECKING

import pytest

from cpstage import CpstageError, Workspace
from cpstage.errors import LocalIOError, WorkspaceUnavailable
from cpstage.workspace.publishing import Move
from denied_system_calls import can_deny
from publishing_steps import NAMES, Steps, running_steps
from trees import listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RENAMING = pytest.param("renaming", marks=can_deny)


@pytest.fixture(scope="module")
def run() -> Iterator[Steps]:
    with running_steps() as steps:
        yield steps


def old_place(root: Path, *, empty: bool = False) -> dict[str, tuple[str, bool, bytes]]:
    """Make a workspace where two of three are there already, and return what is in it."""
    (root / "in").mkdir(parents=True)
    for name in () if empty else NAMES[:2]:
        (root / "in" / name).mkdir()
        (root / "in" / name / "which").write_text("old")
    place = Workspace(root)
    with place.locked(), place.staging() as staging:
        place.publish(place.record_moves({"id": "old"}, {}, staging))
    return what_is_in(root)


def what_is_in(root: Path) -> dict[str, tuple[str, bool, bytes]]:
    """Everything but what is only there while a run is at work."""
    passing = (".cpstage/lock", ".cpstage/staging", ".cpstage/holder.json", ".cpstage/journal.json")
    return {name: one for name, one in listing(root).items() if not name.startswith(passing)}


def is_new(root: Path) -> bool:
    return all((root / "in" / name / "which").read_text() == "new" for name in NAMES)


@pytest.mark.parametrize("empty", [True, False], ids=["first", "replaced"])
@pytest.mark.parametrize("how", ["swapping", RENAMING])
def test_a_run_that_is_killed_between_any_two_steps_is_rolled_back(
    run: Steps, tmp_path: Path, how: str, empty: bool
) -> None:
    for step in count(1):
        place = tmp_path / f"{step}"
        old = old_place(place, empty=empty)
        code = run("publish", place, step, how)
        with Workspace(place).locked():
            now = what_is_in(place)
            assert not list(place.glob(".cpstage/staging/*"))
        if now != old:
            break
        assert code == -signal.SIGKILL

    assert step >= 8  # the journal, five moves and the end
    assert is_new(place)


@pytest.mark.parametrize("how", ["swapping", RENAMING])
def test_taking_back_can_be_killed_as_well(run: Steps, tmp_path: Path, how: str) -> None:
    for step in count(1):
        place = tmp_path / f"{step}"
        old = old_place(place)
        assert run("publish", place, 6 if how == "swapping" else 9, how) == -signal.SIGKILL
        assert what_is_in(place) != old

        code = run("roll_back", place, step, how)

        with Workspace(place).locked():
            assert what_is_in(place) == old
        if code == 0:
            break
    assert step > 5


def test_a_workspace_that_was_moved_meanwhile_is_rolled_back_where_it_is(
    run: Steps, tmp_path: Path
) -> None:
    old = old_place(tmp_path / "before")
    assert run("publish", tmp_path / "before", 4) == -signal.SIGKILL
    (tmp_path / "before").rename(tmp_path / "after")

    with Workspace(tmp_path / "after").locked():
        assert what_is_in(tmp_path / "after") == old


def test_who_cleared_up_by_hand_loses_what_was_there_and_no_more(
    run: Steps, workspace: Path
) -> None:
    """With the staging went what was replaced; what was published of the new goes as well."""
    old_place(workspace)
    assert run("publish", workspace, 3) == -signal.SIGKILL
    shutil.rmtree(workspace / ".cpstage/staging")

    with Workspace(workspace).locked():
        pass

    assert sorted(path.name for path in (workspace / "in").iterdir()) == ["Two"]
    assert (workspace / "in/Two/which").read_text() == "old"


def test_what_fails_is_rolled_back_at_once(workspace: Path) -> None:
    old = old_place(workspace)
    place = Workspace(workspace)
    with place.locked(), place.staging() as staging:
        moves = []
        for name in NAMES:
            (staging / name).mkdir()
            moves.append(Move(staging / name, place.input(name)))
        moves.append(Move(staging / "One", place.output("there/is/no/such/directory")))

        with pytest.raises(LocalIOError, match="there/is/no"):
            place.publish(moves)

        assert what_is_in(workspace) == old


def test_what_is_missing_is_known_before_anything_is_moved(workspace: Path) -> None:
    old = old_place(workspace)
    place = Workspace(workspace)
    with place.locked(), place.staging() as staging:
        (staging / "One").mkdir()
        moves = [Move(staging / name, place.input(name)) for name in NAMES]

        with pytest.raises(LocalIOError, match="Two"):
            place.publish(moves)

        assert what_is_in(workspace) == old


HOSTILE = {
    "out": {"staged": ".cpstage/staging/x", "target": "../victim", "is": 0},
    "absolute": {"staged": ".cpstage/staging/x", "target": "/tmp/victim", "is": 0},
    "linked": {"staged": ".cpstage/staging/x", "target": "link/victim", "is": 0},
    "from out": {"staged": "../victim", "target": "in/App", "is": 0},
    "no number": {"staged": ".cpstage/staging/x", "target": "in/App", "is": "x"},
    "infinite": {"staged": ".cpstage/staging/x", "target": "in/App", "is": math.inf},
    "a NUL": {"staged": ".cpstage/staging/x\0", "target": "in/App", "is": 0},
    "a surrogate": {"staged": ".cpstage/staging/x", "target": "in/\ud800", "is": 0},
    "too long": {"staged": ".cpstage/staging/x", "target": "in/" + "x" * 256, "is": 0},
    "too long a directory": {"staged": ".cpstage/staging/x", "target": "x" * 256 + "/x", "is": 0},
    "too long a path": {"staged": ".cpstage/staging/" + "x/" * 3000, "target": "in/x", "is": 0},
    "a circle": {"staged": ".cpstage/staging/x", "target": "circle/App", "is": 0},
    "not staged": {"staged": "in/App", "target": "in/Lib", "is": 0},
    "around it": {"staged": ".cpstage/staging/x", "target": ".cpstage/staging", "is": 0},
    "nothing": {},
}


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE)
def test_a_journal_that_leads_elsewhere_is_refused(
    workspace: Path, tmp_path: Path, entry: dict[str, object]
) -> None:
    """Somebody may have put it there, as into a repository that is checked out."""
    (workspace / "link").symlink_to(tmp_path)
    (workspace / "circle").symlink_to("circle")
    (workspace / ".cpstage/staging").mkdir(parents=True)
    (workspace / ".cpstage/staging/x.replaced").mkdir()
    (tmp_path / "victim.replaced").write_text("")
    journal = workspace / ".cpstage/journal.json"
    journal.write_text(json.dumps({"moves": [entry], "made": []}))

    with pytest.raises(WorkspaceUnavailable, match=r"journal\.json.* is damaged"):  # noqa: SIM117
        with Workspace(workspace).locked():
            pass

    assert not (tmp_path / "victim").exists()
    assert (workspace / ".cpstage/staging/x.replaced").exists()


def test_staging_is_kept_as_long_as_it_is_needed_to_go_back(run: Steps, workspace: Path) -> None:
    """What was replaced lies there."""
    old_place(workspace)
    assert run("publish", workspace, 4) == -signal.SIGKILL
    kept = listing(workspace / ".cpstage/staging")
    (workspace / ".cpstage/journal.json").write_text("{")

    with pytest.raises(CpstageError), Workspace(workspace).locked():
        pass

    assert listing(workspace / ".cpstage/staging") == kept
