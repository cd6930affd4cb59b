"""``cpstage local`` and ``cpstage demo``: the embedded local AWS, as a server and for a demo."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

import cpstage
from cpstage.cli.options import (
    Command,
    Number,
    Option,
    a_directory,
    flag,
    output_options,
    progress_option,
    seconds,
)
from cpstage.cli.output import Terminal
from cpstage.errors import (
    ArtifactRejected,
    ConfigurationError,
    NotFound,
    ServiceUnavailable,
    Stopped,
    UsageError,
    extra_hint,
    printable,
)
from cpstage.job import check_artifact_name

if TYPE_CHECKING:
    from cpstage.local import Call, LocalAWS, LocalAWSClient


@contextmanager
def _local_extra() -> Iterator[None]:
    """Raise ConfigurationError with the commands that install the extra, if it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cpstage"):
            raise
        raise ConfigurationError(
            f"the embedded local AWS is not installed ({error.name} is missing)",
            hint=extra_hint("local"),
        ) from error


_endpoint_option = click.option(
    "--endpoint-url",
    envvar="AWS_ENDPOINT_URL",
    help="Where 'cpstage local serve' listens; else AWS_ENDPOINT_URL.",
)


@contextmanager
def _asking(endpoint_url: str | None) -> Iterator[LocalAWSClient]:
    """Reach the local AWS at an endpoint; its refusals are errors of ours."""
    from cpstage.local import LocalAWSClient

    if not endpoint_url:
        raise UsageError(
            "no local AWS is given",
            hint="start one with 'cpstage local serve', and export what it prints",
        )
    try:
        yield LocalAWSClient(endpoint_url)
    except ConnectionError as error:
        raise ServiceUnavailable(str(error), hint="start one with 'cpstage local serve'") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


@click.group(
    epilog="""\b
Examples:
  cpstage local serve
  cpstage local job ./my-source --output-artifact AppBuild
  cpstage local record
"""
)
def local() -> None:
    """Run an embedded local AWS: S3, KMS and the job API, on loopback."""


_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


@local.command(
    cls=Command,
    epilog="""\b
Examples:
  cpstage local serve
  cpstage local serve --port 8000 --json
  cpstage local serve --debugger
""",
)
@click.option("--port", type=Number(0, 65535), default=0, help="[a free one]")
@click.option("--region", default="us-east-1", show_default=True, help="The pipeline's region.")
@seconds("--session-seconds", default=3600.0, help="Lifetime of a job's session credentials.")
@flag(
    "--debugger",
    help="Print the variables of a person who may read past executions and their artifacts.",
)
@output_options
def serve(
    *, terminal: Terminal, port: int, region: str, session_seconds: float, debugger: bool
) -> None:
    """Serve a local AWS with a sample pipeline and one job, until stopped.

    The command prints the variables to export and the job ID; with --json, one line of JSON. The
    pipeline has three past executions, of which the last one failed.
    """
    if not _REGION.fullmatch(region):
        raise UsageError(f"{region!r} is not an AWS region", hint="give one such as us-east-1")
    with _local_extra():
        from cpstage.local import LocalAWS
        from cpstage.local.sample import add_sample_history, add_sample_job
        from cpstage.local.server import without_aws_settings

    with without_aws_settings():
        aws = LocalAWS(region=region, port=port, session_seconds=session_seconds)
        try:
            aws.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on port {port}: {error.strerror}", hint="give another --port"
            ) from error
    try:
        add_sample_history(aws)
        _announce(terminal, aws, add_sample_job(aws), debugger=debugger)
        threading.Event().wait()
    except Stopped as stopped:
        terminal.note("The local AWS has stopped.")
        click.get_current_context().exit(stopped.exit_code)
    finally:
        aws.stop()


