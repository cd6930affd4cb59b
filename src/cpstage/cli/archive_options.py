"""Options about archives and envelopes, gathered into the objects that the API takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.command import Option
from cpstage.cli.options import Function, Number, Size, add_options, pairs
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage import Limits, Unpacking

DEFAULT_LEVEL = 2
"""The same as :data:`cpstage._deflate.DEFAULT_LEVEL`, whose module ``--help`` can do
without."""


def unpacking_options(function: Function) -> Function:
    """Add limits, and the keys that may decrypt; the command gets ``unpacking``."""

    @functools.wraps(function)
    def command(
        *,
        limits: Limits,
        require_encrypted: bool,
        no_decrypt: bool,
        decrypt_keys: tuple[str, ...],
        decrypt_context: dict[str, str],
        commitment_policy: Any,
        **others: Any,
    ) -> Any:
        from cpstage import Unpacking

        if require_encrypted and no_decrypt:
            raise UsageError(
                "--require-encrypted and --no-decrypt are given", hint="give one of them"
            )
        unpacking = Unpacking(
            limits=limits,
            envelopes="require" if require_encrypted else "keep" if no_decrypt else "open",
            key_ids=decrypt_keys,
            context=decrypt_context,
            commitment=commitment_policy,
        )
        return function(unpacking=unpacking, **others)

    return add_options(
        command,
        click.option(
            "--require-encrypted",
            is_flag=True,
            help="Refuse inputs that are not encrypted messages.",
        ),
        click.option("--no-decrypt", is_flag=True, help="Keep encrypted messages as files."),
        click.option(
            "--decrypt-key",
            "decrypt_keys",
            multiple=True,
            metavar="ARN",
            help="Also decrypt messages under this KMS key; repeatable. Always accepted: "
            "the job's key and keys of the job's account.",
        ),
        _context_option("--decrypt-context"),
        click.option(
            "--commitment-policy",
            type=click.Choice(["require-encrypt-require-decrypt", "require-encrypt-allow-decrypt"]),
            default="require-encrypt-require-decrypt",
            metavar="POLICY",
            help="require-encrypt-require-decrypt refuses messages without key commitment, "
            "require-encrypt-allow-decrypt decrypts them. [the former]",
        ),
        limit_options,
    )


def extraction_options(function: Function) -> Function:
    """Add how archives are unpacked; the command's ``unpacking`` gets it."""

    @functools.wraps(function)
    def command(*, unpacking: Unpacking, mtime: Any, unsafe_links: Any, **others: Any) -> Any:
        how = replace(unpacking, mtime=mtime, unsafe_links=unsafe_links)
        return function(unpacking=how, **others)

    return add_options(
        command,
        click.option(
            "--mtime",
            type=click.Choice(["archive", "now"]),
            default="archive",
            show_default=True,
            help="Restore mtimes from the archive, or set all to the current time.",
        ),
        click.option(
            "--unsafe-links",
            type=click.Choice(["reject", "skip", "keep"]),
            default="reject",
            show_default=True,
            help="Symlinks that leave the directory: refuse the archive, leave them out, or "
            "create them unchanged.",
        ),
    )


