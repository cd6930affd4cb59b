"""What the tests of ``cpstage run`` share: a job to work on, and looks at what became of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cpstage.local import Call, Input, LocalAWS
from samples import zip_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from command_line import Cli

BUILD = ("sh", "-c", 'cp in/App/f "$CPSTAGE_OUT_BUILT"')
"""A command that makes the one output of the job."""


def add_job(aws: LocalAWS, **members: Any) -> str:
    """Add a job with an input `App`, which holds a file `f`, and an output `Built`."""
    members.setdefault("inputs", [Input("App", zip_of({"f": "content", "sub/g": "more"}))])
    members.setdefault("outputs", ["Built"])
    return aws.add_job(**members)


def run(
    cli: Cli, job_id: str, *options: str, command: tuple[str, ...] = BUILD, **how: Any
) -> subprocess.CompletedProcess[str]:
    return cli("run", job_id, "--progress", "none", *options, "--", *command, **how)


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def failure(aws: LocalAWS, job_id: str) -> Mapping[str, str]:
    """The details of the failure that was reported of a job."""
    job = aws.job(job_id)
    assert (job.status, list(job.result or {})) == ("Failed", ["failureDetails"])
    assert job.result
    details: Mapping[str, str] = job.result["failureDetails"]
    return details


def puts(aws: LocalAWS, job_id: str) -> list[Call]:
    """The uploads of a job."""
    return [call for call in aws.calls() if call.action == "PutObject" and call.job_id == job_id]


def reports(aws: LocalAWS, job_id: str) -> list[str]:
    """The results that were put of a job, taken or refused."""
    return [
        call.action
        for call in aws.calls()
        if call.job_id == job_id and call.action.endswith("Result")
    ]


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document on stdout."""
    found: dict[str, Any] = json.loads(done.stdout)
    return found
