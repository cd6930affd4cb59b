"""The CodePipeline job API, for both kinds of job, called with the caller's own credentials.

The operations are those of the API reference, such as ``GetJobDetails`` and
``GetThirdPartyJobDetails``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from cpstage.aws.client import Check, Retries, has
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

_UNKNOWN_AGE_SECONDS = 60.0
"""Credentials of unknown age may expire at any time."""


def get_job_details(
    job_id: str, *, client_token: str | Secret | None = None, config: AwsConfig | None = None
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
    client_token = secret(client_token)
    if is_document(job_id):  # errors would quote its credentials
        raise ConfigurationError(
            "the job id is a job document", hint="read the document with cpstage.parse_job()"
        )
    answer = call(
        config or AwsConfig(),
        "GetJobDetails",
        {"jobId": job_id},
        f"get job {shlex.quote(job_id)}",  # or a space at its end would not be seen
        lambda answer: None if answer.get("jobDetails", {}).get("id") else "the answer has no job",
        client_token=client_token,
    )
    document: MaskedDict = mask_objects(answer)
    return document


def get_job(
    job_id: str, *, client_token: str | Secret | None = None, config: AwsConfig | None = None
) -> Job:
    """Return a job: arguments and errors as in :func:`get_job_details`."""
    client_token = secret(client_token)
    asked_at = datetime.now(timezone.utc)
    document = get_job_details(job_id, client_token=client_token, config=config)
    return replace(parse_job(document, issued_at=asked_at), client_token=client_token)


def is_in_progress(job_id: str, *, client_token: Secret | None, config: AwsConfig) -> bool:
    """Whether a job that existed is in progress; errors as in :func:`get_job_details`."""
    try:
        get_job_details(job_id, client_token=client_token, config=_briefly(config))
    except NotFound:
        return False
    return True


def _briefly(config: AwsConfig) -> AwsConfig:
    """Return a config for a status request, which is not worth the whole retry timeout."""
    return replace(config, timeout=min(config.timeout, _STATUS_SECONDS))


def current_job(job: Job, *, config: AwsConfig) -> Job:
    """Return a saved job with the credentials that the API has now.

    A job without credentials is returned unchanged, and so is one whose caller may not call
    GetJobDetails.

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


def process_credentials(job: Job, *, lifetime: float) -> dict[str, str | int]:
    """Return a job's session credentials as a ``credential_process`` prints them.

    AWS tools keep credentials without an expiry until they exit. So the document has an expiry,
    which is earlier than the true one.

    Args:
        job: The job, with its session credentials.
        lifetime: Seconds after CodePipeline returned them at which tools request new ones. Where
            that time is unknown, tools request them within a minute.

    Raises:
        AccessDenied: The job carries none, or they are older than that.
    """
    credentials = job.require_credentials()
    now, expires_at = datetime.now(timezone.utc), credentials.expires_at
    age = credentials.age_seconds
    if expires_at is not None:
        left = (expires_at - now).total_seconds()
        ended = f"expired at {expires_at:%Y-%m-%dT%H:%M:%SZ}"
    else:
        left = min(lifetime, _UNKNOWN_AGE_SECONDS) if age is None else lifetime - age
        ended = f"are {age or 0:.0f} seconds old"
    if left <= 0:
        raise AccessDenied(
            f"the session credentials of job {job.id} {ended}",
            hint="give the job id in place of a saved document",
        )
    document: dict[str, str | int] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
    }
    if credentials.session_token is not None:
        document["SessionToken"] = credentials.session_token.reveal()
    expiration = now + timedelta(seconds=left)
    return {**document, "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ")}


def require_in_progress(job_id: str, *, client_token: Secret | None, config: AwsConfig) -> None:
    """Check that a job is in progress, where the caller may ask CodePipeline.

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
    action_type: ActionTypeId, *, most: int, query: Mapping[str, str] | None, config: AwsConfig
) -> list[MaskedDict]:
    """Return jobs that wait for a worker of an action type, ``most`` at most.

    Each has ``id``, ``nonce`` and ``data``, secrets included, or, for the owner ``ThirdParty``,
    ``clientId`` and ``jobId``. The query is a configuration property that the jobs must have, and
    its value; it is not for third-party jobs. Errors are those of :func:`get_job_details`.
    """
    parameters: dict[str, Any] = {"actionTypeId": action_type._asdict(), "maxBatchSize": most}
    if query:
        parameters["queryParam"] = dict(query)
    operation = "PollForThirdPartyJobs" if action_type.is_third_party else "PollForJobs"
    answer = call(config, operation, parameters, f"poll for jobs of {action_type}", has("jobs"))
    return [mask_objects(job) for job in answer["jobs"]]


def acknowledge_job(
    job_id: str, nonce: str, *, client_token: Secret | None, config: AwsConfig
) -> str:
    """Claim a job that a poll has returned, and return its status.

    Only the status ``InProgress`` means that the job is the caller's. The nonce is that of the
    poll, or of the details of a third-party job. Other errors are those of
    :func:`get_job_details`.

    Raises:
        OutOfSync: Another worker has polled for it since.
    """
    parameters = {"jobId": job_id, "nonce": nonce}
    doing = f"acknowledge job {job_id}"
    check = has("status")
    answer = call(config, "AcknowledgeJob", parameters, doing, check, client_token=client_token)
    return str(answer["status"])


def secret_properties(action_type: ActionTypeId, *, config: AwsConfig) -> dict[str, bool] | None:
    """Return the configuration properties of an action type, and whether each is secret.

    None is for an action type that is not known, and for a caller who may not ask. GetActionType
    answers for the action types of AWS and of partners, ListActionTypes for custom ones (API
    reference).
    """
    where = _briefly(config)
    doing = f"get the action type {action_type}"
    try:
        if action_type.owner != "Custom":
            check = has("actionType")
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


def call(
    config: AwsConfig,
    operation: str,
    parameters: Mapping[str, Any],
    doing: str,
    check: Check,
    *,
    client_token: Secret | None = None,
    retries: Retries | None = None,
) -> MaskedDict:
    """Call an operation of CodePipeline with the caller's own credentials.

    Args:
        config: How to reach AWS.
        operation: The operation, whose name is also that of the permission.
        parameters: Its members.
        doing: What the call does, as in "cannot <doing>".
        check: Says what a good answer lacks.
        client_token: Makes the call that of a third-party job.
        retries: The time limit of retries.
    """
    if client_token:
        operation = operation.replace("Job", "ThirdPartyJob", 1)
        parameters = {**parameters, "clientToken": client_token}
    client = config.codepipeline()
    denied_hint = f"the caller needs codepipeline:{operation}"
    with aws_failures(f"{doing} in {client.region}", denied_hint=denied_hint):
        answer = client.call(operation, parameters, check=check, retries=retries)
    answer.pop("ResponseMetadata", None)
    return answer


def listed(
    config: AwsConfig, operation: str, parameters: Mapping[str, Any], member: str, doing: str
) -> Iterator[dict[str, Any]]:
    """Call a list operation page by page, and return the items of its list.

    Arguments and errors are those of :func:`call`; ``member`` is the list of the answer.
    """
    token, seen = None, set[str]()
    while True:
        more: dict[str, Any] = {"nextToken": token} if token else {}
        answer = call(config, operation, {**parameters, **more}, doing, has(member))
        yield from (one for one in answer[member] if isinstance(one, dict))
        token = answer.get("nextToken")
        if not token:
            return
        if token in seen:
            raise ServiceUnavailable(f"cannot {doing}: CodePipeline repeats a page")
        seen.add(token)
