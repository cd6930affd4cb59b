"""The CodePipeline job API, for both kinds of job, called with the caller's own credentials.

The operations are those of the API reference, such as ``GetJobDetails`` and
``GetThirdPartyJobDetails``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from cpstage.aws.client import Answer, Check, Retries, has
from cpstage.aws.config import AwsConfig
from cpstage.aws.errors import aws_failures
from cpstage.errors import (
    AccessDenied,
    ConfigurationError,
    CpstageError,
    NotFound,
    OutOfSync,
    ServiceUnavailable,
)
from cpstage.job import ActionTypeId, Job, parse_job
from cpstage.job.document import is_document
from cpstage.job.masking import MaskedDict, Secret, mask_objects, secret

NOT_IN_PROGRESS = "it has a result already, timed out, or was never acknowledged"

_STATUS_SECONDS = 10.0
"""For a request that only asks whether a job is in progress."""


def get_job_details(
    job_id: str,
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> MaskedDict:
    """Return the job's document as the service returns it, secrets included.

    Args:
        job_id: The id of the job.
        client_token: The client's half of a third-party job's token; makes the call
            GetThirdPartyJobDetails.
        config: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The output of the call, whose ``repr`` shows no value.

    Raises:
        NotFound: The region does not have the job, or the job has ended.
        AccessDenied: No credentials, or they do not allow the call.
        ServiceUnavailable: CodePipeline could not be reached.
        ConfigurationError: No region, or a malformed parameter.
    """
    if is_document(job_id):  # errors would quote its credentials
        raise ConfigurationError(
            "the job id is a job document", hint="read the document with cpstage.parse_job()"
        )
    client_token = secret(client_token)
    operation, parameters = "GetJobDetails", {"jobId": job_id}
    if client_token:
        operation = "GetThirdPartyJobDetails"
    answer = call(
        config or AwsConfig(),
        operation,
        _with_token(parameters, client_token),
        f"get job {shlex.quote(job_id)}",  # or a space at its end would not be seen
        _has_job,
    )
    document: MaskedDict = mask_objects(answer)
    return document


def get_job(
    job_id: str,
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> Job:
    """Return a job: arguments and errors as in :func:`get_job_details`."""
    client_token = secret(client_token)
    asked_at = datetime.now(timezone.utc)
    document = get_job_details(job_id, client_token=client_token, config=config)
    return replace(parse_job(document, issued_at=asked_at), client_token=client_token)


def is_in_progress(
    job_id: str,
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> bool:
    """Whether a job is still in progress, as far as CodePipeline says: it has no other job.

    Args:
        job_id: The id of a job that existed.
        client_token: The client's half of a third-party job's token.
        config: How to reach AWS.

    Raises:
        AccessDenied, ServiceUnavailable, ConfigurationError: As :func:`get_job_details`.
    """
    try:
        get_job_details(job_id, client_token=client_token, config=_briefly(config))
    except NotFound:
        return False
    return True


def _briefly(config: AwsConfig | None) -> AwsConfig:
    """Return a config for a status request, which is not worth the whole retry timeout."""
    known = config or AwsConfig()
    return replace(known, timeout=min(known.timeout, _STATUS_SECONDS))


def current_job(job: Job, *, config: AwsConfig | None = None) -> Job:
    """Return a saved job with the credentials that the API has now.

    A caller who may not call GetJobDetails gets the saved job, and so does one of a job without
    credentials.

    Raises:
        OutOfSync: The job is no longer in progress.
    """
    try:
        now = get_job(job.id, client_token=job.client_token, config=_briefly(config))
        return replace(job, credentials=now.credentials) if job.credentials else job
    except (NotFound, OutOfSync) as error:
        raise OutOfSync(
            f"job {job.id} is no longer in progress",
            hint="release the change again; push and run go on with --force",
        ) from error
    except (AccessDenied, ConfigurationError, ServiceUnavailable):
        return job


def require_in_progress(
    job_id: str,
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> None:
    """Check that a job is in progress, where the caller may ask CodePipeline.

    Args:
        job_id: The ID of the job.
        client_token: The client's half of a third-party job's token.
        config: How to reach AWS.

    Raises:
        OutOfSync: CodePipeline has no such job in progress.
    """
    try:
        if is_in_progress(job_id, client_token=client_token, config=config):
            return
    except (AccessDenied, ConfigurationError, OutOfSync, ServiceUnavailable):
        return  # PutJobSuccessResult and PutJobFailureResult check the job as well
    raise OutOfSync(
        f"job {shlex.quote(job_id)} is not in progress, or does not exist in this region",
        hint=f"{NOT_IN_PROGRESS}; --force reports the result anyway",
    )


def poll_for_jobs(
    action_type: ActionTypeId,
    *,
    most: int = 1,
    query: Mapping[str, str] | None = None,
    config: AwsConfig | None = None,
) -> list[MaskedDict]:
    """Ask for jobs that wait for a worker.

    Args:
        action_type: What the worker can do; the owner ``ThirdParty`` makes the call
            PollForThirdPartyJobs.
        most: How many jobs to bring at most.
        query: A configuration property that the jobs must have, and its value; not for
            third-party jobs.
        config: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The jobs: each with ``id``, ``nonce`` and ``data``, secrets included, or, for a third
        party, with ``clientId`` and ``jobId``.

    Raises:
        AccessDenied, ServiceUnavailable, ConfigurationError: As :func:`get_job_details`.
    """
    parameters: dict[str, Any] = {"actionTypeId": action_type._asdict(), "maxBatchSize": most}
    if query:
        parameters["queryParam"] = dict(query)
    operation = "PollForThirdPartyJobs" if action_type.is_third_party else "PollForJobs"
    answer = call(
        config or AwsConfig(),
        operation,
        parameters,
        f"poll for jobs of {action_type}",
        of_type("jobs", list),
    )
    return [mask_objects(job) for job in answer["jobs"]]


def acknowledge_job(
    job_id: str,
    nonce: str,
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> str:
    """Claim a job that a poll has brought.

    Args:
        job_id: The id of the job.
        nonce: What the poll gave out with it, or the details of a third-party job.
        client_token: The client's half of a third-party job's token; makes the call
            AcknowledgeThirdPartyJob.
        config: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The status of the job: only ``InProgress`` means that it is the caller's.

    Raises:
        OutOfSync: Another worker has polled for it since.
        NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As
            :func:`get_job_details`.
    """
    client_token = secret(client_token)
    answer = call(
        config or AwsConfig(),
        "AcknowledgeThirdPartyJob" if client_token else "AcknowledgeJob",
        _with_token({"jobId": job_id, "nonce": nonce}, client_token),
        f"acknowledge job {job_id}",
        has("status"),
    )
    return str(answer["status"])


def secret_properties(
    action_type: ActionTypeId, *, config: AwsConfig | None = None
) -> dict[str, bool] | None:
    """Return the configuration properties of an action type, and whether each is secret.

    GetActionType answers for the action types of AWS and of partners, ListActionTypes for custom
    ones (API reference).

    Args:
        action_type: The action type.
        config: How to reach AWS.

    Returns:
        None where the action type is not known, or the caller may not ask.
    """
    where = _briefly(config)
    doing = f"get the action type {action_type}"
    try:
        if action_type.owner != "Custom":
            check = of_type("actionType")
            answer = call(where, "GetActionType", action_type._asdict(), doing, check)
            found = answer["actionType"].get("properties") or []
            return {str(one["name"]): one.get("noEcho") is not False for one in found}
        owner = {"actionOwnerFilter": "Custom"}
        for kind in listed(where, "ListActionTypes", owner, "actionTypes", doing):
            if kind.get("id") == action_type._asdict():
                found = kind.get("actionConfigurationProperties") or []
                return {str(one["name"]): one.get("secret") is not False for one in found}
    except (CpstageError, AttributeError, KeyError, TypeError):  # values stay masked then
        return None
    return None


def put_success(
    job_id: str,
    members: Mapping[str, Any],
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig,
) -> None:
    """Put the result of a job that has done its work: one try.

    Args:
        job_id: The id of the job.
        members: Further request members of PutJobSuccessResult.
        client_token: The client's half of a third-party job's token; makes the call
            PutThirdPartyJobSuccessResult.
        config: How to reach AWS.

    Raises:
        OutOfSync: The job is not in progress.
        NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As
            :func:`get_job_details`.
    """
    _put_result("Success", job_id, members, secret(client_token), config)


def put_failure(
    job_id: str,
    details: Mapping[str, Any],
    *,
    client_token: str | Secret | None = None,
    config: AwsConfig,
) -> None:
    """Put the result of a job that has failed: ``FailureDetails``, else as :func:`put_success`."""
    members = {"failureDetails": details}
    _put_result("Failure", job_id, members, secret(client_token), config)


def _put_result(
    kind: str,
    job_id: str,
    members: Mapping[str, Any],
    client_token: Secret | None,
    config: AwsConfig,
) -> None:
    call(
        config,
        f"Put{'ThirdParty' if client_token else ''}Job{kind}Result",
        _with_token({"jobId": job_id, **members}, client_token),
        f"report the {kind.lower()} of job {job_id}",
        _is_empty,
        retries=Retries(0),
    )


def call(
    config: AwsConfig,
    operation: str,
    parameters: Mapping[str, Any],
    doing: str,
    check: Check,
    *,
    retries: Retries | None = None,
) -> MaskedDict:
    """Call an operation of CodePipeline with the caller's own credentials.

    Args:
        config: How to reach AWS.
        operation: The operation, whose name is that of the permission, too.
        parameters: Its members.
        doing: What the call does, as in "cannot <doing>".
        check: Says what a good answer lacks.
        retries: How long to go on after failures.

    Raises:
        CpstageError: The row of the exit-code table that the failure belongs to.
    """
    client = config.codepipeline(retries)
    denied_hint = f"the caller needs codepipeline:{operation}"
    with aws_failures(f"{doing} in {client.region}", denied_hint=denied_hint):
        answer = client.call(operation, parameters, check=check)
    answer.pop("ResponseMetadata", None)
    return answer


def _with_token(parameters: Mapping[str, Any], client_token: Secret | None) -> dict[str, Any]:
    return {**parameters, "clientToken": client_token} if client_token else {**parameters}


def _has_job(answer: Answer) -> str | None:
    job = answer.get("jobDetails")
    return None if isinstance(job, dict) and job.get("id") else "the answer has no job"


def listed(
    config: AwsConfig, operation: str, parameters: Mapping[str, Any], member: str, doing: str
) -> Iterator[dict[str, Any]]:
    """Call a list operation page by page, and return the items of its list.

    Args:
        config: How to reach AWS.
        operation: The operation.
        parameters: Its members, without the token of a page.
        member: The member of the answer that is the list.
        doing: What the call does, as in "cannot <doing>".

    Raises:
        CpstageError: As :func:`call`.
    """
    token, seen = None, set[str]()
    while True:
        more: dict[str, Any] = {"nextToken": token} if token else {}
        answer = call(config, operation, {**parameters, **more}, doing, of_type(member, list))
        yield from (one for one in answer[member] if isinstance(one, dict))
        token = answer.get("nextToken")
        if not token:
            return
        if token in seen:
            raise ServiceUnavailable(f"cannot {doing}: CodePipeline repeats a page")
        seen.add(token)


def of_type(member: str, kind: type = dict) -> Check:
    """Return a check that a member of an answer is an object, or a list."""

    def check(answer: Answer) -> str | None:
        return None if isinstance(answer.get(member), kind) else f"the answer has no {member}"

    return check


def _is_empty(answer: Answer) -> str | None:
    """Refuse what only looks like a success: an error document, or the page of a proxy."""
    body = answer.get("Body", b"")
    try:
        document = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "__type" in document:
        return "the answer is not that of CodePipeline to a result"
    return None
