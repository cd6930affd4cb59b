"""A CodePipeline job as frozen dataclasses, parsed from every document shape of AWS.

Names are those of the CodePipeline API reference (``JobDetails``, ``ThirdPartyJobDetails``,
``Job``). A document is untrusted: it may have been saved or edited. An unusable member is refused
by its name; strings that become paths are checked here once, and trusted afterwards. No ``repr``
shows a secret.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any, Literal, NewType

from cpstage.errors import AccessDenied, ConfigurationError, UsageError, printable
from cpstage.masking import MASK, SHORTEST_SECRET, MaskedDict, Secret, mask_objects, secret
from cpstage.powershell import DEPTH_HINT, is_cut, with_api_names

ArtifactName = NewType("ArtifactName", str)
"""An artifact's name that has been checked, and is safe as the name of a directory."""

_JOB_DIRECTORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Any id that CodePipeline is known to issue, without path separators."""

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
        """The part of the key after the last slash, safe as the name of a file.

        Raises:
            ConfigurationError: It is empty, ``.`` or ``..``, unprintable, or too long.
        """
        name = self.key.rsplit("/", 1)[-1]
        too_long = len(name.encode(errors="surrogatepass")) > _LONGEST_FILE_NAME
        if name in ("", ".", "..") or not name.isprintable() or too_long:
            raise ConfigurationError(
                f"the key of {self} does not end in the name of a file",
                hint="it cannot be kept as a file: check the action that uploaded it",
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
        """The name and location, for messages."""
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
    """``AWSSessionCredentials``; they are masked in every text.

    botocore signs with ``access_key``, ``secret_key`` and ``token``.

    Attributes:
        expires_at: When they expire. Only the event of a Lambda action has it
            (``expirationTime``, in milliseconds since 1970).
        issued_at: When CodePipeline returned them, where cpstage asked or saved the document.
    """

    access_key_id: str = field(repr=False)
    secret_access_key: Secret = field(repr=False)
    session_token: Secret | None = field(repr=False)
    expires_at: datetime | None = None
    issued_at: datetime | None = None

    @property
    def age_seconds(self) -> float | None:
        """How old they are, in seconds; None where that is unknown."""
        if self.issued_at is None:
            return None
        return max(0.0, (datetime.now(timezone.utc) - self.issued_at).total_seconds())

    @property
    def access_key(self) -> str:
        """The access key ID."""
        return self.access_key_id

    @property
    def secret_key(self) -> str:
        """The secret access key, revealed."""
        return self.secret_access_key.reveal()

    @property
    def token(self) -> str | None:
        """The session token, revealed."""
        return self.session_token.reveal() if self.session_token else None

    def secrets(self) -> list[Secret]:
        """Return the values that a message of AWS may quote and that no text may show."""
        values = (self.access_key_id, self.secret_key, self.token)
        return [Secret(value) for value in values if value and len(value) >= SHORTEST_SECRET]


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


ReadWith = Literal["job", "caller"]
"""Whose credentials read the objects of artifacts: the job's session, or the caller's own."""


@dataclass(frozen=True)
class ArtifactSet:
    """What a job and a past execution have in common: artifacts, and where they belong."""

    id: str
    account_id: str | None
    action_type_id: ActionTypeId | None
    pipeline_context: PipelineContext
    input_artifacts: tuple[Artifact, ...]
    output_artifacts: tuple[Artifact, ...]
    encryption_key: EncryptionKey | None
    action_configuration: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    read_with: ReadWith = "job"

    @property
    def title(self) -> str:
        """What to call it in messages."""
        return f"job {self.id}"

    @property
    def is_continued(self) -> bool:
        """Whether an earlier job of the same action left a continuation token."""
        return False

    @property
    def artifacts_to_build(self) -> tuple[Artifact, ...]:
        """The outputs that get a directory in ``out/``."""
        return self.output_artifacts

    @property
    def made_artifacts(self) -> tuple[Artifact, ...]:
        """The outputs whose objects are there already, and are staged as well."""
        return () if self.read_with == "job" else self.output_artifacts

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


@dataclass(frozen=True)
class Job(ArtifactSet):
    """One job: ``JobDetails``, ``ThirdPartyJobDetails`` or ``Job`` of the API reference.

    Members that can hold a secret (the credentials, the action's configuration, which custom
    actions use for passwords, and the tokens) are left out of ``repr`` and ``str``. The client
    token of a third-party job is not in its document: it is the caller's half of the secret.
    """

    nonce: str | None = None
    credentials: SessionCredentials | None = field(default=None, repr=False)
    continuation_token: Secret | None = field(default=None, repr=False)
    client_token: Secret | None = field(default=None, repr=False)

    @property
    def is_continued(self) -> bool:
        """Whether an earlier job of the same action left a continuation token."""
        return self.continuation_token is not None

    def require_credentials(self) -> SessionCredentials:
        """Return the session credentials for the job's artifacts.

        Raises:
            AccessDenied: The job came without, as out of a document that was saved masked.
        """
        if self.credentials is None or self.credentials.access_key_id == MASK:
            raise AccessDenied(
                f"job {self.id} carries no session credentials for its artifacts",
                hint="give the job id, or save the document with 'get-job-details --save'",
            )
        return self.credentials


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
        ConfigurationError: It is not of the form that CodePipeline issues.
    """
    if not _JOB_DIRECTORY.fullmatch(job_id):
        raise ConfigurationError(
            f"the job has the id {job_id!r}, which cannot name a directory",
            hint="check the endpoint: ids of CodePipeline have letters, digits and hyphens",
        )
    return job_id


