"""What changed between the artifacts of two executions, or between two local archives or trees.

Two zips are compared by their central directories alone: names, kinds, sizes, CRC-32 and execute
bits. Members are read only for a unified diff of their text. A tar is read from start to end.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cpstage.aws.config import AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ObjectNotFound
from cpstage.filesystem.walk import Globs
from cpstage.inspect.comparison import crc_of_object, with_parents
from cpstage.inspect.content import each_member
from cpstage.inspect.listing import Listed, list_remote, list_tree, plain_path
from cpstage.inspect.opened import OpenArtifact, open_archive, open_artifact
from cpstage.job import Artifact, ArtifactSet, choose
from cpstage.progress import Progress, Silence
from cpstage.transfer.options import Unpacking

_LONGEST_TEXT, _MOST_TEXT = 4 << 20, 64 << 20
"""Bytes of a member that is compared as text, and of all such members of both archives."""

_MOST_PAIRS = 2_000_000
"""Pairs of equal lines in a member: with more, difflib can take minutes to hours."""

What = Literal["added", "removed", "kind", "size", "content", "executable", "target"]


@dataclass(frozen=True)
class Change:
    """One way in which two archives differ.

    Attributes:
        path: The member.
        what: In what; ``added`` is in the later one only, ``removed`` in the earlier one only.
        before: What the earlier one has; None for nothing.
        after: What the later one has; None for nothing.
    """

    path: str
    what: What
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
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "entries": self.entries,
            "changes": [
                {"path": one.path, "what": one.what, "before": one.before, "after": one.after}
                for one in self.changes
            ],
            "text": list(self.text),
        }


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
class _Side:
    """One of two archives: its entries, and how its members are read."""

    entries: Mapping[str, Listed] = field(default_factory=dict)
    read: Callable[[Sequence[str]], Iterator[tuple[str, bytes]]] = lambda _: iter(())


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
        config: How to reach AWS.
        progress: Is told of what is read as a whole.

    Raises:
        UsageError: A glob matches nothing.
        ArtifactRejected: An archive is damaged or over a limit; a message cannot be decrypted.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
    """
    how, where = unpacking or Unpacking(), config or AwsConfig()
    shown, wanted = progress or Silence(), texts or Texts()
    old, new = _by_name(before), _by_name(after)
    every = {**old, **new}
    chosen = choose([*every.values()], artifacts, "artifact", "either execution")
    sessions = (JobSession(before, where), JobSession(after, where))
    for artifact in chosen:
        pair = (old.get(artifact.name), new.get(artifact.name))
        try:
            yield _changes_of(artifact.name, pair, sessions, wanted, how, shown)
        except ObjectNotFound as error:
            if missing is None:
                raise
            missing(error.message)


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
        config: How to reach KMS, with the caller's own credentials.
        progress: Is told of messages that are decrypted.

    Raises:
        NotFound: The file does not exist.
        ArtifactRejected: An archive is damaged or over a limit, or cannot be decrypted.
        LocalIOError: It cannot be read.
    """
    how, where, shown = unpacking or Unpacking(), config or AwsConfig(), progress or Silence()
    with (
        _local_side(Path(before), how, where, shown) as old,
        _local_side(Path(after), how, where, shown) as new,
    ):
        return _changes(Path(after).name, (str(before), str(after)), old, new, texts or Texts())


def _by_name(job: ArtifactSet) -> dict[str, Artifact]:
    return {one.name: one for one in [*job.input_artifacts, *job.output_artifacts]}


def _changes_of(  # noqa: PLR0917 (two sides, and how to read them)
    name: str,
    pair: tuple[Artifact | None, Artifact | None],
    sessions: tuple[JobSession, JobSession],
    texts: Texts,
    how: Unpacking,
    progress: Progress,
) -> Changes:
    """Compare one artifact; where both have the same object, nothing is read."""
    places = [str(one.location) if one else None for one in pair]
    titles = (places[0], places[1])
    if pair[0] and pair[1] and pair[0].location == pair[1].location:
        return Changes(name, *titles, entries=0, changes=())
    with (
        _remote_side(sessions[0], pair[0], how, progress) as old,
        _remote_side(sessions[1], pair[1], how, progress) as new,
    ):
        return _changes(name, titles, old, new, texts)


def _changes(
    name: str, titles: tuple[str | None, str | None], old: _Side, new: _Side, texts: Texts
) -> Changes:
    found = [*_differences(old.entries, new.entries)]
    changed = dict.fromkeys(
        one.path
        for one in found
        if one.what in ("added", "removed", "size", "content") and texts.takes(one.path)
    )
    text = [*_unified(changed, old, new)] if changed else []
    return Changes(name, *titles, len(new.entries), tuple(found), tuple(text))


def _differences(before: Mapping[str, Listed], after: Mapping[str, Listed]) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
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
            elif old.crc != new.crc:
                yield Change(path, "content", f"{old.crc or 0:08x}", f"{new.crc or 0:08x}")
            if old.executable != new.executable:
                yield Change(path, "executable", old.executable, new.executable)


def _unified(paths: Iterable[str], old: _Side, new: _Side) -> Iterator[str]:
    """Yield a unified diff of members; of one that is not compared as text, that it differs."""
    files = [one for one in paths if _is_file(old, one) or _is_file(new, one)]
    wanted = {*_within_bounds(files, old, new)}
    before, after = (
        dict(side.read([one for one in files if one in wanted and _is_file(side, one)]))
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
            names = (
                f"a/{path}" if path in before else "/dev/null",
                f"b/{path}" if path in after else "/dev/null",
            )
            yield from difflib.unified_diff(earlier, later, *names, lineterm="")


def _within_bounds(files: Iterable[str], old: _Side, new: _Side) -> Iterator[str]:
    """Yield the files whose texts are kept in memory, all together."""
    left = _MOST_TEXT
    for path in files:
        found = [side.entries[path] for side in (old, new) if _is_file(side, path)]
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


def _is_file(side: _Side, path: str) -> bool:
    return path in side.entries and side.entries[path].kind in ("file", "hard link")


def _lines(data: bytes) -> list[str] | None:
    """Return the lines of a text; None for binary data."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return None


@contextmanager
def _remote_side(
    session: JobSession, artifact: Artifact | None, how: Unpacking, progress: Progress
) -> Iterator[_Side]:
    if artifact is None:
        yield _Side()
        return
    with open_artifact(session, artifact, how, progress) as remote:
        yield _side_of(remote, how, progress)


@contextmanager
def _local_side(
    path: Path, how: Unpacking, config: AwsConfig, progress: Progress
) -> Iterator[_Side]:
    if path.is_dir():
        entries = {plain_path(one.name): one for one in list_tree(path)}
        yield _Side(entries, lambda paths: ((one, _start(path / one)) for one in paths))
        return
    with open_archive(path, how, config, progress) as opened:
        yield _side_of(opened, how, progress)


def _side_of(remote: OpenArtifact, how: Unpacking, progress: Progress) -> _Side:
    if remote.format is None:
        name, size = remote.artifact.location.file_name, remote.blob.size
        listed = Listed(name, "file", size, size, crc_of_object(remote, progress))
        entries = {name: listed}
    else:
        entries = with_parents(list_remote(remote, how, progress).entries)

    def read(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        if paths:
            for name, chunks in each_member(remote, paths, how.limits):
                yield plain_path(name), b"".join(chunks)

    return _Side(entries, read)


def _start(path: Path) -> bytes:
    """Return the first bytes of a local file, one more than are compared as text."""
    with path.open("rb") as file:
        return file.read(_LONGEST_TEXT + 1)
