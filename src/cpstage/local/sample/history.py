"""The past of the sample pipeline: three executions, of which the last one failed in its build."""

from __future__ import annotations

import io
import time
import zipfile

from cpstage.local.history import ActionRun, Revision
from cpstage.local.job_service import JobService
from cpstage.local.jobs import Input
from cpstage.local.sample import CONFIGURATION, config_archive, source_archive

PIPELINE = "sample-pipeline"
"""The pipeline of the sample job, too."""

_BUILD_TYPE = ("Build", "Custom", "CpstageLocal", "1")
_SOURCE_TYPE = ("Source", "AWS", "CodeStarSourceConnection", "1")
_SECRETS = frozenset({"DeployToken", "NotifyUrl"})
_DAY = 24 * 3600.0
_GREETING = "greeter/greeting.py"
_ERROR = (
    "JobFailed",
    "The command exited with code 1: The unit tests failed; see out/AppReport/tests.txt",
)


def add_sample_history(aws: JobService) -> str:
    """Add the executions, and return the id of the one that failed."""
    aws.action_types[_BUILD_TYPE] = {name: name in _SECRETS for name in CONFIGURATION}
    now = time.time()
    first = {"docs/changes.txt": b"1.0: first release\n"}
    commits: tuple[tuple[Revision, dict[str, bytes], float], ...] = (
        (Revision("Source", "b2c1d7e", "First release"), first, now - 3 * _DAY),
        (Revision("Source", "5f3a1c9", "Greet by name"), {}, now - 2 * _DAY),
    )
    for revision, changes, started in commits:
        source, built = _source(changes), _built(revision.id)
        deploy = ActionRun(
            "Deploy",
            "Deploy",
            ("AppBuild",),
            action_type=("Deploy", "AWS", "S3", "1"),
            seconds=20,
        )
        aws.history.add(
            PIPELINE,
            [source, _build(outputs=(built,)), deploy],
            started=started,
            revisions=[revision],
            trigger=("WebhookV2", "push to main"),
        )
    broken = {_GREETING: source_file(_GREETING).replace(b"Hello", b"Helo")}
    failed = _build(status="Failed", error=_ERROR, outputs=(Input("AppReport", _report(), ""),))
    return aws.history.add(
        PIPELINE,
        [_source(broken), failed],
        status="Failed",
        started=now - _DAY,
        revisions=[Revision("Source", "9e07b44", "Shorten the greeting")],
        trigger=("WebhookV2", "push to main"),
    )


def source_file(name: str) -> bytes:
    """Return one file of the source tree."""
    with zipfile.ZipFile(io.BytesIO(source_archive())) as archive:
        return archive.read(name)


def _source(changes: dict[str, bytes]) -> ActionRun:
    outputs = (
        Input("AppSource", source_archive(changes)),
        Input("AppConfig", config_archive(), ".tar.gz"),
    )
    return ActionRun("Source", "Source", outputs=outputs, action_type=_SOURCE_TYPE, seconds=5)


def _build(
    status: str = "Succeeded",
    error: tuple[str, str] | None = None,
    outputs: tuple[Input, ...] = (),
) -> ActionRun:
    return ActionRun(
        "BuildWithCpstage",
        inputs=("AppSource", "AppConfig"),
        outputs=outputs,
        status=status,
        action_type=_BUILD_TYPE,
        configuration=CONFIGURATION,
        error=error,
        external_id="greeter:417",
        external_url="https://ci.example.com/job/greeter/417/",
    )


def _built(version: str) -> Input:
    return Input("AppBuild", _zip({"version.txt": version.encode()}), "")


def _report() -> bytes:
    return _zip({"tests.txt": b"FAIL: test_greeting\n", "tests.json": b'{"passed": false}\n'})


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()
