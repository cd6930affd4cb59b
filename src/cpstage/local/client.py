"""A client of a local AWS that runs in another process.

It needs nothing but the standard library, and speaks to the control endpoint only.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from cpstage.local.new_job import NewJob, TakesJobs
from cpstage.local.record import Call


class LocalAWSClient(TakesJobs):
    """Adds jobs to a running local AWS, and reads what became of them.

    Args:
        endpoint_url: Where the local AWS listens.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, endpoint_url: str, timeout: float = 120.0) -> None:
        if not endpoint_url.startswith("http://"):
            raise ValueError(f"A local AWS is at http://127.0.0.1:PORT, not at {endpoint_url}")
        self._base = endpoint_url.rstrip("/") + "/_cpstage/"
        self._timeout = timeout
        # A proxy from the environment has no business between two processes of one machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, and return its id.

        Raises:
            ConnectionError: No local AWS listens there.
            ValueError: It would not have the job.
        """
        return str(self._ask("jobs", job.to_json())["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as it stands, as a JSON document.

        Raises:
            ConnectionError: No local AWS listens there.
            ValueError: It has no such job.
        """
        document: dict[str, Any] = self._ask(f"jobs/{job_id}")
        return document

    def calls(self) -> list[Call]:
        """Return the record of who called what.

        Raises:
            ConnectionError: No local AWS listens there.
        """
        return [Call(**call) for call in self._ask("record")]

    def _ask(self, resource: str, document: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 (the scheme is http, checked above)
            self._base + resource,
            data=None if document is None else json.dumps(document).encode(),
            headers={"X-Cpstage-Local": "1", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                try:
                    message = json.load(error)["message"]
                except (ValueError, KeyError, TypeError):
                    raise ConnectionError(f"{self._base} is no local AWS") from error
            raise ValueError(message) from error
        except TimeoutError as error:
            raise ConnectionError(f"The local AWS at {self._base} does not answer") from error
        except urllib.error.URLError as error:
            why = getattr(error.reason, "strerror", None) or error.reason
            raise ConnectionError(f"No local AWS listens at {self._base}: {why}") from error
