"""Output artifacts on their way to S3: packed, sealed where that is asked for, and uploaded.

An output goes through as one stream; nothing of it is kept on disk or in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpstage.archive.pack import Packer
from cpstage.envelope import Header, job_context, seal
from cpstage.errors import ConfigurationError
from cpstage.progress import Advance, Progress
from cpstage.session import JobSession
from cpstage.store.encryption import Upload
from cpstage.transfer.outputs import Output
from cpstage.transfer.results import Pushed, PushStatus
from cpstage.transfer.terms import Encryption
from cpstage.walk import read_file

_SEALED_CONTENT_TYPE = "application/octet-stream"


class Sender:
    """Uploads output artifacts of one job.

    Args:
        session: Where they go, and what seals them.
        encryption: How they are encrypted.
        packer: What packs them.
        progress: Is told of all phases.

    Raises:
        ConfigurationError: They are to be sealed, and there is no key for it.
    """

    def __init__(
        self, session: JobSession, encryption: Encryption, packer: Packer, progress: Progress
    ) -> None:
        self._session = session
        self._encryption = encryption
        self._packer = packer
        self._progress = progress
        self._key_ids = self._sealing_keys() if encryption.seal else ()

    def send(self, output: Output) -> Pushed:
        """Pack and upload one output.

        Raises:
            AccessDenied, ServiceUnavailable: As S3 and KMS say, or S3 did not encrypt as asked.
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        name = output.artifact.name
        with (
            self._progress.phase(f"{name}: uploading", None) as uploaded,
            self._progress.phase(f"{name}: packing", output.size) as packed,
        ):
            chunks, header = self._sealed(output, self._packed(output, packed))
            upload = self._session.store.upload(
                chunks,
                output.artifact,
                content_type=_SEALED_CONTENT_TYPE if header else output.content_type,
                size_bound=output.size_bound,
                bucket_key=self._encryption.bucket_key,
                uploaded=uploaded,
            )
        envelope = header.document() if header else None
        return _pushed(output, "pushed", upload=upload, envelope=envelope)

    def _packed(self, output: Output, advance: Advance) -> Iterator[bytes]:
        if output.format == "raw":
            return read_file(next(iter(output.entries)), advance)
        return self._packer.pack(output.entries, output.format, advance)

    def _sealed(
        self, output: Output, chunks: Iterator[bytes]
    ) -> tuple[Iterator[bytes], Header | None]:
        """Seal a stream, bound to its place, where that is asked for."""
        if not self._key_ids:
            return chunks, None
        job = self._session.job
        place = job_context(
            account=job.account_id,
            pipeline=job.pipeline_context.pipeline_name,
            stage=job.pipeline_context.stage_name,
            action=job.pipeline_context.action_name,
            artifact=output.artifact.name,
        )
        context = {**self._encryption.context, **place}
        sealed = seal(chunks, key_ids=self._key_ids, context=context, kms=self._session.kms)
        return sealed.chunks, sealed.header

    def _sealing_keys(self) -> Sequence[str]:
        key = self._session.job.encryption_key
        own = [key.kms_key_id] if key and key.kms_key_id else []
        key_ids = self._encryption.key_ids or own
        if not key_ids:
            raise ConfigurationError(
                f"job {self._session.job.id} has no KMS key to seal artifacts under",
                hint="give one with --encrypt-key",
            )
        return key_ids


def planned(output: Output) -> Pushed:
    """Say what would become of an output; one with nothing in it is left out."""
    return _pushed(output, "skipped" if output.is_empty else "planned")


def _pushed(
    output: Output,
    status: PushStatus,
    *,
    upload: Upload | None = None,
    envelope: Mapping[str, Any] | None = None,
) -> Pushed:
    return Pushed(
        artifact=output.artifact,
        source=output.source,
        status=status,
        format=output.format,
        files=output.files,
        unpacked_size=output.size,
        upload=upload,
        envelope=envelope,
    )
