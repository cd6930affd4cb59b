"""The job worker: ``cpstage work`` runs jobs until it is stopped, ``cpstage claim`` claims one."""

from __future__ import annotations

import json
import re
import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

import cpstage
from cpstage._posix import SIGNALS, handle_signals
from cpstage.cli.archive_options import run_staging_options, run_upload_options
from cpstage.cli.options import (
    AwsCommand,
    Number,
    PathName,
    aws_options,
    choice,
    flag,
    gather,
    json_options,
    seconds,
    session_options,
)
from cpstage.cli.output import is_stdout_closed
from cpstage.cli.run import TakesCommand, command_options, push_always_option
from cpstage.errors import LocalIOError, Stopped, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from cpstage import AwsConfig, CommandOptions, FetchOptions, PushOptions
    from cpstage.cli.output import Terminal
    from cpstage.worker import JobPlaces, JobQueue, Worker, WorkerEvent, WorkerOptions

_QUERY_VALUE = re.compile(r"[A-Za-z0-9_-]{1,50}")


def _query(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> dict[str, str] | None:
    """Read a configuration property and its value, as PollForJobs takes them."""
    if value is None:
        return None
    key, equals, wanted = value.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE.", context, parameter)
    if not _QUERY_VALUE.fullmatch(wanted):
        why = f"the value of {key!r} is not 1 to 50 of A-Z a-z 0-9 _ -."
        raise click.BadParameter(why, context, parameter)
    return {key: wanted}


def _queue(
    *, query: dict[str, str] | None, client_tokens: Path | None, owner: str, **action_type: str
) -> JobQueue:
    from cpstage.job import ActionTypeId

    third_party = owner == "ThirdParty"
    if third_party and query:
        raise UsageError("--query is not for third-party jobs", hint="leave it out")
    if third_party != (client_tokens is not None):
        raise UsageError(
            "--client-tokens and --owner ThirdParty belong together", hint="give both or neither"
        )
    if client_tokens is not None:
        cpstage.worker.read_client_tokens(client_tokens)  # an error in it is raised at once
    return cpstage.worker.JobQueue(
        ActionTypeId(owner=owner, **action_type), query=query, client_tokens=client_tokens
    )


_queue_options = gather(
    "queue",
    _queue,
    click.option("--category", required=True, help="Category of the action type, such as Build."),
    choice("--owner", values=["Custom", "ThirdParty"], help="Owner of the action type."),
    click.option("--provider", required=True, help="Provider of the action type."),
    click.option("--version", required=True, help="Version of the action type."),
    click.option(
        "--query",
        callback=_query,
        metavar="KEY=VALUE",
        help="Only jobs with this value of a queryable configuration property.",
    ),
    click.option(
        "--client-tokens",
        type=PathName("file", as_path=True),
        metavar="FILE",
        help='For third-party jobs: a JSON object {"CLIENT_ID": "TOKEN"}.',
    ),
)


_worker_options = gather(
    "options",
    "worker.WorkerOptions",
    click.option(
        "--concurrency",
        type=Number(1, 1000),
        default=1,
        show_default=True,
        help="Number of jobs at the same time.",
    ),
    click.option(
        "--batch-size",
        "batch",
        type=Number(1),
        metavar="N",
        help="Maximum number of jobs per poll. [the free capacity]",
    ),
    click.option(
        "--max-jobs", "most", type=Number(1), metavar="N", help="Exit after this many jobs."
    ),
    flag("--once", help="Poll once, run the jobs, and exit."),
    seconds(
        "--poll-interval",
        "interval",
        default=10.0,
        help="Average wait between polls that return no job; each wait is random.",
    ),
    seconds(
        "--drain-timeout",
        "drain",
        help="After a first signal, stop running jobs after this long and report them as "
        "failed. [wait until they end]",
    ),
    seconds("--grace", default=30.0, help="Time between SIGTERM and SIGKILL for a stopped job."),
)


_places_options = gather(
    "places",
    "worker.JobPlaces",
    click.option(
        "--workspace-root",
        "root",
        type=PathName("dir", as_path=True),
        default=Path("."),
        metavar="DIR",
        help="Parent of the jobs' workspaces DIR/<job id>/. [the current directory]",
    ),
    choice("--keep", values=["failed", "always", "never"], help="Jobs whose workspaces are kept."),
    choice(
        "--job-output",
        "output",
        values=["file", "stdout"],
        help="Destination of CMD's output: .cpstage/output.log in the workspace, or stdout.",
    ),
)


_CLAIM_EXAMPLES = """\b
Examples:
  JOB_ID=$(cpstage claim --category Build --provider MyBuild --version 1)
  cpstage claim … --query ProjectName=release --wait 60
  cpstage claim … --json
"""


@click.command(cls=AwsCommand, epilog=_CLAIM_EXAMPLES)
@_queue_options
@seconds(
    "--wait",
    or_none=True,
    default=0.0,
    show_default="poll once",
    help="Poll until a job waits, at most for SECONDS.",
)
@aws_options()
@json_options
def claim(queue: JobQueue, wait: float, config: AwsConfig, terminal: Terminal) -> None:
    """Acknowledge a waiting job, and print its id.

    The job is then in progress: run it with 'cpstage run JOB_ID --report', or report its result
    with 'cpstage report'. If no job waits, the command prints nothing on stdout and exits with 75.
    With --json, the document of a third-party job holds its client token, which is a SECRET.
    """
    if is_stdout_closed():
        raise LocalIOError("stdout is closed: no job is claimed", hint="the job's id goes there")
    claimed = cpstage.worker.claim_job(
        replace(queue, config=config),
        wait=wait,
        interval=cpstage.worker.WorkerOptions().interval,
        tell=terminal.warn,
    )
    try:
        terminal.result(claimed.members(), claimed.job_id)
    except BaseException:
        terminal.warn(
            f"job {claimed.job_id} is acknowledged, and was not printed: report its result"
        )
        raise


_WORK_EXAMPLES = """\b
Examples:
  cpstage work --category Build --provider MyBuild --version 1 -- make release
  cpstage work … --concurrency 4 --workspace-root /srv/jobs -- ./build.sh
  cpstage work … --query Fleet=arm --health-port 8080 -- ./build.sh
  cpstage work … --once -- ./build.sh
"""


@click.command(cls=TakesCommand, epilog=_WORK_EXAMPLES, options_metavar="[OPTIONS] -- CMD [ARG]...")
@_queue_options
@_worker_options
@_places_options
@choice("--log-format", values=["text", "json"], help="Format of the log on stderr.")
@click.option(
    "--health-file",
    type=PathName("file", as_path=True),
    metavar="FILE",
    help="Write the worker's health to FILE at every poll.",
)
@click.option(
    "--health-port",
    type=Number(0, 65535),
    metavar="PORT",
    help="Answer GET /healthz on PORT: 200, or 503 if polling fails for --unhealthy-after.",
)
@click.option(
    "--health-host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address on which --health-port listens.",
)
@seconds(
    "--unhealthy-after",
    default=300.0,
    help="How long polling may fail before /healthz answers 503.",
)
@command_options(kills_orphans=True)
@push_always_option
@run_staging_options
@run_upload_options
@session_options
@json_options
def work(
    *,
    queue: JobQueue,
    config: AwsConfig,
    options: WorkerOptions,
    places: JobPlaces,
    command: tuple[str, ...],
    command_options: CommandOptions,
    fetch_options: FetchOptions,
    push_options: PushOptions,
    push_always: bool,
    credentials_max_age: float,
    log_format: str,
    health_file: Path | None,
    health_port: int | None,
    health_host: str,
    unhealthy_after: float,
    terminal: Terminal,
) -> None:
    """Run the jobs of an action type, until stopped.

    The worker polls CodePipeline, claims jobs, and does for each job what 'cpstage run --report'
    does: fetch, CMD, push, report. Each job has one process and one fresh workspace.

    On the first SIGTERM or SIGINT the worker finishes running jobs and claims no new ones. On the
    second one it stops the running jobs and reports them as failed.
    """
    health = cpstage.worker.WorkerHealth(unhealthy_after)

    def tell(event: WorkerEvent) -> None:
        terminal.note(json.dumps(event.members()) if log_format == "json" else event.text())

    worker = cpstage.worker.Worker(
        replace(queue, config=config),
        cpstage.worker.JobCommand(
            command,
            fetch_options=fetch_options,
            options=command_options,
            push_options=replace(push_options, always=push_always),
            credentials_max_age=credentials_max_age,
        ),
        places,
        options=options,
        health=health,
        health_file=health_file,
        tell=tell,
    )
    page: AbstractContextManager[int | None] = nullcontext()
    if health_port is not None:
        page = cpstage.worker.health_page(health, health_host, health_port)
    with page as port:
        if port is not None:
            host = f"[{health_host}]" if ":" in health_host else health_host
            address = f"http://{host}:{port}/healthz"
            tell(cpstage.worker.WorkerEvent("health", message=address))
        _work_until_stopped(worker)


def _work_until_stopped(worker: Worker) -> None:
    """Run the worker; the first signal drains it, and Stopped is raised after a second one."""
    last = signal.SIGTERM

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        last = signal.Signals(number)
        worker.stop()

    handle_signals(SIGNALS, stop)
    worker.work()
    if worker.was_stopped:
        raise Stopped(last, last.name)