def _announce(terminal: Terminal, aws: LocalAWS, job_id: str, *, debugger: bool) -> None:
    """Print the variables of the caller, or of a debugger, who may not ask for the job."""
    from cpstage.local.sample import PIPELINE

    environment = aws.debugger_environment if debugger else aws.environment
    if terminal.json:
        document = {"endpoint_url": aws.endpoint_url, "region": aws.region, "job_id": job_id}
        terminal.line(json.dumps({**document, "environment": environment}))
        return
    lines = ["unset AWS_PROFILE AWS_SESSION_TOKEN"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines.append("unset CPSTAGE_JOB_ID" if debugger else f"export CPSTAGE_JOB_ID={job_id}")
    terminal.line("\n".join(lines))
    then = f"cpstage executions {PIPELINE}" if debugger else "cpstage fetch"
    terminal.note(f"Paste these lines into another shell, then: {then}. Ctrl-C stops.")


@local.command(
    cls=Command,
    epilog="""\b
Examples:
  cpstage local job
  cpstage local job ./my-source --output-artifact AppBuild
  cpstage local job --queued
""",
)
@click.argument("directory", required=False, type=a_directory)
@click.option(
    "--output-artifact",
    "outputs",
    cls=Option,
    former=["--output"],
    multiple=True,
    help="Name of an output artifact; repeatable.",
)
@flag("--queued", help="Queue the job for 'cpstage work'.")
@_endpoint_option
@output_options
def job(
    terminal: Terminal,
    endpoint_url: str | None,
    directory: str | None,
    outputs: tuple[str, ...],
    queued: bool,
) -> None:
    """Create a job on a running local AWS, and print its ID.

    The input is the sample, or DIRECTORY as an artifact named Source.
    """
    from cpstage.local import Input
    from cpstage.local.sample import OUTPUTS, add_sample_job

    for name in outputs:
        check_artifact_name(name)
        if outputs.count(name) > 1:
            raise UsageError(f"output {name} is given twice")
    with _asking(endpoint_url) as client:
        if directory is None:
            job_id = add_sample_job(client, queued=queued)
        else:
            packed = _packed(Path(directory))
            status = "Queued" if queued else "InProgress"
            job_id = client.add_job([Input("Source", packed)], outputs or OUTPUTS, status=status)
    terminal.result({"job_id": job_id}, job_id)


def _packed(directory: Path) -> bytes:
    from cpstage.archive.pack import Packer

    if not directory.is_dir():
        raise NotFound(f"there is no directory {directory}", hint="give one that exists")
    with Packer() as packer:
        entries = packer.list_entries(directory, "zip")
        return b"".join(packer.pack(entries, "zip"))


@local.command(
    cls=Command,
    epilog="""\b
Examples:
  cpstage local record
  cpstage local record --json
""",
)
@_endpoint_option
@output_options
def record(terminal: Terminal, endpoint_url: str | None) -> None:
    """Print the calls that a running local AWS has answered.

    One line for each call, oldest first: caller, service and action, status, object, encryption.
    """
    with _asking(endpoint_url) as client:
        calls = client.calls()
    terminal.result(
        {"calls": [asdict(call) for call in calls]}, "\n".join(_line(call) for call in calls)
    )


def _line(call: Call) -> str:
    columns = (
        call.identity,
        f"{call.service}:{call.action}",
        f"{call.status} {call.error or ''}".rstrip(),
        f"{call.bucket or ''}/{call.key or ''}".strip("/"),
        " ".join(filter(None, (call.server_side_encryption, call.kms_key_id))),
    )
    return "\t".join(map(printable, columns)).rstrip()


Say = Callable[[str], object]


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  cpstage demo
  cpstage demo --json
""",
)
@output_options
@progress_option
def demo(terminal: Terminal, progress: cpstage.Progress) -> None:
    """Run a complete job on an embedded local AWS.

    The demo needs no AWS account. A sample pipeline offers a job; the demo fetches its inputs, runs
    a real build, pushes the outputs, and lists the bucket.
    """
    with _local_extra():
        narration: list[str] = []
        _run_demo(narration.append if terminal.json else terminal.line, progress)
        terminal.document({"narration": narration})


def _run_demo(say: Say, progress: cpstage.Progress) -> None:
    """Run the sample pipeline's job from its ID to the artifacts in the bucket."""
    from cpstage.local import LocalAWS
    from cpstage.local.sample import BUILD_COMMAND, add_sample_job
    from cpstage.local.server import without_aws_settings
    from cpstage.runner.environment import job_environment

    with (
        without_aws_settings(),
        LocalAWS() as aws,
        tempfile.TemporaryDirectory(prefix="cpstage-demo-") as directory,
    ):
        os.environ.update(aws.environment)
        workspace = cpstage.Workspace(directory)
        job_id = add_sample_job(aws)
        say(f"A local AWS listens on {aws.endpoint_url}. Its pipeline hands out a job:")
        say(f"  job id     {job_id}")
        say(f"  workspace  {workspace.root}")

        say(f"\n$ cpstage fetch {job_id}")
        config = cpstage.AwsConfig(region=aws.region)
        job = cpstage.get_job(job_id, config=config)
        _tell_fetched(say, cpstage.fetch(job, directory, config=config, progress=progress))

        say(f"\n$ {' '.join(BUILD_COMMAND)}")
        _build(BUILD_COMMAND, workspace, job_environment(job, workspace), say)

        say(f"\n$ cpstage push {job_id}")
        pushed = cpstage.push(job, directory, config=config, progress=progress)

        say("\nWho called what:")
        _tell_calls(say, aws)
        say("\nNow in the bucket:")
        _tell_bucket(say, aws, pushed)
    say("\nThe local AWS and the workspace are gone again.")


def _tell_fetched(say: Say, result: cpstage.FetchResult) -> None:
    for staged in result.inputs:
        contents = staged.contents
        amount = f"{contents.files} files" if contents else "one file"
        say(f"  in/{staged.artifact.name:<10} {staged.format}, {amount}")
    for name in result.outputs:
        say(f"  out/{name:<9} waits for results")


def _build(
    command: tuple[str, ...], workspace: cpstage.Workspace, variables: Mapping[str, str], say: Say
) -> None:
    """Run the build step as a script would: in the workspace, without a credential."""
    secret_free = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(  # noqa: S603 (the sample's own command)
        command,
        cwd=workspace.root,
        env={**secret_free, **variables, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in (done.stdout + done.stderr).splitlines():
        say(f"  {line}")
    if done.returncode:
        raise ArtifactRejected(f"the build step ended with exit code {done.returncode}", hint="")


def _tell_bucket(say: Say, aws: LocalAWS, result: cpstage.PushResult) -> None:
    """List the objects in S3, read by Python's zipfile, not by cpstage.

    The administrator may read all objects, which neither the caller nor a job may.
    """
    import boto3

    administrator = aws.admin_environment
    s3 = boto3.client(
        "s3",
        aws.region,
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=administrator["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=administrator["AWS_SECRET_ACCESS_KEY"],
    )
    for pushed in result.outputs:
        location = pushed.artifact.location
        body = s3.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        encryption = pushed.upload.encryption if pushed.upload else "none"
        say(f"  {pushed.artifact.location}")
        say(f"    {len(body):,} bytes, {pushed.format}, encrypted with {encryption}")
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for info in archive.infolist():
                mode = stat.filemode(info.external_attr >> 16)
                say(f"    {mode} {info.file_size:>9,}  {info.filename}")


def _tell_calls(say: Say, aws: LocalAWS) -> None:
    counted = Counter(
        (call.identity.partition(":")[0], call.service, call.action) for call in aws.calls()
    )
    for (identity, service, action), count in counted.items():
        who = "the caller" if identity == "caller" else "the job's session"
        say(f"  {who:<18} {service}:{action} x {count}")
