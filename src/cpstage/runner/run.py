"""A command between fetch and push: fetch, run, push, report.

Whatever ends the run, short of SIGKILL, is one failure, which is reported. While the command runs,
a thread asks whether the job is still in progress: CodePipeline may time it out, stop or abandon
it.

A first signal waits for the end of the report; a second signal ends the report. The report is
visible to everyone with access to the pipeline, so the job's secrets are masked in it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from cpstage.aws.codepipeline import get_job, is_in_progress, report_failure, report_success
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.errors import (
    AccessDenied,
    ConfigurationError,
    CpstageError,
    NotFound,
    OutOfSync,
    Reportable,
    Stopped,
    UsageError,
    WorkspaceInUse,
    reportable,
    require_type,
)
from cpstage.job import Job
from cpstage.job.model import MASK, SHORTEST_SECRET, Secret
from cpstage.job.result import (
    MOST_MESSAGE,
    Details,
    Reported,
    end_of,
    length_of,
    without_control_characters,
)
from cpstage.progress import Progress
from cpstage.runner.command import CommandOptions, Finished, execute, words_of
from cpstage.runner.environment import Left, handed_files, inherited, job_environment, secrets_of
from cpstage.runner.signals import KILL_AFTER, Interrupts
from cpstage.transfer.fetch import FetchResult, fetch
from cpstage.transfer.options import FetchOptions, PushOptions
from cpstage.transfer.push import PushResult, Warn, push
from cpstage.workspace.layout import Workspace

WATCH_SECONDS = 60.0
"""Between two questions whether the job is still in progress."""

_STOPPED_SECONDS = 20.0
"""For a report after a signal: its sender often sends SIGKILL soon."""


@dataclass
class RunResult:
    """The result of a run, as far as it came.

    Attributes:
        job_id: The job's.
        fetched, command, pushed, reported: The result of each step; None where it was not reached.
        left: What the command has left behind.
        failure: The failure of the work; None where it succeeded.
        report_failure: Why the result could not be put, where it was to be.
    """

    job_id: str
    fetched: FetchResult | None = None
    command: Finished | None = None
    left: Left = field(default_factory=Left)
    pushed: PushResult | None = None
    reported: Reported | None = None
    failure: Reportable | None = None
    report_failure: Reportable | None = None

    @property
    def error(self) -> Reportable | None:
        """The failure of the work, or else that of the report."""
        return self.failure or self.report_failure

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "job_id": self.job_id,
            "fetch": self.fetched.document() if self.fetched else None,
            "command": self.command.document() if self.command else None,
            "output_variables": list(self.left.output_variables),
            "push": self.pushed.document() if self.pushed else None,
            "report": self.reported.document() if self.reported else None,
            "error": _error_document(self.failure),
            "report_error": _error_document(self.report_failure),
        }


def _error_document(error: Reportable | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"exit_code": error.exit_code, "failure_type": error.failure_type, "message": str(error)}


def run(
    job: Job | str,
    command: Sequence[str],
    workspace: Path | str = ".",
    *,
    client_token: str | Secret | None = None,
    fetch_options: FetchOptions | None = None,
    command_options: CommandOptions | None = None,
    push_options: PushOptions | None = None,
    report: Details | None = None,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
    warn: Warn = lambda _: None,
    interrupts: Interrupts | None = None,
    commanding: Callable[[bool], object] = lambda _: None,
    watch_seconds: float = WATCH_SECONDS,
) -> RunResult:
    """Fetch a job's inputs, run a command, push its outputs, and report the result.

    A failure of any of it is not raised: it is in the result, and reported if that is wanted. A
    command that fails pushes nothing. In the main thread, signals are this function's while it
    lasts: SIGINT, SIGTERM, SIGHUP and SIGQUIT end the run and are its failure.

    Args:
        job: The job, or the id of one that is to be loaded.
        command: The command and its arguments.
        workspace: Where the artifacts are.
        client_token: The client's token, for the id of a third-party job.
        fetch_options: What to fetch, and how.
        command_options: How the command runs.
        push_options: What to push, and how.
        report: Details of the result; None reports none.
        config: The configuration of the AWS clients.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Shows all phases.
        warn: Is called with the line of each warning.
        watch_seconds: Seconds after which CodePipeline is asked again, while the command runs,
            whether the job is still in progress.
        commanding: Is called with True before the command starts, and with False when it ended.
        interrupts: Where signals come from, for a run in another thread, or to catch them sooner.

    Raises:
        UsageError: The command is empty.
    """
    words = words_of(command)
    require_type("the job", job, Job, str)
    require_type("report", report, Details, NoneType)
    require_type("config", config, AwsConfig, NoneType)
    require_type("fetch_options", fetch_options, FetchOptions, NoneType)
    require_type("command_options", command_options, CommandOptions, NoneType)
    require_type("push_options", push_options, PushOptions, NoneType)
    result = RunResult(job if isinstance(job, str) else job.id)
    this = _Run(
        result=result,
        command=words,
        fetch_options=fetch_options or FetchOptions(),
        options=command_options or CommandOptions(),
        push_options=push_options or PushOptions(),
        is_reported=report is not None,
        config=config or AwsConfig(),
        transfer={"credentials_max_age": credentials_max_age, "progress": progress, "warn": warn},
        warn=warn,
        interrupts=interrupts or Interrupts(),
        commanding=commanding,
        watch_seconds=watch_seconds,
    )
    with this.interrupts as signals:
        try:
            with signals.stopping():
                signals.check()
                if report is not None:
                    report.check()  # before hours of work are done
                if isinstance(job, str):
                    job = get_job(job, client_token=client_token, config=this.config)
                this.take(job, Workspace(workspace))
        except (Reportable, Exception) as error:
            result.failure = reportable(error)
        if report is not None and not isinstance(result.failure, JobOver):
            known = None if isinstance(job, str) else job
            token = client_token or (known.client_token if known else None)
            this.report(report, known, token)
    return result


@dataclass(frozen=True)
class _Run:
    """The steps of one run; each adds what it has done to the result."""

    result: RunResult
    command: Sequence[str]
    fetch_options: FetchOptions
    options: CommandOptions
    push_options: PushOptions
    is_reported: bool
    config: AwsConfig
    transfer: Mapping[str, Any]
    """Arguments of both fetch and push, besides the config."""
    warn: Warn
    interrupts: Interrupts
    commanding: Callable[[bool], object]
    watch_seconds: float

    def take(self, job: Job, place: Workspace) -> None:
        """Fetch, run and push; raise the first failure."""
        how: dict[str, Any] = {"config": self.config, **self.transfer}
        with place.occupied(job.id, self.fetch_options.wait) as lock:
            self.result.fetched = fetch(job, place.root, self.fetch_options, **how)
            self.interrupts.check()
            try:
                failure = self._execute(job, place)
            finally:
                place.claim_outputs(job.id)
            lock.check()
            if failure and (isinstance(failure, Stopped) or not self.push_options.always):
                raise failure
            if self.result.left.continuation_token is None:
                try:
                    self.result.pushed = push(job, place.root, self.push_options, **how)
                except CpstageError as error:
                    if failure is None:
                        raise
                    self.warn(f"the outputs are not pushed: {error}")
                if failure is not None:  # what the command failed with comes first
                    raise failure
            elif not self.is_reported:
                raise ConfigurationError(
                    "the command left a continuation token, and the result is not reported",
                    hint="give --report",
                )
            # Else the action goes on in another job, and so its outputs are not done.
            lock.check()

    def _execute(self, job: Job, place: Workspace) -> Reportable | None:
        """Run the command, and return how it failed, if it did."""
        inputs: dict[str, Path] = {}
        if self.fetch_options.skips_inputs(job):  # an earlier job may have left them
            paths = {one.name: place.input(one.name) for one in job.input_artifacts}
            inputs = {name: path for name, path in paths.items() if path.is_dir()}
        elif self.result.fetched:
            inputs = {one.artifact.name: one.path for one in self.result.fetched.inputs}
        with handed_files(
            place.handed, job, pass_configuration=self.options.pass_configuration
        ) as files:
            environment = {
                **inherited(os.environ, credentials=self.options.pass_credentials),
                **job_environment(job, place, inputs, codebuild=self.options.codebuild),
                **files.environment,
            }
            directory = _directory(self.options.directory, place, inputs)
            self.commanding(True)
            with _watched(job, self.config, self.interrupts, self.watch_seconds) as check:
                done = execute(self.command, directory, environment, self.options, self.interrupts)
                self.result.command = done
            self.commanding(False)
            check()
            if done.orphans:
                what = "were killed" if self.options.kill_orphans else "still run"
                numbers = ", ".join(map(str, done.orphans[:10]))
                self.warn(f"the command has ended, and processes that it started {what}: {numbers}")
            failure = done.failure()
            if failure is None:
                self.result.left = files.collect(self._held_secrets(job))
        return failure

    def _held_secrets(self, job: Job) -> list[Secret]:
        """Return the credentials that this process holds: the caller's and the job's."""
        held = [*secrets_of(os.environ), *self.config.callers_secrets()]
        if job.credentials:
            held.append(job.credentials.secret_access_key)
            held.append(job.credentials.session_token or Secret(""))
        held.append(job.client_token or Secret(""))
        return [one for one in held if len(one) >= SHORTEST_SECRET]

    def report(self, details: Details, job: Job | None, token: Secret | str | None) -> None:
        """Report the result, and note whether that failed; the job is None if it is unknown."""
        result, config = self.result, self.config
        if isinstance(result.failure, WorkspaceInUse) and result.failure.job_id == result.job_id:
            return  # the job is being worked on, and its result is that run's to put

        def put(report: Callable[..., Reported], **members: Any) -> Reportable | None:
            """Report, and return why that could not be done, if so."""
            how = {"client_token": token, "config": config, **members}
            try:
                with self.interrupts.stopping(spared=1):
                    result.reported = report(result.job_id, **how)
            except (Reportable, Exception) as error:
                return reportable(error)
            return None

        if result.failure is None:
            refused = put(
                report_success,
                details=details,
                output_variables=result.left.output_variables,
                continuation_token=result.left.continuation_token,
            )
            if not isinstance(refused, UsageError | ConfigurationError):
                result.report_failure = refused
                return
            result.failure = refused  # what was to be told cannot be: that is a failure by itself
        if self.interrupts.first is not None:
            config = replace(config, timeout=min(config.timeout, _STOPPED_SECONDS))
        result.report_failure = put(
            report_failure,
            message=_message(result, result.failure, job),
            failure_type=result.failure.failure_type,
            external_execution_id=details.external_execution_id,
        )


def _message(result: RunResult, failure: Reportable, job: Job | None) -> str:
    """Return the failure, and then the end of the command's output; secrets are masked."""
    message = str(failure)
    tail = without_control_characters(result.command.tail if result.command else "")
    secrets: list[Secret] = []  # that a command may have printed
    if job:
        values = job.action_configuration.values()
        known = (job.continuation_token, job.client_token)
        secrets = [one for one in values if len(one) >= SHORTEST_SECRET]
        secrets += [one for one in known if one]
    for secret in sorted(secrets, key=len, reverse=True):
        text = secret.reveal()
        message, tail = message.replace(text, MASK), tail.replace(text, MASK)
    return f"{message}\n{end_of(tail, MOST_MESSAGE - 1 - length_of(message))}" if tail else message


