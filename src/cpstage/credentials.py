"""Session credentials that renew themselves.

CodePipeline hands out a job's credentials without an expiry date, and a large transfer outlives
them. They are renewed both ways: ahead of time, when they reach a certain age, and when AWS says
that they have expired, in the middle of whatever call that was.

One rule keeps any number of threads at one renewal per expiry: whoever is told that its token has
expired renews only if that token is still the current one; otherwise somebody else has done it,
and signing again is enough. Where new credentials come from is the caller's to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from cpstage.errors import CpstageError
from cpstage.job import SessionCredentials

if TYPE_CHECKING:
    from botocore.client import BaseClient

_LOGGER = logging.getLogger("cpstage")

_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}

_MOST_RENEWALS = 10
"""For one request: a session that expires faster than a request can be sent will not get there."""

_TRY_AGAIN_SECONDS = 30.0
"""After a renewal ahead of time has failed; the old credentials may well last a while longer."""

Renew = Callable[[], SessionCredentials]


class _Frozen(NamedTuple):
    """One state of the credentials, in the form that botocore signs with."""

    access_key: str
    secret_key: str
    token: str | None
    account_id: None = None

    def __repr__(self) -> str:
        return "credentials(********)"


class RenewingCredentials:
    """A job's session credentials, for clients of botocore.

    Args:
        first: The credentials that came with the job.
        renew: Asks for new ones. Its errors reach whoever needed them.
        max_age: Seconds after which they are renewed ahead of time.
        clock: Seconds that never go back.
    """

    method = "cpstage"
    account_id = None

    def __init__(
        self,
        first: SessionCredentials,
        renew: Renew,
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renew = renew
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._use(first)

    def __repr__(self) -> str:
        return "RenewingCredentials(********)"

    def attach(self, client: BaseClient) -> None:
        """Make a client sign a request again when its token turns out to have expired."""
        events, service = client.meta.events, client.meta.service_model.service_id.hyphenize()
        # Last, since the request has to be signed; first, before the client's own retries.
        events.register_last(f"request-created.{service}", _note_token)
        events.register_first(f"needs-retry.{service}", self._retry_when_expired)

    def get_frozen_credentials(self) -> _Frozen:
        """Return what to sign the next request with; botocore calls this for each one."""
        if self._is_old():
            with self._lock:
                if self._is_old():
                    self._renew_ahead_of_time()
        return self._frozen

    def get_deferred_property(self, name: str) -> Callable[[], Any]:
        """Return a function for a property that endpoints may depend on; there is none."""
        del name
        return lambda: None

    def renew_after(self, token: str | None) -> None:
        """Renew, unless somebody has done it since a request was signed with this token.

        Raises:
            CpstageError: There are no new credentials to be had.
        """
        with self._lock:
            if token == self._frozen.token:
                self._use(self._renew())

    def _retry_when_expired(self, response: Any, request_dict: dict[str, Any], **_: Any) -> Any:
        """Answer ``needs-retry``: 0 seconds for an expired token, else no opinion."""
        if response is None or not _is_expired(*response):
            return None
        context = request_dict["context"]
        renewals = context["cpstage_renewals"] = context.get("cpstage_renewals", 0) + 1
        if renewals > _MOST_RENEWALS:
            return None
        self.renew_after(context.get("cpstage_token"))
        return 0.0

    def _renew_ahead_of_time(self) -> None:
        """Renew; when that fails, go on with what there is, until AWS refuses it."""
        try:
            self._use(self._renew())
        except CpstageError as error:
            _LOGGER.info("cannot renew the job's session ahead of time: %s", error.message)
            self._old_at = self._clock() + min(_TRY_AGAIN_SECONDS, self._max_age)

    def _is_old(self) -> bool:
        return self._clock() >= self._old_at

    def _use(self, new: SessionCredentials) -> None:
        self._frozen = _Frozen(new.access_key_id, new.secret_access_key, new.session_token)
        self._old_at = self._clock() + self._max_age


def _note_token(request: Any, **_: Any) -> None:
    """Keep with a request the token that it was signed with."""
    request.context["cpstage_token"] = request.headers.get("X-Amz-Security-Token")


def _is_expired(http: Any, parsed: dict[str, Any]) -> bool:
    """Tell whether an answer says that the token has expired.

    The answer to a HEAD has no body, and says 400 only; so does one from another region, which
    names it in a header.
    """
    code = parsed.get("Error", {}).get("Code")
    if code == "400":
        return http is not None and "x-amz-bucket-region" not in http.headers
    return code in _EXPIRED_CODES
