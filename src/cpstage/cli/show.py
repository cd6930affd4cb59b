"""``cpstage show``: the job for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.job_options import JobSource, job_options
from cpstage.cli.options import aws_options, output_options
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal

_EXAMPLES = """\b
Examples:
  cpstage show JOB_ID
  cpstage show JOB_ID --json
  cpstage show --job-file saved.json
"""

_GOOD_FOR_SECONDS = 15 * 60
"""How long the AWS CodePipeline plugin for Jenkins takes session credentials for good."""


@click.command(epilog=_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@aws_options
@output_options
def show(source: JobSource, config: AwsConfig, terminal: Terminal) -> None:
    """Show a job and the objects at its locations.

    The command masks secrets: session credentials, and all values of the action's configuration.
    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    import cpstage

    job = source.load(config)
    described = cpstage.inspect.describe(job, config=config)
    terminal.result(described, _text(described))


def _text(job: dict[str, Any]) -> str:
    context = job["pipeline_context"]
    names = (context["pipeline_name"], context["stage_name"], context["action_name"])
    key = job["encryption_key"] or {}
    rows = [
        ("Job", job["id"]),
        ("Pipeline", " / ".join(name or "?" for name in names)),
        ("Execution", context["pipeline_execution_id"]),
        ("Action type", job["action_type"]),
        ("Account", job["account_id"]),
        ("Region", job["region"]),
        ("Key", key.get("id") or "none: S3 uses the bucket's own"),
        ("Credentials", _credentials(job["credentials"])),
        ("Continuation", job["continuation_token"]),
        *(("Configuration", f"{name} = {value}") for name, value in job["configuration"].items()),
    ]
    lines = [f"{label:<14}{value}" for label, value in rows if value]
    for one in job["inputs"]:
        lines += ["", f"Input         {one['name']}", *_input(one)]
    for one in job["outputs"]:
        lines += ["", f"Output        {one['name']}", *_location(one)]
    return "\n".join(map(printable, lines))


def _credentials(credentials: dict[str, Any]) -> str:
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


def _input(one: dict[str, Any]) -> list[str]:
    lines = _location(one)
    if one["revision"]:
        lines.append(f"  revision    {one['revision']}")
    if one["error"]:
        return [*lines, f"  error       {one['error']}"]
    kind = "encrypted" if one["format"] == "sealed" else one["format"]
    lines.append(f"  size        {one['size']:,} bytes, {kind}")
    encryption = " ".join(filter(None, (one["encryption"] or "none", one["kms_key_id"])))
    lines.append(f"  encryption  {encryption}")
    if one["envelope"]:
        keys = ", ".join(one["envelope"]["keys"])
        lines.append(f"  encrypted   {one['envelope']['format']}, under {keys}")
    if one["client_side"]:
        lines.append(f"  encrypted   {one['client_side']}")
    return lines + ([f"  checksum    {one['checksum']}"] if one["checksum"] else [])


def _location(one: dict[str, Any]) -> list[str]:
    return [f"  location    s3://{one['location']['bucket']}/{one['location']['key']}"]
