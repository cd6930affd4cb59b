"""Globs over paths below a directory, as ``--include`` and ``--exclude`` take them.

``*`` and ``?`` stay within a component, ``**`` crosses them, ``[…]`` is a set. A pattern without
a slash is looked for at every depth, as in ``.gitignore``; one that matches a directory takes all
that is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from cpstage.errors import UsageError


@dataclass(frozen=True)
class Globs:
    """What is taken: all that an include matches, or all without one, less the excludes."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Whether a path is included; :meth:`prunes` says whether it is excluded."""
        return not self.include or any(_matches(glob, path) for glob in self.include)

    def prunes(self, path: str) -> bool:
        """Whether a path, with everything below it, is excluded."""
        return any(_matches(glob, path) for glob in self.exclude)


def _matches(glob: str, path: str) -> bool:
    return _compiled(glob).fullmatch(path) is not None


@cache
def _compiled(glob: str) -> re.Pattern[str]:
    pattern = glob.strip("/")
    if "/" not in glob.rstrip("/"):
        pattern = f"**/{pattern}"
    try:
        return re.compile(_expression(pattern) + "(/.*)?", re.DOTALL)
    except re.error as error:
        # The place that the error has is one in our expression, not in the glob.
        why = error.msg
        raise UsageError(
            f"the glob {glob!r} is malformed: {why}", hint="look at its set"
        ) from error


def _expression(pattern: str) -> str:
    """Translate a glob into a regular expression, one token at a time."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    return "".join(_TOKENS.get(token) or _set_or_literal(token) for token in tokens)


_OUTSIDE_RANGES = re.compile(r"[\\\[\]&|~^]|-(?![A-Za-z0-9])|(?<![A-Za-z0-9])-")
"""What means something in a set of a regular expression, and nothing in one of a glob."""

_TOKENS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _set_or_literal(token: str) -> str:
    if len(token) < 3:
        return re.escape(token)
    negated = token[1] == "!"
    members = _OUTSIDE_RANGES.sub(r"\\\g<0>", token[2 if negated else 1 : -1])
    return f"(?!/)[{'^' if negated else ''}{members}]"
