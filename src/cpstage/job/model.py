"""A CodePipeline job as immutable records, and its secrets, which never print themselves.

Names are those of the CodePipeline API reference (``JobDetails``, ``ThirdPartyJobDetails``,
``Job``). Strings that become paths are checked here once, and trusted afterwards.

A traceback that shows local variables (``traceback.TracebackException(capture_locals=True)``,
``rich``, ``pytest -l``) calls ``repr`` on them. So secrets travel as :class:`Secret`, and documents
that hold secrets as :class:`MaskedDict`, until the call that needs the plain value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, NewType, NoReturn, overload

from cpstage.errors import AccessDenied, ConfigurationError, UsageError, printable

MASK = "********"

_LONGEST_SEARCHED = 8_000
"""Characters of a message that are searched for secrets; the rest of the message is not shown."""

_PIECE_OF_SECRET = 12
"""Characters in a row of a secret that give too much of the secret away."""

SHORTEST_SECRET = 8
"""Characters: AWS has no shorter keys, and ``main`` would be found in every other line."""

ArtifactName = NewType("ArtifactName", str)
"""An artifact's name that has been checked, and is safe as the name of a directory."""

APART = "@"
"""Joins an artifact's name and its action, where several actions have an artifact of one name. No
artifact name contains it."""

_JOB_DIRECTORY = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
"""Any id that CodePipeline is known to issue, without path separators."""

_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LONGEST_FILE_NAME = 255
"""Bytes: NAME_MAX of Linux and macOS."""

_DEVICE_NAME = re.compile(r"CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9]", re.IGNORECASE)

_MOST_SKEW_SECONDS = 300
"""How far the clocks of two machines may be apart."""


class _Masked:
    """A value that no ``repr``, ``str``, format or pickle shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK

    def __format__(self, _: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


class SecretBytes(_Masked):
    """A data key."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def reveal(self) -> bytes:
        """Return its bytes."""
        return self._data


