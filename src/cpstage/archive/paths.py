"""Member path validation (zip slip), symlink validation, and the plan of the tree to unpack to.

A name is used unchanged or rejected; names are never rewritten. The plan records each path
across all archives that are unpacked into one tree, and rejects duplicates, files where
directories have to be, and members below symlinks. After validation a name is a
:data:`RelativePath` and trusted.

Each symlink is followed as the kernel would follow it, through the other symlinks of the tree. A
symlink is unsafe if its own target is absolute or has the ``..`` that leaves the tree. One that
only goes through an unsafe symlink is safe once that one is removed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cpstage.archive.members import Member, MemberKind, bytes_of
from cpstage.archive.options import Budget
from cpstage.errors import MOST_SHOWN, ArtifactRejected, WorkspaceUnavailable, listing
from cpstage.filesystem.tree import RelativePath

_OTHER_ROOT = re.compile(r"[A-Za-z]:[/\\]")
"""A drive letter. Other colons, and a leading backslash, are characters like any other."""

_FIRST, _OTHERS = "A-Za-z0-9_", "A-Za-z0-9_. @+,()=-"
_PLAIN = re.compile(f"[{_FIRST}][/{_OTHERS}]*")
_PLAIN_COMPONENT = re.compile(f"[{_FIRST}][{_OTHERS}]*")
_BACKSLASH_PARENT = re.compile(r"(^|[\\/])\.\.\\|\\\.\.($|[\\/])")

_MOST_QUOTED = 200

_NAME_MAX, _PATH_MAX = 255, 4095
"""Bytes of a component and of a path that Linux takes."""


def check_name(name: str) -> RelativePath:
    r"""Return a member's name as a path that stays below the tree.

    Leading ``./`` and doubled or trailing slashes say nothing and are dropped. A backslash is a
    character like any other on POSIX, but not where it would make ``..\`` elsewhere.

    Raises:
        ArtifactRejected: The name is empty, absolute, has a ``..``, a NUL, a drive letter.
    """
    # Most names are safe for their plain characters: a fast check.
    is_plain = _PLAIN.fullmatch(name) is not None and len(name) <= _NAME_MAX
    if is_plain and "//" not in name and "/." not in name:
        return RelativePath(name.rstrip("/"))
    components = [part for part in name.split("/") if part not in ("", ".")]
    rule = None
    if "\0" in name:
        rule = "it holds a NUL"
    elif not components:
        rule = "it is empty"
    elif name.startswith("/") or _OTHER_ROOT.match("/".join(components) + name[-1]):
        rule = "it is absolute"
    elif ".." in components or _BACKSLASH_PARENT.search(name):
        rule = "it leads upwards"
    elif is_too_long(name):
        rule = f"it is over {_PATH_MAX} bytes long, or a component over {_NAME_MAX}"
    if rule:
        raise refused(name, f"has an unsafe name: {rule}")
    return RelativePath("/".join(components))


def is_root(name: str) -> bool:
    """Whether a name is the tree itself: ``./`` of ``tar -C DIR .``, or ``/`` alone."""
    return name == "/" or (name.startswith(".") and set(name.split("/")) <= {".", ""})


def refused(name: str, why: str) -> ArtifactRejected:
    """Return the error for one member of an archive, its name quoted."""
    return ArtifactRejected(f"the entry {quoted(name)} {why}")


def quoted(name: str) -> str:
    """Return a name in quotes, cut at 200 characters."""
    return repr(name if len(name) <= _MOST_QUOTED else f"{name[:_MOST_QUOTED]}…")


def is_too_long(path: str) -> bool:
    """Whether Linux refuses a path, or one of its components, for its length."""
    encoded = bytes_of(path)
    if len(encoded) <= _NAME_MAX:
        return False
    return len(encoded) > _PATH_MAX or max(map(len, encoded.split(b"/"))) > _NAME_MAX


class Planned(NamedTuple):
    """The kind of the member at a path, and the archive that it is from."""

    kind: MemberKind
    source: str


class Plan:
    """The paths of one tree; a file system that folds names ignores case, or forms of accents.

    Attributes:
        links: The targets of symlinks.
        directories: The mode and mtime that a directory gets when nothing more is created in it.
    """

    def __init__(self, *, folds_names: bool = False) -> None:
        self._planned: dict[str, Planned] = {}
        self._folded: dict[str, RelativePath] | None = {} if folds_names else None
        self._kinds: dict[tuple[MemberKind, str], Planned] = {}
        self.links: dict[RelativePath, str] = {}
        self.directories: dict[RelativePath, tuple[int, int | None]] = {}

    def admit(
        self,
        name: str,
        kind: MemberKind,
        source: str,
        budget: Budget,
        *,
        last_wins: bool = False,
        is_equal: Callable[[RelativePath], bool] = lambda _: False,
    ) -> tuple[RelativePath, bool]:
        """Add a member to the plan, and count it against the limits.

        A second file of a name is refused, unless the last one wins, as in tar, or both are equal.
        Return its path, and whether something of the same kind is there already.

        Raises:
            ArtifactRejected: Its name is unsafe, or its place is occupied or below a link.
            WorkspaceUnavailable: Another archive has its place.
        """
        budget.spend_entry()
        # tar -C DIR . begins each name with ./, which says nothing.
        short = name[2:] if name.startswith("./") and name[2:3] != "/" else name
        last = short.rfind("/") + 1
        above = self._planned.get(short[: last - 1]) if last else None
        # In a directory that has been admitted, only the last component is new.
        is_known = (
            above is not None
            and above.kind == "directory"
            and _PLAIN_COMPONENT.fullmatch(short, last) is not None
            and len(short) <= _NAME_MAX
        )
        path = RelativePath(short) if is_known else check_name(name)
        budget.check_depth(path)
        if not is_known:
            self._admit_parents(path, source, budget)
        here = self._planned.get(path)
        if here is None:
            self._add(path, kind, source)
            return path, False
        if here.kind == kind == "directory":
            return path, True
        if here.source != source:
            raise _collision(path, here.source, source)
        same = here.kind == kind or {here.kind, kind} == {"file", "hard link"}
        if not same or not (last_wins or is_equal(path)):
            raise refused(name, f"is there twice, first as a {here.kind}")
        return path, True

    @property
    def count(self) -> int:
        """How many paths the plan has."""
        return len(self._planned)

    def all_directories(self) -> list[RelativePath]:
        """Return the paths of all directories: the root, and those without a member too."""
        planned = self._planned.items()
        inside = [RelativePath(path) for path, here in planned if here.kind == "directory"]
        return [RelativePath(""), *inside]

    def regular_file(self, member: Member, source: str) -> RelativePath:
        """Return the earlier regular file of the same archive that a hard link stands for."""
        path = check_name(member.target)
        here = self._planned.get(path)
        files = (Planned("file", source), Planned("hard link", source))
        if here not in files or path == check_name(member.name):
            raise refused(
                member.name, f"is a hard link to {member.target!r}, which is not an earlier file"
            )
        return path

    def _add(self, path: RelativePath, kind: MemberKind, source: str) -> None:
        # One object for all that are alike: with 100,000 entries that is 6 MB less.
        alike = self._kinds.get((kind, source))
        if alike is None:
            alike = self._kinds[kind, source] = Planned(kind, source)
        self._planned[path] = alike
        if self._folded is not None:
            other = self._folded.setdefault(_folded(path), path)
            if other != path:
                raise refused(path, f"has the same name as {other!r} on this file system")

    def _admit_parents(self, path: RelativePath, source: str, budget: Budget) -> None:
        end = path.rfind("/")
        while end > 0:
            parent = path[:end]
            here = self._planned.get(parent)
            if here is not None:
                if here.kind == "directory":
                    return
                if here.source != source:
                    raise _collision(parent, here.source, source)
                raise refused(path, f"is below {parent!r}, which is a {here.kind}")
            budget.spend_entry()
            self._add(RelativePath(parent), "directory", source)
            end = path.rfind("/", 0, end)


def _folded(path: str) -> str:
    """Return what two names have in common that a folding file system cannot tell apart."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _collision(path: str, first: str, second: str) -> WorkspaceUnavailable:
    return WorkspaceUnavailable(
        f"{path!r} is in both {first} and {second}",
        hint="fetch with --layout per-artifact, or select one of them with --artifact",
    )


