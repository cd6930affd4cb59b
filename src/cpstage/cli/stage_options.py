"""Options of what is fetched and pushed, for the commands that do either or both."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import click

from cpstage.cli.archive_options import (
    extraction_options,
    packing_options,
    sealing_options,
    unpacking_options,
)
from cpstage.cli.options import MOST_SECONDS, Function, Seconds, add_options
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage import Packing, Unpacking
    from cpstage.aws.uploads import CannedAcl, ServerSideEncryption
    from cpstage.transfer.options import IfEmpty, Layout

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def staging_options(function: Function) -> Function:
    """Add which inputs are staged, and how; the command gets ``fetch_options``."""

    @functools.wraps(function)
    def command(
        *,
        artifacts: tuple[str, ...],
        layout: Layout,
        no_unpack: tuple[str, ...],
        replace_staged: bool,
        wait: float,
        verify: bool,
        keep_out: bool,
        unpacking: Unpacking,
        **others: Any,
    ) -> Any:
        from cpstage.transfer.options import FetchOptions

        how = replace(unpacking, layout=layout, no_unpack=no_unpack)
        if replace_staged and (verify or keep_out):
            other = "--verify" if verify else "--keep-out"
            raise UsageError(f"--replace and {other} exclude each other", hint="give one of them")
        options = FetchOptions(artifacts, how, replace_staged, wait, verify, keep_out)
        return function(fetch_options=options, **others)

    return add_options(
        unpacking_options(extraction_options(command)),
        click.option(
            "--artifact",
            "artifacts",
            multiple=True,
            metavar="NAME",
            help="Name or glob of an input; repeatable.",
        ),
        click.option(
            "--layout",
            type=click.Choice(["per-artifact", "merged"]),
            default="per-artifact",
            show_default=True,
            help="One directory per artifact, or all artifacts in in/.",
        ),
        click.option(
            "--no-unpack",
            multiple=True,
            is_flag=False,
            flag_value="*",
            metavar="[GLOB]",
            callback=_require_globs,
            help="Stage the objects of inputs that match GLOB as files; without GLOB, all. "
            "Repeatable.",
        ),
        click.option(
            "--replace",
            "replace_staged",
            is_flag=True,
            help="Stage all inputs anew, and empty out/ where it holds another job's outputs.",
        ),
        click.option(
            "--verify",
            is_flag=True,
            help="Compare inputs that are staged already with their objects.",
        ),
        click.option(
            "--keep-out",
            is_flag=True,
            help="Keep another job's outputs in out/, as outputs of this job.",
        ),
        click.option(
            "--wait",
            is_flag=False,
            flag_value=MOST_SECONDS,
            default=0.0,
            type=Seconds(or_none=True),
            metavar="[SECONDS]",
            help="Wait for another run in the workspace to end; without a number, wait "
            "without limit.",
        ),
    )


def _tags(_: click.Context, __: click.Parameter, value: str) -> dict[str, str]:
    """Read tags in the form of the header ``x-amz-tagging``."""
    try:
        pairs = parse_qsl(value, keep_blank_values=True, strict_parsing=bool(value))
    except ValueError:
        pairs = []
    if len(dict(pairs)) != len(pairs) or (value and not pairs):
        raise UsageError(
            f"--tagging {value[:200]!r} is not of the form KEY=VALUE&KEY2=VALUE2",
            hint="give each key once, and URL-encode keys and values",
        )
    return dict(pairs)


def _require_globs(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a job ID that click took for the GLOB of an option before it."""
    for value in values:
        if _JOB_ID.fullmatch(value):
            raise UsageError(
                f"--no-unpack has the job ID {value} as its GLOB",
                hint="give JOB_ID before --no-unpack, or write --no-unpack='*'",
            )
    return values


def delivery_options(function: Function) -> Function:
    """Add how outputs are made and pushed; the command gets ``push_options``."""

    @functools.wraps(function)
    def command(
        *,
        packing: Packing,
        if_empty: IfEmpty,
        bucket_key: bool,
        sse: ServerSideEncryption,
        sse_kms_key_id: str | None,
        acl: CannedAcl | None,
        tagging: dict[str, str],
        seal: bool,
        seal_keys: tuple[str, ...],
        seal_context: dict[str, str],
        **others: Any,
    ) -> Any:
        from cpstage.transfer.options import Encryption, PushOptions

        encryption = Encryption(bucket_key, seal, seal_keys, seal_context, sse_kms_key_id, sse)
        options = PushOptions(
            packing=packing, encryption=encryption, if_empty=if_empty, acl=acl, tags=tagging
        )
        return function(push_options=options, **others)

    return add_options(
        sealing_options(command),
        packing_options(
            ["auto", "zip", "tar", "tar.gz", "raw"],
            "auto packs a directory as zip, and uploads a file unchanged.",
        ),
        click.option(
            "--if-empty",
            type=click.Choice(["error", "warn", "ignore"]),
            default="error",
            show_default=True,
            help="If an output has no files: fail, or skip it.",
        ),
        click.option(
            "--sse-kms-key-id",
            metavar="KEY",
            help="KMS key for SSE-KMS, for pipelines without one. [aws/s3]",
        ),
        click.option(
            "--sse",
            type=click.Choice(["aws:kms", "aws:kms:dsse"]),
            default="aws:kms",
            show_default=True,
            help="Encryption by S3; aws:kms:dsse encrypts twice.",
        ),
        click.option(
            "--acl",
            type=click.Choice(["private", "bucket-owner-read", "bucket-owner-full-control"]),
            help="Canned ACL of the objects. [the bucket's]",
        ),
        click.option(
            "--tagging",
            metavar="KEY=VALUE&...",
            default="",
            callback=_tags,
            help="Tags of the objects, URL-encoded as for the AWS CLI.",
        ),
        click.option(
            "--bucket-key",
            is_flag=True,
            help="Let S3 use an S3 Bucket Key, which calls KMS less often.",
        ),
    )
