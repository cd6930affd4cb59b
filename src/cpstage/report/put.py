"""The result of a job, checked before it is put, and put as often as that helps.

What the API reference limits is held against its limits here, so that hours of work do not end in
a ValidationException. This module knows nothing of how a result came about.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cpstage.aws.codepipeline import put_failure, put_success
from cpstage.aws.config import Connection
from cpstage.aws.errors import ServiceError
from cpstage.aws.retries import Retries, most_tries
from cpstage.errors import (
    ConfigurationError,
    FailureType,
    OutOfSync,
    ServiceUnavailable,
    UsageError,
    local_reason,
)
from cpstage.masking import Secret, secret
from cpstage.report.details import Details, Reported, check_length, given
from cpstage.report.variables import check_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOGGER = logging.getLogger("cpstage")

MOST_MESSAGE = 5000
"""Characters of a failure's message (API reference, ``FailureDetails``)."""

_MOST_TOKEN = 2048

_NOT_IN_PROGRESS = "it has a result already, timed out, or was never acknowledged"
_MAYBE_PUT = "a try whose answer was lost may have put the result: look at the pipeline"
_TAKEN = "a try whose answer was lost counts as reported; look at the pipeline"


def report_success(
    job_id: str,
    *,
    details: Details | None = None,
    output_variables: Mapping[str, str] | None = None,
    continuation_token: str | Secret | None = None,
    client_token: str | Secret | None = None,
    connection: Connection | None = None,
) -> Reported:
    """Tell CodePipeline that a job has done its work.

    Args:
        job_id: The id of the job.
        details: What to say besides.
        output_variables: The action's output variables.
        continuation_token: Ends this job and starts another, which is handed the token; the action
            goes on until a job of it ends without one.
        client_token: The client's half of a third-party job's token.
        connection: How to reach AWS.

    Raises:
        UsageError, ConfigurationError: The service would not take what is to be said.
        OutOfSync, NotFound: The job is not in progress, or there is none.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
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
    parameters = (details or Details()).success_members()
    if variables:
        parameters["outputVariables"] = variables
    if continuation_token is not None:
        parameters["continuationToken"] = check_token(continuation_token)
    link = connection or Connection()

    def put() -> None:
        put_success(job_id, parameters, client_token=client_token, connection=link)

    _put(put, job_id, link)
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
    connection: Connection | None = None,
) -> Reported:
    """Tell CodePipeline that a job has failed.

    Args:
        job_id: The id of the job.
        message: Why; of a longer one than the service takes, the end is kept.
        failure_type: Whose fault it is.
        external_execution_id: The id of the work in another system.
        client_token: The client's half of a third-party job's token.
        connection: How to reach AWS.

    Raises:
        UsageError: There is no message, or no such type.
        OutOfSync, NotFound: The job is not in progress, or there is none.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
    client_token = secret(client_token)
    if not message.strip():
        raise UsageError("the message of a failure is empty", hint="say what went wrong")
    if failure_type not in get_args(FailureType):
        known = ", ".join(get_args(FailureType))
        raise UsageError(f"there is no failure type {failure_type!r}", hint=f"there are {known}")
    check_length("external execution id", external_execution_id, 1500)
    told = end_of(message, MOST_MESSAGE)
    parameters = given(type=failure_type, message=told, externalExecutionId=external_execution_id)
    link = connection or Connection()

    def put() -> None:
        put_failure(job_id, parameters, client_token=client_token, connection=link)

    _put(put, job_id, link)
    return Reported(job_id, "failure", failure_type, told)


def check_token(token: Secret) -> Secret:
    """Return a continuation token, if the service would take it.

    Raises:
        ConfigurationError: It is empty or too long.
    """
    if not 1 <= len(token) <= _MOST_TOKEN:
        raise ConfigurationError(
            f"the continuation token has {len(token):,} characters, and not 1 to {_MOST_TOKEN:,}"
        )
    return token


def read_token(path: Path | str) -> Secret:
    """Read a continuation token, without the end of its line.

    Raises:
        ConfigurationError: It cannot be read, or the service would not take it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        why = local_reason(error)
        raise ConfigurationError(f"cannot read the continuation token {path}: {why}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"the continuation token {path} is not UTF-8 text", hint="write it as UTF-8"
        ) from None
    return check_token(Secret(text.rstrip("\r\n")))


def end_of(text: str, most: int) -> str:
    """Return the end of a text, as long as it may be.

    Lengths are counted as Java has them (UTF-16), which no other way of counting exceeds.
    """
    units = text.encode("utf-16-le", "replace")
    return units[-2 * most :].decode("utf-16-le", "ignore") if most > 0 else ""


def _put(put: Callable[[], None], job_id: str, connection: Connection) -> None:
    """Put a result until it is taken, it is refused, or time is over.

    There is no end of tries within that time: hours of work may hang on the result.
    """
    retries, began = Retries(connection.timeout), time.monotonic()
    failures, may_be_put = 0, False
    while True:
        try:
            put()
            return
        except OutOfSync as error:
            if may_be_put or _was_sent_again(error):
                _LOGGER.warning("job %s has ended: %s", job_id, _TAKEN)
                return
            raise OutOfSync(error.message, hint=_NOT_IN_PROGRESS) from error
        except ServiceUnavailable as error:
            failures, may_be_put = failures + 1, True
            if error.__cause__ is None or not most_tries(_cause(error)):
                raise
            if not retries.wait(failures, began, math.inf):
                raise ServiceUnavailable(error.message, hint=_MAYBE_PUT) from error


def _cause(error: ServiceUnavailable) -> Exception:
    return error.__cause__ if isinstance(error.__cause__, Exception) else error


def _was_sent_again(error: OutOfSync) -> bool:
    """Whether botocore sent the request more than once, as a caller may configure it."""
    return isinstance(error.__cause__, ServiceError) and error.__cause__.retries > 0
