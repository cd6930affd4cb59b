"""``cpstage show``: the job for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.cli.command import AwsCommand
from cpstage.cli.job_options import JobSource, artifact_source_options
from cpstage.cli.options import aws_options, output_options
from cpstage.cli.output import took
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal

_EXAMPLES = """\b
Examples:
  cpstage show JOB_ID
  cpstage show JOB_ID --json
  cpstage show --job-file saved.json
  cpstage show --pipeline release --failed --failed-action
"""

_GOOD_FOR_SECONDS = 15 * 60
"""How long the AWS CodePipeline plugin for Jenkins takes session credentials for good."""


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
@click.argument("job_id", required=False)
@artifact_source_options
@aws_options()
@output_options
def show(source: JobSource, config: AwsConfig, terminal: Terminal) -> None:
    """Show a job and the objects at its locations.

    The command masks secrets: session credentials, and the values of the action's configuration
    that may be secret. It shows a value where the action type says that the property is not secret;
    this needs codepipeline:ListActionTypes for custom action types, and codepipeline:GetActionType
    for others.

    With --pipeline, it shows a past execution and the objects of all its artifacts.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    job = source.load_artifacts(config, terminal, needs_artifacts=False)
    described = cpstage.inspect.describe(job, config=config)
    terminal.result(described, _text(described))


def _text(job: dict[str, Any]) -> str:
    context = job["pipeline_context"]
    names = (context["pipeline_name"], context["stage_name"], context["action_name"])
    key = job["encryption_key"] or {}
    rows = [
        ("Job" if job["read_with"] == "job" else "Past run", job["id"]),
        ("Pipeline", " / ".join(name or "?" for name in names)),
        ("Execution", context["pipeline_execution_id"]),
        *_past_rows(job["execution"]),
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


def _past_rows(execution: dict[str, Any] | None) -> list[tuple[str, str | None]]:
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
