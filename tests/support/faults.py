"""What can go wrong between cpstage and AWS: faults as plain values, for the tests to name.

Which requests they strike is the business of `fault_plans`, sockets are that of `fault_proxy`.
"""

from __future__ import annotations

import json
import re
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Side = Literal["request", "response"]
Offset = int | float
"""Bytes of a body from its start; a float is a share of its length, below 1.0."""


@dataclass(frozen=True)
class Request:
    """A request that has come to the proxy.

    Attributes:
        method: Such as ``GET``.
        path: As it was sent, percent-encoding untouched.
        query: As it was sent, without the question mark.
        operation: The API's name of it, such as ``UploadPart`` or ``GetJobDetails``.
        key: The S3 object key, decoded; empty for other services.
        byte_range: The ``Range`` header, such as ``bytes=0-99``.
        is_json: Whether its service speaks JSON, as CodePipeline and KMS do.
    """

    method: str
    path: str
    query: str = ""
    operation: str = ""
    key: str = ""
    byte_range: str | None = None
    is_json: bool = False


class Link(Protocol):
    """What a fault can do to the connection that it strikes, and say of itself."""

    def strike(self) -> None:
        """Note that the fault has had an effect."""

    def reset(self) -> NoReturn:
        """Break the client's connection off with RST."""

    def close(self) -> NoReturn:
        """Close the client's connection."""

    def stall(self) -> None:
        """Do nothing until the proxy is released, or the client has gone away."""

    def pause(self, seconds: float) -> None:
        """Wait, or until the proxy is closed."""


@dataclass(frozen=True)
class Answer:
    """Answer in the place of AWS, which never hears of the request.

    Attributes:
        status: The HTTP status.
        code: The error code; empty for an answer without a body.
        message: What the error document says.
        headers: More headers, or others.
    """

    status: int
    code: str = ""
    message: str = "An injected fault."
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def body(self, request: Request) -> tuple[str, bytes]:
        """The media type and the error document, as the service would word it."""
        if not self.code or request.method == "HEAD":
            return "application/xml", b""
        if request.is_json:
            document = {"__type": self.code, "message": self.message}
            return "application/x-amz-json-1.1", json.dumps(document).encode()
        members = f"<Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{members}</Error>'
        return "application/xml", text.encode()


@dataclass(frozen=True)
class Document(Answer):
    """Answer with a document that is not the service's, such as the login page of a proxy.

    The answer to a HEAD has its headers only.

    Attributes:
        content: The document.
        kind: Its media type.
    """

    content: bytes = b""
    kind: str = "text/html"

    def body(self, request: Request) -> tuple[str, bytes]:
        return self.kind, self.content


INTERNAL_ERROR = Answer(500, "InternalError")
SLOW_DOWN = Answer(503, "SlowDown")
ACCESS_DENIED = Answer(403, "AccessDenied")
NO_SUCH_KEY = Answer(404, "NoSuchKey")
PRECONDITION_FAILED = Answer(412, "PreconditionFailed")
EXPIRED_TOKEN = Answer(400, "ExpiredToken")

_REDIRECTS = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    400: "IllegalLocationConstraintException",
}


def redirect(status: int, region: str) -> Answer:
    """What S3 answers for a bucket that lies in another region."""
    return Answer(status, _REDIRECTS[status], headers={"x-amz-bucket-region": region})


@dataclass(frozen=True)
class Drop:
    """End the connection without an answer; AWS never hears of the request.

    Attributes:
        with_reset: Whether it ends with RST.
    """

    with_reset: bool = False


@dataclass(frozen=True)
class Meanwhile:
    """Call a function before the request goes on, which then has the answer of AWS."""

    action: Callable[[], object]


