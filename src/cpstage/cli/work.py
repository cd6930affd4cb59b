"""``cpstage work``: a job worker, until it is stopped."""

from __future__ import annotations

import json
import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cpstage._posix import SIGNALS
from cpstage.cli.options import Number, Seconds, aws_options, output_options, session_option
from cpstage.cli.run_options import TakesCommand, command_options, fetch_inputs_option
from cpstage.cli.stage_options import delivery_options, staging_options
from cpstage.cli.worker_options import places_options, queue_options, terms_options
from cpstage.errors import Stopped

if TYPE_CHECKING:
    from types import FrameType

    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal
    from cpstage.job import ActionTypeId
    from cpstage.runner.command import CommandOptions
    from cpstage.transfer.options import FetchInputs, FetchOptions, PushOptions
    from cpstage.worker.job import JobPlaces
    from cpstage.worker.loop import Worker, WorkerTerms
    from cpstage.worker.monitoring import WorkerEvent

_EXAMPLES = """\b
Examples:
  cpstage work --category Build --provider MyBuild --version 1 -- make release
  cpstage work … --concurrency 4 --workspace-root /srv/jobs -- ./build.sh
  cpstage work … --query Fleet=arm --health-port 8080 -- ./build.sh
  cpstage work … --once -- ./build.sh
"""


@click.command(cls=TakesCommand, epilog=_EXAMPLES, options_metavar="[OPTIONS] -- CMD [ARG]...")
@queue_options
@terms_options
@places_options
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the log on stderr.",
)
@click.option(
    "--health-file",
    type=click.Path(path_type=Path),
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
@click.option(
    "--unhealthy-after",
    type=Seconds(),
    default=300.0,
    show_default=True,
    help="How long polling may fail before /healthz answers 503.",
)
@partial(command_options, kills_orphans=True)
@click.option("--push-always", is_flag=True, help="Push even if CMD fails.")
@fetch_inputs_option
@staging_options
@delivery_options
@aws_options
@partial(session_option, former=())
@partial(output_options, query=False)
def work(
    *,
    action_type: ActionTypeId,
    query: dict[str, str] | None,
    client_tokens: Path | None,
    config: AwsConfig,
    terms: WorkerTerms,
    places: JobPlaces,
    command: tuple[str, ...],
    command_options: CommandOptions,
    fetch_options: FetchOptions,
    fetch_inputs: FetchInputs,
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
    import cpstage

    health = cpstage.worker.WorkerHealth(unhealthy_after)

    def tell(event: WorkerEvent) -> None:
        terminal.note(json.dumps(event.members()) if log_format == "json" else event.text())

    worker = cpstage.worker.Worker(
        cpstage.worker.JobQueue(action_type, config, query, client_tokens),
        cpstage.worker.JobCommand(
            command,
            fetch_options=replace(fetch_options, inputs=fetch_inputs),
            options=command_options,
            push_options=replace(push_options, always=push_always),
            credentials_max_age=credentials_max_age,
        ),
        places,
        terms=terms,
        health=health,
        health_file=health_file,
        tell=tell,
    )
    page: AbstractContextManager[int | None] = nullcontext()
    if health_port is not None:
        page = cpstage.worker.health_page(health, health_host, health_port)
    with page as port:
        if port is not None:
            tell(
                cpstage.worker.WorkerEvent("health", message=f"http://{health_host}:{port}/healthz")
            )
        _work_until_stopped(worker)


def _work_until_stopped(worker: Worker) -> None:
    """Let signals stop the worker.

    Raises:
        Stopped: A second signal stopped the running jobs.
    """
    last = signal.SIGTERM

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        last = signal.Signals(number)
        worker.stop()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
            signal.signal(number, stop)
    worker.work()
    if worker.was_stopped:
        raise Stopped(last, last.name)
