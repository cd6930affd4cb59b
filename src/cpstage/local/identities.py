"""Callers of the local AWS, and what each is allowed to do.

An identity is an access key with a secret, sometimes a session token and an expiry, and a list of
statements. A request that no statement allows is denied.
"""

from __future__ import annotations

import secrets
import string
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ACCOUNT = "123456789012"
_KEY_ALPHABET = string.ascii_uppercase + "234567"
_SECRET_ALPHABET = string.ascii_letters + string.digits + "+/"


@dataclass(frozen=True)
class Statement:
    """Allows actions on resources; `*` alone stands for every one."""

    actions: frozenset[str]
    resources: frozenset[str]

    def allows(self, action: str, resource: str) -> bool:
        """Whether this statement allows the action on the resource."""
        return bool({"*", action} & self.actions) and bool({"*", resource} & self.resources)


@dataclass
class Identity:
    """One access key and what it may do.

    Attributes:
        name: How the record calls it: `caller`, `admin`, `job:<id>`.
        arn: How AWS calls it in messages.
        statements: What it is allowed.
        access_key: The access key id.
        secret: The secret access key.
        token: The session token; None for a lasting key.
        expires_at: End of life in seconds since the epoch; None for a lasting key.
        job_id: The job whose session this is.
        session: Which of the job's sessions this is, from 1.
    """

    name: str
    arn: str
    statements: tuple[Statement, ...]
    access_key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    job_id: str | None = None
    session: int | None = None
    _requests: Iterator[int] | None = field(default=None, repr=False)

    def spend_request(self) -> bool:
        """Count a request; return False if the life of the credentials is over."""
        if self.expires_at is not None and time.time() >= self.expires_at:
            return False
        return self._requests is None or next(self._requests, None) is not None

    def allows(self, action: str, resource: str) -> bool:
        """Whether any statement allows the action on the resource."""
        return any(statement.allows(action, resource) for statement in self.statements)

    def denial(self, action: str, resource: str) -> str:
        """Word the refusal of an action as AWS does."""
        policy = "identity-based" if self.job_id is None else "session"
        return (
            f"User: {self.arn} is not authorized to perform: {action} "
            f'on resource: "{resource}" because no {policy} policy allows the {action} action'
        )


class Identities:
    """Every identity of one local AWS, by access key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[str, Identity] = {}

    def find(self, access_key: str) -> Identity | None:
        """Return the identity with this access key, or None."""
        return self._by_key.get(access_key)

    def add_user(self, name: str, statements: Iterable[Statement]) -> Identity:
        """Make an identity with a lasting key."""
        arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"
        return self._add(Identity(name, arn, tuple(statements), _access_key("AKIA"), _secret(40)))

    def add_session(
        self,
        job_id: str,
        number: int,
        statements: Iterable[Statement],
        seconds: float,
        requests: int | None = None,
    ) -> Identity:
        """Make the session credentials of a job, which end after some seconds or requests."""
        return self._add(
            Identity(
                name=f"job:{job_id}",
                arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/CodePipelineJob/{job_id}",
                statements=tuple(statements),
                access_key=_access_key("ASIA"),
                secret=_secret(40),
                token=_secret(320),
                expires_at=time.time() + seconds,
                job_id=job_id,
                session=number,
                _requests=None if requests is None else iter(range(requests)),
            )
        )

    def expire(self, job_id: str) -> None:
        """End every session of a job now."""
        with self._lock:
            for identity in self._by_key.values():
                if identity.job_id == job_id:
                    identity.expires_at = 0.0

    def _add(self, identity: Identity) -> Identity:
        with self._lock:
            self._by_key[identity.access_key] = identity
        return identity


def _access_key(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16))


def _secret(length: int) -> str:
    return "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(length))
