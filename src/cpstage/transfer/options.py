"""How artifacts are taken in and made, as data: what a caller may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cpstage._deflate import DEFAULT_LEVEL
from cpstage.archive.options import Limits
from cpstage.globs import Globs

if TYPE_CHECKING:
    from cpstage.walk import Symlinks

Layout = Literal["per-artifact", "merged"]
Envelopes = Literal["open", "require", "keep"]
Commitment = Literal["require-encrypt-require-decrypt", "require-encrypt-allow-decrypt"]
OutputFormat = Literal["auto", "zip", "tar", "tar.gz", "raw"]
IfEmpty = Literal["error", "warn", "ignore"]


@dataclass(frozen=True)
class Unpacking:
    """How to take artifacts in.

    Attributes:
        layout: One directory per artifact, or one for all.
        unpack: Whether archives are unpacked.
        limits: What one artifact may unpack to.
        envelopes: ``open`` opens what is sealed with the AWS Encryption SDK, ``require`` refuses
            what is not, ``keep`` stages a sealed artifact as the file it is.
        key_ids: KMS keys that may open an envelope, besides those that come with a job.
        context: Pairs that the encryption context of an envelope must have, besides those that
            name the artifact's place.
        commitment: The AWS Encryption SDK's commitment policy: whether messages without key
            commitment are refused, or decrypted.
    """

    layout: Layout = "per-artifact"
    unpack: bool = True
    limits: Limits = field(default_factory=Limits)
    envelopes: Envelopes = "open"
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    commitment: Commitment = "require-encrypt-require-decrypt"

    @property
    def requires_commitment(self) -> bool:
        """Whether a message without key commitment is refused."""
        return self.commitment == "require-encrypt-require-decrypt"


@dataclass(frozen=True)
class Packing:
    """How to make artifacts out of directories.

    Attributes:
        format: ``auto`` packs directories as zip, and sends a file as it is.
        globs: What of a directory goes in.
        symlinks: Whether links are kept, or replaced by what they point to.
        level: How hard to compress, from 0 (not at all) to 9.
    """

    format: OutputFormat = "auto"
    globs: Globs = field(default_factory=Globs)
    symlinks: Symlinks = "keep"
    level: int = DEFAULT_LEVEL


@dataclass(frozen=True)
class Encryption:
    """How output artifacts are encrypted, besides SSE-KMS under the job's key.

    Attributes:
        bucket_key: Whether S3 is to use a Bucket Key, which saves calls to KMS.
        seal: Whether artifacts are sealed with the AWS Encryption SDK before they leave the
            machine.
        key_ids: KMS keys to seal under, each of which opens the artifact; the job's where none
            is given.
        context: Pairs for the encryption context, besides those that name the artifact's place.
        sse_kms_key_id: The KMS key for SSE-KMS where the pipeline has none: S3 takes its own key
            ``aws/s3`` then, which another account cannot use.
    """

    bucket_key: bool = False
    seal: bool = False
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    sse_kms_key_id: str | None = None
