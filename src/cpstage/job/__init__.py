"""A job, its document in every shape that AWS returns, its result, and past executions.

Secrets of a job mask themselves when they are printed (:mod:`cpstage.job.masking`).
"""

from cpstage.job.document import Document, mask_document, parse_job, saved_document
from cpstage.job.masking import Secret
from cpstage.job.model import (
    APART,
    ActionTypeId,
    Artifact,
    ArtifactName,
    ArtifactSet,
    EncryptionKey,
    Job,
    PipelineContext,
    ReadWith,
    S3Location,
    SessionCredentials,
    artifact_document,
    check_artifact_name,
    check_job_directory,
    choose,
    location_document,
    plain_name,
)

__all__ = [
    "APART",
    "ActionTypeId",
    "Artifact",
    "ArtifactName",
    "ArtifactSet",
    "Document",
    "EncryptionKey",
    "Job",
    "PipelineContext",
    "ReadWith",
    "S3Location",
    "Secret",
    "SessionCredentials",
    "artifact_document",
    "check_artifact_name",
    "check_job_directory",
    "choose",
    "location_document",
    "mask_document",
    "parse_job",
    "plain_name",
    "saved_document",
]
