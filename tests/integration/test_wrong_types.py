"""Arguments of a wrong type in Python: the caller is told which one, and nothing is begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cpstage
from cpstage.worker import JobCommand
from run_jobs import add_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

ANY: Any = cpstage


@pytest.fixture
def job(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> cpstage.Job:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return cpstage.get_job(add_job(aws))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda job, place: ANY.fetch(job.id, place),
            "the job is of type str, and not ArtifactSet",
        ),
        (lambda job, place: ANY.push(job.id, place), "the job is of type str, and not Job"),
        (lambda job, place: ANY.fetch(job, place, {"replace": True}), "options is of type dict"),
        (lambda job, place: ANY.push(job, place, {"Built": "x"}), "options is of type dict"),
        (lambda job, place: ANY.fetch(job, place, config="us-east-1"), "config is of type str"),
        (lambda job, _: ANY.get_job(job.id, config="us-east-1"), "config is of type str"),
        (lambda job, place: ANY.run({}, ["true"], place), "the job is of type dict"),
        (lambda job, place: ANY.run(job, ["true"], place, report=True), "report is of type bool"),
        (lambda job, place: ANY.run(job, ["true"], place, config={}), "config is of type dict"),
        (lambda job, place: ANY.run(job, "make -j", place), "the command is a string"),
        (lambda job, place: ANY.run(job, ["make", "-j", 4], place), "not int"),
        (lambda *_: JobCommand("make -j"), "the command is a string"),
        (lambda *_: ANY.CommandOptions(time_limit="5"), "time_limit is of type str"),
        (
            lambda job, _: ANY.report_success(job.id, details={"summary": "x"}),
            "details is of type dict",
        ),
        (
            lambda job, _: ANY.report_success(job.id, continuation_token=5),
            "a secret is of type int",
        ),
        (lambda *_: ANY.PushOptions([("Built", "x")]), "paths is of type list"),
        (lambda *_: ANY.FetchOptions(artifacts="App"), "artifacts is of type str"),
        (lambda *_: ANY.Unpacking(no_unpack="App"), "no_unpack is of type str"),
        (lambda *_: ANY.Globs(exclude="*.log"), "exclude is of type str"),
        (lambda *_: ANY.Encryption(key_ids="alias/a"), "key_ids is of type str"),
        (lambda *_: ANY.MessageEncryption("alias/a"), "key_ids is of type str"),
    ],
)
def test_a_wrong_type_is_named(
    job: cpstage.Job, tmp_path: Path, call: Callable[[cpstage.Job, Path], object], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        call(job, tmp_path / "workspace")

    assert not (tmp_path / "workspace").exists()


def test_a_command_may_hold_paths(job: cpstage.Job, tmp_path: Path) -> None:
    script = tmp_path / "build.sh"
    script.write_text('cp in/App/f "$CPSTAGE_OUT_BUILT/$1"\n')

    done = cpstage.run(job, ["sh", script, Path("g")], tmp_path / "workspace")  # type: ignore[list-item]

    assert done.error is None
    assert json.loads(json.dumps(done.document()))["command"]["argv"] == ["sh", str(script), "g"]


def test_a_tail_of_fewer_than_no_lines_is_refused() -> None:
    with pytest.raises(cpstage.errors.UsageError, match="tail_lines"):
        cpstage.CommandOptions(tail_lines=-1)
