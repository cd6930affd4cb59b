"""Options that name a job, and those for the details of its result.

A job is given by its ID for the API, or by a saved document. Commands that write nothing to S3 take
a past execution of a pipeline in its place.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import cpstage
from cpstage.cli.options import Decorator, Function, PathName, a_file, flag, gather, is_empty
from cpstage.cli.output import Terminal
from cpstage.errors import ConfigurationError, NotFound, UsageError, unreadable_input

if TYPE_CHECKING:
    from cpstage.job import ArtifactSet
    from cpstage.job.model import Secret


_VARIABLE = "CPSTAGE_JOB_ID"
_JOB_ID_HELP = f"JOB_ID may also be given as {_VARIABLE}."
"""The end of the help of a command, unless the command says more about the variable."""


class JobSource(NamedTuple):
    """A job that is named and not yet loaded.

    Attributes:
        job_id: Its ID, for the API.
        client_token: The client token of a third-party job.
        file: A saved document instead; ``-`` is stdin.
        past: A past execution instead: the arguments of ``get_execution``.
    """

    job_id: str | None
    client_token: Secret | None
    file: str | None
    past: Mapping[str, Any] | None = None

    def load_artifacts(
        self,
        config: cpstage.AwsConfig,
        terminal: Terminal,
        *,
        in_progress: bool = False,
        needs_artifacts: bool = True,
    ) -> ArtifactSet:
        """Load the job as :meth:`load`, or the past execution, and say who reads its artifacts.

        Raises:
            NotFound: The execution does not exist, or lacks the artifacts that are needed.
        """
        if self.past is None:
            return self.load(config, in_progress=in_progress)
        execution = cpstage.inspect.get_execution(**self.past, config=config)
        terminal.note(f"cpstage: {execution.title}: the caller's credentials read the artifacts")
        if needs_artifacts and not (execution.input_artifacts or execution.output_artifacts):
            raise NotFound(
                f"{execution.title} has no artifacts",
                hint="see 'cpstage executions' for its actions",
            )
        return execution

    def load(
        self, config: cpstage.AwsConfig, *, uses_s3: bool = True, in_progress: bool = False
    ) -> cpstage.Job:
        """Get the job from CodePipeline, or read its document.

        With ``uses_s3``, the client of S3 is made meanwhile. With ``in_progress``, the job of a
        saved document has to be in progress.

        Raises:
            UsageError: Neither an ID nor a file is given.
            OutOfSync: The job is not in progress.
            CpstageError: CodePipeline refuses, or the document holds no job.
        """
        if self.file is not None:
            job = replace(_saved_job(self.file), client_token=self.client_token)
            if in_progress:
                from cpstage.aws.codepipeline import current_job

                return current_job(job, config=config)
            return job
        job_id = self.require_id()
        if uses_s3:
            config.codepipeline()  # the request is not to wait for the other client
            config.prepare_s3()
        return cpstage.get_job(job_id, client_token=self.client_token, config=config)

    def require_id(self) -> str:
        """Return the ID of the job, from a saved document too; errors as in :meth:`load`."""
        if self.file is not None:
            return _saved_job(self.file).id
        if not self.job_id:
            raise UsageError("no job is given", hint="give JOB_ID, CPSTAGE_JOB_ID or --job-file")
        return self.job_id


def _saved_job(file: str) -> cpstage.Job:
    # Without a name for the document: a traceback may show local variables.
    return cpstage.parse_job(_read_document(file))


def _read_document(file: str) -> Any:
    try:
        return json.loads(read_file(file, "job file"))
    except (ValueError, RecursionError):
        # What stopped the parser holds the whole document, and with it the secrets.
        raise ConfigurationError(
            f"the job file {shown_name(file)} is not JSON",
            hint="save it with 'cpstage get-job-details --save FILE'",
        ) from None


def shown_name(file: str) -> str:
    """Return the name of a file for messages; ``-`` is stdin."""
    return "stdin" if file == "-" else file


def read_file(file: str, what: str, most: int = -1) -> bytes:
    """Read a file, or stdin for ``-``, as far as one byte more than the most that are accepted.

    Raises:
        ConfigurationError, LocalIOError: It cannot be read.
    """
    where = f"the {what} {shown_name(file)}"
    bound = most if most < 0 else most + 1
    try:
        if file != "-":
            with open(file, "rb") as stream:
                return stream.read(bound)
        if sys.stdin is None:
            raise ConfigurationError(f"cannot read {where}: it is closed")
        return sys.stdin.buffer.read(bound)
    except OSError as error:
        raise unreadable_input(error, where) from error


def refuse_document(text: str, what: str) -> None:
    """Raise UsageError for a job document in place of a file or an ID: errors quote such values."""
    from cpstage.job.document import is_document

    if is_document(text):
        hint = "pipe the document to 'cpstage COMMAND --job-file -'"
        raise UsageError(f"the value of {what} is a job document", hint=hint)


def job_options(function: Function, *, takes_past: bool = False) -> Function:
    """Add ``--job-file`` and ``--client-token``; the command gets a ``source``.

    The command itself declares the argument ``job_id``; or ``arguments``, from which it gets
    ``words``: those behind JOB_ID. The options of a past execution are added as well, so that a
    command which cannot use them says why; only help of a command that ``takes_past`` shows them.
    """

    @functools.wraps(function)
    def command(
        *,
        job_file: str | None,
        client_token: str | None,
        past: Mapping[str, Any] | None,
        **others: Any,
    ) -> Any:
        named = [f"--{name}" for name in ("archive", "local") if others.get(name)]
        if "arguments" in others:
            is_given = bool(job_file or past or named)
            job_id, others["words"] = _split(others.pop("arguments"), is_given=is_given)
        else:
            job_id = others.pop("job_id")
        if past and not takes_past:
            raise _no_session()
        if named and (past or job_id or job_file is not None):
            raise both_given("an execution" if past else "a job", named[0])
        if past and (job_id or job_file is not None):
            raise both_given("JOB_ID" if job_id else "--job-file", "--pipeline")
        if job_id and job_file is not None:
            raise both_given("JOB_ID", "--job-file")
        if job_id == "":
            raise is_empty("JOB_ID")
        known = job_id or os.environ.get(_VARIABLE) or ""
        refuse_document(known, "JOB_ID")
        refuse_document(job_file or "", "--job-file")
        if job_id and not _JOB_ID.fullmatch(job_id) and os.path.isfile(job_id):
            raise _is_a_file(job_id)
        from cpstage.job.model import secret

        # A variable that a Windows tool set may end with a CR.
        source = JobSource(known.rstrip("\r\n") or None, secret(client_token), job_file, past)
        return function(source=source, **others)

    help_text = cleandoc(function.__doc__ or "")
    command.__doc__ = help_text if _VARIABLE in help_text else f"{help_text}\n\n{_JOB_ID_HELP}"
    past_options = gather("past", _past, *_past_options(hidden=not takes_past))
    return _JOB_FILE(_CLIENT_TOKEN(past_options(command)))


def artifact_source_options(function: Function) -> Function:
    """Add ``job_options`` with those of a past execution, for a command that only reads."""
    return job_options(function, takes_past=True)


def _split(arguments: tuple[str, ...], *, is_given: bool) -> tuple[str | None, tuple[str, ...]]:
    """Separate JOB_ID, if it is given, from the other arguments.

    The first argument is the job, unless another option names one. With ``CPSTAGE_JOB_ID``, the
    first argument is the job if it looks like the ID of one.
    """
    if not arguments:
        return None, ()
    is_known = is_given or bool(os.environ.get(_VARIABLE))
    if is_known and not _JOB_ID.fullmatch(arguments[0]) and arguments[0]:
        return None, arguments
    return arguments[0], arguments[1:]


def both_given(one: str, other: str) -> UsageError:
    """Return the error for two options that exclude each other."""
    return UsageError(f"both {one} and {other} are given", hint="give one of them")


def _is_a_file(path: str) -> UsageError:
    """Say how to name a local archive: the service would say that the job is unknown."""
    context = click.get_current_context()
    takes_archive = any(one.name == "archive" for one in context.command.params)
    command = f"{context.command_path} --archive" if takes_archive else "cpstage unpack"
    hint = f"write '{command} {path}' for an archive, or give the id of a job"
    return UsageError(f"{path} is a file, not a job ID", hint=hint)


def _no_session() -> UsageError:
    command = click.get_current_context().command_path
    return UsageError(
        f"--pipeline names a past execution, and '{command}' needs a job in progress: only a job "
        "has a session that may write its outputs, and a result to report",
        hint="give JOB_ID; show, fetch, ls, cat, diff and doctor take --pipeline",
    )


def _past(**past: Any) -> Mapping[str, Any] | None:
    """Check the options of a past execution, whose names are those of ``get_execution``."""
    values = {f"--{name.replace('_', '-')}": value for name, value in past.items()}
    given = [name for name, value in values.items() if value not in (None, False)]
    if values["--pipeline"] is None:
        if given:
            raise UsageError(f"{given[0]} is given without --pipeline", hint="give --pipeline too")
        return None
    for name, value in values.items():
        if value == "":
            raise is_empty(name)
    for one, other in (("--execution", "--failed"), ("--action", "--failed-action")):
        if one in given and other in given:
            raise both_given(one, other)
    return past


def _past_options(*, hidden: bool) -> list[Decorator]:
    # Without variables: builds of jobs have CPSTAGE_PIPELINE and CPSTAGE_ACTION as facts.
    option = partial(click.option, allow_from_autoenv=False, hidden=hidden)
    return [
        option(
            "--pipeline",
            metavar="NAME|URL",
            help="Instead of a job: a past execution of this pipeline; its name, its ARN, or the "
            "console's URL of the pipeline or of an execution.",
        ),
        option(
            "--execution", metavar="ID", help="Execution ID, or its start. [the latest execution]"
        ),
        option(
            "--action",
            metavar="NAME",
            help="Only this action's artifacts; also Stage/Action. [all actions]",
        ),
        option("--failed", is_flag=True, help="The latest failed execution."),
        option(
            "--failed-action", is_flag=True, help="Only the artifacts of the action that failed."
        ),
    ]


_JOB_FILE = click.option(
    "--job-file",
    metavar="FILE|-",
    type=PathName("file", or_stdin=True),
    help="Saved job document, in any format that AWS returns.",
)
_CLIENT_TOKEN = click.option(
    "--client-token",
    help="Client token of a third-party job. Prefer CPSTAGE_CLIENT_TOKEN: others can see a "
    "command line.",
)

_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9A-Za-z-]+")
"""The form of CodePipeline's job ids, and of those in AWS's examples."""


archive_option = click.option(
    "--archive", metavar="FILE", type=a_file, help="Instead of a job: a local archive."
)

skip_missing_option = flag(
    "--skip-missing", help="Go on with the rest where objects do not exist any more."
)

force_option = flag(
    "--force", help="Go on with a saved job document also when its job is no longer in progress."
)

execution_id_option = click.option(
    "--external-execution-id",
    "--execution-id",
    metavar="ID",
    help="ID of the job in an external system.",
)


def _details(
    *,
    revision: str | None,
    change_identifier: str | None,
    revision_summary: str | None,
    created: str | None,
    **others: Any,
) -> cpstage.Details:
    # A build may have made the values. So they are checked when the job is known, and a malformed
    # one is reported as a failure of the job.
    from cpstage.job.result import Revision

    made = None
    if revision is not None and change_identifier is not None:
        made = Revision(revision, change_identifier, revision_summary, created)
    elif (revision, change_identifier, revision_summary, created) != (None,) * 4:
        raise UsageError(
            "a revision needs both --revision and --change-identifier", hint="give both"
        )
    return cpstage.Details(revision=made, **others)


details_options = gather(
    "details",
    _details,
    click.option("--summary", metavar="TEXT", help="Summary, shown with the action."),
    execution_id_option,
    click.option("--percent-complete", metavar="N", help="Progress, 0 to 100."),
    click.option("--revision", metavar="ID", help="ID of the revision that was built or deployed."),
    click.option(
        "--change-identifier", metavar="ID", help="ID of the change that caused the revision."
    ),
    click.option("--revision-summary", metavar="TEXT", help="Summary of the revision."),
    click.option(
        "--created", metavar="TIME", help="Time of the revision, such as 2030-01-31T12:00:00Z."
    ),
)
