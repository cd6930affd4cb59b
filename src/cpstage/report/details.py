"""What a result says besides how the job ended, within the limits of the API reference."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from cpstage.errors import FailureType, UsageError


@dataclass(frozen=True)
class Revision:
    """``CurrentRevision``: what an action has made or deployed.

    Attributes:
        revision: Its id.
        change_identifier: What brought it about.
        summary: A word for people.
        created: When it was made; a time without a zone is this machine's.
    """

    revision: str
    change_identifier: str
    summary: str | None = None
    created: datetime | None = None

    def members(self) -> dict[str, Any]:
        """Return it as the API has it.

        Raises:
            UsageError: A member is empty or too long.
        """
        check_length("revision", self.revision, 1500)
        check_length("change identifier", self.change_identifier, 100)
        check_length("revision summary", self.summary, 2048)
        return given(
            revision=self.revision,
            changeIdentifier=self.change_identifier,
            created=self.created.timestamp() if self.created else None,
            revisionSummary=self.summary,
        )


@dataclass(frozen=True)
class Details:
    """What a result says besides how the job ended.

    Attributes:
        summary: A word for people, shown with the action (success only).
        external_execution_id: The id of the work in another system.
        percent_complete: How much of it is done, 0 to 100 (success only).
        revision: What it has made (success only).
    """

    summary: str | None = None
    external_execution_id: str | None = None
    percent_complete: int | None = None
    revision: Revision | None = None

    def check(self) -> None:
        """Hold everything against the limits of the service.

        Raises:
            UsageError: A member is empty, too long or out of its range.
        """
        check_length("summary", self.summary, 2048)
        check_length("external execution id", self.external_execution_id, 1500)
        if self.percent_complete is not None and not 0 <= self.percent_complete <= 100:
            raise UsageError(f"{self.percent_complete} percent complete is not 0 to 100")
        if self.revision:
            self.revision.members()

    def success_members(self) -> dict[str, Any]:
        """Return the request members of a success that say it."""
        self.check()
        execution = given(
            summary=self.summary,
            externalExecutionId=self.external_execution_id,
            percentComplete=self.percent_complete,
        )
        revision = self.revision.members() if self.revision else None
        return given(currentRevision=revision, executionDetails=execution or None)


@dataclass(frozen=True)
class Reported:
    """A result that CodePipeline has taken.

    Attributes:
        job_id: The job's.
        result: Which it was.
        failure_type: Of a failure, its type.
        message: Of a failure, what was told.
        output_variables: The names of the output variables.
        continued: Whether a continuation token went with it: another job will follow.
    """

    job_id: str
    result: Literal["success", "failure"]
    failure_type: FailureType | None = None
    message: str | None = field(default=None, repr=False)
    output_variables: tuple[str, ...] = ()
    continued: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "job_id": self.job_id,
            "result": self.result,
            "failure_type": self.failure_type,
            "message": self.message,
            "output_variables": list(self.output_variables),
            "continued": self.continued,
        }


def parse_time(text: str) -> datetime:
    """Read a time in the form of ISO 8601; ``Z`` is UTC, and no zone is this machine's.

    Raises:
        UsageError: It has another form.
    """
    try:
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is not a time such as 2030-01-31T12:00:00Z", hint="see --created"
        ) from error


def check_length(what: str, value: str | None, most: int) -> None:
    """Hold a text against the limits of the service; one that is None is not sent.

    Raises:
        UsageError: It is empty or too long.
    """
    if value is not None and not 1 <= len(value) <= most:
        raise UsageError(f"the {what} has {len(value):,} characters, and not 1 to {most:,}")


def given(**members: Any) -> dict[str, Any]:
    """Return the members that are given."""
    return {name: value for name, value in members.items() if value is not None}