def choose(
    artifacts: Sequence[Artifact],
    globs: Sequence[str],
    what: str = "input artifact",
    whose: str = "the job",
) -> list[Artifact]:
    """Return the artifacts that any of the globs matches; all where there is no glob.

    Args:
        artifacts: What to choose from.
        globs: Names or globs.
        what: What they are, for the error.
        whose: What they belong to, for the error.

    Raises:
        UsageError: A glob matches none.
    """
    for glob in globs:
        if not any(fnmatchcase(artifact.name, glob) for artifact in artifacts):
            known = ", ".join(artifact.name for artifact in artifacts) or "none"
            raise UsageError(f"no {what} matches {glob!r}", hint=f"{whose} has: {known}")
    return [
        artifact
        for artifact in artifacts
        if not globs or any(fnmatchcase(artifact.name, glob) for glob in globs)
    ]


Document = Mapping[str, Any]

_OUR_MEMBER, _ISSUED_AT = "cpstage", "credentialsIssuedAt"
"""What cpstage adds to a document that it saves."""

_AS_IT_CAME = "save the document again, as AWS returns it"


def parse_job(document: object) -> Job:
    """Read a job from any shape that AWS returns.

    These are the output of GetJobDetails and GetThirdPartyJobDetails (``jobDetails``), one job of
    PollForJobs (alone, or as the only one in ``jobs`` or in a list), the event of a Lambda action
    (``CodePipeline.job``), and all of them as the AWS Tools for PowerShell print them. ``__type``
    and unknown members are ignored.

    Raises:
        ConfigurationError: The document has none of these shapes, or a member of it is unusable.
    """
    # Masked for tracebacks that show variables.
    document = with_api_names(mask_objects(document))
    details = _job_member(document)
    data = _mapping(details, "data")
    key = _mapping(data, "encryptionKey")
    return Job(
        id=_required(details, "id", "the job"),
        account_id=_text(details, "accountId"),
        action_type_id=_action_type_id(_mapping(data, "actionTypeId")),
        pipeline_context=_pipeline_context(_mapping(data, "pipelineContext")),
        input_artifacts=_artifacts(data, "inputArtifacts"),
        output_artifacts=_artifacts(data, "outputArtifacts"),
        encryption_key=EncryptionKey(_header_text(key, "id"), _text(key, "type")) if key else None,
        nonce=_text(details, "nonce"),
        action_configuration=_configuration(data),
        credentials=_credentials(_mapping(data, "artifactCredentials"), _saved_at(document)),
        continuation_token=secret(_text(data, "continuationToken")),
    )


def saved_document(document: Document, issued_at: datetime) -> MaskedDict:
    """Return a job document to be saved, which says when CodePipeline returned its credentials."""
    stamp = issued_at.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return MaskedDict({**document, _OUR_MEMBER: {_ISSUED_AT: stamp}})


def mask_document(document: Document) -> MaskedDict:
    """Return a copy of a job document in which every value that can be a secret is masked.

    These are the three credential members, each value of the action's configuration, and the
    continuation token. Empty and absent values stay unchanged.
    """
    masked = MaskedDict(copy.deepcopy(dict(with_api_names(document))))
    data = _mapping(_job_member(masked), "data")
    credentials = _mapping(data, "artifactCredentials")
    configuration = _mapping(_mapping(data, "actionConfiguration"), "configuration")
    for member, known in ((credentials, ("__type",)), (configuration, ())):
        member.update({name: MASK for name in member if member[name] and name not in known})
    if data.get("continuationToken"):
        data["continuationToken"] = MASK
    return masked


def _job_member(document: object) -> dict[str, Any]:
    """Find the job in a document of any shape."""
    found: object = document
    if isinstance(document, list) and document:
        found = _only_job(document)
    elif isinstance(document, dict):
        if isinstance(document.get("jobs"), list):
            found = _only_job(document["jobs"])
        else:
            found = document.get("jobDetails", document.get("CodePipeline.job", document))
    if isinstance(found, dict) and is_cut(found.get("data")):
        raise _unusable("data", "is not an object", hint=DEPTH_HINT)
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict):
        raise ConfigurationError(
            "the job document holds no job",
            hint="save the output of 'aws codepipeline get-job-details', one job of "
            "poll-for-jobs, a Lambda 'CodePipeline.job' event, or "
            "'Get-CPJobDetail | ConvertTo-Json -Depth 10'",
        )
    return found


