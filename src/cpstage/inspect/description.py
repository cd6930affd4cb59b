"""A job for a person: what it is, what lies at its locations, and nothing that is secret."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cpstage.aws.config import AwsConfig
from cpstage.aws.job_session import JobSession, ObjectInfo, Store
from cpstage.encryption.header import s3_client_object
from cpstage.errors import ArtifactRejected, CpstageError
from cpstage.job import Artifact, Job, location_document
from cpstage.masking import MASK
from cpstage.transfer.artifact import identify, read_head
from cpstage.transfer.options import Unpacking


def describe(
    job: Job,
    *,
    config: AwsConfig | None = None,
) -> dict[str, Any]:
    """Describe a job, with what S3 says of its inputs; secrets are masked.

    An input whose HEAD fails is described by the error: a person who debugs a job wants
    to see the rest of it all the same.

    Args:
        job: The job.
        config: How to reach AWS.
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
        "credentials": _credentials(job),
        "inputs": _inputs(job, config or AwsConfig()),
        "outputs": [
            {"name": artifact.name, "location": location_document(artifact)}
            for artifact in job.output_artifacts
        ],
    }


def _credentials(job: Job) -> dict[str, Any]:
    found = job.credentials
    age = found.age_seconds if found else None
    expires_at = found.expires_at if found else None
    return {
        "present": found is not None,
        "age_seconds": None if age is None else round(age),
        "expires_at": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}" if expires_at else None,
    }


def _inputs(job: Job, config: AwsConfig) -> list[dict[str, Any]]:
    if not job.input_artifacts:
        return []
    try:
        store = JobSession(job, config).store
    except CpstageError as error:
        return [{**_known(artifact), "error": str(error)} for artifact in job.input_artifacts]
    return [_input(artifact, store) for artifact in job.input_artifacts]


def _input(artifact: Artifact, store: Store) -> dict[str, Any]:
    try:
        info = store.head(artifact)
        head = read_head(store.open(artifact, info))
    except CpstageError as error:
        return {**_known(artifact), "error": str(error)}
    return {
        **_known(artifact),
        **asdict(info),
        "checksum": str(info.checksum) if info.checksum else None,
        "client_side": s3_client_object(info.metadata),
        **_identity(head, artifact, info),
        "error": None,
    }


def _identity(head: bytes, artifact: Artifact, info: ObjectInfo) -> dict[str, Any]:
    name, content_type = artifact.location.key, info.content_type
    try:
        found = identify(head, Unpacking(), name=name, content_type=content_type)
    except ArtifactRejected as error:
        return {"envelope": None, "format": error.message}
    return {
        "envelope": found.message,
        "format": "sealed" if found.header else found.format or "file",
    }


def _known(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "location": location_document(artifact),
        "revision": artifact.revision,
    }
