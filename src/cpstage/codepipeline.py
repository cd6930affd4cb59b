"""The CodePipeline job API, for both kinds of job.

The operations are those of the API reference, such as ``GetJobDetails`` and
``GetThirdPartyJobDetails``. This module calls them with the caller's own credentials, and knows
nothing of S3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cpstage.connection import Connection
from cpstage.document import parse_job
from cpstage.failures import aws_failures
from cpstage.job import Job
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
        f"get job {job_id}",
        secrets=[client_token],
    )


def get_job(
    job_id: str, *, client_token: str | None = None, connection: Connection | None = None
) -> Job:
    """Fetch a job: arguments and errors as in :func:`get_job_details`."""
    job = parse_job(get_job_details(job_id, client_token=client_token, connection=connection))
    return replace(job, client_token=client_token)


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
