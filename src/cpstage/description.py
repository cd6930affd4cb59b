"""A job for a person: what it is, what lies at its locations, and nothing that is secret."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cpstage.archive.formats import HEAD_BYTES, recognise
from cpstage.aws.config import Connection
from cpstage.envelope import read_header, s3_client_object
from cpstage.errors import ArtifactRejected, CpstageError
from cpstage.job import Artifact, Job
from cpstage.masking import MASK
from cpstage.session import JobSession
from cpstage.store.artifacts import Store
from cpstage.store.object import ObjectInfo
from cpstage.transfer.intake import read_head
from cpstage.transfer.results import location_document


def describe(
    job: Job,
    *,
    connection: Connection | None = None,
    credentials_age: float | None = None,
) -> dict[str, Any]:
    """Describe a job, with what S3 says of its inputs; secrets are masked.

    An input that cannot be looked at is described by the error: a person who debugs a job wants
    to see the rest of it all the same.

    Args:
        job: The job.
        connection: How to reach AWS.
        credentials_age: Seconds since the session credentials were handed out, where known.
    """
    return {
        "id": job.id,
        "account_id": job.account_id,
        "action_type": str(job.action_type_id) if job.action_type_id else None,
        "pipeline_context": asdict(job.pipeline_context),
        "region": job.region,
        "configuration": dict.fromkeys(job.action_configuration, MASK),
        "encryption_key": asdict(job.encryption_key) if job.encryption_key else None,
        "continuation_token": MASK if job.continuation_token else None,
        "credentials": {"present": job.credentials is not None, "age_seconds": credentials_age},
        "inputs": _inputs(job, connection or Connection()),
        "outputs": [
            {"name": artifact.name, "location": location_document(artifact)}
            for artifact in job.output_artifacts
        ],
    }


def _inputs(job: Job, connection: Connection) -> list[dict[str, Any]]:
    if not job.input_artifacts:
        return []
    try:
        store = JobSession(job, connection).store
    except CpstageError as error:
        return [{**_known(artifact), "error": str(error)} for artifact in job.input_artifacts]
    return [_input(artifact, store) for artifact in job.input_artifacts]


def _input(artifact: Artifact, store: Store) -> dict[str, Any]:
    try:
        info = store.look_at(artifact)
        head = read_head(store.open(artifact, info))
    except CpstageError as error:
        return {**_known(artifact), "error": str(error)}
    header = read_header(head)
    return {
        **_known(artifact),
        **asdict(info),
        "checksum": str(info.checksum) if info.checksum else None,
        "envelope": header.document() if header else None,
        "client_side": s3_client_object(info.metadata),
        "format": "sealed" if header else _format(head, artifact, info),
        "error": None,
    }


def _format(head: bytes, artifact: Artifact, info: ObjectInfo) -> str:
    try:
        name, content_type = artifact.location.key, info.content_type
        return recognise(head[:HEAD_BYTES], name=name, content_type=content_type) or "file"
    except ArtifactRejected as error:
        return error.message


def _known(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "location": location_document(artifact),
        "revision": artifact.revision,
    }
