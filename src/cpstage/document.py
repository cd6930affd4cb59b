"""Job documents: every shape that AWS hands a job out in, read and masked.

What is in a document is untrusted: it may have been saved, edited, or made by somebody else. An
unusable member is refused by name. This module knows JSON values, and no file that they are from.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cpstage.errors import ConfigurationError
from cpstage.job import (
    ActionTypeId,
    Artifact,
    EncryptionKey,
    Job,
    PipelineContext,
    S3Location,
    SessionCredentials,
    check_artifact_name,
)
from cpstage.masking import MASK, MaskedDict, Secret, mask_objects, secret

Document = Mapping[str, Any]

_AS_IT_CAME = "save the document again, as AWS hands it out"


def parse_job(document: object) -> Job:
    """Read a job out of any of the shapes AWS hands out.

    These are the output of GetJobDetails and GetThirdPartyJobDetails (``jobDetails``), one job of
    PollForJobs (alone, or as the only one in ``jobs``), and the event of a Lambda action
    (``CodePipeline.job``). ``__type`` members and unknown ones are passed over.

    Raises:
        ConfigurationError: The document has none of these shapes, or a member of it is unusable.
    """
    document = mask_objects(document)  # for tracebacks that show variables
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
        credentials=_credentials(_mapping(data, "artifactCredentials")),
        continuation_token=secret(_text(data, "continuationToken")),
    )


def mask_document(document: Document) -> MaskedDict:
    """Return a copy of a job document in which every value that can be a secret is masked.

    These are the three credential members, each value of the action's configuration, and the
    continuation token. What was empty or absent stays so.
    """
    masked = MaskedDict(copy.deepcopy(dict(document)))
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
    if isinstance(document, dict):
        if isinstance(document.get("jobs"), list):
            found = _only_job(document["jobs"])
        else:
            found = document.get("jobDetails", document.get("CodePipeline.job", document))
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict):
        raise ConfigurationError(
            "the job document holds no job",
            hint="save the output of 'aws codepipeline get-job-details', one job of "
            "poll-for-jobs, or a Lambda 'CodePipeline.job' event",
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
        raise _unusable(member, "is not an object")
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
        raise _unusable(member, "is not a list of artifacts")
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


def _credentials(member: Document) -> SessionCredentials | None:
    if not member:
        return None
    where = "'artifactCredentials'"
    for name in ("accessKeyId", "secretAccessKey", "sessionToken"):
        _header_text(member, name)
    return SessionCredentials(
        access_key_id=_required(member, "accessKeyId", where),
        secret_access_key=Secret(_required(member, "secretAccessKey", where)),
        session_token=secret(_text(member, "sessionToken")),
    )
