"""One artifact's bytes: whether they are encrypted, which format they have, and what is in them.

Artifacts in S3 and local files are identified by their first bytes. A message of the AWS Encryption
SDK is decrypted first, and its plaintext identified in its turn. :func:`extract` reads all bytes
once, as a stream, and writes what is in them into a tree.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

from cpstage.archive.blob import Blob, FileBlob, ReadAhead
from cpstage.archive.formats import HEAD_BYTES as FORMAT_HEAD_BYTES
from cpstage.archive.formats import UNCHANGED_HINT, Format, not_unpacked, recognise
from cpstage.archive.members import Contents
from cpstage.archive.unpack import Unpacker
from cpstage.aws.config import AwsConfig
from cpstage.aws.s3 import ObjectInfo, RunningChecksum
from cpstage.encryption.header import (
    HEAD_BYTES,
    S3_CLIENT_HINT,
    Header,
    job_context,
    read_header,
    s3_client_object,
)
from cpstage.errors import ArtifactRejected, extra_hint, local_failures
from cpstage.filesystem.tree import write_all
from cpstage.job import Artifact, ArtifactSet, plain_name
from cpstage.progress import Progress
from cpstage.transfer.options import Unpacking

if TYPE_CHECKING:
    from cpstage.encryption.messages import Clients

_LOGGER = logging.getLogger("cpstage")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class DecryptionKeys:
    """The arguments of :func:`cpstage.encryption.messages.decrypt` for one artifact."""

    kms: Clients
    key_ids: Sequence[str]
    context: Mapping[str, str]
    requires_commitment: bool
    account_id: str | None = None
    partition: str = "aws"
    region: str | None = None


def callers_keys(config: AwsConfig, options: Unpacking) -> DecryptionKeys:
    """Return what decrypts a local archive: keys that the caller's own credentials may use."""
    kms = cache(partial(config.kms, None))  # a client for each region
    return DecryptionKeys(kms, options.key_ids, options.context, options.requires_commitment)


def job_keys(
    job: ArtifactSet, artifact: Artifact, kms: Clients, options: Unpacking
) -> DecryptionKeys:
    """Return what decrypts a job's artifact: the job's key and account, and the caller's keys."""
    own = job.encryption_key.kms_key_id if job.encryption_key else None
    # The context has the name that the artifact has in its pipeline.
    name = plain_name(artifact.name)
    place = job_context(pipeline=job.pipeline_context.pipeline_name, artifact=name)
    return DecryptionKeys(
        kms,
        [*([own] if own else []), *options.key_ids],
        {**options.context, **place},
        options.requires_commitment,
        account_id=job.account_id,
        partition=job.partition,
        region=job.region,
    )


class Identified(NamedTuple):
    """The header of an encrypted message, or the archive format of plain bytes.

    Both are None for plain bytes that are kept as a file.
    """

    header: Header | None
    format: Format | None

    @property
    def message(self) -> dict[str, Any] | None:
        """The header of the encrypted message as JSON has it."""
        return self.header.document() if self.header else None


def identify(head: bytes, options: Unpacking, *, name: str, content_type: str) -> Identified:
    """Tell encrypted messages, archives and other files apart.

    ``head`` is the start of the bytes, from :func:`read_head`. The suffix of the name and the media
    type announce a format.

    Raises:
        ArtifactRejected: It must be encrypted and is not, or lacks the announced format.
    """
    header = read_header(head)
    if header is not None:
        return Identified(header, None)
    if options.encrypted_messages == "require":
        raise ArtifactRejected(
            "it is not encrypted with the AWS Encryption SDK",
            hint="it may have been replaced by someone without the key; nothing was staged",
        )
    return Identified(None, archive_format(head, options, name=name, content_type=content_type))


def archive_format(
    head: bytes, options: Unpacking, *, name: str, content_type: str
) -> Format | None:
    """Return the archive format of plain bytes; None for a file that is kept.

    Raises:
        ArtifactRejected: The bytes lack the format that the name or the media type announces.
    """
    if not options.unpack:
        return None
    return recognise(head[:FORMAT_HEAD_BYTES], name=name, content_type=content_type)


def refuse_s3_client(artifact: Artifact, metadata: Mapping[str, str], options: Unpacking) -> None:
    """Refuse an object that only an Amazon S3 Encryption Client can decrypt, unless it is kept.

    Raises:
        ArtifactRejected: The metadata is that of such an object.
    """
    what = s3_client_object(metadata)
    if what and options.encrypted_messages != "keep":
        raise ArtifactRejected(f"{artifact.title} is {what}", hint=S3_CLIENT_HINT)


def begin_checksum(artifact: Artifact, info: ObjectInfo) -> RunningChecksum | None:
    """Begin to compute the checksum of an object, and log one that cannot be computed here."""
    if info.unverified_checksum:
        what = "%s: the %s of the object is not verified; %s"
        _LOGGER.info(what, artifact.title, info.unverified_checksum, extra_hint("crt"))
    return info.checksum.begin() if info.checksum else None


def read_head(blob: Blob) -> bytes:
    """Read the bytes that :func:`identify` needs."""
    return blob.read(0, min(HEAD_BYTES, blob.size))


