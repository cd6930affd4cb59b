"""What a tree will hold: every member is admitted here before anything of it is written.

The plan knows each path and what stands there, across all archives that go into one tree. It
refuses duplicates, files where directories have to be, members below links, and links that leave
the tree.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpstage.archive.names import check_links, check_name, is_plain_from, refused
from cpstage.errors import WorkspaceUnavailable
from cpstage.tree import RelativePath

if TYPE_CHECKING:
    from cpstage.archive.limits import Budget
    from cpstage.archive.member import Member, MemberKind


@dataclass(frozen=True)
class Planned:
    """What stands at a path, and which archive it is from."""

    kind: MemberKind
    source: str


class Plan:
    """The paths of one tree.

    Args:
        folds_names: Whether the tree's file system takes names for the same that differ in case or
            in the form of an accent.
    """

    def __init__(self, *, folds_names: bool = False) -> None:
        self._planned: dict[str, Planned] = {}
        self._folded: dict[str, RelativePath] | None = {} if folds_names else None
        self._kinds: dict[tuple[MemberKind, str], Planned] = {}
        self.links: dict[RelativePath, str] = {}

    def admit(
        self, name: str, kind: MemberKind, source: str, budget: Budget, *, last_wins: bool = False
    ) -> tuple[RelativePath, bool]:
        """Take a member into the plan.

        Args:
            name: The member's name, unchecked.
            kind: What it is.
            source: Which archive it is from, for messages.
            budget: The limits that it counts against.
            last_wins: Whether a later file takes the place of an earlier one, as in tar.

        Returns:
            Its path, and whether something of the same kind is there already.

        Raises:
            ArtifactRejected: Its name is unsafe, or its place is taken or below a link.
            WorkspaceUnavailable: Another archive has its place.
        """
        budget.spend_entry()
        last = name.rfind("/") + 1
        above = self._planned.get(name[: last - 1]) if last else None
        # In a directory that has been admitted, only the last component is new.
        known = above is not None and above.kind == "directory" and is_plain_from(last, name)
        path = RelativePath(name) if known else check_name(name)
        budget.check_depth(path)
        if not known:
            self._admit_parents(path, source, budget)
        here = self._planned.get(path)
        if here is None:
            self._take(path, kind, source)
            return path, False
        if here.kind == kind == "directory":
            return path, True
        if here.source != source:
            raise _collision(path, here.source, source)
        if not last_wins or here.kind != kind:
            raise refused(name, f"is there twice, first as a {here.kind}")
        return path, True

    def regular_file(self, member: Member, source: str) -> RelativePath:
        """Return the earlier regular file of the same archive that a hard link stands for.

        Raises:
            ArtifactRejected: There is none.
        """
        path = check_name(member.target)
        here = self._planned.get(path)
        files = (Planned("file", source), Planned("hard link", source))
        if here not in files or path == check_name(member.name):
            raise refused(
                member.name, f"is a hard link to {member.target!r}, which is no earlier file"
            )
        return path

    def check_links(self) -> None:
        """Check every link against the whole tree.

        Raises:
            ArtifactRejected: One of them leads out of it.
        """
        check_links(self.links)

    def _take(self, path: RelativePath, kind: MemberKind, source: str) -> None:
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
            if here is not None and here.kind == "directory":
                return
            if here is not None and here.source != source:
                raise _collision(parent, here.source, source)
            if here is not None:
                raise refused(path, f"is below {parent!r}, which is a {here.kind}")
            budget.spend_entry()
            self._take(RelativePath(parent), "directory", source)
            end = path.rfind("/", 0, end)


def _folded(path: str) -> str:
    """Return what two names have in common that a folding file system cannot tell apart."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _collision(path: str, first: str, second: str) -> WorkspaceUnavailable:
    return WorkspaceUnavailable(
        f"{path!r} is in both {first} and {second}",
        hint="fetch with --layout per-artifact, or select one of them with --artifact",
    )
