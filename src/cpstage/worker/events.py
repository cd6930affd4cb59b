"""What a worker says: one event for each change of state, of itself or of a job.

An event is names and numbers; no secret has a place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from cpstage.errors import printable


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Subject:
    """The job that an event is about, and where in which pipeline it runs."""

    job_id: str
    pipeline: str | None = None
    stage: str | None = None
    action: str | None = None


@dataclass(frozen=True)
class WorkerEvent:
    """One change of state.

    Attributes:
        name: What happened: of the worker ``polling``, ``health``, ``poll-failed``, ``unwell``,
            ``well``, ``left``, ``draining`` or ``stopped``; of a job ``dropped``, or ``claimed``,
            ``started``, ``warning``, ``reported`` or ``report-failed``, and ``succeeded`` or
            ``failed``.
        about: The job.
        seconds: How long it took.
        exit_code: Of the job's process.
        workspace: What is kept of it.
        message: What a person should know besides.
        time: When, in UTC.
    """

    name: str
    about: Subject | None = None
    seconds: float | None = None
    exit_code: int | None = None
    workspace: str | None = None
    message: str | None = None
    time: str = field(default_factory=_now)

    def members(self) -> dict[str, Any]:
        """Return what there is to say, in the order in which it is said."""
        found: dict[str, Any] = {"time": self.time, "event": self.name}
        if self.about:
            found.update(vars(self.about))
        found["seconds"] = None if self.seconds is None else round(self.seconds, 3)
        found["exit_code"] = self.exit_code
        found["workspace"] = self.workspace
        found["message"] = self.message
        return {name: value for name, value in found.items() if value is not None}

    def text(self) -> str:
        """Return it as a line for a person: the time, the event, and the rest by name."""
        members = self.members()
        head = f"{members.pop('time')} {members.pop('event')}"
        message = members.pop("message", "")
        rest = " ".join(f"{name}={value}" for name, value in members.items())
        return printable(" ".join(filter(None, (head, rest, message))))


Tell = Callable[[WorkerEvent], object]


def described(job_id: str, document: Mapping[str, Any]) -> Subject:
    """Describe a job by its document, which is not validated yet."""

    def name(*path: str) -> str | None:
        found: Any = document
        for member in ("data", "pipelineContext", *path):
            found = found.get(member) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    return Subject(job_id, name("pipelineName"), name("stage", "name"), name("action", "name"))
