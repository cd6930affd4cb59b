"""Options of fetch and push."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cpstage.archive.options import ExtractOptions, PackOptions
from cpstage.errors import UsageError, refuse_text, require_type
from cpstage.job import ArtifactSet

if TYPE_CHECKING:
    from cpstage.aws.uploads import CannedAcl, ServerSideEncryption

Layout = Literal["per-artifact", "merged"]
EncryptedMessages = Literal["decrypt", "require", "keep"]
Commitment = Literal["require-encrypt-require-decrypt", "require-encrypt-allow-decrypt"]
OutputFormat = Literal["auto", "zip", "tar", "tar.gz", "raw"]
IfEmpty = Literal["error", "warn", "ignore"]
FetchInputs = Literal["always", "first", "never"]

_MOST_TAGS, _LONGEST_TAG, _LONGEST_TAG_VALUE = 10, 128, 256


@dataclass(frozen=True)
class Unpacking(ExtractOptions):
    """How to stage artifacts, besides how archives are unpacked.

    Attributes:
        layout: One directory per artifact, or one for all.
        unpack: Whether archives are unpacked.
        no_unpack: Globs over artifact names: their objects are staged as files.
        encrypted_messages: ``decrypt`` decrypts messages of the AWS Encryption SDK, ``require``
            refuses other artifacts, ``keep`` stages the encrypted message itself.
        key_ids: KMS keys that may decrypt, besides the job's.
        context: Pairs that the encryption context of a message must have, besides those that
            name the artifact's place.
        commitment: The AWS Encryption SDK's commitment policy: whether messages without key
            commitment are refused, or decrypted.
    """

    layout: Layout = "per-artifact"
    unpack: bool = True
    no_unpack: Sequence[str] = ()
    encrypted_messages: EncryptedMessages = "decrypt"
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    commitment: Commitment = "require-encrypt-require-decrypt"

    def __post_init__(self) -> None:
        """Refuse a single string in place of a list."""
        refuse_text("no_unpack", self.no_unpack)
        refuse_text("key_ids", self.key_ids)

    def of_artifact(self, name: str) -> Unpacking:
        """Return the options for one artifact: ``unpack`` says whether it is unpacked."""
        if not any(fnmatchcase(name, glob) for glob in self.no_unpack):
            return self
        return replace(self, unpack=False)

    @property
    def requires_commitment(self) -> bool:
        """Whether a message without key commitment is refused."""
        return self.commitment == "require-encrypt-require-decrypt"


@dataclass(frozen=True)
class Packing(PackOptions):
    """How directories are packed: the format, besides the options of archives.

    Attributes:
        format: ``auto`` packs directories as zip, and uploads a single file raw.
    """

    format: OutputFormat = "auto"


@dataclass(frozen=True)
class Encryption:
    """How output artifacts are encrypted, besides SSE-KMS under the job's key.

    Attributes:
        bucket_key: Whether S3 is to use a Bucket Key, which saves calls to KMS.
        encrypt: Whether artifacts are encrypted with the AWS Encryption SDK before they leave the
            machine.
        key_ids: KMS keys to encrypt under, each of which can decrypt; the job's key where none
            is given.
        context: Pairs for the encryption context, besides those that name the artifact's place.
        sse_kms_key_id: The KMS key for SSE-KMS where the pipeline has none: S3 takes its own key
            ``aws/s3`` then, which another account cannot use.
        sse: SSE-KMS, or ``aws:kms:dsse``, which encrypts twice and has no Bucket Keys.

    Raises:
        UsageError: A Bucket Key is requested with ``aws:kms:dsse``.
    """

    bucket_key: bool = False
    encrypt: bool = False
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    sse_kms_key_id: str | None = None
    sse: ServerSideEncryption = "aws:kms"

    def __post_init__(self) -> None:
        """Refuse what S3 does not have, and a single key in place of a list."""
        refuse_text("key_ids", self.key_ids)
        if self.sse not in ("aws:kms", "aws:kms:dsse"):
            raise UsageError(f"{self.sse!r} is not an SSE-KMS encryption of artifacts")
        if self.bucket_key and self.sse == "aws:kms:dsse":
            raise UsageError(
                "S3 has no Bucket Keys for aws:kms:dsse", hint="leave out one of the two options"
            )


@dataclass(frozen=True)
class FetchOptions:
    """What a fetch stages, and how.

    Attributes:
        artifacts: Names or globs of the inputs to stage; all where none is given.
        unpacking: How to stage them: layout, limits, decryption.
        replace: Stage all inputs again, and replace what is there; ``out/`` is emptied if it
            belongs to another job.
        wait: Seconds to wait for another run in the same workspace to end.
        verify: Compare staged artifacts with the contents of their objects.
        keep_out: Keep an ``out/`` that belongs to another job, for this one.
        inputs: Whether inputs are fetched: always, only for a job without a continuation token, or
            never.
        skip_missing: Stage the rest where objects do not exist any more.
    """

    artifacts: Sequence[str] = ()
    unpacking: Unpacking = field(default_factory=Unpacking)
    replace: bool = False
    wait: float = 0
    verify: bool = False
    keep_out: bool = False
    inputs: FetchInputs = "always"
    skip_missing: bool = False

    def __post_init__(self) -> None:
        """Refuse a single string in place of a list."""
        refuse_text("artifacts", self.artifacts)

    def skips_inputs(self, job: ArtifactSet) -> bool:
        """Whether the inputs of a job are not fetched."""
        return self.inputs == "never" or (self.inputs == "first" and job.is_continued)


@dataclass(frozen=True)
class PushOptions:
    """What a push uploads, and how.

    Attributes:
        paths: Directories or files in place of ``out/<artifact>/``, by the name of the output.
        packing: How directories are packed.
        encryption: How artifacts are encrypted, besides SSE-KMS under the job's key.
        if_empty: What to do when an output has no files; ``warn`` and ``ignore`` leave it out.
        always: Whether a run pushes also after its command has failed.
        acl: The canned ACL of the objects; None for that of the bucket.
        tags: The tags of the objects.

    Raises:
        UsageError: S3 cannot store these tags.
    """

    paths: Mapping[str, Path | str] = field(default_factory=dict)
    packing: Packing = field(default_factory=Packing)
    encryption: Encryption = field(default_factory=Encryption)
    if_empty: IfEmpty = "error"
    always: bool = False
    acl: CannedAcl | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse tags that S3 does not store ("Categorizing objects", S3 User Guide)."""
        require_type("paths", self.paths, Mapping)
        if len(self.tags) > _MOST_TAGS:
            raise UsageError(f"{len(self.tags)} tags are given", hint="S3 stores at most 10")
        for name, value in self.tags.items():
            if not 0 < len(name) <= _LONGEST_TAG or len(value) > _LONGEST_TAG_VALUE:
                raise UsageError(
                    f"the tag {name[:_LONGEST_TAG]!r} is empty or too long",
                    hint="S3 stores keys of 1 to 128 and values of up to 256 characters",
                )
