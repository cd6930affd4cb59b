"""AWS Signature Version 4 (AWS General Reference, "Signing AWS API requests").

One function, from a request to the headers that sign it. It keeps nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""In place of the digest of a body that TLS protects."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_NOT_SIGNED = {"user-agent"}
"""Proxies change it."""


class Keys(Protocol):
    """What signs: the credentials of one moment."""

    @property
    def access_key(self) -> str:
        """The access key id."""

    @property
    def secret_key(self) -> str:
        """The secret access key."""

    @property
    def token(self) -> str | None:
        """The session token, if they are a session's."""


def signed_headers(
    method: str,
    authority: str,
    target: str,
    headers: Mapping[str, str],
    digest: str,
    *,
    keys: Keys,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers of a request with those that sign it.

    Args:
        method: The HTTP method.
        authority: The Host header.
        target: Path and query as they are sent, the parameters of the query in order.
        headers: What is sent besides; all of it but the user agent is signed.
        digest: SHA-256 of the body in hex, or :data:`UNSIGNED_PAYLOAD`.
        keys: What to sign with.
        region: The region of the endpoint.
        service: The signing name of the service.
        now: The time, UTC.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": stamp, "X-Amz-Content-SHA256": digest}
    if keys.token:
        sent["X-Amz-Security-Token"] = keys.token
    names, canonical = _canonical_headers({"host": authority, **sent})
    path, _, query = target.partition("?")
    if service != "s3":
        path = _canonical_path(path)
    request = "\n".join((method, path, query, canonical, names, digest))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = hmac.digest(_signing_key(keys, scope), to_sign.encode(), "sha256").hex()
    sent["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return sent


def _canonical_path(path: str) -> str:
    """Encode a path once more, without its dots and empty segments, as all services but S3 do."""
    segments: list[str] = []
    for one in path.split("/"):
        if one == "..":
            del segments[-1:]
        elif one not in ("", "."):
            segments.append(one)
    last = "/" if path.endswith("/") and segments else ""
    return quote("/" + "/".join(segments) + last, safe="/~")


def _canonical_headers(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return the names that are signed, and the block of names and values."""
    folded = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    names = sorted(folded.keys() - _NOT_SIGNED)
    return ";".join(names), "".join(f"{name}:{folded[name]}\n" for name in names)


def _signing_key(keys: Keys, scope: str) -> bytes:
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
