"""Options of artifacts: how they are staged, unpacked, packed, encrypted and uploaded.

Each group becomes the object that the API takes; options have the names of its attributes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

import cpstage
from cpstage.cli.job_options import skip_missing_option
from cpstage.cli.options import (
    MOST_SECONDS,
    Decorator,
    Number,
    Option,
    Size,
    choice,
    flag,
    gather,
    pairs,
    seconds,
)
from cpstage.errors import UsageError

DEFAULT_LEVEL = 2
"""The same as :data:`cpstage._deflate.DEFAULT_LEVEL`, whose module ``--help`` can do
without."""

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _context_option(*names: str) -> Decorator:
    return click.option(
        *names,
        cls=Option,
        former=["--encryption-context"],
        multiple=True,
        metavar="K=V",
        callback=pairs,
        help="Pair of the encryption context; repeatable.",
    )


def _unpacking(*, require_encrypted: bool, no_decrypt: bool, **others: Any) -> cpstage.Unpacking:
    if require_encrypted and no_decrypt:
        raise UsageError("--require-encrypted and --no-decrypt are given", hint="give one of them")
    limits = {name: others.pop(f"max_{name}") for name in _LIMITS}
    return cpstage.Unpacking(
        limits=cpstage.Limits(**{name: one for name, one in limits.items() if one is not None}),
        encrypted_messages="require" if require_encrypted else "keep" if no_decrypt else "decrypt",
        **others,
    )


_LIMITS = {
    "size": (Size(), "Extracted bytes per artifact. [20 GiB]"),
    "ratio": (Number(min=1), "Extracted bytes per compressed byte, above 64 MiB. [200]"),
    "entries": (Number(min=1), "Entries per artifact. [200000]"),
    "depth": (Number(1, 500), "Components in a path. [128]"),
    "header": (Size(), "Bytes of an extended header. [1 MiB]"),
}
"""Attributes of :class:`cpstage.Limits`."""

_UNPACKING: tuple[Decorator, ...] = (
    flag("--require-encrypted", help="Refuse inputs that are not encrypted messages."),
    flag("--no-decrypt", help="Keep encrypted messages as files."),
    click.option(
        "--decrypt-key",
        "key_ids",
        multiple=True,
        metavar="ARN",
        help="Also decrypt messages under this KMS key; repeatable. Always accepted: the job's key "
        "and keys of the job's account.",
    ),
    _context_option("--decrypt-context", "context"),
    choice(
        "--commitment-policy",
        "commitment",
        values=["require-encrypt-require-decrypt", "require-encrypt-allow-decrypt"],
        show_default=False,
        metavar="POLICY",
        help="require-encrypt-require-decrypt refuses messages without key commitment, "
        "require-encrypt-allow-decrypt decrypts them. [the former]",
    ),
    *(
        click.option(f"--max-{name}", type=kind, help=what)
        for name, (kind, what) in _LIMITS.items()
    ),
)
_EXTRACTION: tuple[Decorator, ...] = (
    choice(
        "--mtime",
        values=["archive", "now"],
        help="Restore mtimes from the archive, or set all to the current time.",
    ),
    choice(
        "--unsafe-links",
        values=["reject", "skip", "keep"],
        help="Symlinks that leave the directory: refuse the archive, leave them out, or "
        "create them unchanged.",
    ),
)

unpacking_options = gather("unpacking", _unpacking, *_UNPACKING)
extraction_options = gather("unpacking", _unpacking, *_UNPACKING, *_EXTRACTION)


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


def _fetch_options(
    *,
    artifacts: Sequence[str],
    replace: bool,
    verify: bool,
    keep_out: bool,
    wait: float,
    inputs: Any = "always",
    skip_missing: bool = False,
    **unpacking: Any,
) -> cpstage.FetchOptions:
    if replace and (verify or keep_out):
        other = "--verify" if verify else "--keep-out"
        raise UsageError(f"--replace and {other} exclude each other", hint="give one of them")
    how = _unpacking(**unpacking)
    return cpstage.FetchOptions(
        artifacts, how, replace, wait, verify, keep_out, inputs, skip_missing
    )


_STAGING: tuple[Decorator, ...] = (
    click.option(
        "--artifact",
        "artifacts",
        multiple=True,
        metavar="NAME",
        help="Name or glob of an input; repeatable.",
    ),
    choice(
        "--layout",
        values=["per-artifact", "merged"],
        help="One directory per artifact, or all artifacts in in/.",
    ),
    click.option(
        "--no-unpack",
        multiple=True,
        is_flag=False,
        flag_value="*",
        metavar="[GLOB]",
        callback=_require_globs,
        help="Stage the objects of inputs that match GLOB as files; without GLOB, all. Repeatable.",
    ),
    flag(
        "--replace",
        help="Stage all inputs anew, and empty out/ where it holds another job's outputs.",
    ),
    flag("--verify", help="Compare inputs that are staged already with their objects."),
    flag("--keep-out", help="Keep another job's outputs in out/, as outputs of this job."),
    seconds(
        "--wait",
        or_none=True,
        is_flag=False,
        flag_value=MOST_SECONDS,
        default=0.0,
        show_default=False,
        metavar="[SECONDS]",
        help="Wait for another run in the workspace to end; without a number, wait without limit.",
    ),
    *_UNPACKING,
    *_EXTRACTION,
)

staging_options = gather("fetch_options", _fetch_options, *_STAGING, skip_missing_option)
run_staging_options = gather(
    "fetch_options",
    _fetch_options,
    choice(
        "--fetch",
        "inputs",
        values=["always", "first", "never"],
        help="Fetch inputs always, only for a job without a continuation token, or never.",
    ),
    *_STAGING,
)


def _mtime(_: click.Context, __: click.Parameter, value: str) -> str | int:
    """Return ``keep`` or ``fixed``, and for a date seconds since the epoch; UTC without a zone."""
    if value in ("keep", "fixed"):
        return value
    from datetime import datetime, timezone

    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not keep, fixed or a date such as 2024-01-31T12:00:00Z"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp())


_PACKING_MTIME = click.option(
    "--mtime",
    callback=_mtime,
    default="keep",
    metavar="keep|fixed|DATE",
    show_default=True,
    help="Write the files' mtimes, 1980-01-01, or DATE for all; SOURCE_DATE_EPOCH is the latest "
    "that is written.",
)


def _packing(
    *, include: tuple[str, ...], exclude: tuple[str, ...], **others: Any
) -> cpstage.Packing:
    return cpstage.Packing(globs=cpstage.Globs(include, exclude), **others)


def _packing_options(formats: Sequence[str], formats_help: str) -> list[Decorator]:
    return [
        click.option(
            "--include", multiple=True, metavar="GLOB", help="Pack only these paths; repeatable."
        ),
        click.option(
            "--exclude", multiple=True, metavar="GLOB", help="Leave these paths out; repeatable."
        ),
        choice("--format", values=formats, help=formats_help),
        click.option(
            "--compression-level",
            "level",
            type=Number(0, 9),
            default=DEFAULT_LEVEL,
            show_default=True,
            help="0 stores, 9 compresses most.",
        ),
        choice(
            "--symlinks",
            values=["keep", "follow", "follow-outside"],
            help="Pack symlinks as symlinks, or their targets: inside the directory only, or "
            "outside too.",
        ),
    ]


packing_options = gather(
    "packing",
    _packing,
    _PACKING_MTIME,
    *_packing_options(
        ["auto", "zip", "tar", "tar.gz"], "auto chooses the format by the suffix of FILE, else zip."
    ),
)


_MESSAGE_ENCRYPTION: tuple[Decorator, ...] = (
    flag("--encrypt", help="Encrypt on this machine with the AWS Encryption SDK."),
    click.option(
        "--encrypt-key",
        "encrypt_keys",
        multiple=True,
        metavar="ARN",
        help="KMS key to encrypt with, instead of the job's; repeatable. Each of them can decrypt.",
    ),
    _context_option("--encrypt-context", "encrypt_context"),
)


def _encryption(
    *, encrypt: bool, encrypt_keys: Sequence[str], encrypt_context: dict[str, str], **others: Any
) -> cpstage.Encryption:
    if (encrypt_keys or encrypt_context) and not encrypt:
        raise UsageError("--encrypt-key and --encrypt-context need --encrypt", hint="add --encrypt")
    return cpstage.Encryption(
        encrypt=encrypt, key_ids=encrypt_keys, context=encrypt_context, **others
    )


def _message_encryption(**options: Any) -> cpstage.MessageEncryption | None:
    how = _encryption(**options)
    if how.encrypt and not how.key_ids:
        raise UsageError("--encrypt has no KMS key", hint="give --encrypt-key ARN")
    return cpstage.MessageEncryption(how.key_ids, how.context) if how.encrypt else None


message_encryption_options = gather("encryption", _message_encryption, *_MESSAGE_ENCRYPTION)


def _tags(_: click.Context, __: click.Parameter, value: str) -> dict[str, str]:
    """Read tags in the form of the header ``x-amz-tagging``."""
    from urllib.parse import parse_qsl

    try:
        found = parse_qsl(value, keep_blank_values=True, strict_parsing=bool(value))
    except ValueError:
        found = []
    if len(dict(found)) != len(found) or (value and not found):
        raise UsageError(
            f"--tagging {value[:200]!r} is not of the form KEY=VALUE&KEY2=VALUE2",
            hint="give each key once, and URL-encode keys and values",
        )
    return dict(found)


_ENCRYPTION = ("encrypt", "encrypt_keys", "encrypt_context", "sse", "sse_kms_key_id", "bucket_key")


def _push_options(
    *, if_empty: Any, acl: Any, tags: dict[str, str], **others: Any
) -> cpstage.PushOptions:
    encryption = _encryption(**{name: others.pop(name) for name in _ENCRYPTION})
    return cpstage.PushOptions(
        packing=_packing(**others), encryption=encryption, if_empty=if_empty, acl=acl, tags=tags
    )


_PUSHING: tuple[Decorator, ...] = (
    *_packing_options(
        ["auto", "zip", "tar", "tar.gz", "raw"],
        "auto packs a directory as zip, and uploads a file unchanged.",
    ),
    choice(
        "--if-empty",
        values=["error", "warn", "ignore"],
        help="If an output has no files: fail, or skip it.",
    ),
    click.option(
        "--sse-kms-key-id",
        metavar="KEY",
        help="KMS key for SSE-KMS, for pipelines without one. [aws/s3]",
    ),
    choice(
        "--sse",
        values=["aws:kms", "aws:kms:dsse"],
        help="Encryption by S3; aws:kms:dsse encrypts twice.",
    ),
    click.option(
        "--acl",
        type=click.Choice(["private", "bucket-owner-read", "bucket-owner-full-control"]),
        help="Canned ACL of the objects. [the bucket's]",
    ),
    click.option(
        "--tagging",
        "tags",
        metavar="KEY=VALUE&...",
        default="",
        callback=_tags,
        help="Tags of the objects, URL-encoded as for the AWS CLI.",
    ),
    flag("--bucket-key", help="Let S3 use an S3 Bucket Key, which calls KMS less often."),
    *_MESSAGE_ENCRYPTION,
)

upload_options = gather("push_options", _push_options, _PACKING_MTIME, *_PUSHING)
run_upload_options = gather("push_options", _push_options, *_PUSHING)