def packing_options(formats: Sequence[str], formats_help: str) -> Callable[[Function], Function]:
    """Add how archives are made; the command gets ``packing``.

    Args:
        formats: The formats to choose from; the first is the default.
        formats_help: What the default means.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(
            *,
            include: tuple[str, ...],
            exclude: tuple[str, ...],
            archive_format: Any,
            compression_level: int,
            symlinks: Any,
            mtime: Any = "keep",
            **others: Any,
        ) -> Any:
            from cpstage import Globs, Packing

            packing = Packing(
                format=archive_format,
                globs=Globs(include, exclude),
                symlinks=symlinks,
                level=compression_level,
                mtime=mtime,
            )
            return function(packing=packing, **others)

        return add_options(command, *_packing_options(formats, formats_help))

    return decorate


def sealing_options(function: Function) -> Function:
    """Add how to encrypt; the command gets ``seal``, ``seal_keys`` and ``seal_context``."""

    @functools.wraps(function)
    def command(
        encrypt: bool,
        encrypt_keys: tuple[str, ...],
        encrypt_context: dict[str, str],
        **others: Any,
    ) -> Any:
        if (encrypt_keys or encrypt_context) and not encrypt:
            raise UsageError(
                "--encrypt-key and --encrypt-context need --encrypt", hint="add --encrypt"
            )
        return function(
            seal=encrypt, seal_keys=encrypt_keys, seal_context=encrypt_context, **others
        )

    return add_options(
        command,
        click.option(
            "--encrypt", is_flag=True, help="Encrypt on this machine with the AWS Encryption SDK."
        ),
        click.option(
            "--encrypt-key",
            "encrypt_keys",
            multiple=True,
            metavar="ARN",
            help="KMS key to encrypt with, instead of the job's; repeatable. Each of them "
            "can decrypt.",
        ),
        _context_option("--encrypt-context"),
    )


def _packing_options(
    formats: Sequence[str], formats_help: str
) -> list[Callable[[Function], Function]]:
    return [
        click.option(
            "--include", multiple=True, metavar="GLOB", help="Pack only these paths; repeatable."
        ),
        click.option(
            "--exclude", multiple=True, metavar="GLOB", help="Leave these paths out; repeatable."
        ),
        click.option(
            "--format",
            "archive_format",
            type=click.Choice(formats),
            default=formats[0],
            show_default=True,
            help=formats_help,
        ),
        click.option(
            "--compression-level",
            type=Number(0, 9),
            default=DEFAULT_LEVEL,
            show_default=True,
            help="0 stores, 9 compresses most.",
        ),
        click.option(
            "--symlinks",
            type=click.Choice(["keep", "follow", "follow-outside"]),
            default="keep",
            show_default=True,
            help="Pack symlinks as symlinks, or their targets: inside the directory only, or "
            "outside too.",
        ),
    ]


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


def packing_mtime_option(function: Function) -> Function:
    """Add which mtimes are written; :func:`packing_options` takes it."""
    return click.option(
        "--mtime",
        callback=_mtime,
        default="keep",
        metavar="keep|fixed|DATE",
        show_default=True,
        help="Write the files' mtimes, 1980-01-01, or DATE for all; SOURCE_DATE_EPOCH is the "
        "latest that is written.",
    )(function)


def _context_option(name: str) -> Callable[[Function], Function]:
    return click.option(
        name,
        cls=Option,
        former=["--encryption-context"],
        multiple=True,
        metavar="K=V",
        callback=pairs,
        help="Pair of the encryption context; repeatable.",
    )


def limit_options(function: Function) -> Function:
    """Add the limits of unpacking; the command gets ``limits``."""

    @functools.wraps(function)
    def command(
        max_size: int | None,
        max_ratio: int | None,
        max_entries: int | None,
        max_depth: int | None,
        max_header: int | None,
        **others: Any,
    ) -> Any:
        from cpstage import Limits

        given = {
            "size": max_size,
            "ratio": max_ratio,
            "entries": max_entries,
            "depth": max_depth,
            "header": max_header,
        }
        limits = Limits(**{name: value for name, value in given.items() if value is not None})
        return function(limits=limits, **others)

    count, depth = Number(min=1), Number(1, 500)
    return add_options(
        command,
        click.option("--max-size", type=Size(), help="Extracted bytes per artifact. [20 GiB]"),
        click.option(
            "--max-ratio",
            type=count,
            help="Extracted bytes per compressed byte, above 64 MiB. [200]",
        ),
        click.option("--max-entries", type=count, help="Entries per artifact. [200000]"),
        click.option("--max-depth", type=depth, help="Components in a path. [128]"),
        click.option("--max-header", type=Size(), help="Bytes of an extended header. [1 MiB]"),
    )
