"""Arguments behind JOB_ID, which itself may be missing where the job is named elsewhere."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any

import click

from cpstage.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cpstage.cli.options import Function

_JOB_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
"""The ids that CodePipeline makes; others are taken where there is no doubt."""


def artifact_arguments(function: Function) -> Function:
    """Add ``[JOB_ID] [ARTIFACT]``; stands above ``job_options``. The command gets ``artifacts``.

    One argument alone is the job, unless that is given by ``--job-file`` or ``CPSTAGE_JOB_ID``:
    then it is the artifact, if it does not look like the id of a job.
    """

    @functools.wraps(function)
    def command(arguments: tuple[str, ...], job_file: str | None, **others: Any) -> Any:
        alone = len(arguments) == 1 and not _is_artifact(arguments[0], job_file)
        job_id, names = (arguments[0], ()) if alone else _split(arguments, 1)
        return function(job_id=job_id, job_file=job_file, artifacts=names, **others)

    metavar = "[JOB_ID] [ARTIFACT]"
    return click.argument("arguments", nargs=-1, metavar=metavar)(command)


def member_arguments(function: Function) -> Function:
    """Add ``[JOB_ID] ARTIFACT PATH``; the command gets ``artifact`` and ``path``."""

    @functools.wraps(function)
    def command(arguments: tuple[str, ...], **others: Any) -> Any:
        if len(arguments) < 2:
            raise UsageError("ARTIFACT and PATH are missing", hint="see 'cpstage cat --help'")
        job_id, (artifact, path) = _split(arguments, 2)
        return function(job_id=job_id, artifact=artifact, path=path, **others)

    metavar = "[JOB_ID] ARTIFACT PATH"
    return click.argument("arguments", nargs=-1, metavar=metavar)(command)


def _is_artifact(argument: str, job_file: str | None) -> bool:
    if job_file is not None:
        return True
    return bool(os.environ.get("CPSTAGE_JOB_ID")) and not _JOB_ID.fullmatch(argument)


def _split(arguments: Sequence[str], count: int) -> tuple[str | None, Sequence[str]]:
    """Take JOB_ID, if it is there, from before the last arguments."""
    if len(arguments) > count + 1:
        raise UsageError(f"there is one argument too many: {arguments[-1]!r}")
    if len(arguments) == count + 1:
        return arguments[0], arguments[1:]
    return None, arguments