def _only_job(jobs: list[object]) -> object:
    if len(jobs) != 1:
        raise ConfigurationError(
            f"the job document holds {len(jobs)} jobs", hint="save one job of it as a document"
        )
    return jobs[0]


# Where these complain, no variable holds the value: a traceback may show variables.


def _mapping(parent: Document, member: str) -> dict[str, Any]:
    if not isinstance(parent.get(member), (dict, type(None))):
        raise _unusable(member, "is not an object", hint=_hint(parent, member))
    return parent.get(member) or MaskedDict()


def _text(parent: Document, member: str) -> str | None:
    if not isinstance(parent.get(member), (str, type(None))):
        raise _unusable(member, "is not a string")
    if re.search("[\ud800-\udfff]", parent.get(member) or ""):
        raise _unusable(member, "is not Unicode text")
    return parent.get(member) or None


def _header_text(parent: Document, member: str) -> str | None:
    """Read what will be sent in the header of a request, and may be a secret."""
    if re.search("[^!-~]", _text(parent, member) or ""):
        why = "holds blanks, or characters that no key has"
        hint = "copy the document whole, without line breaks in its values"
        raise _unusable(member, why, hint=hint)
    return _text(parent, member)


def _required(parent: Document, member: str, where: str) -> str:
    value = _text(parent, member)
    if value is None:
        raise ConfigurationError(f"{where} has no {member!r} in the job document", hint=_AS_IT_CAME)
    return value


def _hint(parent: Document, member: str) -> str:
    return DEPTH_HINT if is_cut(parent.get(member)) else _AS_IT_CAME


def _unusable(member: str, why: str, hint: str = _AS_IT_CAME) -> ConfigurationError:
    return ConfigurationError(f"{member!r} in the job document {why}", hint=hint)


def _action_type_id(member: Document) -> ActionTypeId | None:
    if not member:
        return None
    category, owner, provider, version = (
        _required(member, name, "'actionTypeId'")
        for name in ("category", "owner", "provider", "version")
    )
    return ActionTypeId(category, owner, provider, version)


def _pipeline_context(member: Document) -> PipelineContext:
    action = _mapping(member, "action")
    return PipelineContext(
        pipeline_name=_text(member, "pipelineName"),
        stage_name=_text(_mapping(member, "stage"), "name"),
        action_name=_text(action, "name"),
        action_execution_id=_text(action, "actionExecutionId"),
        pipeline_arn=_text(member, "pipelineArn"),
        pipeline_execution_id=_text(member, "pipelineExecutionId"),
    )


def _artifacts(data: Document, member: str) -> tuple[Artifact, ...]:
    listed = data.get(member) or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _unusable(member, "is not a list of artifacts", hint=_hint(data, member))
    artifacts = tuple(_artifact(one) for one in listed)
    for name, count in Counter(artifact.name for artifact in artifacts).items():
        if count > 1:
            raise _unusable(member, f"names {name!r} twice")
    return artifacts


def _artifact(member: Document) -> Artifact:
    name = check_artifact_name(member.get("name"))
    location = _mapping(member, "location")
    kind = _text(location, "type") or "S3"
    if kind != "S3":
        raise ConfigurationError(
            f"artifact {name} lies in a store of type {kind!r}", hint="only S3 is supported"
        )
    s3_location = _mapping(location, "s3Location")
    where = f"the S3 location of artifact {name}"
    return Artifact(
        name=name,
        location=S3Location(
            bucket=_required(s3_location, "bucketName", where),
            key=_required(s3_location, "objectKey", where),
        ),
        revision=_text(member, "revision"),
    )


def _configuration(data: Document) -> dict[str, Secret]:
    configuration = _mapping(_mapping(data, "actionConfiguration"), "configuration")
    return {name: Secret(value) for name, value in configuration.items() if isinstance(value, str)}


def _saved_at(document: object) -> datetime | None:
    """Return when the credentials of a document that cpstage saved were issued."""
    ours = document.get(_OUR_MEMBER) if isinstance(document, dict) else None
    stamp = ours.get(_ISSUED_AT) if isinstance(ours, dict) else None
    try:
        found = datetime.fromisoformat(stamp) if isinstance(stamp, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def _credentials(member: Document, issued_at: datetime | None) -> SessionCredentials | None:
    if not member:
        return None
    where = "'artifactCredentials'"
    for name in ("accessKeyId", "secretAccessKey", "sessionToken"):
        _header_text(member, name)
    return SessionCredentials(
        access_key_id=_required(member, "accessKeyId", where),
        secret_access_key=Secret(_required(member, "secretAccessKey", where)),
        session_token=secret(_text(member, "sessionToken")),
        expires_at=_expiry(member.get("expirationTime")),
        issued_at=issued_at,
    )


def _expiry(milliseconds: object) -> datetime | None:
    """Return a time out of milliseconds since 1970; None of anything else."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None


def location_document(artifact: Artifact) -> dict[str, str]:
    """Return an artifact's location as JSON has it."""
    return {"bucket": artifact.location.bucket, "key": artifact.location.key}
