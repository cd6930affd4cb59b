"""The sample pipeline: a small source tree and its settings, to be built into two artifacts.

The trees lie beside this file as they are. What a Python package cannot carry reliably (modes, a
symbolic link, an empty directory) is added here when the archives are made. `AppSource` is a zip
and `AppConfig` a tar.gz; the same bytes come out every time.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cpstage.local.jobs import Input, TakesJobs

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
