"""How artifacts are taken in and made, as data: what a caller may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cpstage.archive.options import ExtractOptions, PackOptions

if TYPE_CHECKING:
    pass

Layout = Literal["per-artifact", "merged"]
Envelopes = Literal["open", "require", "keep"]
Commitment = Literal["require-encrypt-require-decrypt", "require-encrypt-allow-decrypt"]
OutputFormat = Literal["auto", "zip", "tar", "tar.gz", "raw"]
IfEmpty = Literal["error", "warn", "ignore"]


@dataclass(frozen=True)
class Unpacking(ExtractOptions):
    """How to take artifacts in, besides how archives are unpacked.

    Attributes:
        layout: One directory per artifact, or one for all.
        unpack: Whether archives are unpacked.
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
    envelopes: Envelopes = "open"
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    commitment: Commitment = "require-encrypt-require-decrypt"


@dataclass(frozen=True)
class Packing(PackOptions):
    """How to make artifacts out of directories, besides how archives are made.

    Attributes:
        format: ``auto`` packs directories as zip, and sends a file as it is.
    """

    format: OutputFormat = "auto"


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
    """

    bucket_key: bool = False
    seal: bool = False
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
