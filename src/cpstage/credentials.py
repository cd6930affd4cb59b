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
from typing import NamedTuple

from cpstage.errors import CpstageError
from cpstage.job import SessionCredentials

_LOGGER = logging.getLogger("cpstage")

_TRY_AGAIN_SECONDS = 30.0
"""After a renewal ahead of time has failed; the old credentials may well last a while longer."""

Renew = Callable[[], SessionCredentials]


class _Frozen(NamedTuple):
    """One state of the credentials, in the form that requests are signed with."""

    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        return "credentials(********)"


class RenewingCredentials:
    """A job's session credentials.

    Args:
        first: The credentials that came with the job.
        renew: Asks for new ones. Its errors reach whoever needed them.
        max_age: Seconds after which they are renewed ahead of time.
        clock: Seconds that never go back.
    """

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

    def get_frozen_credentials(self) -> _Frozen:
        """Return what to sign the next request with."""
        if self._is_old():
            with self._lock:
                if self._is_old():
                    self._renew_ahead_of_time()
        return self._frozen

    def renew_after(self, token: str | None) -> None:
        """Renew, unless somebody has done it since a request was signed with this token.

        Raises:
            CpstageError: There are no new credentials to be had.
        """
        with self._lock:
            if token == self._frozen.token:
                self._use(self._renew())

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
