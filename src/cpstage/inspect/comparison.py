"""Compare a fetched tree with its artifact in S3: names, kinds, sizes, execute bits, contents.

The artifact is listed as in :mod:`cpstage.inspect.listing`. A file of the tree is read where its
size equals that of the member. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cpstage._deflate import crc32_of
from cpstage.archive.blob import ReadAhead
from cpstage.archive.paths import is_root
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ArtifactRejected, NotFound, local_failures
from cpstage.filesystem.walk import Entry, Globs, read_file, walk
from cpstage.inspect.listing import Listed, list_remote, plain_path
from cpstage.inspect.opened import OpenArtifact, open_artifact
from cpstage.job import Artifact, ArtifactSet, choose
from cpstage.progress import Advance, Progress, Silence
from cpstage.transfer.options import Unpacking
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
    job: ArtifactSet,
    workspace: Path | str = ".",
    artifacts: Sequence[str] = (),
    *,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Compare what is in a workspace's ``in/`` with the job's input artifacts.

    Args:
        job: The job, with its session credentials; or a past execution, whose artifacts are
            compared with ``in/`` and ``made/``.
        workspace: The workspace that they were fetched into.
        artifacts: Names or globs of inputs; all where none is given.
        unpacking: Limits, and the keys that may decrypt. What was fetched as the file it is, sealed
            or packed, is compared as that.
        config: How to reach AWS.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Is told of what is read as a whole.

    Raises:
        UsageError: A glob matches no input.
        NotFound: An artifact has not been fetched into this workspace.
        ArtifactRejected: An archive is damaged, ambiguous, unsafe or over a limit; an envelope
            cannot be opened.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        LocalIOError: A file cannot be read, or there is no room for the plaintext.
    """
    place = Workspace(workspace)
    manifest = place.manifest()
    session = JobSession(job, config or AwsConfig(), credentials_max_age)
    comparing = _Comparing(session, manifest, unpacking or Unpacking(), progress or Silence())
    groups: dict[Path, list[Artifact]] = {}
    for artifact in choose([*job.input_artifacts, *job.made_artifacts], artifacts):
        made = artifact in job.made_artifacts
        path = _place_of(artifact, place.made if made else place.inputs, manifest)
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
            with open_artifact(self._session, artifact, how, self._progress) as remote:
                entries.update(with_parents(self._entries(remote, how)))
                if self._is_replaced(remote):
                    replaced.append(artifact)
        local = {str(entry.path): entry for entry in walk(path, Globs())}
        found = [*differences(path.name, entries, local, self._progress)]
        if not self._is_all_of(path, artifacts):
            # The rest of a merged directory belongs to artifacts that are not compared.
            found = [one for one in found if one.what != "added"]
        return Comparison(path, (*artifacts,), (*replaced,), len(entries), (*found,))

    def _as_fetched(self, artifact: Artifact) -> Unpacking:
        """Return the options of the earlier fetch: a kept file is compared as a file."""
        known, how = self._manifest.get(artifact.name, {}), self._unpacking
        if known.get("unpack") is False:
            how = replace(how, unpack=False)
        if known.get("envelopes") == "keep":
            how = replace(how, envelopes="keep")
        if known.get("unsafe_link_handling") in ("skip", "keep"):
            how = replace(how, unsafe_links=known["unsafe_link_handling"])
        return how

    def _entries(self, remote: OpenArtifact, how: Unpacking) -> list[Listed]:
        if remote.format is None:
            name, size = remote.artifact.location.file_name, remote.blob.size
            return [Listed(name, "file", size, size, crc_of_object(remote, self._progress))]
        listing = list_remote(remote, how, self._progress)
        if listing.refused:
            raise ArtifactRejected(
                f"{remote.artifact.title}: {listing.refused[0]}", hint="see cpstage ls"
            )
        return [*listing.entries]

    def _is_all_of(self, path: Path, artifacts: Sequence[Artifact]) -> bool:
        compared = {artifact.name for artifact in artifacts}
        there = {name for name, one in self._manifest.items() if one.get("path") == str(path)}
        return there <= compared

    def _is_replaced(self, remote: OpenArtifact) -> bool:
        known = self._manifest.get(remote.artifact.name, {})
        return "etag" in known and known["etag"] != remote.info.etag


