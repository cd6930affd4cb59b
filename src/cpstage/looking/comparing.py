"""How a fetched tree differs from the artifact in S3: names, kinds, sizes, execute bits, contents.

The artifact is listed as :mod:`cpstage.looking.listing` does it; of the tree, those files are read
whose size is the same. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpstage._deflate import crc32_of
from cpstage.archive.blob import ReadAhead
from cpstage.aws.config import Connection
from cpstage.aws.credentials import DEFAULT_MAX_AGE
from cpstage.errors import ArtifactRejected, NotFound
from cpstage.filesystem import local_failures
from cpstage.globs import Globs
from cpstage.job import Artifact, Job
from cpstage.looking.differences import Difference, differences, with_parents
from cpstage.looking.listing import Listed, list_remote
from cpstage.looking.remote import Remote, open_remote
from cpstage.progress import Progress, Silence
from cpstage.selection import choose
from cpstage.session import JobSession
from cpstage.transfer.terms import Unpacking
from cpstage.walk import walk
from cpstage.workspace.layout import Workspace


@dataclass(frozen=True)
class Comparison:
    """A directory in ``in/``, and what was compared with it.

    Attributes:
        path: The directory.
        artifacts: The artifacts that were unpacked into it.
        replaced: Those whose object is another one than was fetched.
        entries: How many entries the artifacts have.
        differences: In the order of the paths.
    """

    path: Path
    artifacts: tuple[Artifact, ...]
    replaced: tuple[Artifact, ...]
    entries: int
    differences: tuple[Difference, ...]

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": str(self.path),
            "artifacts": [one.name for one in self.artifacts],
            "replaced": [one.name for one in self.replaced],
            "entries": self.entries,
            "differences": [
                {"path": one.path, "what": one.what, "remote": one.remote, "local": one.local}
                for one in self.differences
            ],
        }


def compare(
    job: Job,
    workspace: Path | str = ".",
    artifacts: Sequence[str] = (),
    *,
    unpacking: Unpacking | None = None,
    connection: Connection | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Compare what is in a workspace's ``in/`` with the job's input artifacts.

    Args:
        job: The job, with its session credentials.
        workspace: The workspace that they were fetched into.
        artifacts: Names or globs of inputs; all where none is given.
        unpacking: Limits, and what may open an envelope. What was fetched as the file it is, sealed
            or packed, is compared as that.
        connection: How to reach AWS.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Is told of what is read as a whole.

    Raises:
        UsageError: A glob matches no input.
        NotFound: An artifact has not been fetched into this workspace.
        ArtifactRejected: An archive is damaged, ambiguous, unsafe or over a limit; an envelope
            cannot be opened.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        LocalIOError: A file cannot be read, or there is no room to open an envelope.
    """
    place = Workspace(workspace)
    manifest = place.manifest()
    session = JobSession(job, connection or Connection(), credentials_max_age)
    comparing = _Comparing(session, manifest, unpacking or Unpacking(), progress or Silence())
    groups: dict[Path, list[Artifact]] = {}
    for artifact in choose(job.input_artifacts, artifacts):
        path = _place_of(artifact, place, manifest)
        groups.setdefault(path, []).append(artifact)
    return [comparing.compare(path, some) for path, some in groups.items()]


class _Comparing:
    """Compares directories with artifacts of one job."""

    def __init__(
        self,
        session: JobSession,
        manifest: Mapping[str, Mapping[str, Any]],
        unpacking: Unpacking,
        progress: Progress,
    ) -> None:
        self._session = session
        self._manifest = manifest
        self._unpacking = unpacking
        self._progress = progress

    def compare(self, path: Path, artifacts: Sequence[Artifact]) -> Comparison:
        """Compare one directory with the artifacts that belong into it."""
        entries: dict[str, Listed] = {}
        replaced = []
        for artifact in artifacts:
            how = self._as_fetched(artifact)
            with open_remote(self._session, artifact, how, self._progress) as remote:
                entries.update(with_parents(self._entries(remote)))
                if self._is_replaced(remote):
                    replaced.append(artifact)
        local = {str(entry.path): entry for entry in walk(path, Globs())}
        found = [*differences(path.name, entries, local, self._progress)]
        if not self._is_all_of(path, artifacts):
            # The rest of a merged directory is of artifacts that are not looked at.
            found = [one for one in found if one.what != "added"]
        return Comparison(path, (*artifacts,), (*replaced,), len(entries), (*found,))

    def _as_fetched(self, artifact: Artifact) -> Unpacking:
        """Tell how to take an artifact in: what was kept as the file it is stays that."""
        known, how = self._manifest.get(artifact.name, {}), self._unpacking
        if known.get("unpack") is False:
            how = replace(how, unpack=False)
        if known.get("envelopes") == "keep":
            how = replace(how, envelopes="keep")
        return how

    def _entries(self, remote: Remote) -> list[Listed]:
        if remote.format is None:
            name, size = remote.artifact.location.file_name, remote.blob.size
            return [Listed(name, "file", size, size, _crc_of_object(remote, self._progress))]
        listing = list_remote(remote, self._unpacking.limits, self._progress)
        if listing.refused:
            raise ArtifactRejected(
                f"{remote.artifact.title}: {listing.refused[0]}", hint="see cpstage ls"
            )
        return [*listing.entries]

    def _is_all_of(self, path: Path, artifacts: Sequence[Artifact]) -> bool:
        compared = {artifact.name for artifact in artifacts}
        there = {name for name, one in self._manifest.items() if one.get("path") == str(path)}
        return there <= compared

    def _is_replaced(self, remote: Remote) -> bool:
        known = self._manifest.get(remote.artifact.name, {})
        return "etag" in known and known["etag"] != remote.info.etag


def _place_of(
    artifact: Artifact, workspace: Workspace, manifest: Mapping[str, Mapping[str, Any]]
) -> Path:
    merged = manifest.get(artifact.name, {}).get("layout") == "merged"
    path = workspace.inputs if merged else workspace.input(artifact.name)
    with local_failures(path, "read"):
        is_there = path.is_dir()
    if not is_there:
        raise NotFound(
            f"artifact {artifact.name} has not been fetched: there is no {path}",
            hint="fetch it first, or give its --workspace",
        )
    return path


def _crc_of_object(remote: Remote, progress: Progress) -> int:
    doing = f"{remote.artifact.name}: reading"
    with (
        progress.phase(doing, remote.blob.size) as advance,
        ReadAhead(remote.blob, advance) as stream,
    ):
        return crc32_of(stream.pieces(remote.blob.size))
