"""Where a command's job comes from: the API by its id, or a saved document."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.completion import a_file
from cpstage.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from cpstage import Connection, Job


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

    def load(self, connection: Connection) -> Job:
        """Fetch or read the job.

        Raises:
            UsageError: Neither an id nor a file is given.
            CpstageError: It cannot be had, or the document holds no job.
        """
        from cpstage import get_job, parse_job

        if self.file is not None:
            return parse_job(self._document(self.file))
        if not self.job_id:
            raise UsageError("no job is given", hint="give JOB_ID, CPSTAGE_JOB_ID or --job-file")
        return get_job(self.job_id, client_token=self.client_token, connection=connection)

    def credentials_age(self) -> float | None:
        """Return how old the job's credentials are at least, in seconds."""
        if self.file is None:
            return 0.0
        return None if self.file == "-" else time.time() - Path(self.file).stat().st_mtime

    @staticmethod
    def _document(file: str) -> Any:
        where = "stdin" if file == "-" else file
        try:
            if file == "-" and sys.stdin is None:
                raise ConfigurationError("cannot read the job file stdin: it is closed")
            data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
            return json.loads(data)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise ConfigurationError(f"cannot read the job file {where}: {why}") from error
        except (ValueError, RecursionError):
            # What stopped the parser holds the whole document, and with it the secrets.
            raise ConfigurationError(
                f"the job file {where} is not JSON",
                hint="save the output of 'cpstage get-job-details --reveal-secrets'",
            ) from None


def job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--job-file`` and ``--client-token``; the command gets a ``source``.

    The command itself declares the argument ``job_id``.
    """

    @functools.wraps(function)
    def command(
        job_id: str | None, job_file: str | None, client_token: str | None, **others: Any
    ) -> Any:
        if job_id and job_file is not None:
            raise UsageError("both JOB_ID and --job-file are given", hint="give one of them")
        if job_id == "":
            raise UsageError("JOB_ID is empty", hint="is the variable that it comes from unset?")
        known = job_id or os.environ.get("CPSTAGE_JOB_ID")
        return function(source=JobSource(known, client_token, job_file), **others)

    command = click.option(
        "--client-token",
        envvar="CPSTAGE_CLIENT_TOKEN",
        help="Token of a third-party job; better in CPSTAGE_CLIENT_TOKEN, unseen by others.",
    )(command)
    return click.option(
        "--job-file",
        metavar="FILE|-",
        shell_complete=a_file,
        help="Saved job document, in any shape AWS hands out.",
    )(command)