_FEWEST_LINKS = 40
"""Links that one look-up may go through in any tree: Linux gives up with ELOOP at that number.
Other systems go on, and treat the name of a looping link as a directory."""

LONGEST_TARGET = 4096
"""Bytes that the target of a symlink can have."""

_MOST_STEPS = 2_000_000
"""Components that the links of one tree may lead through together: some seconds of work."""

_UNPACK_HINT = (
    "leave such links out with --unsafe-links skip, or create them with --unsafe-links keep"
)

Links = Mapping[RelativePath, str]
"""The targets of all symlinks of a tree, by their paths."""


def check_target_length(name: str, length: int) -> None:
    """Check how long the target of a link is, before it is read or kept."""
    if length > LONGEST_TARGET:
        raise refused(name, f"is a link with a target over {LONGEST_TARGET:,} bytes")


def check_links(links: Links) -> None:
    """Raise ArtifactRejected if a symlink leaves its tree."""
    if unsafe := unsafe_links(links):
        raise leaving(unsafe, links, hint=_UNPACK_HINT)


def leaving(unsafe: Sequence[RelativePath], links: Links, hint: str = "") -> ArtifactRejected:
    """Return the error that names links which leave their tree, ten at most."""
    first, *others = unsafe
    message = f"the entry {quoted(first)} is a link that leaves the tree: {quoted(links[first])}"
    if others:
        named = (f"{quoted(path)} ({quoted(links[path])})" for path in others)
        more = listing(named, MOST_SHOWN - 1)
        message += f"; so {'do' if len(others) > 1 else 'does'} {more}"
    return ArtifactRejected(message, hint=hint)


