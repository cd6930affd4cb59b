"""A CodePipeline job as frozen dataclasses, which never print a secret.

Everything the job-worker API says about a job has its place here, under the names of the
CodePipeline API reference (``JobDetails``, ``ThirdPartyJobDetails``, ``Job``). Strings of the
API that become paths are checked here, once, and are trusted after it. This module knows nothing
of AWS clients, files or archives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from cpstage.errors import AccessDenied, ConfigurationError, printable
from cpstage.masking import MASK, Secret

ArtifactName = NewType("ArtifactName", str)
"""An artifact's name that has been checked, and is safe as the name of a directory."""

_JOB_DIRECTORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Any id that CodePipeline is known to give out, and nothing that leads elsewhere as a path."""

_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LONGEST_FILE_NAME = 255
"""Bytes: NAME_MAX of Linux and macOS."""

_DEVICE_NAME = re.compile(r"CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9]", re.IGNORECASE)


@dataclass(frozen=True)
class S3Location:
    """``S3ArtifactLocation``: a bucket, and a key that is taken literally."""

    bucket: str
    key: str

    @property
    def file_name(self) -> str:
        """What stands behind the last slash of the key, safe as the name of a file.

        Raises:
            ConfigurationError: It is empty, ``.`` or ``..``, unprintable, or too long.
        """
        name = self.key.rsplit("/", 1)[-1]
        too_long = len(name.encode(errors="surrogatepass")) > _LONGEST_FILE_NAME
        if name in ("", ".", "..") or not name.isprintable() or too_long:
            raise ConfigurationError(
                f"the key of {self} does not end in the name of a file",
                hint="it cannot be kept as a file: check the action that made it",
            )
        return name

    def __str__(self) -> str:
        return printable(f"s3://{self.bucket}/{self.key}")


@dataclass(frozen=True)
class Artifact:
    """``Artifact``: one input or output, its revision where there is one, and its location."""

    name: ArtifactName
    location: S3Location
    revision: str | None = None

    @property
    def title(self) -> str:
        """What to call it in messages: its name, and where it is."""
        return f"artifact {self.name} at {self.location}"


@dataclass(frozen=True)
class EncryptionKey:
    """``EncryptionKey``: a key id, key ARN or alias ARN, and its type (``KMS``)."""

    id: str | None
    type: str | None

    @property
    def kms_key_id(self) -> str | None:
        """The id to send as ``SSEKMSKeyId``, or None where S3 is to use its own key."""
        return self.id if self.type == "KMS" and self.id else None


@dataclass(frozen=True)
class SessionCredentials:
    """``AWSSessionCredentials``: they come without an expiry date, and never print themselves."""

    access_key_id: str = field(repr=False)
    secret_access_key: Secret = field(repr=False)
    session_token: Secret | None = field(repr=False)


@dataclass(frozen=True)
class ActionTypeId:
    """``ActionTypeId``."""

    category: str
    owner: str
    provider: str
    version: str

    @property
    def is_third_party(self) -> bool:
        """Whether its jobs are those of a partner, which take a client's token."""
        return self.owner == "ThirdParty"

    def __str__(self) -> str:
        return f"{self.category}/{self.owner}/{self.provider}/{self.version}"


@dataclass(frozen=True)
class PipelineContext:
    """``PipelineContext``: where in which pipeline the job runs.

    The ARN and the execution id are absent for third-party jobs, and from older documents.
    """

    pipeline_name: str | None = None
    stage_name: str | None = None
    action_name: str | None = None
    action_execution_id: str | None = None
    pipeline_arn: str | None = None
    pipeline_execution_id: str | None = None


@dataclass(frozen=True)
class Job:
    """One job: ``JobDetails``, ``ThirdPartyJobDetails`` or ``Job`` of the API reference.

    Members that can hold a secret (the credentials, the action's configuration, which custom
    actions use for passwords, and the tokens) are left out of ``repr`` and ``str``. The client
    token of a third-party job is not in its document: it is the caller's half of the secret.
    """

    id: str
    account_id: str | None
    action_type_id: ActionTypeId | None
    pipeline_context: PipelineContext
    input_artifacts: tuple[Artifact, ...]
    output_artifacts: tuple[Artifact, ...]
    encryption_key: EncryptionKey | None
    nonce: str | None = None
    action_configuration: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    credentials: SessionCredentials | None = field(default=None, repr=False)
    continuation_token: Secret | None = field(default=None, repr=False)
    client_token: Secret | None = field(default=None, repr=False)

    def require_credentials(self) -> SessionCredentials:
        """Return the session credentials for the job's artifacts.

        Raises:
            AccessDenied: The job came without, as out of a document that was saved masked.
        """
        if self.credentials is None or self.credentials.access_key_id == MASK:
            raise AccessDenied(
                f"job {self.id} carries no session credentials for its artifacts",
                hint="give the job id, or save the document with --reveal-secrets",
            )
        return self.credentials

    @property
    def region(self) -> str | None:
        """The region of the pipeline: a custom action, its bucket and its key lie in it."""
        return self._arn_parts()[3] or None

    @property
    def partition(self) -> str:
        """The partition of AWS that the pipeline lies in, such as ``aws`` or ``aws-cn``."""
        return self._arn_parts()[1] or "aws"

    def _arn_parts(self) -> list[str]:
        """Split the first ARN that says where the job belongs."""
        key_id = self.encryption_key.id if self.encryption_key else None
        for arn in (self.pipeline_context.pipeline_arn, key_id):
            parts = (arn or "").split(":", 5)
            if len(parts) == 6 and parts[0] == "arn":
                return parts
        return [""] * 6


def check_artifact_name(name: object) -> ArtifactName:
    """Return the name as a trusted one.

    The service allows up to 100 letters, digits, ``_`` and ``-`` (API reference, ``Artifact``);
    a saved document may hold anything, and the name becomes a directory.

    Raises:
        ConfigurationError: It has another form, or is a device of some operating system.
    """
    if not isinstance(name, str) or not _ARTIFACT_NAME.fullmatch(name):
        raise ConfigurationError(
            f"the job has an artifact named {name!r}",
            hint="CodePipeline allows 1 to 100 of A-Z a-z 0-9 _ - in a name: check the job file",
        )
    if _DEVICE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"the job has an artifact named {name!r}, which is a device name on Windows",
            hint="rename the artifact in the pipeline",
        )
    return ArtifactName(name)


def check_job_directory(job_id: str) -> str:
    """Return the id of a job as one that is safe as the name of a directory.

    Raises:
        ConfigurationError: It is none that CodePipeline gives out.
    """
    if not _JOB_DIRECTORY.fullmatch(job_id):
        raise ConfigurationError(
            f"the job has the id {job_id!r}, which cannot name a directory",
            hint="check the endpoint: CodePipeline gives out letters, digits and hyphens",
        )
    return job_id
