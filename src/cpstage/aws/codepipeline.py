"""The CodePipeline job API, for both kinds of job, called with the caller's own credentials.

The operations are those of the API reference, such as ``GetJobDetails`` and
``GetThirdPartyJobDetails``. The result of a job is checked against the limits of the API reference,
so that hours of work do not end in a ValidationException, and put again after failures.
"""

from __future__ import annotations

import json
import logging
import math
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from cpstage.aws.client import Answer, Check, Retries, aws_failures, has, most_tries
from cpstage.aws.config import AwsConfig
from cpstage.errors import (
    AccessDenied,
    ConfigurationError,
    CpstageError,
    FailureType,
    NotFound,
    OutOfSync,
    ServiceUnavailable,
    UsageError,
    require_type,
)
from cpstage.job import ActionTypeId, Job, parse_job
from cpstage.job.document import MaskedDict, is_document, mask_objects
from cpstage.job.model import Secret, secret

if TYPE_CHECKING:  # a fetch reports nothing: what a report needs is imported where it is used
    from cpstage.job.result import Details, Reported

_LOGGER = logging.getLogger("cpstage")

NOT_IN_PROGRESS = "it has a result already, timed out, or was never acknowledged"

_STATUS_SECONDS = 10.0
_UNKNOWN_AGE_SECONDS = 60.0
"""Credentials of unknown age may expire at any time."""

_NO_MESSAGE = "the job failed, and no message was given"
_MAYBE_PUT = "a try whose answer was lost may have put the result: look at the pipeline"
_COUNTS_AS_REPORTED = "a try whose answer was lost counts as reported; look at the pipeline"


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
    return {**document, "Expiration": f"{now + timedelta(seconds=left):%Y-%m-%dT%H:%M:%SZ}"}


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


def report_success(
    job_id: str,
    *,
    details: Details | None = None,
    output_variables: Mapping[str, str] | None = None,
    continuation_token: str | Secret | None = None,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> Reported:
    """Tell CodePipeline that a job has done its work.

    Args:
        job_id: The id of the job.
        details: The details of the result.
        output_variables: The action's output variables.
        continuation_token: Ends this job and starts another, which is handed the token; the action
            goes on until a job of it ends without one.
        client_token: The client's half of a third-party job's token.
        config: How to reach AWS.

    Raises:
        UsageError, ConfigurationError: CodePipeline would refuse a value.
        OutOfSync, NotFound: The job is not in progress, or does not exist.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
    from cpstage.job.result import Details, Reported, check_token, check_variables

    details = details or Details()
    require_type("details", details, Details)
    client_token, continuation_token = secret(client_token), secret(continuation_token)
    variables = check_variables(output_variables or {})
    if variables and continuation_token:
        raise ConfigurationError(
            "there are output variables and a continuation token: CodePipeline takes one of them",
            hint="leave output variables to the last job of the action",
        )
    if variables and client_token:
        raise ConfigurationError(
            "the result of a third-party job has no output variables", hint="leave them out"
        )
    parameters = details.success_members()
    if variables:
        parameters["outputVariables"] = variables
    if continuation_token is not None:
        parameters["continuationToken"] = check_token(continuation_token)
    _put("Success", job_id, parameters, client_token, config or AwsConfig())
    return Reported(
        job_id, "success", output_variables=(*variables,), continued=continuation_token is not None
    )


def report_failure(
    job_id: str,
    message: str,
    *,
    failure_type: FailureType = "JobFailed",
    external_execution_id: str | None = None,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> Reported:
    """Tell CodePipeline that a job has failed.

    Args:
        job_id: The id of the job.
        message: Why; of a longer one than the service takes, the end is kept; an empty one is
            replaced, with a warning.
        failure_type: The failure type.
        external_execution_id: The ID of the job in another system.
        client_token: The client's half of a third-party job's token.
        config: How to reach AWS.

    Raises:
        UsageError: The failure type is unknown.
        OutOfSync, NotFound: The job is not in progress, or does not exist.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
    from cpstage.job import result

    client_token = secret(client_token)
    message = result.without_control_characters(message)
    if not message.strip():
        _LOGGER.warning("warning: the message is empty: %r is reported", _NO_MESSAGE)
        message = _NO_MESSAGE
    if failure_type not in get_args(FailureType):
        known = ", ".join(get_args(FailureType))
        raise UsageError(
            f"{failure_type[:200]!r} is not a failure type of CodePipeline", hint=f"give {known}"
        )
    execution_id = external_execution_id or None
    try:
        result.check_id("external execution id", execution_id, result.MOST_EXECUTION_ID)
    except ConfigurationError as error:
        _LOGGER.warning("warning: %s: it is left out", error.message)
        execution_id = None
    shown = result.end_of(message, result.MOST_MESSAGE)
    details = result.given(type=failure_type, message=shown, externalExecutionId=execution_id)
    _put("Failure", job_id, {"failureDetails": details}, client_token, config or AwsConfig())
    return result.Reported(job_id, "failure", failure_type, shown)


def _put(
    kind: str, job_id: str, members: Mapping[str, Any], token: Secret | None, config: AwsConfig
) -> None:
    """Put a result until CodePipeline accepts or refuses it, or the time limit is reached.

    The number of tries within that time has no limit: hours of work may depend on the result.
    """
    put_once = partial(
        call,
        config,
        f"PutJob{kind}Result",
        {"jobId": job_id, **members},
        f"report the {kind.lower()} of job {job_id}",
        _is_empty,
        client_token=token,
        retries=Retries(0),
    )
    retries, began = Retries(config.timeout), time.monotonic()
    failures, may_be_put = 0, False
    while True:
        try:
            put_once()
            return
        except OutOfSync as error:
            if may_be_put or getattr(error.__cause__, "retries", None):  # botocore sent it again
                _LOGGER.warning("job %s has ended: %s", job_id, _COUNTS_AS_REPORTED)
                return
            raise OutOfSync(error.message, hint=NOT_IN_PROGRESS) from error
        except ServiceUnavailable as error:
            failures += 1
            # A service that throttles did nothing with the request.
            may_be_put = may_be_put or "Throttl" not in getattr(error.__cause__, "code", "")
            if not most_tries(error.__cause__):
                raise
            if not retries.wait(failures, began, math.inf):
                raise ServiceUnavailable(error.message, hint=_MAYBE_PUT) from error
        except CpstageError as error:
            if may_be_put:
                raise type(error)(error.message, hint=_MAYBE_PUT) from error
            raise


def _is_empty(answer: Answer) -> str | None:
    """Refuse a false success: an error document, or the page of a proxy."""
    body = answer.get("Body", b"")
    try:
        document = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "__type" in document:
        return "the answer is not that of CodePipeline to a result"
    return None


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
    parameters, doing = {"jobId": job_id, "nonce": nonce}, f"acknowledge job {job_id}"
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
    """Call an operation of CodePipeline, which is named as its permission.

    A client token makes the call that of a third-party job; ``doing`` is as in "cannot <doing>".
    """
    if client_token:
        operation = operation.replace("Job", "ThirdPartyJob", 1)
        parameters = {**parameters, "clientToken": client_token}
    require_type("config", config, AwsConfig)
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
