"""Job documents of every shape that AWS returns, parsed and masked.

A document is untrusted: it may have been saved or edited. An unusable member is refused by its
name.

The AWS Tools for PowerShell (``Get-CPJobDetail | ConvertTo-Json``) show the properties of .NET
classes. Names begin with a capital letter, and an enumeration is an object with the member
``Value``. ``ConvertTo-Json`` replaces what lies deeper than its ``-Depth`` (2 by default) with the
name of the class.
"""

from __future__ import annotations

import copy
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from cpstage.errors import ConfigurationError
from cpstage.job.model import (
    MASK,
    ActionTypeId,
    Artifact,
    EncryptionKey,
    Job,
    PipelineContext,
    S3Location,
    Secret,
    SecretBytes,
    SessionCredentials,
    check_artifact_name,
    secret,
)

Document = Mapping[str, Any]

_OUR_MEMBER, _ISSUED_AT = "cpstage", "credentialsIssuedAt"
"""The members that cpstage adds to a document that it saves."""

_AS_IT_CAME = "save the document again, as AWS returns it"

_PS_WRAPPERS = ("Data", "JobDetails", "Jobs")
"""Members that only a document of PowerShell has: of a job, of a response, and of a poll."""

_PS_LITERAL = "Configuration"
"""The member whose names are those of the pipeline's author."""

_PS_CLASS = r"(Amazon\.CodePipeline\.Model|System\.Collections)\.|@\{"

SURROGATE = re.compile("[\ud800-\udfff]")

_PS_DEPTH_HINT = "PowerShell cut the document: save it with 'ConvertTo-Json -Depth 10'"


def is_document(text: str) -> bool:
    """Whether a text is a document, in place of its file or its ID, which errors quote."""
    return re.match(r"\s*[{\[]\s*[\"{}\]]", text) is not None


def parse_job(document: object, *, issued_at: datetime | None = None) -> Job:
    """Read a job from any shape that AWS returns.

    These are the output of GetJobDetails and GetThirdPartyJobDetails (``jobDetails``), one job of
    PollForJobs (alone, or as the only one in ``jobs`` or in a list), the event of a Lambda action
    (``CodePipeline.job``), and all of them as the AWS Tools for PowerShell print them. ``__type``
    and unknown members are ignored.

    Args:
        document: The document.
        issued_at: When CodePipeline returned it; by default as a document that cpstage saved says.

    Raises:
        ConfigurationError: The document has another shape, or a member of it is unusable.
    """
    try:
        # Masked for tracebacks that show variables.
        document = _with_api_names(mask_objects(document))
    except RecursionError:  # its traceback has the document on every level
        raise ConfigurationError(
            "the job document is nested too deeply", hint=_AS_IT_CAME
        ) from None
    details = _job_member(document)
    data = _mapping(details, "data")
    key = _mapping(data, "encryptionKey")
    issued_at = issued_at or _saved_at(document)
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
        credentials=_credentials(_mapping(data, "artifactCredentials"), issued_at),
        continuation_token=secret(_text(data, "continuationToken")),
    )


def saved_document(document: Document, issued_at: datetime) -> MaskedDict:
    """Return a job document to be saved, which says when CodePipeline returned its credentials."""
    stamp = issued_at.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return MaskedDict({**document, _OUR_MEMBER: {_ISSUED_AT: stamp}})


def mask_document(document: Document) -> MaskedDict:
    """Return a copy of a job document with every value masked that can be a secret.

    These are the three credential members, each value of the action's configuration, and the
    continuation token. Empty and absent values stay unchanged.
    """
    masked = MaskedDict(copy.deepcopy(dict(_with_api_names(document))))
    data = _mapping(_job_member(masked), "data")
    credentials = _mapping(data, "artifactCredentials")
    configuration = _mapping(_mapping(data, "actionConfiguration"), "configuration")
    for member, known in ((credentials, ("__type",)), (configuration, ())):
        member.update({name: MASK for name in member if member[name] and name not in known})
    if data.get("continuationToken"):
        data["continuationToken"] = MASK
    return masked


class MaskedDict(dict[str, Any]):
    """A JSON object that may hold secrets: a dictionary whose ``repr`` masks its values."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {MASK}' for name in self)}}}"


def mask_objects(value: Any) -> Any:
    """Return a JSON value in which every object is a :class:`MaskedDict`."""
    if isinstance(value, Mapping):
        return MaskedDict((name, mask_objects(member)) for name, member in value.items())
    if isinstance(value, list):
        return [mask_objects(member) for member in value]
    return value


def reveal(value: Any) -> Any:
    """Return a JSON value with the texts of its secrets in their places."""
    if isinstance(value, (Secret, SecretBytes)):
        return value.reveal()
    if isinstance(value, Mapping):
        return MaskedDict((name, reveal(member)) for name, member in value.items())
    if isinstance(value, list):
        return [reveal(member) for member in value]
    return value


def secrets_in(value: Any) -> list[Secret]:
    """Return the secrets of a JSON value, bytes as JSON has them."""
    if isinstance(value, Secret):
        return [value]
    if isinstance(value, SecretBytes):
        return [Secret(b64encode(value.reveal()).decode())]
    if isinstance(value, Mapping):
        value = [*value.values()]
    members = value if isinstance(value, list) else []
    return [found for member in members for found in secrets_in(member)]


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
    if isinstance(found, dict) and _is_cut(found.get("data")):
        raise _unusable("data", "is not an object", hint=_PS_DEPTH_HINT)
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
    if not is_unicode(parent.get(member) or ""):
        raise _unusable(member, "is not Unicode text")
    if not is_plain(parent.get(member) or ""):
        raise _unusable(member, "holds a NUL")
    return parent.get(member) or None


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate, as half a pair in JSON or a byte that is not UTF-8."""
    return not SURROGATE.search(text)


def is_plain(text: str) -> bool:
    """Whether a text can be the value of a variable: Unicode text without a NUL."""
    return is_unicode(text) and "\0" not in text


def _header_text(parent: Document, member: str) -> str | None:
    """Read a text that is sent in the header of a request, and may be a secret."""
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
    return _PS_DEPTH_HINT if _is_cut(parent.get(member)) else _AS_IT_CAME


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
    """Return the time of milliseconds since 1970; None for other values."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None


def _with_api_names(document: Any) -> Any:
    """Return a document of PowerShell with the names and values of the API reference.

    Any other document is returned unchanged.
    """
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, Mapping) or not any(name in first for name in _PS_WRAPPERS):
        return document
    return _converted(document)


def _is_cut(value: object) -> bool:
    """Whether ``ConvertTo-Json`` wrote the name of a class in place of an object."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and bool(re.match(_PS_CLASS, one)) for one in values)


def _converted(value: Any) -> Any:
    if isinstance(value, list):
        return [_converted(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if [*value] == ["Value"]:
        return value["Value"]
    # Of the same type: a dictionary that masks its values stays one.
    return type(
        value
    )(  # type: ignore[call-arg]
        (name[:1].lower() + name[1:], member if name == _PS_LITERAL else _converted(member))
        for name, member in value.items()
    )
