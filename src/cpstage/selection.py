"""Which of a job's artifacts are meant: by their names, or globs of them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cpstage.errors import UsageError
from cpstage.job import Artifact


def choose(
    artifacts: Sequence[Artifact], globs: Sequence[str], what: str = "input artifact"
) -> list[Artifact]:
    """Return the artifacts that any of the globs matches; all where there is no glob.

    Args:
        artifacts: What to choose from.
        globs: Names or globs.
        what: What they are, for the error.

    Raises:
        UsageError: A glob matches none.
    """
    for glob in globs:
        if not any(fnmatchcase(artifact.name, glob) for artifact in artifacts):
            known = ", ".join(artifact.name for artifact in artifacts) or "none"
            raise UsageError(f"no {what} matches {glob!r}", hint=f"the job has: {known}")
    return [
        artifact
        for artifact in artifacts
        if not globs or any(fnmatchcase(artifact.name, glob) for glob in globs)
    ]