@dataclass(frozen=True)
class OnTheWay:
    """A fault in one of the two messages, which AWS sends or receives itself."""

    _: KW_ONLY
    side: Side = "response"

    def before(self, link: Link) -> None:
        """Strike before the first byte of the answer."""

    def announced(self, length: int | None) -> int | None:
        """The Content-Length to send in place of the true one."""
        return length

    def heading(self, raw: bytes, link: Link) -> Iterator[bytes]:
        """Hand the head of the answer on: its first line, its headers and the blank line."""
        yield raw

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        """Hand the body on, as far as the fault lets it."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Break(OnTheWay):
    """Strikes before the byte at an offset; a body that does not have that byte is left alone.

    None is before the first byte of the answer, when AWS has done what it was asked to.
    """

    after: Offset | None = 0

    def act(self, link: Link) -> None:
        raise NotImplementedError

    def before(self, link: Link) -> None:
        if self.after is None:
            link.strike()
            self.act(link)

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        left = -1 if self.after is None else _bytes(self.after, length)
        for piece in pieces:
            here = 0 <= left < len(piece)
            if here:
                yield piece[:left]
                link.strike()
                self.act(link)
            yield piece[left:] if here else piece
            left = -1 if here or left < 0 else left - len(piece)


@dataclass(frozen=True)
class Reset(_Break):
    """Break off with RST. What the client has not received by then may be lost, too."""

    def act(self, link: Link) -> None:
        link.reset()


@dataclass(frozen=True)
class Close(_Break):
    """Close the connection early, though the headers promise a longer body."""

    def act(self, link: Link) -> None:
        link.close()


@dataclass(frozen=True)
class Stall(_Break):
    """Stop, and go on when the proxy is released."""

    def act(self, link: Link) -> None:
        link.stall()


HeadPlace = Literal["version", "status", "reason", "name", "value", "before", "after", "blank line"]
"""Where a head is cut: in its first line (the version, the status, or behind the whole line); in
the name or the value of the header that matters most (`ETag`, else `Content-Length`, else the last
one), or in front of or behind its line; or in front of the blank line."""


@dataclass(frozen=True)
class CutHead(OnTheWay):
    """End the connection in the head of the answer, when AWS has done what it was asked to.

    Attributes:
        at: Where: a place, or bytes from the start of the head.
        with_reset: Whether the connection ends with RST.
    """

    at: HeadPlace | int
    with_reset: bool = False

    def heading(self, raw: bytes, link: Link) -> Iterator[bytes]:
        yield raw[: self.at if isinstance(self.at, int) else _place(raw, self.at)]
        link.strike()
        link.reset() if self.with_reset else link.close()


def _place(raw: bytes, place: HeadPlace) -> int:
    """Return the bytes of a head that come before a place."""
    lower = raw.lower()
    found = [lower.find(b"\r\n" + name + b":") for name in (b"etag", b"content-length")]
    last = raw.rindex(b"\r\n", 0, -4)
    start = next((one for one in found if one > 0), last) + 2
    end = raw.index(b"\r\n", start)
    colon = raw.index(b":", start)
    return {
        "version": len("HTTP/1"),
        "status": len("HTTP/1.1 2"),
        "reason": raw.index(b"\r\n"),
        "name": start + 2,
        "value": (colon + 2 + end) // 2,
        "before": start,
        "after": end + 2,
        "blank line": len(raw) - 2,
    }[place]


@dataclass(frozen=True)
class Without(OnTheWay):
    """Leave a header of the answer out.

    Attributes:
        header: Its name.
    """

    header: str

    def heading(self, raw: bytes, link: Link) -> Iterator[bytes]:
        left = re.sub(rb"(?i)\r\n%s:[^\r]*" % re.escape(self.header.encode()), b"", raw)
        if left != raw:
            link.strike()
        yield left

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        return pieces


@dataclass(frozen=True)
class Changed(Without):
    """Give a header of the answer another value."""

    value: str

    def heading(self, raw: bytes, link: Link) -> Iterator[bytes]:
        left = b"".join(super().heading(raw, link))
        yield left.replace(b"\r\n", f"\r\n{self.header}: {self.value}\r\n".encode(), 1)


@dataclass(frozen=True)
class Unannounced(OnTheWay):
    """Send a body whose length is not announced, and close the connection before its end.

    Attributes:
        after: Bytes of the body that are sent.
        chunked: Whether they are a chunk (RFC 9112, section 7.1); the last chunk never comes.
    """

    after: Offset
    chunked: bool = False

    def heading(self, raw: bytes, link: Link) -> Iterator[bytes]:
        instead = b"Transfer-Encoding: chunked" if self.chunked else b"Connection: close"
        yield re.sub(rb"(?i)\r\ncontent-length:[^\r]*", b"\r\n" + instead, raw)

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        body = b"".join(pieces)
        begun = body[: _bytes(self.after, length)]
        yield b"%x\r\n%s\r\n" % (len(begun), begun) if self.chunked else begun
        link.strike()
        link.close()


@dataclass(frozen=True)
class Shorten(OnTheWay):
    """Send a shorter body, and headers that say it is the whole one."""

    to: int

    def announced(self, length: int | None) -> int | None:
        return length if length is None else min(self.to, length)

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        left = self.to
        for piece in pieces:
            if len(piece) > left:
                link.strike()
            yield piece[:left]
            left = max(0, left - len(piece))


@dataclass(frozen=True)
class Flip(OnTheWay):
    """Flip the lowest bit of one byte."""

    at: Offset

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        left = _bytes(self.at, length)
        for piece in pieces:
            if 0 <= left < len(piece):
                link.strike()
                yield piece[:left] + bytes([piece[left] ^ 1]) + piece[left + 1 :]
            else:
                yield piece
            left -= len(piece)


@dataclass(frozen=True)
class Throttle(OnTheWay):
    """Let so many bytes through per second."""

    rate: int

    def through(self, pieces: Iterator[bytes], length: int | None, link: Link) -> Iterator[bytes]:
        step = max(1, self.rate // 20)
        for piece in pieces:
            link.strike()
            for start in range(0, len(piece), step):
                part = piece[start : start + step]
                link.pause(len(part) / self.rate)
                yield part


Fault = Answer | Drop | Meanwhile | OnTheWay


def _bytes(offset: Offset, length: int | None) -> int:
    return int(offset * (length or 0)) if isinstance(offset, float) else offset
