"""Requests and replies as werkzeug has them, and the three ways in which AWS words an error.

S3 answers in REST XML, CodePipeline and KMS in JSON 1.1, STS and IAM in the Query protocol. The
codes are those of "Common error types" in each service's API reference and of "Error responses" in
the S3 API Reference: S3 answers 403 AccessDenied where a JSON service answers
400 AccessDeniedException.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import NoReturn
from xml.sax.saxutils import escape

from werkzeug import wrappers
from werkzeug.wrappers import Response

_JSON_TYPE = "application/x-amz-json-1.1"
_JSON_SERVICES = frozenset({"codepipeline", "kms"})
_QUERY_SERVICES = frozenset({"sts", "iam"})


class Request(wrappers.Request):
    """One HTTP request."""

    max_form_memory_size = None  # an object may have the content type of a form

    @property
    def uri(self) -> str:
        """The path and the query as they were sent, percent-encoding untouched."""
        return str(self.environ["RAW_URI"])

    @property
    def raw_path(self) -> str:
        """The path as it was sent."""
        return self.uri.partition("?")[0]


def json_reply(document: object, status: int = 200, content_type: str = _JSON_TYPE) -> Response:
    """Return a reply with a JSON document."""
    return Response(json.dumps(document), status, content_type=content_type)


class Refusal(Exception):
    """An error to answer with: what AWS calls it, and what it says.

    Args:
        status: The HTTP status.
        code: The error code.
        message: What it says.
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

    def reply(self, service: str) -> Response:
        """Word the error as the service does."""
        message, request_id = str(self), str(uuid.uuid4())
        if service in _JSON_SERVICES:
            reply = json_reply({"__type": self.code, "message": message}, self.status)
            reply.headers["x-amzn-ErrorType"] = self.code
            return reply
        if service in _QUERY_SERVICES:
            details = _elements({"Type": "Sender", "Code": self.code, "Message": message})
            body = (
                f"<ErrorResponse><Error>{details}</Error>"
                f"<RequestId>{request_id}</RequestId></ErrorResponse>"
            )
            return Response(body, self.status, self.headers, content_type="text/xml")
        members = {"Code": self.code, "Message": message, **self.members, "RequestId": request_id}
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{_elements(members)}</Error>'
        headers = {**self.headers, "x-amz-request-id": request_id}
        return Response(body, self.status, headers, content_type="application/xml")


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
    s3, json_service, query, words = _FAULTS[fault]
    answer = s3
    if service in _JSON_SERVICES:
        answer = json_service
    elif service in _QUERY_SERVICES:
        answer = query
    raise Refusal(*answer, message or words)
