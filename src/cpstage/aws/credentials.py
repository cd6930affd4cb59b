"""A job's session credentials: refreshed, and in the form of a ``credential_process``.

CodePipeline issues a job's credentials without an expiry date, and a large transfer outlives
them. They are refreshed both ways: ahead of time, when they reach a certain age, and when AWS says
that they have expired, in the middle of whatever call that was.

botocore's ``RefreshableCredentials`` need an expiry date, and botocore retries no ExpiredToken. So
the clients of a job sign with :class:`JobCredentials`, and the retries of
:mod:`cpstage.aws.client` refresh them. One rule keeps any number of threads at one refresh per
expiry: a thread whose token has expired refreshes only if that token is still the
current one; otherwise another thread has done it, and signing again is enough.

AWS tools keep credentials without an expiry until they exit, so :func:`process_credentials` states
one that is earlier than the true one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from cpstage.errors import AccessDenied, CpstageError
from cpstage.job import Job, SessionCredentials
from cpstage.job.masking import MASK

_LOGGER = logging.getLogger("cpstage")

_SPARE_SECONDS = 60.0
"""Before the time at which credentials expire, where that is known."""

_UNKNOWN_AGE_SECONDS = 60.0
"""Credentials of unknown age may expire at any time."""

_TRY_AGAIN_SECONDS = 30.0
"""After a refresh ahead of time has failed; the old credentials may well last a while longer."""

Refresh = Callable[[], SessionCredentials]


class JobCredentials:
    """A job's session credentials.

    Args:
        first: The credentials that came with the job.
        refresh: Asks for new ones. Its errors reach the caller of whatever needed them.
        max_age: Seconds after which they are refreshed ahead of time.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        first: SessionCredentials,
        refresh: Refresh,
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refresh = refresh
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._use(first)

    def __repr__(self) -> str:
        return f"JobCredentials({MASK})"

    def sign_for(self, client: Any) -> None:
        """Make a boto3 client sign with these credentials, and with no others."""
        client.meta.events.register("before-sign", self._before_sign)

    def get_frozen_credentials(self) -> SessionCredentials:
        """Return what to sign the next request with; botocore calls this for each request."""
        if self._is_old():
            with self._lock:
                if self._is_old():
                    self._refresh_ahead_of_time()
        return self._current

    @property
    def current(self) -> SessionCredentials:
        """What requests are signed with now, however old it is."""
        return self._current

    def refresh_after(self, token: str | None) -> None:
        """Refresh, unless another thread has done it since a request was signed with this token.

        Raises:
            CpstageError: The refresh failed.
        """
        with self._lock:
            if token == self._current.token:
                self._use(self._refresh())

    def _before_sign(self, request: Any, **_: Any) -> None:
        request.context.setdefault("signing", {})["request_credentials"] = self

    def _refresh_ahead_of_time(self) -> None:
        """Refresh; when that fails, go on with the old ones, until AWS refuses them."""
        try:
            self._use(self._refresh())
        except CpstageError as error:
            _LOGGER.info("cannot refresh the job's session ahead of time: %s", error.message)
            self._old_at = self._clock() + min(_TRY_AGAIN_SECONDS, self._max_age)

    def _is_old(self) -> bool:
        return self._clock() >= self._old_at

    def _use(self, new: SessionCredentials) -> None:
        self._current = new
        lasts = self._max_age - (new.age_seconds or 0.0)
        if new.expires_at is not None:
            left = (new.expires_at - datetime.now(timezone.utc)).total_seconds()
            lasts = min(lasts, left - _SPARE_SECONDS)
        self._old_at = self._clock() + lasts


def process_credentials(job: Job, *, lifetime: float) -> dict[str, str | int]:
    """Return a job's session credentials as a ``credential_process`` prints them.

    Args:
        job: The job, with its session credentials.
        lifetime: Seconds after CodePipeline returned them at which tools are to ask for new ones.
            Where that time is unknown, tools are to ask soon.

    Raises:
        AccessDenied: The job carries none, or they are older than that.
    """
    credentials = job.require_credentials()
    now = datetime.now(timezone.utc)
    if credentials.expires_at is not None:
        if credentials.expires_at <= now:
            raise AccessDenied(
                f"the session credentials of job {job.id} expired at "
                f"{credentials.expires_at:%Y-%m-%dT%H:%M:%SZ}",
                hint="give the job id in place of a saved document",
            )
        left = (credentials.expires_at - now).total_seconds()
    elif (age := credentials.age_seconds) is None:
        left = min(lifetime, _UNKNOWN_AGE_SECONDS)
    elif (left := lifetime - age) <= 0:
        raise AccessDenied(
            f"the session credentials of job {job.id} are {age:.0f} seconds old",
            hint="give the job id in place of a saved document",
        )
    expiration = now + timedelta(seconds=left)
    document: dict[str, str | int] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
    }
    if credentials.session_token is not None:
        document["SessionToken"] = credentials.session_token.reveal()
    return {**document, "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ")}
