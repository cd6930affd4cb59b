"""A command between fetch and push: the whole life of a job that has been claimed.

Fetch, run, push, report, in this order. Whatever ends it, short of SIGKILL, becomes one
failure, and that is what is reported. While the command runs, a thread asks whether the job is
still in progress: CodePipeline may time it out, stop or abandon it. Polling is the worker's.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpstage.aws.codepipeline import get_job, is_in_progress
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
    reportable,
)
from cpstage.job import Job
from cpstage.job.masking import SHORTEST_SECRET, Secret
from cpstage.job.result import Details
from cpstage.progress import Progress
from cpstage.runner.command import CommandOptions, execute
from cpstage.runner.environment import job_environment
from cpstage.runner.handover import BEARERS, handover, inherited
from cpstage.runner.result import RunResult, report_run
from cpstage.runner.signals import Interrupts
from cpstage.transfer.fetch import fetch
from cpstage.transfer.options import FetchOptions, PushOptions
from cpstage.transfer.push import Warn, push
from cpstage.workspace.layout import Occupation, Workspace

_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "CPSTAGE_CLIENT_TOKEN",
)
"""Variables of the caller's environment whose values are credentials."""

WATCH_SECONDS = 60.0
"""Between two questions whether the job is still in progress."""

_KILL_AFTER = 10.0
"""Seconds from the signal that asks the command to end to the one that kills it."""


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
        job: The job, or the id of one that is still to be asked for.
        command: The command and its arguments.
        workspace: Where the artifacts are.
        client_token: The client's token, for the id of a third-party job.
        fetch_options: What to fetch, and how.
        command_options: How the command runs.
        push_options: What to push, and how.
        report: What to say besides; None puts no result.
        config: How to reach AWS.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Is told of all phases.
        warn: Is given warnings, a line each.
        watch_seconds: Seconds after which CodePipeline is asked again, while the command runs,
            whether the job is still in progress.
        commanding: Is called with True before the command starts, and with False when it ended.
        interrupts: Where signals come from, for a run in another thread, or to catch them sooner.

    Raises:
        UsageError: The command is empty.
    """
    if not command:
        raise UsageError("no command is given", hint="give it after --")
    link = config or AwsConfig()
    signals = interrupts or Interrupts()
    result = RunResult(job if isinstance(job, str) else job.id)
    known = None if isinstance(job, str) else job
    course = _Course(
        command=command,
        fetch_options=fetch_options or FetchOptions(),
        options=command_options or CommandOptions(),
        push_options=push_options or PushOptions(),
        is_reported=report is not None,
        config=link,
        credentials_max_age=credentials_max_age,
        progress=progress,
        warn=warn,
        interrupts=signals,
        commanding=commanding,
        watch_seconds=watch_seconds,
        result=result,
    )
    with signals:
        try:
            with signals.stopping():
                signals.check()
                if report is not None:
                    report.check()  # before hours of work are done
                if known is None:
                    known = get_job(result.job_id, client_token=client_token, config=link)
                course.take(known, Workspace(workspace))
        except (Reportable, Exception) as error:
            result.failure = reportable(error)
        if report is not None and not isinstance(result.failure, JobOver):
            report_run(
                result,
                report,
                job=known,
                client_token=client_token,
                config=link,
                interrupts=signals,
            )
    return result


@dataclass(frozen=True)
class _Course:
    """The stages of one run; each notes in the result what it has done."""

    command: Sequence[str]
    fetch_options: FetchOptions
    options: CommandOptions
    push_options: PushOptions
    is_reported: bool
    config: AwsConfig
    credentials_max_age: float
    progress: Progress | None
    warn: Warn
    interrupts: Interrupts
    commanding: Callable[[bool], object]
    watch_seconds: float
    result: RunResult

    def take(self, job: Job, place: Workspace) -> None:
        """Fetch, run and push.

        Raises:
            Reportable: Something of it failed.
        """
        with place.occupied(job.id, self.fetch_options.wait) as occupation:
            self.result.fetched = fetch(
                job,
                place.root,
                self.fetch_options,
                config=self.config,
                credentials_max_age=self.credentials_max_age,
                progress=self.progress,
                warn=self.warn,
            )
            self.interrupts.check()
            try:
                failure = self._execute(job, place, occupation)
            finally:
                place.claim_outputs(job.id)
            occupation.lock.check()
            if failure and (isinstance(failure, Stopped) or not self.push_options.always):
                raise failure
            if self.result.left.continuation_token is None:
                self._push(job, place, failure)
            elif not self.is_reported:
                raise ConfigurationError(
                    "the command left a continuation token, and the result is not reported",
                    hint="give --report",
                )
            # Else the action goes on in another job, and so its outputs are not done.
            occupation.lock.check()

    def _execute(self, job: Job, place: Workspace, occupation: Occupation) -> Reportable | None:
        """Run the command, and return how it failed, if it did."""
        inputs: dict[str, Path] = (
            {one.artifact.name: one.path for one in self.result.fetched.inputs}
            if self.result.fetched
            else {}
        )
        if self.fetch_options.skips_inputs(job):  # an earlier job may have left them
            paths = {one.name: place.input(one.name) for one in job.input_artifacts}
            inputs = {name: path for name, path in paths.items() if path.is_dir()}
        with handover(
            occupation.directory, job, pass_configuration=self.options.pass_configuration
        ) as files:
            environment = {
                **inherited(os.environ, credentials=self.options.pass_credentials),
                **job_environment(job, place, inputs, codebuild=self.options.codebuild),
                **files.environment,
            }
            directory = _directory(self.options.directory, place, inputs)
            self.commanding(True)
            with self._watched(job) as watch:
                self.result.command = execute(
                    self.command, directory, environment, self.options, self.interrupts
                )
            self.commanding(False)
            watch.check()
            failure = self.result.command.failure()
            if orphans := self.result.command.orphans:
                what = "were killed" if self.options.kill_orphans else "still run"
                numbers = ", ".join(map(str, orphans[:10]))
                self.warn(f"the command has ended, and processes that it started {what}: {numbers}")
            if failure is None:
                self.result.left = files.collect(self._held_secrets(job))
        return failure

    def _watched(self, job: Job) -> JobWatch:
        """Ask about the job while the command runs, and stop the command when the job is over."""

        def ask() -> bool:
            return is_in_progress(job.id, client_token=job.client_token, config=self.config)

        def stop() -> None:
            self.interrupts.receive(signal.SIGTERM)

        return JobWatch(job.id, ask, stop, self.watch_seconds)

    def _held_secrets(self, job: Job) -> list[Secret]:
        """Return the credentials that this process holds: the caller's and the job's."""
        bearers = [name for name in os.environ if name.startswith(BEARERS)]
        known = [*_SECRET_VARIABLES, *bearers]
        held = [Secret(os.environ[name]) for name in known if os.environ.get(name)]
        held += self.config.callers_secrets()
        if job.credentials:
            held += [job.credentials.secret_access_key, job.credentials.session_token or Secret("")]
        held += [job.client_token or Secret("")]
        return [one for one in held if len(one) >= SHORTEST_SECRET]

    def _push(self, job: Job, place: Workspace, failure: Reportable | None) -> None:
        """Push the outputs; what the command failed with comes first."""
        try:
            self.result.pushed = push(
                job,
                place.root,
                self.push_options,
                config=self.config,
                credentials_max_age=self.credentials_max_age,
                progress=self.progress,
                warn=self.warn,
            )
        except CpstageError as error:
            if failure is None:
                raise
            self.warn(f"the outputs are not pushed: {error}")
        if failure is not None:
            raise failure


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


class JobWatch:
    """Asks about a job in a thread, as long as the context lasts.

    Args:
        job_id: The job.
        ask: Returns whether it is in progress.
        stop: Asks the command to end; a second call kills it. Called in the thread.
        seconds: How often to ask.
    """

    def __init__(
        self,
        job_id: str,
        ask: Callable[[], bool],
        stop: Callable[[], object],
        seconds: float,
    ) -> None:
        self._job_id = job_id
        self._ask = ask
        self._stop = stop
        self._seconds = seconds
        self._ended = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, name="job-watch", daemon=True)

    def __enter__(self) -> JobWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()  # the thread may be in a request, which is not waited for

    def check(self) -> None:
        """Check that the job was not over before the command ended.

        Raises:
            JobOver: It was.
        """
        if self._is_over:
            raise JobOver(
                f"job {self._job_id} is no longer in progress: its command was stopped, and "
                "nothing was pushed"
            )

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                if self._ask():
                    continue
            except (AccessDenied, ConfigurationError):
                return  # the caller may not ask
            except CpstageError:
                continue
            if self._ended.is_set():
                return
            self._is_over = True
            self._stop()
            if not self._ended.wait(_KILL_AFTER):
                self._stop()
            return
