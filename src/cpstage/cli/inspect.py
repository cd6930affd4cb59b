"""``cpstage show``, ``env``, ``credentials``, ``executions`` and ``doctor``, which only print."""

from __future__ import annotations

import json
import sys
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.aws.config import DEFAULT_MAX_AGE
from cpstage.cli.job_options import JobSource, artifact_source_options, job_options
from cpstage.cli.options import (
    AwsCommand,
    Command,
    Number,
    aws_options,
    choice,
    flag,
    output_options,
    retry_option,
    seconds,
    workspace_option,
)
from cpstage.cli.output import Terminal, coloured, took
from cpstage.errors import UsageError, printable

if TYPE_CHECKING:
    from cpstage.inspect import Check, DescribedExecution, ListedExecution
    from cpstage.runner.environment import Syntax

_SHOW_EXAMPLES = """\b
Examples:
  cpstage show JOB_ID
  cpstage show JOB_ID --json
  cpstage show --job-file saved.json
  cpstage show --pipeline release --failed --failed-action
"""

_GOOD_FOR_SECONDS = 15 * 60
"""How long the AWS CodePipeline plugin for Jenkins uses session credentials."""


@click.command(cls=AwsCommand, epilog=_SHOW_EXAMPLES)
@click.argument("job_id", required=False)
@artifact_source_options
@aws_options()
@output_options
def show(source: JobSource, config: cpstage.AwsConfig, terminal: Terminal) -> None:
    """Show a job and the objects at its locations.

    The command masks secrets: session credentials, and the values of the action's configuration
    that may be secret. It shows a value where the action type says that the property is not secret;
    this needs codepipeline:ListActionTypes for custom action types, and codepipeline:GetActionType
    for others.

    With --pipeline, it shows a past execution and the objects of all its artifacts.
    """
    job = source.load_artifacts(config, terminal, needs_artifacts=False)
    described = cpstage.inspect.describe(job, config=config)
    terminal.result(described, _job_text(described))


def _job_text(job: dict[str, Any]) -> str:
    context = job["pipeline_context"]
    names = (context["pipeline_name"], context["stage_name"], context["action_name"])
    key = job["encryption_key"] or {}
    rows = [
        ("Job" if job["read_with"] == "job" else "Past run", job["id"]),
        ("Pipeline", " / ".join(name or "?" for name in names)),
        ("Execution", context["pipeline_execution_id"]),
        *_execution_rows(job["execution"]),
        ("Action type", job["action_type"]),
        ("Account", job["account_id"]),
        ("Region", job["region"]),
        ("Key", key.get("id") or "none: S3 uses the bucket's own"),
        ("Credentials", _credentials(job)),
        ("Continuation", job["continuation_token"]),
        *(("Configuration", f"{name} = {value}") for name, value in job["configuration"].items()),
    ]
    lines = [f"{label:<14}{value}" for label, value in rows if value]
    for one in job["inputs"]:
        lines += ["", f"Input         {one['name']}", *_artifact(one)]
    for one in job["outputs"]:
        lines += ["", f"Output        {one['name']}", *_artifact(one)]
    return "\n".join(map(printable, lines))


def _execution_rows(execution: dict[str, Any] | None) -> list[tuple[str, str | None]]:
    if execution is None:
        return []
    took_seconds = execution["duration_seconds"]
    started = f"{execution['start_time'] or '?'}, {took(took_seconds)}"
    revisions = [
        ("Revision", " ".join(filter(None, (one["action"], one["id"], one["summary"]))))
        for one in execution["source_revisions"]
    ]
    return [
        ("Status", execution["status"]),
        ("Started", started),
        *revisions,
        ("Action status", execution["action_status"]),
        ("Error", execution["action_error"]),
        ("URL", execution["action_url"]),
    ]


def _credentials(job: dict[str, Any]) -> str:
    credentials = job["credentials"]
    if job["read_with"] == "caller":
        return "the caller's own read the objects"
    if not credentials["present"]:
        return "none"
    age = credentials["age_seconds"]
    if credentials["expires_at"]:
        return f"expire at {credentials['expires_at']}, masked"
    if age is None:
        return "of unknown age, masked"
    expired = ": may have expired" if age > _GOOD_FOR_SECONDS else ""
    old = f"{int(age // 60)} minutes old" if age >= 60 else "handed out just now"
    return f"{old}{expired}, masked"


def _artifact(one: dict[str, Any]) -> list[str]:
    """Return a line for each fact; of an output that is still to be made, its location."""
    location, error = one["location"], one.get("error")
    rows = [
        ("location", f"s3://{location['bucket']}/{location['key']}"),
        ("revision", one.get("revision")),
        ("error", error),
    ]
    if "error" in one and not error:
        kind = "encrypted" if one["format"] == "sealed" else one["format"]
        envelope, checksum = one["envelope"], one["checksum"]
        unverified = ", not verified without the extra crt" if one["unverified_checksum"] else ""
        rows += [
            ("size", f"{one['size']:,} bytes, {kind}"),
            ("stored", f"{one['last_modified'] or '?'}, storage class {one['storage_class']}"),
            ("encryption", f"{one['encryption'] or 'none'} {one['kms_key_id'] or ''}".rstrip()),
            (
                "encrypted",
                envelope and f"{envelope['format']}, under {', '.join(envelope['keys'])}",
            ),
            ("encrypted", one["client_side"]),
            ("checksum", checksum and f"{checksum}{unverified}"),
        ]
    return [f"  {label:<12}{value}" for label, value in rows if value]