def _place_of(artifact: Artifact, parent: Path, manifest: Mapping[str, Mapping[str, Any]]) -> Path:
    merged = manifest.get(artifact.name, {}).get("layout") == "merged"
    path = parent if merged else parent / artifact.name
    with local_failures(path, "read"):
        is_there = path.is_dir()
    if not is_there:
        raise NotFound(
            f"artifact {artifact.name} has not been fetched: there is no {path}",
            hint="fetch it first, or give its --workspace",
        )
    return path


def crc_of_object(remote: OpenArtifact, progress: Progress) -> int:
    """Return the CRC-32 of an object that is not an archive, which is read."""
    doing = f"{remote.artifact.name}: reading"
    with (
        progress.phase(doing, remote.blob.size) as advance,
        ReadAhead(remote.blob, advance) as stream,
    ):
        return crc32_of(stream.pieces(remote.blob.size))


What = Literal["missing", "added", "kind", "size", "content", "executable", "target"]
"""``missing`` is in the artifact only, ``added`` in the tree only."""


@dataclass(frozen=True)
class Difference:
    """One way in which a tree and an artifact differ.

    Attributes:
        path: Where.
        what: In what.
        remote: What the artifact has; None where it has nothing.
        local: What the tree has; None where it has nothing.
    """

    path: str
    what: What
    remote: str | int | bool | None = None
    local: str | int | bool | None = None


def with_parents(entries: Iterable[Listed]) -> dict[str, Listed]:
    """Return entries by their paths, with directories that an archive only implies.

    Of several of the same path the last is taken, as tar has it; hard links are the files that
    they stand for.
    """
    found: dict[str, Listed] = {}
    for entry in entries:
        path = plain_path(entry.name)
        if entry.kind == "directory" and is_root(entry.name):
            continue
        end = path.rfind("/")
        while end > 0 and path[:end] not in found:
            found[path[:end]] = Listed(path[:end], "directory")
            end = path.rfind("/", 0, end)
        if entry.kind == "hard link":
            origin = found.get(plain_path(entry.target))
            found[path] = replace(origin, name=entry.name) if origin else entry
        else:
            found[path] = entry
    return found


def differences(
    name: str, remote: Mapping[str, Listed], local: Mapping[str, Entry], progress: Progress
) -> Iterator[Difference]:
    """Compare the entries of an artifact with those of a tree, in the order of their paths.

    Args:
        name: What to call it in progress.
        remote: What the artifact has, by path.
        local: What the tree has, by path.
        progress: Is told of the files that are read.

    Raises:
        LocalIOError: A file cannot be read, or changed while it was.
    """
    same = (local[path].size for path, one in remote.items() if path in local and one.size)
    with progress.phase(f"{name}: comparing", sum(same)) as advance:
        for path in sorted(remote.keys() | local.keys()):
            if path not in local:
                yield Difference(path, "missing", remote[path].kind, None)
            elif path not in remote:
                yield Difference(path, "added", None, local[path].kind)
            else:
                yield from _of_one(path, remote[path], local[path], advance)


def _of_one(path: str, remote: Listed, local: Entry, advance: Advance) -> Iterator[Difference]:
    if remote.kind != local.kind:
        yield Difference(path, "kind", remote.kind, local.kind)
    elif remote.kind == "link" and remote.target != local.target:
        yield Difference(path, "target", remote.target, local.target)
    elif remote.kind == "file":
        if remote.size != local.size:
            yield Difference(path, "size", remote.size, local.size)
        else:
            crc = crc32_of(read_file(local, advance))
            if crc != remote.crc:
                yield Difference(path, "content", f"{remote.crc or 0:08x}", f"{crc:08x}")
        if remote.executable != local.executable:
            yield Difference(path, "executable", remote.executable, local.executable)
