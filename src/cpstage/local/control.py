"""The control endpoint: how another process asks the local AWS for jobs and for its record.

Under `/_cpstage/`, beside the AWS APIs, JSON both ways. A web page in a browser cannot drive it:
it must send a header that a page may not send across origins, and a loopback Host, which a
rebound DNS name is not.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from cpstage.local.new_job import NewJob
from cpstage.local.wire import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from cpstage.local.jobs import Book
    from cpstage.local.record import Record

PREFIX = "/_cpstage/"
HEADER = "x-cpstage-local"
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost"})


class Control:
    """Answers the requests under `/_cpstage/`.

    Args:
        book: The book of jobs.
        record: The record of calls.
        submit: Makes a job and returns its id.
    """

    def __init__(self, book: Book, record: Record, submit: Callable[[NewJob], str]) -> None:
        self._book = book
        self._record = record
        self._submit = submit

    def answer(self, request: Request) -> Reply:
        """Answer `GET record`, `POST jobs` and `GET jobs/<id>`."""
        host = request.headers.get("host", "").partition(":")[0]
        if host not in _LOOPBACK_NAMES or request.headers.get(HEADER) != "1":
            return _reply({"message": f"Send {HEADER}: 1 from this machine"}, 403)
        resource, _, job_id = request.path.removeprefix(PREFIX).partition("/")
        if (request.method, resource, job_id) == ("GET", "record", ""):
            return _reply([asdict(call) for call in self._record.calls()])
        if (request.method, resource, job_id) == ("POST", "jobs", ""):
            return self._add_job(request.body)
        job = self._book.find(job_id) if resource == "jobs" else None
        if request.method == "GET" and job is not None:
            return _reply(job.to_json())
        return _reply({"message": "There is nothing here"}, 404)

    def _add_job(self, body: bytes) -> Reply:
        try:
            job_id = self._submit(NewJob.from_json(json.loads(body)))
        except (TypeError, ValueError, AttributeError) as error:
            return _reply({"message": f"This is no description of a job: {error}"}, 400)
        return _reply({"job_id": job_id})


def _reply(document: object, status: int = 200) -> Reply:
    return Reply.of_json(document, status, "application/json")
