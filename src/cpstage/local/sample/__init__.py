"""The sample pipeline: a source tree and its settings, a job that builds them, past executions.

The trees are beside this file. What a Python package cannot carry reliably (modes, a symlink, an
empty directory) is added here when the archives are made. `AppSource` is a zip and `AppConfig` a
tar.gz; the same bytes come out every time. Of three past executions, the last one failed.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cpstage.local.client import ActionRun, Input, Revision, TakesJobs

if TYPE_CHECKING:
    from cpstage.local.server import LocalAWS

BUILD_COMMAND = ("sh", "in/AppSource/build.sh")
"""The build step, to be run in the workspace."""

OUTPUTS = ("AppBuild", "AppReport")
CONFIGURATION = {
    "ProjectName": "greeter",
    "Target": "zipapp",
    "DeployToken": "not-a-real-secret-8c1f0f3e",
    "NotifyUrl": "https://hooks.example.com/not-a-real-secret-77d2",
}

_EPOCH_DOS = (2020, 1, 1, 0, 0, 0)
_EPOCH_UNIX = 1_577_836_800
_FILE = stat.S_IFREG | 0o644
_EXECUTABLE = frozenset({"build.sh"})


class _Entry(NamedTuple):
    """One entry of an archive: a directory ends in a slash, a symlink's content is its target."""

    name: str
    mode: int
    content: bytes = b""


def add_sample_job(aws: TakesJobs, *, queued: bool = False) -> str:
    """Add a job of the sample pipeline, and return its id.

    Args:
        aws: Where to add it.
        queued: Leave it in the queue for a worker's poll, and not in progress.
    """
    return aws.add_job(
        inputs=[
            Input("AppSource", source_archive(), ".zip", revision="5f3a1c9"),
            Input("AppConfig", config_archive(), ".tar.gz", revision="b70e2d4"),
        ],
        outputs=OUTPUTS,
        configuration=CONFIGURATION,
        status="Queued" if queued else "InProgress",
    )


def source_archive(changes: Mapping[str, bytes] | None = None) -> bytes:
    """Return the source tree as a zip archive, with other contents for some of its files."""
    changed = changes or {}
    return _zip(
        [one._replace(content=changed.get(one.name, one.content)) for one in _entries("AppSource")]
    )


def _zip(entries: Iterable[_Entry]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, _EPOCH_DOS)
            info.create_system = 3
            info.external_attr = entry.mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.content)
    return buffer.getvalue()


def config_archive() -> bytes:
    """Return the settings as a gzip-compressed tar archive."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=_EPOCH_UNIX) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in _entries("AppConfig"):
            info = tarfile.TarInfo(entry.name)
            info.mode = stat.S_IMODE(entry.mode)
            info.mtime = _EPOCH_UNIX
            info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


_EXTRA_ENTRIES = {
    "AppSource": (
        _Entry("CHANGES.txt", stat.S_IFLNK | 0o777, b"docs/changes.txt"),
        _Entry("build/", stat.S_IFDIR | 0o755),
    )
}


def _entries(artifact: str) -> list[_Entry]:
    """Return the entries of an artifact's archive, in the order of their names."""
    root = Path(__file__).parent / artifact
    entries = [*_EXTRA_ENTRIES.get(artifact, ())]
    for path in root.rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__":
            mode = stat.S_IFREG | (0o755 if path.name in _EXECUTABLE else 0o644)
            entries.append(_Entry(path.relative_to(root).as_posix(), mode, path.read_bytes()))
    return sorted(entries)


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


def add_sample_history(aws: LocalAWS) -> str:
    """Add the executions, and return the id of the one that failed."""
    aws.action_types[_BUILD_TYPE] = {name: name in _SECRETS for name in CONFIGURATION}
    now = time.time()
    first = {"docs/changes.txt": b"1.0: first release\n"}
    deploy = ActionRun(
        "Deploy", "Deploy", ("AppBuild",), action_type=("Deploy", "AWS", "S3", "1"), seconds=20
    )
    commits: tuple[tuple[Revision, dict[str, bytes], float], ...] = (
        (Revision("Source", "b2c1d7e", "First release"), first, now - 3 * _DAY),
        (Revision("Source", "5f3a1c9", "Greet by name"), {}, now - 2 * _DAY),
    )
    for revision, changes, started in commits:
        built = Input("AppBuild", _zip([_Entry("version.txt", _FILE, revision.id.encode())]), "")
        aws.history.add(
            PIPELINE,
            [_source(changes), _build(built), deploy],
            started=started,
            revisions=[revision],
            trigger=("WebhookV2", "push to main"),
        )
    broken = {_GREETING: source_file(_GREETING).replace(b"Hello", b"Helo")}
    report = _zip(
        [
            _Entry("tests.txt", _FILE, b"FAIL: test_greeting\n"),
            _Entry("tests.json", _FILE, b'{"passed": false}\n'),
        ]
    )
    failed = _build(Input("AppReport", report, ""), status="Failed", error=_ERROR)
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
    output: Input, status: str = "Succeeded", error: tuple[str, str] | None = None
) -> ActionRun:
    return ActionRun(
        "BuildWithCpstage",
        inputs=("AppSource", "AppConfig"),
        outputs=(output,),
        status=status,
        action_type=_BUILD_TYPE,
        configuration=CONFIGURATION,
        error=error,
        external_id="greeter:417",
        external_url="https://ci.example.com/job/greeter/417/",
    )
