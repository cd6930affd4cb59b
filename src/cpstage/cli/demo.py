"""``cpstage demo``: a job from its ID to the bucket, on the embedded local AWS."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

import cpstage
from cpstage.cli.command import Command
from cpstage.cli.local import local_extra
from cpstage.cli.options import output_options, progress_option
from cpstage.errors import ArtifactRejected

if TYPE_CHECKING:
    from cpstage import FetchResult, Progress, PushResult, Workspace
    from cpstage.cli.output import Terminal
    from cpstage.local import LocalAWS

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
def demo(terminal: Terminal, progress: Progress) -> None:
    """Run a complete job on an embedded local AWS.

    The demo needs no AWS account. A sample pipeline offers a job; the demo fetches its inputs, runs
    a real build, pushes the outputs, and lists the bucket.
    """
    with local_extra():
        said: list[str] = []
        _run_demo(said.append if terminal.json else terminal.line, progress)
        terminal.document({"narration": said})


def _run_demo(say: Say, progress: Progress) -> None:
    """Run the sample pipeline's job from its id to the artifacts in the bucket.

    Raises:
        ModuleNotFoundError: The extra ``local`` is not installed.
        ArtifactRejected: The build step failed.
    """
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


def _tell_fetched(say: Say, result: FetchResult) -> None:
    for staged in result.inputs:
        contents = staged.contents
        amount = f"{contents.files} files" if contents else "one file"
        say(f"  in/{staged.artifact.name:<10} {staged.format}, {amount}")
    for name in result.outputs:
        say(f"  out/{name:<9} waits for results")


def _build(
    command: tuple[str, ...], workspace: Workspace, variables: Mapping[str, str], say: Say
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


def _tell_bucket(say: Say, aws: LocalAWS, result: PushResult) -> None:
    """Say what S3 has now, unpacked by another reader than our own.

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