_ENV_EXAMPLES = """\b
Examples:
  eval "$(cpstage env JOB_ID)"
  cpstage env JOB_ID --format fish | source
  cpstage env JOB_ID --format powershell | Out-String | Invoke-Expression
  cpstage env --workspace build --format json
"""


@click.command(cls=Command, epilog=_ENV_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@workspace_option
@choice("--format", values=["sh", "fish", "powershell", "dotenv", "json"], help="Output format.")
@flag("--codebuild-env", help="Add CODEBUILD_SRC_DIR variables.")
@aws_options()
@output_options
def env(
    *,
    source: JobSource,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    workspace: str,
    format: Syntax,
    codebuild_env: bool,
) -> None:
    """Print the variables of a job in a workspace.

    The variables name the directory of each artifact. They contain no credentials. Without JOB_ID,
    or with the job that was fetched into the workspace, the command calls no AWS service.
    """
    from cpstage.runner import environment

    place = cpstage.Workspace(workspace)
    job = source.load(config) if source.file is not None else None
    known = job.id if job else source.job_id
    variables = environment.staged_environment(place, known, codebuild=codebuild_env)
    if variables is None:
        job = job or source.load(config, uses_s3=False)
        terminal.warn(f"job {job.id} has not been fetched into {place.root}")
        variables = environment.job_environment(job, place, codebuild=codebuild_env)
    terminal.raw(environment.render(variables, "json" if terminal.json else format))


_CREDENTIALS_EXAMPLES = """\b
Example, in ~/.aws/config:
  [profile job]
  credential_process = cpstage credentials JOB_ID --profile worker
  region = eu-central-1
\b
  aws s3 cp s3://BUCKET/KEY - --profile job
"""


@click.command(cls=AwsCommand, epilog=_CREDENTIALS_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@seconds(
    "--expires-in",
    default=DEFAULT_MAX_AGE,
    help="Printed expiry, counted from the time at which CodePipeline issued the credentials.",
)
@flag("--force", help="Print secrets to a terminal.")
@aws_options()
@output_options
def credentials(
    source: JobSource, config: cpstage.AwsConfig, terminal: Terminal, expires_in: float, force: bool
) -> None:
    """Print a job's session credentials, SECRETS included.

    The format is that of a credential_process (version 1). Any AWS tool can then read the job's
    inputs and write its outputs. CodePipeline does not say when session credentials expire; the
    printed expiry makes tools ask again in time. A document that 'get-job-details --save' saved
    says how old its credentials are. For other documents, cpstage asks CodePipeline for current
    credentials; where it cannot, the printed expiry is one minute from now.
    """
    from cpstage.aws.codepipeline import current_job, process_credentials

    if not force and sys.stdout.isatty():
        raise UsageError(
            "secrets are not printed to a terminal",
            hint="use it as a credential_process (see --help), or give --force",
        )
    job = source.load(config, uses_s3=False)
    found = job.require_credentials()
    if found.age_seconds is None and found.expires_at is None:
        job = current_job(job, config=config)
    terminal.line(json.dumps(process_credentials(job, lifetime=expires_in), indent=2))


_EXECUTIONS_EXAMPLES = """\b
Examples:
  cpstage executions release
  cpstage executions release --status Failed --max 3
  cpstage executions release 3137f7cb
  cpstage executions 'https://console.aws.amazon.com/codesuite/...' --json
"""

_STATUSES = ["Cancelled", "InProgress", "Stopped", "Stopping", "Succeeded", "Superseded", "Failed"]
_SHORT_REVISION = 12


@click.command(cls=AwsCommand, epilog=_EXECUTIONS_EXAMPLES)
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
@aws_options()
@output_options
def executions(
    *,
    pipeline: str,
    execution: str | None,
    most: int,
    status: str | None,
    config: cpstage.AwsConfig,
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
    lines = []
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
    head = [_listed(one.listed).partition("\n    failed: ")[0]] if one.listed else []
    return "\n".join([*head, *map(printable, lines)])


def _revision(revision: Any) -> str:
    source, text = revision["action"], revision["summary"]
    short = (revision["id"] or "?")[:_SHORT_REVISION]
    first = (text or "").strip().partition("\n")[0]
    return f"{source}: {short}{f' {first}' if first else ''}"


_DOCTOR_EXAMPLES = """\b
Examples:
  cpstage doctor JOB_ID
  cpstage doctor JOB_ID --workspace build
  cpstage doctor --job-file saved.json --json
  cpstage doctor --pipeline release --failed
"""

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command(cls=AwsCommand, epilog=_DOCTOR_EXAMPLES)
@click.argument("job_id", required=False)
@artifact_source_options
@workspace_option
@aws_options(
    retry=retry_option(20, help="How long each check retries when the network or AWS fails.")
)
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
    """
    from cpstage.inspect.job import exit_code

    checks = []
    load = partial(source.load_artifacts, config, terminal, in_progress=True, needs_artifacts=False)
    for check in cpstage.inspect.diagnose(load, workspace, config=config):
        checks.append(check)
        if not terminal.json:
            terminal.line(_check_text(check))
    code = exit_code(checks)
    terminal.document({"exit_code": code, "checks": [check.document() for check in checks]})
    if code:
        click.get_current_context().exit(code)


def _check_text(check: Check) -> str:
    name = f"{check.name} {check.subject}" if check.subject else check.name
    status = coloured(f"{check.status:<8}", _COLOURS.get(check.status, "reset"), sys.stdout)
    line = f"{status} {printable(f'{name}: {check.detail}')}"
    return f"{line}\n         {printable(check.fix)}" if check.fix else line
