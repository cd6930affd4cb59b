"""``cpstage claim``: one waiting job for a build server that starts its builds itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from cpstage.cli.command import AwsCommand
from cpstage.cli.options import Seconds, aws_options, output_options
from cpstage.cli.worker_options import queue_options

if TYPE_CHECKING:
    from pathlib import Path

    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal
    from cpstage.job import ActionTypeId

_EXAMPLES = """\b
Examples:
  JOB_ID=$(cpstage claim --category Build --provider MyBuild --version 1)
  cpstage claim … --query ProjectName=release --wait 60
  cpstage claim … --json
"""


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
@queue_options
@click.option(
    "--wait",
    type=Seconds(or_none=True),
    default=0.0,
    show_default="poll once",
    help="Poll until a job waits, at most for SECONDS.",
)
@aws_options
@partial(output_options, query=False)
def claim(
    *,
    action_type: ActionTypeId,
    query: dict[str, str] | None,
    client_tokens: Path | None,
    wait: float,
    config: AwsConfig,
    terminal: Terminal,
) -> None:
    """Acknowledge a waiting job, and print its id.

    The job is then in progress: run it with 'cpstage run JOB_ID --report', or report its result
    with 'cpstage report'. If no job waits, the command prints nothing on stdout and exits with 75.
    With --json, the document of a third-party job holds its client token, which is a SECRET.
    """
    import cpstage

    queue = cpstage.worker.JobQueue(action_type, config, query, client_tokens)
    claimed = cpstage.worker.claim_job(
        queue, wait=wait, interval=cpstage.worker.WorkerTerms().interval, tell=terminal.warn
    )
    terminal.result(claimed.members(), claimed.job_id)
