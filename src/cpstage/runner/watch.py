"""A job that ends on CodePipeline's side while its command runs: timed out, stopped, abandoned."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cpstage.errors import AccessDenied, ConfigurationError, CpstageError, OutOfSync

WATCH_SECONDS = 60.0
"""Between two questions whether the job is still in progress."""

_KILL_AFTER = 10.0
"""Seconds from the signal that asks the command to end to the one that kills it."""


class JobOver(OutOfSync):
    """The job is no longer in progress: CodePipeline takes no result for it."""

    default_hint = "release the change again"


class JobWatch:
    """Asks about a job in a thread, as long as the context lasts.

    Args:
        job_id: The job.
        ask: Returns whether it is in progress.
        stop: Asks the command to end; a second call kills it. Called in the thread.
        seconds: How often to ask.
    """

    def __init__(
        self,
        job_id: str,
        ask: Callable[[], bool],
        stop: Callable[[], object],
        seconds: float,
    ) -> None:
        self._job_id = job_id
        self._ask = ask
        self._stop = stop
        self._seconds = seconds
        self._ended = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, name="job-watch", daemon=True)

    def __enter__(self) -> JobWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()  # the thread may be in a request, which is not waited for

    def check(self) -> None:
        """Check that the job was not over before the command ended.

        Raises:
            JobOver: It was.
        """
        if self._is_over:
            raise JobOver(
                f"job {self._job_id} is no longer in progress: its command was stopped, and "
                "nothing was pushed"
            )

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                if self._ask():
                    continue
            except (AccessDenied, ConfigurationError):
                return  # the caller may not ask
            except CpstageError:
                continue
            if self._ended.is_set():
                return
            self._is_over = True
            self._stop()
            if not self._ended.wait(_KILL_AFTER):
                self._stop()
            return
