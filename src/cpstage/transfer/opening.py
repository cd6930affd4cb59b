"""What opens the envelope of an artifact, and its plaintext as a file without a name."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from cpstage.archive.blob import FileBlob, ReadAhead
from cpstage.envelope import Clients, job_context, open_sealed
from cpstage.filesystem import local_failures, write_all
from cpstage.job import Artifact, Job
from cpstage.transfer.terms import Unpacking

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Keys:
    """What opens the envelope of one artifact.

    Attributes:
        kms: Gives the KMS client of a region.
        key_ids: Keys that may open it.
        account_id: An account whose keys may open it too.
        partition: The partition of that account.
        region: Where replicas of multi-region keys are asked first.
        requires_commitment: Whether messages without key commitment are refused.
        context: Pairs that its encryption context must have.
    """

    kms: Clients
    key_ids: Sequence[str] = ()
    account_id: str | None = None
    partition: str = "aws"
    region: str | None = None
    requires_commitment: bool = True
    context: Mapping[str, str] = field(default_factory=dict)


def job_keys(job: Job, artifact: Artifact, kms: Clients, how: Unpacking) -> Keys:
    """Return what opens the envelope of a job's artifact: the job's keys, and those given.

    Args:
        job: The job.
        artifact: What it has to have been sealed for.
        kms: Gives KMS with the job's session.
        how: More keys that may open it, and more pairs that its encryption context must have.
    """
    own = job.encryption_key.kms_key_id if job.encryption_key else None
    place = job_context(pipeline=job.pipeline_context.pipeline_name, artifact=artifact.name)
    return Keys(
        kms,
        key_ids=[*([own] if own else []), *how.key_ids],
        account_id=job.account_id,
        partition=job.partition,
        region=job.region,
        requires_commitment=requires_commitment(how),
        context={**how.context, **place},
    )


def requires_commitment(how: Unpacking) -> bool:
    """Whether a message without key commitment is refused."""
    return how.commitment == "require-encrypt-require-decrypt"


@contextmanager
def opened_envelope(stream: ReadAhead, keys: Keys, directory: Path) -> Iterator[FileBlob]:
    """Open an envelope into a file, since an archive is read at random.

    The file has no name: nobody else can open it, and it is gone with the process, however that
    ends. All of it is authentic.

    Args:
        stream: The message, from its start.
        keys: What opens it.
        directory: Where there is room for the plaintext.

    Raises:
        ArtifactRejected: The message was changed, cut or added to, or sealed for something else.
        AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        WorkspaceUnavailable, LocalIOError: The file cannot be written.
    """
    chunks = open_sealed(
        io.BufferedReader(stream, _CHUNK),
        context=keys.context,
        key_ids=keys.key_ids,
        account_id=keys.account_id,
        partition=keys.partition,
        region=keys.region,
        requires_commitment=keys.requires_commitment,
        kms=keys.kms,
    )
    with _nameless_file(directory) as file:
        for chunk in chunks:
            with local_failures(directory):
                write_all(file.fileno(), chunk)
        with closing(FileBlob(directory, file.fileno())) as plain:
            yield plain


def _nameless_file(directory: Path) -> IO[bytes]:
    with local_failures(directory):
        return TemporaryFile(buffering=0, dir=directory)