class Secret(_Masked):
    """A text that only ``reveal()`` returns: each print of it is a mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)


@overload
def secret(value: str | Secret) -> Secret: ...
@overload
def secret(value: None) -> None: ...
@overload
def secret(value: str | Secret | None) -> Secret | None: ...
def secret(value: str | Secret | None) -> Secret | None:
    """Return a text as a secret; None and secrets stay what they are.

    Raises:
        TypeError: It is something else.
    """
    if value is None or isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise TypeError(f"a secret is of type {type(value).__name__}, and not str")
    return Secret(value)


def mask_queries(text: str) -> str:
    """Hide the queries of URLs: a signature may be in one, and the session token."""
    return re.sub(r"\?[^\s\"']+", f"?{MASK}", text)


def masked(text: str, secrets: Iterable[Secret]) -> str:
    """Return the first 8,000 characters of a text without secrets, also without cut ones."""
    text = text[:_LONGEST_SEARCHED]
    hidden = [one.reveal() for one in secrets if one]
    for value in hidden:
        text = text.replace(value, MASK)
    shown = [*text]
    for start in range(len(text) - _PIECE_OF_SECRET + 1):
        piece = text[start : start + _PIECE_OF_SECRET]
        if any(piece in value for value in hidden):
            shown[start : start + _PIECE_OF_SECRET] = "*" * _PIECE_OF_SECRET
    return "".join(shown)


class S3Location(NamedTuple):
    """``S3ArtifactLocation``: a bucket, and a key that is sent unchanged."""

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


class Artifact(NamedTuple):
    """``Artifact``: one input or output, its revision where there is one, and its location."""

    name: ArtifactName
    location: S3Location
    revision: str | None = None

    @property
    def title(self) -> str:
        """The name and location, for messages."""
        return f"artifact {self.name} at {self.location}"


class EncryptionKey(NamedTuple):
    """``EncryptionKey``: a key id, key ARN or alias ARN, and its type (``KMS``)."""

    id: str | None
    type: str | None

    @property
    def kms_key_id(self) -> str | None:
        """The id to send as ``SSEKMSKeyId``, or None where S3 is to use its own key."""
        return self.id if self.type == "KMS" and self.id else None


class SessionCredentials(NamedTuple):
    """``AWSSessionCredentials``; they are masked in every text.

    botocore signs with ``access_key``, ``secret_key`` and ``token``.

    Attributes:
        expires_at: When they expire. Only the event of a Lambda action has it
            (``expirationTime``, in milliseconds since 1970).
        issued_at: When CodePipeline returned them, where cpstage asked or saved the document.
    """

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None
    expires_at: datetime | None = None
    issued_at: datetime | None = None

    def __repr__(self) -> str:
        return f"SessionCredentials(expires_at={self.expires_at!r}, issued_at={self.issued_at!r})"

    @property
    def age_seconds(self) -> float | None:
        """How old they are, in seconds; None where that is unknown.

        It is unknown, too, where they were issued in the future: the clock has been set back since.
        """
        if self.issued_at is None:
            return None
        age = (datetime.now(timezone.utc) - self.issued_at).total_seconds()
        return max(0.0, age) if age > -_MOST_SKEW_SECONDS else None

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


class ActionTypeId(NamedTuple):
    """``ActionTypeId``."""

    category: str
    owner: str
    provider: str
    version: str

    @property
    def is_third_party(self) -> bool:
        """Whether its jobs are those of a partner, which need a client token."""
        return self.owner == "ThirdParty"

    def __str__(self) -> str:
        return f"{self.category}/{self.owner}/{self.provider}/{self.version}"


class PipelineContext(NamedTuple):
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
    """The common members of a job and a past execution: artifacts, and where they belong."""

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
        """The name for messages."""
        return f"job {self.id}"

    @property
    def is_continued(self) -> bool:
        """Whether an earlier job of the same action left a continuation token."""
        return False

    @property
    def artifacts_to_build(self) -> tuple[Artifact, ...]:
        """Outputs that get a directory in ``out/``."""
        return self.output_artifacts

    @property
    def made_artifacts(self) -> tuple[Artifact, ...]:
        """Outputs whose objects exist already, and are staged as well."""
        return ()

    @property
    def region(self) -> str | None:
        """The region of the pipeline: a custom action, its bucket and its key lie in it."""
        return self._arn_parts()[3] or None

    @property
    def partition(self) -> str:
        """The partition of AWS that the pipeline lies in, such as ``aws`` or ``aws-cn``."""
        return self._arn_parts()[1] or "aws"

    def _arn_parts(self) -> list[str]:
        """Split the ARN of the pipeline, or else of the key."""
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


def plain_name(name: str) -> str:
    """Return the name of an artifact in its pipeline, without an action behind ``@``."""
    return name.partition(APART)[0]


def check_artifact_name(name: object) -> ArtifactName:
    """Return a trusted name, which is safe as the name of a directory.

    CodePipeline allows up to 100 letters, digits, ``_`` and ``-`` (API reference, ``Artifact``); a
    saved document may hold anything.

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


def check_job_directory(job_id: str) -> None:
    """Raise ConfigurationError if the id of a job is not safe as the name of a directory."""
    if not re.fullmatch(_JOB_DIRECTORY, job_id):
        raise ConfigurationError(
            f"the job has the id {job_id!r}, which cannot name a directory",
            hint="check the endpoint: ids of CodePipeline have letters, digits and hyphens",
        )


def choose(
    artifacts: Sequence[Artifact],
    globs: Sequence[str],
    what: str = "input artifact",
    whose: str = "the job",
) -> list[Artifact]:
    """Return the artifacts that any of the names or globs matches; all if no glob is given.

    Raise UsageError if a glob matches none; ``what`` and ``whose`` are the nouns in its message.
    """
    if not globs:
        return [*artifacts]
    matched: set[Artifact] = set()
    for glob in globs:
        found = [artifact for artifact in artifacts if fnmatchcase(artifact.name, glob)]
        if not found:
            known = ", ".join(artifact.name for artifact in artifacts) or "none"
            raise UsageError(f"no {what} matches {glob!r}", hint=f"{whose} has: {known}")
        matched.update(found)
    return [artifact for artifact in artifacts if artifact in matched]


def location_document(artifact: Artifact) -> dict[str, str]:
    """Return an artifact's location as JSON has it."""
    return {"bucket": artifact.location.bucket, "key": artifact.location.key}


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    """Return an artifact's name and location as JSON has them."""
    return {"name": artifact.name, "location": location_document(artifact)}