NOT_STAGED = "nothing of it was staged"


@contextmanager
def naming(title: str, hint: str = NOT_STAGED, *, is_local: bool = False) -> Iterator[None]:
    """Name the artifact in a rejection, which gets a hint where it has none.

    A local archive is not made by an action, and cannot be fetched.
    """
    try:
        yield
    except ArtifactRejected as error:
        own = "" if is_local and error.hint == UNCHANGED_HINT else error.hint
        raise ArtifactRejected(f"{title}: {error.message}", hint=own or hint) from error


@contextmanager
def decrypted(stream: ReadAhead, keys: DecryptionKeys, directory: Path) -> Iterator[FileBlob]:
    """Decrypt a message into an unlinked temporary file, since archives are read at random.

    No other process can open the file, and it disappears with this process. The file is given out
    after the last frame has been authenticated.

    Raises:
        ArtifactRejected: The message was changed, cut or extended, or is bound to another place.
        AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        WorkspaceUnavailable, LocalIOError: The file cannot be written.
    """
    from cpstage.encryption.messages import decrypt

    chunks = decrypt(io.BufferedReader(stream, _CHUNK), **vars(keys))
    with local_failures(directory):
        unlinked = TemporaryFile(buffering=0, dir=directory)  # noqa: SIM115 (closed below)
    with unlinked as file:
        for chunk in chunks:
            with local_failures(directory):
                write_all(file.fileno(), chunk)
        with closing(FileBlob(directory, file.fileno())) as plain:
            yield plain


@dataclass(frozen=True)
class Source:
    """The bytes of one artifact, to be read once from start to end.

    Attributes:
        name: The name in progress and in messages about several artifacts.
        title: The name in an error about this artifact.
        file_name: Returns the name of the file that a kept artifact becomes, or raises.
        blob: The bytes.
        keys: Returns what decrypts them, for encrypted messages.
        hint: The key or file name, whose suffix announces a format.
        content_type: The media type, which announces one too.
        doing: The verb of its progress.
        checksum: The checksum of all bytes, where it is known and can be computed.
    """

    name: str
    title: str
    file_name: Callable[[], str]
    blob: Blob
    keys: Callable[[], DecryptionKeys]
    hint: str = ""
    content_type: str = ""
    doing: str = "fetching"
    checksum: RunningChecksum | None = None


@dataclass(frozen=True)
class Extracted:
    """The result of extracting an artifact.

    Attributes:
        format: The archive format; None for a kept file.
        contents: What was unpacked; None where nothing was.
        envelope: The header of the encrypted message as JSON has it.
        decrypted: Whether the message was decrypted, which authenticates every frame.
        notes: What differs from the archive, or why nothing was unpacked.
    """

    format: Format | None
    contents: Contents | None = None
    envelope: Mapping[str, Any] | None = None
    decrypted: bool = False
    notes: tuple[str, ...] = ()


def extract(
    source: Source, unpacker: Unpacker, options: Unpacking, scratch: Path, progress: Progress
) -> Extracted:
    """Read an artifact from start to end, and write its contents into a tree.

    ``scratch`` is a directory with room for the plaintext of encrypted messages.

    Raises:
        ArtifactRejected: It is unsafe, damaged, over a limit, or cannot be decrypted.
        AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        WorkspaceUnavailable: It collides with another artifact of the same tree.
        LocalIOError: The disk is full, or failed.
    """
    hints = {"name": source.hint, "content_type": source.content_type}
    with (
        progress.phase(f"{source.name}: {source.doing}", source.blob.size) as advance,
        ReadAhead(source.blob, advance, source.checksum) as stream,
        naming(source.title),
    ):
        found = identify(stream.peek(HEAD_BYTES), options, **hints)
        if found.header is None:
            extracted = _write(stream, found.format, source, unpacker, options)
        elif options.encrypted_messages == "keep":
            unpacker.keep(stream, source.file_name(), source.name)
            extracted = Extracted(None, envelope=found.message)
        else:
            with (
                decrypted(stream, source.keys(), scratch) as plain,
                progress.phase(f"{source.name}: unpacking", plain.size) as unpacked,
                ReadAhead(plain, unpacked) as opened,
            ):
                plain_format = archive_format(opened.peek(FORMAT_HEAD_BYTES), options, **hints)
                extracted = _write(opened, plain_format, source, unpacker, options)
            extracted = replace(extracted, envelope=found.message, decrypted=True)
        stream.finish()
    for note in extracted.notes:
        _LOGGER.warning("%s: %s", source.title, note)
    return extracted


def _write(
    stream: ReadAhead, found: Format | None, source: Source, unpacker: Unpacker, options: Unpacking
) -> Extracted:
    """Unpack an archive, and write any other file as it came."""
    if found is None:
        note = not_unpacked(stream.peek(FORMAT_HEAD_BYTES)) if options.unpack else ""
        unpacker.keep(stream, source.file_name(), source.name)
        return Extracted(None, notes=(note,) if note else ())
    contents = unpacker.add(stream, found, source.name)
    return Extracted(found, contents, notes=tuple(contents.notes))