def unsafe_links(links: Links) -> list[RelativePath]:
    """Return the links that leave the tree, in the order in which following finds them.

    Raises:
        ArtifactRejected: A target is empty, too long or has a NUL; or all links together lead
            through too many components.
    """
    unsafe, _ = _unsafe(links, _MOST_STEPS)
    return unsafe


def without_unsafe(links: Links) -> dict[RelativePath, str]:
    """Return the links that are safe when all others are left out.

    One bound holds for all rounds: a chain of links can make each removal the reason of the next.
    """
    kept, left = dict(links), _MOST_STEPS
    while True:
        unsafe, left = _unsafe(kept, left)
        if not unsafe:
            return kept
        for path in unsafe:
            del kept[path]


def _unsafe(links: Links, left: int) -> tuple[list[RelativePath], int]:
    """Return the links that leave the tree, and how many of the steps are left."""
    found: dict[RelativePath, None] = {}
    for path, target in links.items():
        if not target or "\0" in target or is_too_long(target):
            raise refused(path, f"is a link with an unusable target {target[:100]!r}")
        culprit, steps = _followed(path, links)
        left -= steps
        if left < 0:
            raise refused(path, "is one of too many links through one another")
        if culprit is not None:
            found[culprit] = None
    return list(found), left


def _followed(path: RelativePath, links: Links) -> tuple[RelativePath | None, int]:
    """Follow one link; return the link whose target leaves the tree, and how many steps it took."""
    here: list[str] = [""]
    todo = [(part, path) for part in path.split("/")[::-1]]
    followed = steps = 0
    bound = max(_FEWEST_LINKS, len(links))
    while todo:
        part, owner = todo.pop()
        steps += 1
        if part in ("", "."):
            continue
        if part == "..":
            if len(here) == 1:
                return owner, steps
            here.pop()
            continue
        below = RelativePath(f"{here[-1]}/{part}".lstrip("/"))
        target = links.get(below)
        if target is None:
            here.append(below)
            continue
        followed += 1
        if followed > bound:
            return next((one for part, one in todo if part == ".."), None), steps
        if target.startswith("/"):
            return below, steps
        todo += [(part, below) for part in target.split("/")[::-1]]
        if steps > _MOST_STEPS:
            break
    return None, steps
