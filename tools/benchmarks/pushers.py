"""How each tool packs a tree and uploads the archive, with SSE-KMS.

The peers get bucket, key and KMS key as arguments; cpstage reads them from the job. Most tools
write a zip; the pipelines of tar write a compressed tar, as `cpstage push --format tar.gz` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Step
from benchmarks.peers import AWS_CLI_V2, Programs

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.verify import Format

_BOTO3 = str(Path(__file__).with_name("boto3_transfer.py"))
OUTPUT = "Output"


@dataclass(frozen=True)
class Push:
    """One push: the tree, the object, and a new directory for an archive on disk."""

    tree: Path
    bucket: str
    key: str
    key_arn: str
    job_id: str
    directory: Path

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def archive(self) -> str:
        return str(self.directory / "artifact.zip")

    @property
    def encryption(self) -> list[str]:
        return ["--sse", "aws:kms", "--sse-kms-key-id", self.key_arn]


@dataclass(frozen=True)
class Pusher:
    """One way to push.

    Attributes:
        name: For `--tools`.
        title: For tables.
        needs: Optional programs that the tool consists of.
        steps: Returns what is run.
        format: The archive format that is uploaded.
    """

    name: str
    title: str
    needs: frozenset[str]
    steps: Callable[[Programs, Push], list[Step]]
    format: Format = "zip"


def _cpstage(programs: Programs, push: Push) -> list[Step]:
    command = [programs.cpstage, "-m", "cpstage", "push", push.job_id, f"{OUTPUT}={push.tree}"]
    command += ["-w", str(push.directory)]
    return [Step("cpstage", [command], push.directory)]


def _cpstage_tar(programs: Programs, push: Push) -> list[Step]:
    (step,) = _cpstage(programs, push)
    return [Step("cpstage", [[*step.commands[0], "--format", "tar.gz"]], push.directory)]


def _tar_pipe(*compressor: str) -> Callable[[Programs, Push], list[Step]]:
    def steps(programs: Programs, push: Push) -> list[Step]:
        tar = ["tar", "-c", "-C", str(push.tree), "."]
        upload = [programs.s5cmd, "--log", "error", "pipe", *push.encryption, push.url]
        return [Step("pack and upload", [tar, [*compressor], upload], push.directory)]

    return steps


def _pack(push: Push, *packer: str) -> Step:
    return Step("pack", [[*packer, push.archive, "."]], push.tree)


def _upload_aws(aws: str, push: Push) -> Step:
    command = [aws, "s3", "cp", "--only-show-errors", *push.encryption, push.archive, push.url]
    return Step("upload", [command], push.directory)


def _zip_aws(programs: Programs, push: Push) -> list[Step]:
    return [_pack(push, "zip", "-r", "-q"), _upload_aws(programs.aws, push)]


def _zip_aws2(programs: Programs, push: Push) -> list[Step]:
    return [_pack(push, "zip", "-r", "-q"), _upload_aws(programs.aws2, push)]


def _with_s5cmd(*packer: str) -> Callable[[Programs, Push], list[Step]]:
    def steps(programs: Programs, push: Push) -> list[Step]:
        command = [programs.s5cmd, "--log", "error", "cp", *push.encryption]
        command += [push.archive, push.url]
        return [_pack(push, *packer), Step("upload", [command], push.directory)]

    return steps


def _boto3(programs: Programs, push: Push) -> list[Step]:
    command = [programs.boto3, _BOTO3, "push", push.bucket, push.key, str(push.tree)]
    return [Step("boto3", [[*command, "--kms-key-id", push.key_arn]], push.directory)]


_zip = partial(Pusher, needs=frozenset({"zip"}))

PUSHERS = (
    Pusher("cpstage", "cpstage push", frozenset(), _cpstage),
    _zip("zip-aws", "zip, aws v1 s3 cp", steps=_zip_aws),
    Pusher("zip-aws2", "zip, aws v2 s3 cp", frozenset({"zip", AWS_CLI_V2}), _zip_aws2),
    _zip("zip-s5cmd", "zip, s5cmd cp", steps=_with_s5cmd("zip", "-r", "-q")),
    _zip("zip1-s5cmd", "zip -1, s5cmd cp", steps=_with_s5cmd("zip", "-1", "-r", "-q")),
    Pusher(
        "7z1-s5cmd",
        "7z -mx1, s5cmd cp",
        frozenset({"7z"}),
        _with_s5cmd("7z", "a", "-tzip", "-mx1", "-bd", "-y"),
    ),
    Pusher("boto3-zipfile", "boto3, zipfile", frozenset(), _boto3),
    Pusher("cpstage-tar", "cpstage push, tar.gz", frozenset(), _cpstage_tar, "tar.gz"),
    Pusher(
        "tar-igzip",
        "tar, igzip -1, s5cmd pipe",
        frozenset({"igzip"}),
        _tar_pipe("igzip", "-1", "-c"),
        "tar.gz",
    ),
    Pusher(
        "tar-pigz",
        "tar, pigz, s5cmd pipe",
        frozenset({"pigz"}),
        _tar_pipe("pigz", "-c"),
        "tar.gz",
    ),
)