def _directory(name: str, place: Workspace, inputs: Mapping[str, Path]) -> Path:
    """Return where a command runs: an input artifact, or a path from the workspace."""
    directory = inputs.get(name, place.root / name)
    if not directory.is_dir():
        raise NotFound(
            f"the working directory {directory} does not exist",
            hint=f"give a path in the workspace, or one of the inputs: {', '.join(inputs)}",
        )
    return directory


class JobOver(OutOfSync):
    """The job is no longer in progress: CodePipeline takes no result for it."""

    default_hint = "release the change again"


@contextmanager
def _watched(
    job: Job, config: AwsConfig, interrupts: Interrupts, seconds: float
) -> Iterator[Callable[[], None]]:
    """Ask about a job every few seconds, in a thread, as long as the context lasts.

    When the job is over, the run gets SIGTERM: once, and again where that did not help. The
    context's value raises JobOver if the job was over before the command ended.
    """
    ended, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(seconds):
            try:
                if is_in_progress(job.id, client_token=job.client_token, config=config):
                    continue
            except (AccessDenied, ConfigurationError):
                return  # the caller may not ask
            except CpstageError:
                continue
            if ended.is_set():
                return
            over.set()
            interrupts.receive(signal.SIGTERM)
            if not ended.wait(KILL_AFTER):
                interrupts.receive(signal.SIGTERM)
            return

    def check() -> None:
        if over.is_set():
            raise JobOver(
                f"job {job.id} is no longer in progress: its command was stopped, and nothing was "
                "pushed"
            )

    threading.Thread(target=watch, name="job-watch", daemon=True).start()
    try:
        yield check
    finally:
        ended.set()  # the thread may be in a request, which is not waited for
