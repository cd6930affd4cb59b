"""The sample pipeline: a source tree and its settings, a job that builds them, and its past.

The trees lie beside this file as they are. What a Python package cannot carry reliably (modes, a
symbolic link, an empty directory) is added here when the archives are made. `AppSource` is a zip
and `AppConfig` a tar.gz; the same bytes come out every time. Of three past executions, the last one
failed in its build.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
_EXECUTABLE = frozenset({"build.sh"})
_LINKS: dict[str, dict[str, str]] = {
    "AppSource": {"CHANGES.txt": "docs/changes.txt"},
    "AppConfig": {},
}
_EMPTY_DIRECTORIES: dict[str, tuple[str, ...]] = {"AppSource": ("build/",), "AppConfig": ()}


@dataclass(frozen=True)
class _Entry:
    """One entry of an archive: a directory ends in a slash, a link's content is its target."""

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
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in _entries("AppSource"):
            content = changed.get(entry.name, entry.content)
            info = zipfile.ZipInfo(entry.name, _EPOCH_DOS)
            info.create_system = 3
            info.external_attr = entry.mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
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


def _entries(artifact: str) -> Iterator[_Entry]:
    """Yield the entries of an artifact's archive, in the order of their names."""
    entries = list(_files(Path(__file__).parent / artifact, ""))
    for name, target in _LINKS[artifact].items():
        entries.append(_Entry(name, stat.S_IFLNK | 0o777, target.encode()))
    for name in _EMPTY_DIRECTORIES[artifact]:
        entries.append(_Entry(name, stat.S_IFDIR | 0o755))
    yield from sorted(entries, key=lambda entry: entry.name)


def _files(directory: Path, prefix: str) -> Iterator[_Entry]:
    for item in directory.iterdir():
        if item.is_dir() and item.name != "__pycache__":
            yield from _files(item, f"{prefix}{item.name}/")
        elif item.is_file():
            permissions = 0o755 if item.name in _EXECUTABLE else 0o644
            yield _Entry(prefix + item.name, stat.S_IFREG | permissions, item.read_bytes())


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
