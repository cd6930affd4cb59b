"""Which job a command is about: its id for the API or a saved document, and arguments behind it."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.options import a_file
from cpstage.errors import ConfigurationError, UsageError, local_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cpstage import AwsConfig, Job
    from cpstage.cli.options import Function


@dataclass(frozen=True)
class JobSource:
    """A job that has been named and not yet loaded.

    Attributes:
        job_id: Its id, for the API.
        client_token: The client's token, for a third-party job.
        file: A saved document instead; ``-`` is stdin.
    """

    job_id: str | None
    client_token: str | None = field(repr=False)
    file: str | None

    def load(self, config: AwsConfig, *, uses_s3: bool = True, in_progress: bool = False) -> Job:
        """Fetch or read the job.

        Args:
            config: How to reach AWS.
            uses_s3: Whether the command goes on to S3, whose client is made meanwhile.
            in_progress: Whether a job out of a saved document has to be in progress still.

        Raises:
            UsageError: Neither an id nor a file is given.
            OutOfSync: It is not in progress.
            CpstageError: It cannot be had, or the document holds no job.
        """
        from cpstage import get_job, parse_job
        from cpstage.masking import secret

        if self.file is not None:
            token = secret(self.client_token)
            job = replace(parse_job(self._document(self.file)), client_token=token)
            if in_progress:
                from cpstage.aws.codepipeline import current_job

                return current_job(job, config=config)
            return job
        job_id = self.require_id()
        if uses_s3:
            config.codepipeline()  # the request is not to wait for the other client
            config.prepare_s3()
        return get_job(job_id, client_token=self.client_token, config=config)

    def require_id(self) -> str:
        """Return the id of the job, which a saved document tells as well.

        Raises:
            UsageError: None is given.
            ConfigurationError: The document holds no job.
        """
        if self.file is not None:
            from cpstage import parse_job

            return parse_job(self._document(self.file)).id
        if not self.job_id:
            raise UsageError("no job is given", hint="give JOB_ID, CPSTAGE_JOB_ID or --job-file")
        return self.job_id

    @staticmethod
    def _document(file: str) -> Any:
        try:
            return json.loads(read_file(file, "job file"))
        except (ValueError, RecursionError):
            # What stopped the parser holds the whole document, and with it the secrets.
            raise ConfigurationError(
                f"the job file {'stdin' if file == '-' else file} is not JSON",
                hint="save it with 'cpstage get-job-details --save FILE'",
            ) from None


def read_file(file: str, what: str) -> bytes:
    """Read a file, or stdin where its name is ``-``.

    Raises:
        ConfigurationError: It cannot be read.
    """
    where = f"{what} {'stdin' if file == '-' else file}"
    try:
        if file != "-":
            return Path(file).read_bytes()
        if sys.stdin is None:
            raise ConfigurationError(f"cannot read the {where}: it is closed")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise ConfigurationError(f"cannot read the {where}: {local_reason(error)}") from error


def job_options(function: Function) -> Function:
    """Add ``--job-file`` and ``--client-token``; the command gets a ``source``.

    The command itself declares the argument ``job_id``.
    """

    @functools.wraps(function)
    def command(
        job_id: str | None, job_file: str | None, client_token: str | None, **others: Any
    ) -> Any:
        if job_id and job_file is not None:
            raise UsageError("both JOB_ID and --job-file are given", hint="give one of them")
        if "" in (job_id, job_file):
            empty = "JOB_ID" if job_id == "" else "--job-file"
            raise UsageError(f"{empty} is empty", hint="is the variable that it comes from unset?")
        known = job_id or os.environ.get("CPSTAGE_JOB_ID")
        return function(source=JobSource(known, client_token, job_file), **others)

    command = click.option(
        "--client-token",
        envvar="CPSTAGE_CLIENT_TOKEN",
        help="Client token of a third-party job. Prefer CPSTAGE_CLIENT_TOKEN: others "
        "can see a command line.",
    )(command)
    return click.option(
        "--job-file",
        metavar="FILE|-",
        shell_complete=a_file,
        help="Saved job document, in any format that AWS returns.",
    )(command)


_JOB_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
"""The form of CodePipeline's job ids; other forms are accepted where they are unambiguous."""


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


force_option = click.option(
    "--force",
    is_flag=True,
    help="Go on with a saved job document also when its job is no longer in progress.",
)
