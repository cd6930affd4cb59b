"""What the tests of encrypted artifacts share: messages as ``push --encrypt`` leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_clients import s3
from cpstage.encryption.header import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli
    from cpstage.local import LocalAWS


def encrypt_artifact(
    aws: LocalAWS, cli: Cli, source: Path, *options: str, name: str = "App", **members: Any
) -> bytes:
    """Push a directory as an encrypted output, and return what lies in the bucket then."""
    job_id = aws.add_job(outputs=[name], **members)
    done = cli("push", job_id, f"{name}={source}", "--encrypt", *options)
    assert done.returncode == 0, done.stderr
    artifact = aws.job(job_id).outputs[0]
    answer = s3(aws.admin_environment).get_object(Bucket=artifact.bucket, Key=artifact.key)
    assert answer["ContentType"] == "application/octet-stream"
    assert answer["SSEKMSKeyId"] == members.get("encryption_key", aws.key_arn)
    message: bytes = answer["Body"].read()
    return message


def flipped_at(message: bytes, offset: int) -> bytes:
    return message[:offset] + bytes([message[offset] ^ 1]) + message[offset + 1 :]


def header_length(message: bytes) -> int:
    header = read_header(message)
    assert header is not None
    return header.length
