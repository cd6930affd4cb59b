"""``cpstage doctor``: all that a run of a job needs."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

import cpstage
from cpstage.cli.job_options import JobSource, artifact_source_options
from cpstage.cli.options import (
    AwsCommand,
    aws_options,
    output_options,
    retry_option,
    workspace_option,
)
from cpstage.cli.output import Terminal, coloured
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage.inspect.doctor import Check

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}

_EXAMPLES = """\b
Examples:
  cpstage doctor JOB_ID
  cpstage doctor JOB_ID --workspace build
  cpstage doctor --job-file saved.json --json
  cpstage doctor --pipeline release --failed
"""


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
@click.argument("job_id", required=False)
@artifact_source_options
@workspace_option
@aws_options(retry_option(20, help="How long each check retries when the network or AWS fails."))
@output_options
def doctor(
    *, source: JobSource, workspace: str, config: cpstage.AwsConfig, terminal: Terminal
) -> None:
    """Check everything that a run of a job needs.

    The command checks region, network, clock, the caller's credentials, the job, its session, each
    input (reads the first byte), each output (starts a multipart upload and aborts it), the key,
    and the workspace. It prints what to change for each failure, and exits with the code of the
    first one. It creates no object and leaves no file.

    With --pipeline, the command checks whether the caller may read the artifacts of a past
    execution, and starts no upload.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    from cpstage.inspect.doctor import exit_code

    checks = []
    load = partial(source.load_artifacts, config, terminal, in_progress=True, needs_artifacts=False)
    for check in cpstage.inspect.diagnose(load, workspace, config=config):
        checks.append(check)
        if not terminal.json:
            terminal.line(_text(check))
    code = exit_code(checks)
    terminal.document({"exit_code": code, "checks": [check.document() for check in checks]})
    if code:
        click.get_current_context().exit(code)


def _text(check: Check) -> str:
    name = f"{check.name} {check.subject}" if check.subject else check.name
    status = coloured(f"{check.status:<8}", _COLOURS.get(check.status, "reset"), sys.stdout)
    line = f"{status} {printable(f'{name}: {check.detail}')}"
    return f"{line}\n         {printable(check.fix)}" if check.fix else line
