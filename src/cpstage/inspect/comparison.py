"""Differences between a fetched tree and its artifact, two executions, or two local archives.

Two zips are compared by their central directories alone: names, kinds, sizes, CRC-32 and execute
bits. Members are read only for a unified diff of their text. A tar is read from start to end. A
file of a local tree is read where its size equals that of the member.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpstage.archive.paths import quoted
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ArtifactRejected, NotFound, ObjectNotFound, local_failures
from cpstage.filesystem.walk import Globs
from cpstage.inspect.content import open_archive, open_artifact
from cpstage.inspect.listing import Entries, Listed, archive_entries, tree_entries
from cpstage.job import Artifact, ArtifactSet, choose
from cpstage.progress import Advance, Progress, Silence
from cpstage.transfer.options import Unpacking
from cpstage.workspace.layout import Workspace

_LONGEST_TEXT, _MOST_TEXT = 4 << 20, 64 << 20
"""Bytes of a member that is compared as text, and of all such members of both archives."""

_MOST_PAIRS = 2_000_000
"""Pairs of equal lines in a member: with more, difflib can take minutes to hours."""


@dataclass(frozen=True)
class Change:
    """One way in which two archives differ.

    Attributes:
        what: In what; ``added`` is in the later one only, ``removed`` in the earlier one only.
        before: What the earlier one has; None for nothing.
        after: What the later one has; None for nothing.
    """

    path: str
    what: Literal["added", "removed", "kind", "size", "content", "executable", "target"]
    before: str | int | bool | None = None
    after: str | int | bool | None = None


@dataclass(frozen=True)
class Changes:
    """What changed in one artifact.

    Attributes:
        name: The name of the artifact, or of the later archive.
        before: Where the earlier one is; None if the artifact was added.
        after: Where the later one is; None if the artifact was removed.
        entries: Entries of the later one.
        changes: In the order of the paths.
        text: Lines of a unified diff, where one was asked for.
    """

    name: str
    before: str | None
    after: str | None
    entries: int
    changes: tuple[Change, ...]
    text: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        return not self.changes and self.before is not None and self.after is not None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "changes": [*map(asdict, self.changes)], "text": [*self.text]}


@dataclass(frozen=True)
class Texts:
    """Which changed members are compared as text.

    Attributes:
        paths: Members or globs; all where none is given.
        wanted: Whether any are.
    """

    paths: tuple[str, ...] = ()
    wanted: bool = False

    def takes(self, path: str) -> bool:
        """Whether a member is compared as text."""
        return self.wanted and (path in self.paths or Globs(self.paths).takes(path))


@dataclass(frozen=True)
class Difference:
    """One way in which a tree and an artifact differ.

    Attributes:
        what: In what; ``missing`` is in the artifact only, ``added`` in the tree only.
        remote: What the artifact has; None where it has nothing.
        local: What the tree has; None where it has nothing.
    """

    path: str
    what: Literal["missing", "added", "kind", "size", "content", "executable", "target"]
    remote: str | int | bool | None = None
    local: str | int | bool | None = None


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
            "differences": [asdict(one) for one in self.differences],
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
    """Compare a workspace's ``in/`` with the job's input artifacts.

    Args:
        job: The job; or a past execution, whose outputs are compared with ``made/`` as well.
        workspace: The workspace that they were fetched into.
        artifacts: Names or globs of inputs; all where none is given.
        unpacking: Limits, and the keys that may decrypt. A kept file is compared as a file.
        config: The configuration of the AWS clients.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Shows what is read as a whole.

    Raises:
        UsageError: A glob matches no input.
        NotFound: An artifact has not been fetched into this workspace.
        ArtifactRejected: An archive is damaged, unsafe or over a limit, or cannot be decrypted.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        LocalIOError: A file cannot be read, or there is no room for the plaintext.
    """
    place = Workspace(workspace)
    session = JobSession(job, config or AwsConfig(), credentials_max_age)
    fetched = _Fetched(session, place.manifest(), unpacking or Unpacking(), progress or Silence())
    groups: dict[Path, list[Artifact]] = {}
    for artifact in choose([*job.input_artifacts, *job.made_artifacts], artifacts):
        parent = place.made if artifact in job.made_artifacts else place.inputs
        groups.setdefault(fetched.path_of(artifact, parent), []).append(artifact)
    return [fetched.compare(path, some) for path, some in groups.items()]


class _Fetched(NamedTuple):
    """The directories of a workspace into which artifacts of one job were fetched."""

    session: JobSession
    manifest: Mapping[str, Mapping[str, Any]]
    unpacking: Unpacking
    progress: Progress

    def path_of(self, artifact: Artifact, parent: Path) -> Path:
        """Return the directory of an artifact, which a build did not replace by a symlink."""
        merged = self.manifest.get(artifact.name, {}).get("layout") == "merged"
        path = parent if merged else parent / artifact.name
        with local_failures(path, "read"):
            if path.is_symlink():
                what = f"{path} is a symlink to {quoted(str(path.readlink()))}"
                raise ArtifactRejected(what, hint="fetch it again with --replace")
            if path.is_dir():
                return path
        raise NotFound(
            f"artifact {artifact.name} has not been fetched: there is no {path}",
            hint="fetch it first, or give its --workspace",
        )

    def compare(self, path: Path, artifacts: Sequence[Artifact]) -> Comparison:
        """Compare one directory with the artifacts that belong into it."""
        entries: dict[str, Listed] = {}
        replaced = []
        for artifact in artifacts:
            known = self.manifest.get(artifact.name, {})
            how = self._as_fetched(known)
            with open_artifact(self.session, artifact, how, self.progress) as remote:
                found = archive_entries(remote, how, self.progress)
                if found.refused:
                    why = f"{artifact.title}: {found.refused[0]}"
                    raise ArtifactRejected(why, hint="see cpstage ls")
                entries.update(found.listed)
                if known.get("etag", remote.info.etag) != remote.info.etag:
                    replaced.append(artifact)
        compared = {artifact.name for artifact in artifacts}
        merged = {name for name, one in self.manifest.items() if one.get("path") == str(path)}
        differences = tuple(
            one
            for one in self._differences(path, entries)
            # The rest of a merged directory belongs to artifacts that are not compared.
            if one.what != "added" or merged <= compared
        )
        return Comparison(path, (*artifacts,), (*replaced,), len(entries), differences)

    def _as_fetched(self, known: Mapping[str, Any]) -> Unpacking:
        """Return the options of the fetch by an entry of the manifest; a kept file stays a file."""
        how = self.unpacking
        if known.get("unpack") is False:
            how = replace(how, unpack=False)
        if known.get("envelopes") == "keep":
            how = replace(how, encrypted_messages="keep")
        if known.get("unsafe_link_handling") in ("skip", "keep"):
            how = replace(how, unsafe_links=known["unsafe_link_handling"])
        return how

    def _differences(self, path: Path, entries: Mapping[str, Listed]) -> Iterator[Difference]:
        tree = tree_entries(path)
        both = (name for name, one in entries.items() if one.size and name in tree.listed)
        size = sum(tree.listed[name].size for name in both)
        with self.progress.phase(f"{path.name}: comparing", size) as advance:
            for one in _differences(Entries(entries), tree, advance):
                what = "missing" if one.what == "removed" else one.what
                yield Difference(one.path, what, one.before, one.after)


def compare_executions(
    after: ArtifactSet,
    before: ArtifactSet,
    artifacts: Sequence[str] = (),
    *,
    texts: Texts | None = None,
    missing: Callable[[str], object] | None = None,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    progress: Progress | None = None,
) -> Iterator[Changes]:
    """Compare the artifacts of an execution with those of an earlier one, by their names.

    Args:
        after: The execution.
        before: The execution to compare it with.
        artifacts: Names or globs of artifacts of either; all where none is given.
        texts: Which members are compared as text.
        missing: Is called with a line for each object that does not exist any more, whose artifact
            is left out; None makes it an error.
        unpacking: Limits, and the keys that may decrypt.
        config: The configuration of the AWS clients.
        progress: Shows what is read as a whole.

    Raises:
        UsageError: A glob matches nothing.
        ArtifactRejected: An archive is damaged or over a limit; a message cannot be decrypted.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
    """
    how, where = unpacking or Unpacking(), config or AwsConfig()
    shown, wanted = progress or Silence(), texts or Texts()
    old, new = (
        {one.name: one for one in [*side.input_artifacts, *side.output_artifacts]}
        for side in (before, after)
    )
    earlier, later = JobSession(before, where), JobSession(after, where)
    for artifact in choose([*{**old, **new}.values()], artifacts, "artifact", "either execution"):
        name = artifact.name
        pair = (old.get(name), new.get(name))
        places = [str(one.location) if one else None for one in pair]
        if pair[0] and pair[1] and pair[0].location == pair[1].location:
            # Both have the same object: nothing is read. (Texts may agree where keys do not.)
            yield Changes(name, places[0], places[1], entries=0, changes=())
            continue
        try:
            with (
                _remote_entries(earlier, pair[0], how, shown) as one,
                _remote_entries(later, pair[1], how, shown) as other,
            ):
                changes = _changes(name, places, one, other, wanted)
        except ObjectNotFound as error:
            if missing is None:
                raise
            missing(error.message)
        else:
            yield changes


def compare_local(
    before: Path | str,
    after: Path | str,
    *,
    texts: Texts | None = None,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    progress: Progress | None = None,
) -> Changes:
    """Compare two local archives or trees.

    Args:
        before: An archive or a directory.
        after: Another one.
        texts: Which members are compared as text.
        unpacking: Limits, and the keys that may decrypt.
        config: The configuration of the KMS client, with the caller's own credentials.
        progress: Shows messages that are decrypted.

    Raises:
        NotFound: The file does not exist.
        ArtifactRejected: An archive is damaged or over a limit, or cannot be decrypted.
        LocalIOError: It cannot be read.
    """
    how, where, shown = unpacking or Unpacking(), config or AwsConfig(), progress or Silence()
    with (
        _local_entries(Path(before), how, where, shown) as old,
        _local_entries(Path(after), how, where, shown) as new,
    ):
        return _changes(Path(after).name, [str(before), str(after)], old, new, texts or Texts())


def _changes(
    name: str, places: Sequence[str | None], old: Entries, new: Entries, texts: Texts
) -> Changes:
    found = [*_differences(old, new)]
    changed = dict.fromkeys(
        one.path
        for one in found
        if one.what in ("added", "removed", "size", "content") and texts.takes(one.path)
    )
    text = [*_unified(changed, old, new)] if changed else []
    return Changes(name, places[0], places[1], len(new.listed), tuple(found), tuple(text))


def _differences(
    before: Entries, after: Entries, advance: Advance = lambda _: None
) -> Iterator[Change]:
    for path in sorted(before.listed.keys() | after.listed.keys()):
        old, new = before.listed.get(path), after.listed.get(path)
        if old is None or new is None:
            kind = (new or old or Listed(path, "file")).kind
            yield Change(path, "added", None, kind) if new else Change(path, "removed", kind, None)
        elif old.kind != new.kind:
            yield Change(path, "kind", old.kind, new.kind)
        elif old.target != new.target:
            yield Change(path, "target", old.target, new.target)
        elif old.kind == "file":
            if old.size != new.size:
                yield Change(path, "size", old.size, new.size)
            elif (crc := before.crc(path, advance)) != (other := after.crc(path, advance)):
                yield Change(path, "content", f"{crc:08x}", f"{other:08x}")
            if old.executable != new.executable:
                yield Change(path, "executable", old.executable, new.executable)


def _unified(paths: Iterable[str], old: Entries, new: Entries) -> Iterator[str]:
    """Yield a unified diff of members; of one that is not compared as text, that it differs."""
    files = [one for one in paths if old.has_file(one) or new.has_file(one)]
    wanted = {*_within_bounds(files, old, new)}
    before, after = (
        dict(side.read([one for one in files if one in wanted and side.has_file(one)]))
        for side in (old, new)
    )
    for path in files:
        if path not in wanted:
            yield f"Members {path} differ, and are too large to compare as text"
            continue
        earlier, later = _lines(before.get(path, b"")), _lines(after.get(path, b""))
        if earlier is None or later is None:
            yield f"Binary members {path} differ"
        elif _pairs(earlier, later) > _MOST_PAIRS:
            yield f"Members {path} differ, and repeat too many lines to compare them"
        else:
            old_name = f"a/{path}" if path in before else "/dev/null"
            new_name = f"b/{path}" if path in after else "/dev/null"
            yield from difflib.unified_diff(earlier, later, old_name, new_name, lineterm="")


def _within_bounds(files: Iterable[str], old: Entries, new: Entries) -> Iterator[str]:
    """Yield the files whose texts are kept in memory, all together."""
    left = _MOST_TEXT
    for path in files:
        found = [side.listed[path] for side in (old, new) if side.has_file(path)]
        size = sum(one.size for one in found)
        readable = not any(one.refused or one.size > _LONGEST_TEXT for one in found)
        if readable and size <= left:
            left -= size
            yield path


def _pairs(old: Sequence[str], new: Sequence[str]) -> int:
    """Return how many pairs of equal lines difflib looks at, which is what costs its time.

    Of texts of 200 lines and more, it leaves out lines that make up more than a hundredth.
    """
    counts = Counter(new)
    most = len(new) // 100 + 1 if len(new) >= 200 else len(new)
    repeated = Counter(line for line in old if counts[line] <= most)
    return sum(count * counts[line] for line, count in repeated.items())


def _lines(data: bytes) -> list[str] | None:
    """Return the lines of a text; None for binary data."""
    try:
        return None if b"\0" in data else data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return None


@contextmanager
def _remote_entries(
    session: JobSession, artifact: Artifact | None, how: Unpacking, progress: Progress
) -> Iterator[Entries]:
    if artifact is None:
        yield Entries()
        return
    with open_artifact(session, artifact, how, progress) as remote:
        yield archive_entries(remote, how, progress)


@contextmanager
def _local_entries(
    path: Path, how: Unpacking, config: AwsConfig, progress: Progress
) -> Iterator[Entries]:
    if path.is_dir():
        yield tree_entries(path, _LONGEST_TEXT + 1)  # a byte more than is compared as text
        return
    with open_archive(path, how, config, progress) as opened:
        yield archive_entries(opened, how, progress)
