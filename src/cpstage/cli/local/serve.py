"""``cpstage local serve``: the embedded local AWS, until stopped."""

from __future__ import annotations

import json
import re
import shlex
import threading
from typing import TYPE_CHECKING

import click

from cpstage.cli.extra import local_extra
from cpstage.cli.options import Number, Seconds, output_options
from cpstage.errors import ConfigurationError, Stopped, UsageError

if TYPE_CHECKING:
    from cpstage.cli.terminal import Terminal

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


@click.command(
    epilog="""\b
Examples:
  cpstage local serve
  cpstage local serve --port 8000 --json
"""
)
@click.option("--port", type=Number(0, 65535), default=0, help="[a free one]")
@click.option("--region", default="us-east-1", show_default=True, help="The pipeline's region.")
@click.option(
    "--session-seconds",
    type=Seconds(),
    default=3600.0,
    show_default=True,
    help="Life of a job's session credentials.",
)
@output_options
def serve(terminal: Terminal, port: int, region: str, session_seconds: float) -> None:
    """Serve until stopped, with a sample pipeline and one job of it.

    Prints the variables to export and the job id; with --json, one line of JSON.
    """
    if not _REGION.fullmatch(region):
        raise UsageError(f"{region!r} is no AWS region", hint="us-east-1 is one")
    from cpstage.local.sample import add_sample_job
    from cpstage.local.settings import without_aws_settings

    with local_extra(), without_aws_settings():
        from cpstage.local import LocalAWS

        aws = LocalAWS(region=region, port=port, session_seconds=session_seconds)
        try:
            aws.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on port {port}: {error.strerror}", hint="give another --port"
            ) from error
    try:
        _announce(terminal, aws.endpoint_url, region, add_sample_job(aws), aws.environment)
        threading.Event().wait()
    except Stopped as stopped:
        terminal.note("The local AWS has stopped.")
        click.get_current_context().exit(stopped.exit_code)
    finally:
        aws.stop()


def _announce(
    terminal: Terminal, endpoint_url: str, region: str, job_id: str, environment: dict[str, str]
) -> None:
    document = {
        "endpoint_url": endpoint_url,
        "region": region,
        "job_id": job_id,
        "environment": environment,
    }
    if terminal.json:
        click.echo(json.dumps(document))
        return
    click.echo("unset AWS_PROFILE AWS_SESSION_TOKEN")
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(f"export CPSTAGE_JOB_ID={job_id}")
    terminal.note("Paste these lines into another shell, then: cpstage fetch. Ctrl-C stops.")
