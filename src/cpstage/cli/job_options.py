"""Which job a command is about, and arguments behind it.

A job is given by its id for the API, or by a saved document. Commands that write nothing to S3 take
a past execution of a pipeline in its place.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cpstage.cli.command import Option
from cpstage.cli.options import a_file, add_options, refuse_document
from cpstage.errors import ConfigurationError, NotFound, UsageError, local_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cpstage import AwsConfig, Execution, Job
    from cpstage.cli.options import Function
    from cpstage.cli.output import Terminal
    from cpstage.job import ArtifactSet
    from cpstage.job.masking import Secret


class ExecutionSource(NamedTuple):
    """A past execution that has been named and not yet loaded.

    Attributes:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        execution: The id of the execution, or its start; the latest if None.
        action: The action whose artifacts are meant; all actions if None.
        failed: The latest execution that failed.
        failed_action: The action that failed.
    """

    pipeline: str
    execution: str | None = None
    action: str | None = None
    failed: bool = False
    failed_action: bool = False

    def load(self, config: AwsConfig) -> Execution:
        """Ask CodePipeline for the execution; errors as those of ``get_execution``."""
        from cpstage import get_execution

        return get_execution(
            self.pipeline,
            self.execution,
            action=self.action,
            failed=self.failed,
            failed_action=self.failed_action,
            config=config,
        )


class JobSource(NamedTuple):
    """A job that has been named and not yet loaded.

    Attributes:
        job_id: Its id, for the API.
        client_token: The client's token, for a third-party job.
        file: A saved document instead; ``-`` is stdin.
        past: A past execution instead, for commands that write nothing to S3.
    """

    job_id: str | None
    client_token: Secret | None
    file: str | None
    past: ExecutionSource | None = None

    def load_artifacts(
        self,
        config: AwsConfig,
        terminal: Terminal,
        *,
        in_progress: bool = False,
        needs_artifacts: bool = True,
    ) -> ArtifactSet:
        """Fetch or read the job, or the past execution, and say who reads its artifacts.

        Args:
            config: How to reach AWS.
            terminal: Where to say that the caller's credentials read the artifacts.
            in_progress: Whether a job out of a saved document has to be in progress still.
            needs_artifacts: Whether an execution without artifacts is an error.

        Raises:
            NotFound: The execution has no artifacts, or is not there.
            CpstageError: As :meth:`load`.
        """
        if self.past is None:
            return self.load(config, in_progress=in_progress)
        execution = self.past.load(config)
        terminal.note(f"cpstage: {execution.title}: the caller's credentials read the artifacts")
        if needs_artifacts and not (execution.input_artifacts or execution.output_artifacts):
            raise NotFound(
                f"{execution.title} has no artifacts",
                hint="see 'cpstage executions' for its actions",
            )
        return execution

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

        if self.file is not None:
            job = replace(parse_job(self._document(self.file)), client_token=self.client_token)
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


def job_options(function: Function, *, takes_past: bool = False) -> Function:
    """Add ``--job-file`` and ``--client-token``; the command gets a ``source``.

    The command itself declares the argument ``job_id``. The options of a past execution are added
    as well, so that a command which cannot use them says why.

    Args:
        function: The command.
        takes_past: Whether the command takes a past execution, so that its help shows the options.
    """

    @functools.wraps(function)
    def command(
        *,
        job_id: str | None,
        job_file: str | None,
        client_token: str | None,
        pipeline: str | None,
        execution: str | None,
        action: str | None,
        failed: bool,
        failed_action: bool,
        **others: Any,
    ) -> Any:
        past = _past(pipeline, execution, action, failed=failed, failed_action=failed_action)
        if past and not takes_past:
            raise _no_session()
        named = [name for name in ("archive", "local") if others.get(name)]
        if named and (past or job_id or job_file is not None):
            what = "an execution" if past else "a job"
            raise UsageError(f"both {what} and --{named[0]} are given", hint="give one of them")
        if past and (job_id or job_file is not None):
            other = "JOB_ID" if job_id else "--job-file"
            raise UsageError(f"both {other} and --pipeline are given", hint="give one of them")
        if job_id and job_file is not None:
            raise UsageError("both JOB_ID and --job-file are given", hint="give one of them")
        if "" in (job_id, job_file):
            empty = "JOB_ID" if job_id == "" else "--job-file"
            raise UsageError(f"{empty} is empty", hint="is the variable that it comes from unset?")
        known = job_id or os.environ.get("CPSTAGE_JOB_ID") or ""
        refuse_document(known, "JOB_ID")
        refuse_document(job_file or "", "--job-file")
        if job_id and not _JOB_ID.fullmatch(job_id) and os.path.isfile(job_id):
            raise _is_a_file(job_id)
        # A variable that a Windows tool set may end with a CR.
        from cpstage.job.masking import secret

        token = secret(client_token)
        source = JobSource(known.rstrip("\r\n") or None, token, job_file, past)
        return function(source=source, **others)

    past_options = _past_options(hidden=not takes_past)
    return add_options(
        command,
        click.option(
            "--job-file",
            metavar="FILE|-",
            shell_complete=a_file,
            help="Saved job document, in any format that AWS returns.",
        ),
        click.option(
            "--client-token",
            envvar="CPSTAGE_CLIENT_TOKEN",
            help="Client token of a third-party job. Prefer CPSTAGE_CLIENT_TOKEN: others "
            "can see a command line.",
        ),
        *past_options,
    )


def artifact_source_options(function: Function) -> Function:
    """Add ``job_options`` with those of a past execution, for a command that only reads."""
    return job_options(function, takes_past=True)


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


def _past(
    pipeline: str | None,
    execution: str | None,
    action: str | None,
    *,
    failed: bool,
    failed_action: bool,
) -> ExecutionSource | None:
    """Gather the options of a past execution."""
    given = {
        "--execution": execution is not None,
        "--action": action is not None,
        "--failed": failed,
        "--failed-action": failed_action,
    }
    names = [name for name, is_given in given.items() if is_given]
    if pipeline is None:
        if names:
            raise UsageError(f"{names[0]} is given without --pipeline", hint="give --pipeline too")
        return None
    empty = {"--pipeline": pipeline, "--execution": execution, "--action": action}
    for name, value in empty.items():
        if value == "":
            raise UsageError(f"{name} is empty", hint="is the variable that it comes from unset?")
    for one, other in (("--execution", "--failed"), ("--action", "--failed-action")):
        if given[one] and given[other]:
            raise UsageError(f"both {one} and {other} are given", hint="give one of them")
    return ExecutionSource(pipeline, execution, action, failed, failed_action)


def _past_options(*, hidden: bool) -> list[Callable[[Function], Function]]:
    # Without variables: builds of jobs have CPSTAGE_PIPELINE and CPSTAGE_ACTION as facts.
    return [
        click.option(
            "--pipeline",
            metavar="NAME|URL",
            cls=Option,
            variable=False,
            hidden=hidden,
            help="Instead of a job: a past execution of this pipeline; its name, its ARN, or the "
            "console's URL of the pipeline or of an execution.",
        ),
        click.option(
            "--execution",
            metavar="ID",
            cls=Option,
            variable=False,
            hidden=hidden,
            help="Execution ID, or its start. [the latest execution]",
        ),
        click.option(
            "--action",
            metavar="NAME",
            cls=Option,
            variable=False,
            hidden=hidden,
            help="Only this action's artifacts; also Stage/Action. [all actions]",
        ),
        click.option(
            "--failed",
            is_flag=True,
            cls=Option,
            variable=False,
            hidden=hidden,
            help="The latest failed execution.",
        ),
        click.option(
            "--failed-action",
            is_flag=True,
            cls=Option,
            variable=False,
            hidden=hidden,
            help="Only the artifacts of the action that failed.",
        ),
    ]


_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9A-Za-z-]+")
"""The form of CodePipeline's job ids, and of those in AWS's examples."""

_OTHERWISE = ("job_file", "pipeline", "archive", "local")
"""Options that say what a command is about, in place of JOB_ID."""


def artifact_arguments(function: Function) -> Function:
    """Add ``[JOB_ID] [ARTIFACT]...``; stands above ``job_options``. The command gets ``artifacts``.

    The first argument is the job, unless another option says what the command is about. With
    ``CPSTAGE_JOB_ID``, the first argument is the job if it looks like the id of one.
    """
    return _with_arguments(function, "artifacts", "[JOB_ID] [ARTIFACT]...")


def member_arguments(function: Function) -> Function:
    """Add ``[JOB_ID] ARTIFACT PATH...``; the command gets ``words``."""
    return _with_arguments(function, "words", "[JOB_ID] ARTIFACT PATH...")


def listing_arguments(function: Function) -> Function:
    """Add ``[JOB_ID] [ARTIFACT|MEMBER]...``; the command gets ``words``."""
    return _with_arguments(function, "words", "[JOB_ID] [ARTIFACT|MEMBER]...")


def _with_arguments(function: Function, name: str, metavar: str) -> Function:
    @functools.wraps(function)
    def command(arguments: tuple[str, ...], **others: Any) -> Any:
        is_given = any(others.get(option) for option in _OTHERWISE)
        job_id, words = _split(arguments, is_given=is_given)
        return function(job_id=job_id, **{name: words}, **others)

    return click.argument("arguments", nargs=-1, metavar=metavar)(command)


def _split(arguments: tuple[str, ...], *, is_given: bool) -> tuple[str | None, tuple[str, ...]]:
    """Take JOB_ID, if it is there, from before the other arguments."""
    if not arguments:
        return None, ()
    is_known = is_given or bool(os.environ.get("CPSTAGE_JOB_ID"))
    if is_known and not _JOB_ID.fullmatch(arguments[0]) and arguments[0]:
        return None, arguments
    return arguments[0], arguments[1:]


def members_among(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate names and globs of artifacts from names and globs of members.

    Names of artifacts have neither a slash nor a dot, but for a dot behind ``@`` in those that are
    told apart by an action.
    """
    members = [one for one in words if "/" in one or ("." in one and "@" not in one)]
    return [one for one in words if one not in members], members


archive_option = click.option(
    "--archive",
    metavar="FILE",
    shell_complete=a_file,
    help="Instead of a job: a local archive.",
)

skip_missing_option = click.option(
    "--skip-missing",
    is_flag=True,
    help="Go on with the rest where objects do not exist any more.",
)

force_option = click.option(
    "--force",
    is_flag=True,
    help="Go on with a saved job document also when its job is no longer in progress.",
)
