"""Requests and replies as they lie on the wire, and the three ways AWS words an error.

This module knows HTTP and the AWS protocols (REST XML of S3, JSON 1.1 of CodePipeline and KMS,
Query of STS and IAM).

What each AWS protocol calls the same refusal.

The codes are those of "Common error types" in each service's API reference and of "Error
responses" in the S3 API Reference: S3 answers 403 AccessDenied where a JSON service answers
400 AccessDeniedException.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from cpstage.local.identities import Identity

JSON_TYPE = "application/x-amz-json-1.1"
JSON_SERVICES = frozenset({"codepipeline", "kms"})
QUERY_SERVICES = frozenset({"sts", "iam"})


@dataclass(frozen=True)
class Request:
    """One HTTP request, its body read to the end.

    Attributes:
        method: The HTTP method in upper case.
        path: The path as it was sent, percent-encoding untouched.
        query: The decoded query, in the order it was sent.
        headers: Header values by lower-case name.
        body: The whole body.
        environ: The WSGI environment, for handing the request on.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    environ: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, Any], body: bytes) -> Request:
        """Read a request out of the WSGI environment that the HTTP server made."""
        path, _, query = environ["RAW_URI"].partition("?")
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        pairs = tuple(parse_qsl(query, keep_blank_values=True))
        return cls(environ["REQUEST_METHOD"], path, pairs, headers, body, environ)

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, or None."""
        return next((value for key, value in self.query if key == name), None)


@dataclass(frozen=True)
class Reply:
    """One HTTP reply, complete."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    error: str | None = None

    def header(self, name: str) -> str | None:
        """Return the value of a header, whatever its case, or None."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @classmethod
    def of_json(cls, document: object, status: int = 200, content_type: str = JSON_TYPE) -> Reply:
        """Make a reply of a JSON document."""
        body = json.dumps(document).encode()
        return cls(status, (("Content-Type", content_type),), body)


class Refusal(Exception):
    """An error to answer with: what AWS calls it, and what it says.

    Attributes:
        status: The HTTP status.
        code: The error code.
        headers: Headers of the reply beyond the usual.
        members: Elements of the S3 error document beyond code and message.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def reply(self, service: str, method: str) -> Reply:
        """Word the error as the service does; the answer to a HEAD has no body."""
        headers = dict(self.headers)
        message = str(self)
        request_id = str(uuid.uuid4())
        if service in JSON_SERVICES:
            headers |= {"Content-Type": JSON_TYPE, "x-amzn-ErrorType": self.code}
            body = json.dumps({"__type": self.code, "message": message})
        elif service in QUERY_SERVICES:
            headers["Content-Type"] = "text/xml"
            details = _elements({"Type": "Sender", "Code": self.code, "Message": message})
            body = (
                f"<ErrorResponse><Error>{details}</Error>"
                f"<RequestId>{request_id}</RequestId></ErrorResponse>"
            )
        else:
            headers |= {"Content-Type": "application/xml", "x-amz-request-id": request_id}
            members = {"Code": self.code, "Message": message, **self.members}
            details = _elements({**members, "RequestId": request_id})
            body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{details}</Error>'
        content = b"" if method == "HEAD" else body.encode()
        return Reply(self.status, tuple(headers.items()), content, self.code)


def _elements(members: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in members.items())


# Each fault as S3, the JSON services and the Query services word it, and its message.
_FAULTS: dict[str, tuple[tuple[int, str], tuple[int, str], tuple[int, str], str]] = {
    "anonymous": (
        (403, "AccessDenied"),
        (400, "MissingAuthenticationTokenException"),
        (403, "MissingAuthenticationToken"),
        "Access Denied: the request is not signed.",
    ),
    "unknown key": (
        (403, "InvalidAccessKeyId"),
        (400, "UnrecognizedClientException"),
        (403, "InvalidClientTokenId"),
        "The AWS access key id you provided does not exist in our records.",
    ),
    "wrong token": (
        (400, "InvalidToken"),
        (400, "UnrecognizedClientException"),
        (403, "InvalidClientTokenId"),
        "The provided token is malformed or otherwise not valid.",
    ),
    "wrong signature": (
        (403, "SignatureDoesNotMatch"),
        (400, "InvalidSignatureException"),
        (403, "SignatureDoesNotMatch"),
        "The request signature we calculated does not match the signature you provided.",
    ),
    "clock skew": (
        (403, "RequestTimeTooSkewed"),
        (400, "InvalidSignatureException"),
        (403, "SignatureDoesNotMatch"),
        "The difference between the request time and the current time is too large.",
    ),
    "expired": (
        (400, "ExpiredToken"),
        (400, "ExpiredTokenException"),
        (403, "ExpiredToken"),
        "The provided token has expired.",
    ),
    "denied": (
        (403, "AccessDenied"),
        (400, "AccessDeniedException"),
        (403, "AccessDenied"),
        "Access Denied",
    ),
}


def refuse(fault: str, service: str, message: str | None = None) -> NoReturn:
    """Refuse a request as its service would.

    Raises:
        Refusal: Always.
    """
    s3, json, query, words = _FAULTS[fault]
    status, code = json if service in JSON_SERVICES else query if service in QUERY_SERVICES else s3
    raise Refusal(status, code, message or words)


def require(identity: Identity, service: str, action: str, resource: str) -> None:
    """Refuse an action that the identity is not allowed.

    Raises:
        Refusal: No statement of the identity allows the action on the resource.
    """
    if not identity.allows(action, resource):
        refuse("denied", service, identity.denial(action, resource))
