"""``cpstage executions``: the past executions of a pipeline, and the actions of one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.cli.command import AwsCommand, Number
from cpstage.cli.options import aws_options, output_options, retry_option
from cpstage.cli.output import took
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal
    from cpstage.inspect.description import DescribedExecution, ListedExecution

_EXAMPLES = """\b
Examples:
  cpstage executions release
  cpstage executions release --status Failed --max 3
  cpstage executions release 3137f7cb
  cpstage executions 'https://console.aws.amazon.com/codesuite/...' --json
"""

_STATUSES = ["Cancelled", "InProgress", "Stopped", "Stopping", "Succeeded", "Superseded", "Failed"]
_SHORT_REVISION = 12


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
@click.argument("pipeline")
@click.argument("execution", required=False)
@click.option(
    "--max",
    "most",
    type=Number(1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many executions to list.",
)
@click.option(
    "--status",
    type=click.Choice(_STATUSES, case_sensitive=False),
    help="List only executions of this status.",
)
@aws_options(retry_option())
@output_options
def executions(
    *,
    pipeline: str,
    execution: str | None,
    most: int,
    status: str | None,
    config: AwsConfig,
    terminal: Terminal,
) -> None:
    """List a pipeline's past executions, or the actions of one.

    PIPELINE is the name or the ARN of a pipeline, or the console's URL of the pipeline or of an
    execution. The list has the newest execution first: id, status, start, duration, trigger, source
    revisions, and the failed action with its error.

    With EXECUTION, an id or its start, or with the URL of an execution, the command prints its
    actions, oldest first: status, duration, error, external URL, and artifacts. An action that was
    retried appears once for each attempt.

    The command needs codepipeline:ListPipelineExecutions and codepipeline:ListActionExecutions.
    CodePipeline keeps executions for 12 months.
    """
    from cpstage.job.execution import parse_pipeline

    if execution is not None or parse_pipeline(pipeline).execution_id:
        described = cpstage.inspect.describe_execution(pipeline, execution, config=config)
        terminal.result(described.document(), _described(described))
        return
    found = [*islice(cpstage.inspect.past_executions(pipeline, status, config=config), most)]
    document = {
        "pipeline": parse_pipeline(pipeline).name,
        "executions": [one.document() for one in found],
    }
    terminal.result(document, "\n".join(_listed(one) for one in found))
    if not found:
        what = f"{status} " if status else ""
        terminal.note(f"cpstage: the pipeline has no {what}executions in the last 12 months")


def _listed(one: ListedExecution) -> str:
    summary = one.summary
    document = summary.document()
    head = [
        summary.id,
        summary.status,
        document["start_time"] or "?",
        took(document["duration_seconds"]),
        " ".join(filter(None, (summary.trigger, summary.trigger_detail))),
    ]
    lines = ["  ".join(filter(None, head))]
    for revision in summary.source_revisions:
        lines.append(f"    {_revision(revision)}")
    if summary.status_summary:
        lines.append(f"    {summary.status_summary}")
    if summary.stop_reason:
        lines.append(f"    stopped: {summary.stop_reason}")
    for action in one.failed_actions:
        lines.append(f"    failed: {action.path}: {action.error or 'CodePipeline tells no error'}")
    return "\n".join(map(printable, lines))


def _described(one: DescribedExecution) -> str:
    lines = [_listed(one.listed).partition("\n    failed: ")[0]] if one.listed else []
    for action in one.actions:
        document = action.document()
        kind = f"  {action.action_type_id}" if action.action_type_id else ""
        region = f"  in {action.region}" if action.region and action.region != one.region else ""
        row = [
            f"{action.path:<32}",
            f"{action.status:<10}",
            document["start_time"] or "?",
            took(document["duration_seconds"]),
        ]
        lines.append("  ".join(row) + kind + region)
        facts = [
            ("error", action.error),
            ("summary", action.external_summary),
            ("url", action.external_url),
            *(("input", f"{one.name} at {one.location}") for one in action.inputs),
            *(("output", f"{one.name} at {one.location}") for one in action.outputs),
        ]
        lines += [f"    {label:<8}{value}" for label, value in facts if value]
    return "\n".join(printable(line) for whole in lines for line in whole.split("\n"))


def _revision(revision: Any) -> str:
    source, text = revision["action"], revision["summary"]
    short = (revision["id"] or "?")[:_SHORT_REVISION]
    first = (text or "").strip().partition("\n")[0]
    return f"{source}: {short}{f' {first}' if first else ''}"
