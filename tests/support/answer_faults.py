"""Everything that can become of one answer: lost, cut, refused for now, or of somebody else.

Each kind is a fault for the fault proxy, and says whether AWS has done what it was asked by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from faults import (
    SLOW_DOWN,
    Answer,
    Close,
    CutHead,
    Document,
    Drop,
    Fault,
    Reset,
    Shorten,
    Unannounced,
    Without,
)

RESULTS = ("PutJobSuccessResult", "PutJobFailureResult")

_JSON = {"GetJobDetails", "PollForJobs", "AcknowledgeJob", *RESULTS}
_REQUEST_HAS_BODY = {*_JSON, "PutObject", "UploadPart", "CompleteMultipartUpload"}
_ANSWER_HAS_BODY = {
    *_JSON.difference(RESULTS),
    "GetObject",
    "CreateMultipartUpload",
    "CompleteMultipartUpload",
}
_ANSWER_HAS_ETAG = {"HeadObject", "GetObject", "PutObject", "UploadPart"}

PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><p>Log in<br></body></html>"
_AMZ_JSON, _XML = "application/x-amz-json-1.1", "application/xml"


@dataclass(frozen=True)
class Kind:
    """One thing that can become of an answer.

    Attributes:
        fault: What the proxy does.
        group: What it is one of.
        applied: Whether AWS has done what it was asked.
    """

    fault: Fault
    group: str
    applied: bool = False


_BEFORE = {
    "closed before the request arrives": Drop(),
    "reset before the request arrives": Drop(with_reset=True),
}
_IN_THE_REQUEST = {"reset in the body of the request": Reset(0.5, side="request")}
_LOST = {"answer lost, closed": Close(None), "answer lost, reset": Reset(None)}
_CUT_IN_THE_HEAD = {
    "cut in the version": CutHead("version"),
    "cut in the status": CutHead("status"),
    "cut behind the reason": CutHead("reason"),
    "cut in a header's name": CutHead("name"),
    "cut in a header's value": CutHead("value"),
    "cut in front of a header": CutHead("before"),
    "cut between two headers": CutHead("after"),
    "reset between two headers": CutHead("after", with_reset=True),
    "cut before the blank line": CutHead("blank line"),
}
_CUT_IN_THE_BODY = {
    "body cut": Close(0.5),
    "body reset": Reset(0.5),
    "body cut before its first byte": Close(0),
    "body shorter, as announced": Shorten(to=9),
    "body cut, length not announced": Unannounced(0.5),
    "body cut between two chunks": Unannounced(0.5, chunked=True),
}
_BUSY = {
    "503 as a page": Document(503, content=PAGE),
    "502 without a body": Document(502),
}
_BUSY_JSON: dict[str, Fault] = {
    "500": Answer(500, "InternalFailure"),
    "503": Answer(503, "ServiceUnavailableException"),
}
_BUSY_S3: dict[str, Fault] = {"500": Answer(500, "InternalError"), "503": SLOW_DOWN}
NOTHING = "200 without a body"
_FALSE = {
    NOTHING: Document(200),
    "200 with a page": Document(200, content=PAGE),
    "200 with an XML error": Document(
        200,
        content=b"<Error><Code>InternalError</Code><Message>We failed.</Message></Error>",
        kind=_XML,
    ),
    "200 with XML of nobody": Document(200, content=b"<x/>", kind=_XML),
    "200 with half a JSON object": Document(200, content=b"{", kind=_AMZ_JSON),
}
_FALSE_JSON = {
    "200 with a JSON list": Document(200, content=b"[]", kind=_AMZ_JSON),
    "200 with null": Document(200, content=b"null", kind=_AMZ_JSON),
    "200 with a JSON error": Document(
        200, content=b'{"__type": "InternalFailure"}', kind=_AMZ_JSON
    ),
    "200 with bytes that are not text": Document(200, content=b"\xff\xfe\x00{", kind=_AMZ_JSON),
}
_FALSE_S3 = {
    "200 with half an XML element": Document(200, content=b"<x><y", kind=_XML),
    "206 without an ETag": Document(206, content=b"x" * 100, kind="binary/octet-stream"),
    "204": Document(204),
}

_APPLIED = ("answer lost", "cut in the head", "cut in the body", "incomplete")


def kinds_of(operation: str) -> dict[str, Kind]:
    """Everything that can become of the answer to an operation, by name."""
    groups: dict[str, dict[str, Fault]] = {
        "answer lost": {**_LOST},
        "cut in the head": {**_CUT_IN_THE_HEAD},
        "cut in the body": {**_CUT_IN_THE_BODY} if operation in _ANSWER_HAS_BODY else {},
        "incomplete": {"no ETag": Without("ETag")} if operation in _ANSWER_HAS_ETAG else {},
        "not arrived": {**_BEFORE},
        "busy": {**_BUSY},
        "false": {**_FALSE, **(_FALSE_JSON if operation in _JSON else _FALSE_S3)},
    }
    if operation in _REQUEST_HAS_BODY:
        groups["not arrived"] |= _IN_THE_REQUEST
    groups["busy"] |= _BUSY_JSON if operation in _JSON else _BUSY_S3
    if operation in RESULTS:
        del groups["false"][NOTHING]  # a good answer has no body (API reference)
    if operation == "AbortMultipartUpload":
        del groups["false"]["204"]  # a good answer
    return {
        name: Kind(fault, group, applied=group in _APPLIED)
        for group, faults in groups.items()
        for name, fault in faults.items()
    }
