"""``cpstage demo``: a job from its id to the bucket, on the embedded local AWS in one process."""

from __future__ import annotations

import io
import math
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

from cpstage.cli.command import Command
from cpstage.cli.options import output_options, progress_option
from cpstage.cli.output import local_extra
from cpstage.errors import ArtifactRejected

if TYPE_CHECKING:
    from cpstage.aws.s3 import S3
    from cpstage.cli.output import Terminal
    from cpstage.local import LocalAWS
    from cpstage.progress import Progress
    from cpstage.transfer.fetch import FetchResult
    from cpstage.transfer.push import PushResult
    from cpstage.workspace.layout import Workspace


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
        run_demo(said.append if terminal.json else terminal.line, progress)
        if terminal.json:
            terminal.result({"narration": said}, "")


Say = Callable[[str], object]


def run_demo(say: Say, progress: Progress) -> None:
    """Run the sample pipeline's job from its id to the artifacts in the bucket.

    Args:
        say: Is given the narration, a line each.
        progress: Is told of all phases.

    Raises:
        ModuleNotFoundError: The extra ``local`` is not installed.
        ArtifactRejected: The build step failed.
    """
    from cpstage.aws.codepipeline import get_job
    from cpstage.aws.config import AwsConfig
    from cpstage.local.sample import BUILD_COMMAND, add_sample_job
    from cpstage.local.server import without_aws_settings
    from cpstage.runner.environment import job_environment
    from cpstage.transfer.fetch import fetch
    from cpstage.transfer.push import push
    from cpstage.workspace.layout import Workspace

    with (
        without_aws_settings(),
        _local_aws() as aws,
        tempfile.TemporaryDirectory(prefix="cpstage-demo-") as directory,
    ):
        os.environ.update(aws.environment)
        workspace = Workspace(directory)
        job_id = add_sample_job(aws)
        say(f"A local AWS listens on {aws.endpoint_url}. Its pipeline hands out a job:")
        say(f"  job id     {job_id}")
        say(f"  workspace  {workspace.root}")

        say(f"\n$ cpstage fetch {job_id}")
        config = AwsConfig(region=aws.region)
        job = get_job(job_id, config=config)
        _tell_fetched(say, fetch(job, directory, config=config, progress=progress))

        say(f"\n$ {' '.join(BUILD_COMMAND)}")
        _build(BUILD_COMMAND, workspace, job_environment(job, workspace), say)

        say(f"\n$ cpstage push {job_id}")
        pushed = push(job, directory, config=config, progress=progress)

        say("\nWho called what:")
        _tell_calls(say, aws)
        say("\nNow in the bucket:")
        _tell_bucket(say, _administrator(aws), pushed)
    say("\nThe local AWS and the workspace are gone again.")


def _local_aws() -> LocalAWS:
    from cpstage.local import LocalAWS

    return LocalAWS()


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


def _administrator(aws: LocalAWS) -> S3:
    """Return an S3 that may look at everything, which neither the caller nor a job may."""
    from cpstage.aws.client import JobCredentials
    from cpstage.aws.config import AwsConfig
    from cpstage.aws.s3 import S3
    from cpstage.job import SessionCredentials
    from cpstage.job.masking import Secret

    identity = aws.admin_environment
    keys = SessionCredentials(
        identity["AWS_ACCESS_KEY_ID"], Secret(identity["AWS_SECRET_ACCESS_KEY"]), session_token=None
    )
    credentials = JobCredentials(keys, refresh=lambda: keys, max_age=math.inf)
    return S3(AwsConfig(region=aws.region).s3(credentials))


def _tell_bucket(say: Say, s3: S3, result: PushResult) -> None:
    """Say what S3 has now, unpacked by another reader than our own."""
    for pushed in result.outputs:
        location = pushed.artifact.location
        body = s3.get_object(location.bucket, location.key)
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
