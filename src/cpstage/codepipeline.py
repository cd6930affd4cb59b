"""The CodePipeline job API, for both kinds of job.

The operations are those of the API reference, such as ``GetJobDetails`` and
``GetThirdPartyJobDetails``. This module calls them with the caller's own credentials, and knows
nothing of S3.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from cpstage.connection import Connection
from cpstage.document import parse_job
from cpstage.failures import aws_failures
from cpstage.job import ActionTypeId, Job
from cpstage.retries import Retries


def call(
    connection: Connection,
    operation: str,
    parameters: Mapping[str, Any],
    doing: str,
    *,
    secrets: Sequence[str | None] = (),
    retries: Retries | None = None,
) -> dict[str, Any]:
    """Call one operation of the job API.

    Args:
        connection: How to reach AWS.
        operation: As the API reference has it, such as ``PutJobSuccessResult``.
        parameters: Its request members.
        doing: What the call does, as in "cannot <doing>".
        secrets: Values that the service may quote back, and nobody may see.
        retries: How long to go on when something fails that may pass, if not for the timeout.

    Returns:
        The members of the answer.

    Raises:
        NotFound: There is no such job in the region, or it has ended.
        OutOfSync: The job is in another state than the call needs.
        AccessDenied: No credentials, or they do not allow the call.
        ServiceUnavailable: CodePipeline could not be reached.
        ConfigurationError: No region, or a malformed parameter.
    """
    service = connection.codepipeline(retries)
    denied_hint = f"the caller needs codepipeline:{operation}"
    with aws_failures(f"{doing} in {service.endpoint.region}", denied_hint=denied_hint):
        return service.call(operation, parameters, [one for one in secrets if one])


def get_job_details(
    job_id: str, *, client_token: str | None = None, connection: Connection | None = None
) -> dict[str, Any]:
    """Fetch the job's document as the service gives it, secrets included.

    Args:
        job_id: The id of the job.
        client_token: The client's half of a third-party job's token; makes the call
            GetThirdPartyJobDetails.
        connection: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The output of the call.

    Raises:
        NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As :func:`call` does.
    """
    operation, parameters = "GetJobDetails", {"jobId": job_id}
    if client_token:
        operation = "GetThirdPartyJobDetails"
        parameters["clientToken"] = client_token
    return call(
        connection or Connection(),
        operation,
        parameters,
        f"get job {shlex.quote(job_id)}",  # or a space at its end would not be seen
        secrets=[client_token],
    )


def get_job(
    job_id: str, *, client_token: str | None = None, connection: Connection | None = None
) -> Job:
    """Fetch a job: arguments and errors as in :func:`get_job_details`."""
    job = parse_job(get_job_details(job_id, client_token=client_token, connection=connection))
    return replace(job, client_token=client_token)


def poll_for_jobs(
    action_type: ActionTypeId,
    *,
    most: int = 1,
    query: Mapping[str, str] | None = None,
    connection: Connection | None = None,
) -> list[dict[str, Any]]:
    """Ask for jobs that wait for a worker.

    Args:
        action_type: What the worker can do; the owner ``ThirdParty`` makes the call
            PollForThirdPartyJobs.
        most: How many jobs to bring at most.
        query: A configuration property that the jobs must have, and its value; not for
            third-party jobs.
        connection: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The jobs: each with ``id``, ``nonce`` and ``data``, secrets included, or, for a third
        party, with ``clientId`` and ``jobId``.

    Raises:
        AccessDenied, ServiceUnavailable, ConfigurationError: As :func:`call` does.
    """
    parameters: dict[str, Any] = {"actionTypeId": asdict(action_type), "maxBatchSize": most}
    if query:
        parameters["queryParam"] = dict(query)
    operation = "PollForThirdPartyJobs" if action_type.is_third_party else "PollForJobs"
    answer = call(
        connection or Connection(), operation, parameters, f"poll for jobs of {action_type}"
    )
    return [*(answer.get("jobs") or ())]


def acknowledge_job(
    job_id: str,
    nonce: str,
    *,
    client_token: str | None = None,
    connection: Connection | None = None,
) -> str:
    """Claim a job that a poll has brought.

    Args:
        job_id: The id of the job.
        nonce: What the poll gave out with it, or the details of a third-party job.
        client_token: The client's half of a third-party job's token; makes the call
            AcknowledgeThirdPartyJob.
        connection: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The status of the job: only ``InProgress`` means that it is the caller's.

    Raises:
        OutOfSync: Another worker has polled for it since.
        NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As :func:`call` does.
    """
    operation, parameters = "AcknowledgeJob", {"jobId": job_id, "nonce": nonce}
    if client_token:
        operation = "AcknowledgeThirdPartyJob"
        parameters["clientToken"] = client_token
    answer = call(
        connection or Connection(),
        operation,
        parameters,
        f"acknowledge job {job_id}",
        secrets=[client_token],
    )
    return str(answer.get("status"))


def put_success(
    job_id: str,
    members: Mapping[str, Any],
    *,
    client_token: str | None = None,
    connection: Connection,
) -> None:
    """Put the result of a job that has done its work: one try.

    Args:
        job_id: The id of the job.
        members: Further request members of PutJobSuccessResult.
        client_token: The client's half of a third-party job's token; makes the call
            PutThirdPartyJobSuccessResult.
        connection: How to reach AWS.

    Raises:
        OutOfSync: The job is not in progress.
        NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As :func:`call` does.
    """
    _put_result("Success", job_id, members, client_token, connection)


def put_failure(
    job_id: str,
    details: Mapping[str, Any],
    *,
    client_token: str | None = None,
    connection: Connection,
) -> None:
    """Put the result of a job that has failed: ``FailureDetails``, else as :func:`put_success`."""
    _put_result("Failure", job_id, {"failureDetails": details}, client_token, connection)


def _put_result(
    kind: str,
    job_id: str,
    members: Mapping[str, Any],
    client_token: str | None,
    connection: Connection,
) -> None:
    parameters = {"jobId": job_id, **members}
    if client_token:
        parameters["clientToken"] = client_token
    call(
        connection,
        f"Put{'ThirdParty' if client_token else ''}Job{kind}Result",
        parameters,
        f"report the {kind.lower()} of job {job_id}",
        secrets=[client_token, members.get("continuationToken")],
        retries=Retries(0),
    )
