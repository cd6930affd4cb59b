"""Symlinks of one tree: which of them leave it.

Each link is followed as the kernel would follow it, through the other links of the tree. A link is
unsafe if its own target is absolute or has the ``..`` that leaves the tree. A link that only goes
through an unsafe one is safe once that one is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpstage.archive.paths import is_too_long, quoted, refused
from cpstage.errors import MOST_SHOWN, ArtifactRejected, listing
from cpstage.filesystem.tree import RelativePath

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
    """Check how long the target of a link is, before it is read or kept.

    Raises:
        ArtifactRejected: The target is longer than a link can have.
    """
    if length > LONGEST_TARGET:
        raise refused(name, f"is a link with a target over {LONGEST_TARGET:,} bytes")


def check_links(links: Links) -> None:
    """Check that all symlinks stay in their tree.

    Raises:
        ArtifactRejected: Links leave the tree, or :func:`unsafe_links` raises.
    """
    unsafe = unsafe_links(links)
    if unsafe:
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
    return _unsafe(links, _MOST_STEPS)[0]


def without_unsafe(links: Links) -> dict[RelativePath, str]:
    """Return the links that are safe when all others are left out.

    Raises:
        ArtifactRejected: As :func:`unsafe_links` says, with one bound for all rounds: a chain of
            links can make each removal the reason of the next one.
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
        there = RelativePath(f"{here[-1]}/{part}".lstrip("/"))
        target = links.get(there)
        if target is None:
            here.append(there)
            continue
        followed += 1
        if followed > bound:
            return next((one for part, one in todo if part == ".."), None), steps
        if target.startswith("/"):
            return there, steps
        todo += [(part, there) for part in target.split("/")[::-1]]
        if steps > _MOST_STEPS:
            break
    return None, steps
