"""Amazon S3's REST API, as far as a job's session may use it (Amazon S3 API Reference).

GetObject, HeadObject, PutObject and the multipart operations; none that lists a bucket or looks at
one. A bucket in another region is followed to, once. Keys are taken literally.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from cpstage.aws.message import Answer, Body
from cpstage.aws.service import Call, Credentials, Endpoint, Service, ServiceError, UnreadableAnswer
from cpstage.aws.transport import Transport
from cpstage.aws.xml_answer import explain, root_of, text_of
from cpstage.retries import Retries

_LOGGER = logging.getLogger("cpstage")

MOVED = {
    "301",
    "307",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}
"""What S3 says where a bucket is in another region."""

_REGION = re.compile(r"[a-z0-9-]{1,63}")
_SIZE = re.compile(r"[0-9]{1,15}")

Headers = Mapping[str, str]
Locate = Callable[[str, str | None], Endpoint]
"""Says where a bucket is, in a region that S3 has named or in the one that is configured."""


@dataclass(frozen=True)
class Part:
    """A part of an upload, as CompleteMultipartUpload names it."""

    number: int
    etag: str
    crc32: str


@dataclass(frozen=True)
class OpenUpload:
    """An upload in parts that has been begun."""

    bucket: str
    key: str
    id: str


class S3:
    """Calls operations on objects.

    Args:
        locate: Where a bucket is; its endpoint's path is that of the bucket.
        transport: What sends.
        credentials: What signs.
        retries: How long to go on when something fails that may pass.
        renew: Renews the credentials after a token has expired, if they can be.
    """

    def __init__(
        self,
        locate: Locate,
        transport: Transport,
        credentials: Credentials,
        retries: Retries,
        *,
        renew: Callable[[str | None], object] | None = None,
    ) -> None:
        self._locate = locate
        self._service = Service("s3", transport, credentials, retries, explain, renew=renew)
        self._endpoints: dict[str, Endpoint] = {}
        self._lock = threading.Lock()

    def head_object(self, bucket: str, key: str, *, checksum: bool = False) -> Headers:
        """Return the headers of an object; with a checksum that needs its KMS key as well."""
        headers = {"x-amz-checksum-mode": "ENABLED"} if checksum else {}
        return self._send(
            "HeadObject", "HEAD", bucket, key, headers=headers, check=_has_size
        ).headers

    def get_range(
        self, bucket: str, key: str, offset: int, length: int, etag: str | None = None
    ) -> bytes:
        """Return a part of an object, if it is still the one of an entity tag."""
        wanted = f"{offset}-{offset + length - 1}"
        headers = {"Range": f"bytes={wanted}"}
        if etag:
            headers["If-Match"] = etag

        def check(answer: Answer) -> None:
            """Refuse the bytes of another range, or of the whole object."""
            sent = answer.headers.get("content-range", f"bytes {wanted}/")
            if (answer.status == 200 and offset) or not sent.startswith(f"bytes {wanted}/"):
                raise UnreadableAnswer(answer, "the answer is not the range that was asked for")

        return self._send(
            "GetObject", "GET", bucket, key, headers=headers, length=length, check=check
        ).body

    def get_object(self, bucket: str, key: str) -> bytes:
        """Return the whole of a small object."""
        return self._send("GetObject", "GET", bucket, key).body

    def put_object(
        self, bucket: str, key: str, body: Body, crc32: str, headers: Headers
    ) -> Headers:
        """Store an object in one request."""
        sent = {**headers, "x-amz-checksum-crc32": crc32}
        return self._send("PutObject", "PUT", bucket, key, headers=sent, body=body).headers

    def create_multipart_upload(
        self, bucket: str, key: str, headers: Headers
    ) -> tuple[OpenUpload, Headers]:
        """Begin an upload in parts whose whole will have one CRC-32."""
        sent = {
            **headers,
            "x-amz-checksum-algorithm": "CRC32",
            "x-amz-checksum-type": "FULL_OBJECT",
        }
        answer = self._send(
            "CreateMultipartUpload",
            "POST",
            bucket,
            key,
            [("uploads", "")],
            headers=sent,
            check=lambda one: text_of(one, "UploadId"),
        )
        return OpenUpload(bucket, key, text_of(answer, "UploadId")), answer.headers

    def upload_part(
        self, upload: OpenUpload, number: int, body: Body, crc32: str
    ) -> tuple[Part, Headers]:
        """Send one part."""
        answer = self._send(
            "UploadPart",
            "PUT",
            upload.bucket,
            upload.key,
            [("partNumber", str(number)), ("uploadId", upload.id)],
            headers={"x-amz-checksum-crc32": crc32},
            body=body,
            check=_has_etag,
        )
        return Part(number, answer.headers["etag"], crc32), answer.headers

    def complete_multipart_upload(
        self, upload: OpenUpload, parts: Sequence[Part], crc32: str
    ) -> tuple[str, Headers]:
        """Make an object of parts; return its entity tag.

        S3 may have begun a good answer when it finds that it cannot: the document tells.
        """
        answer = self._send(
            "CompleteMultipartUpload",
            "POST",
            upload.bucket,
            upload.key,
            [("uploadId", upload.id)],
            headers={
                "x-amz-checksum-crc32": crc32,
                "x-amz-checksum-type": "FULL_OBJECT",
                "Content-Type": "application/xml",
            },
            body=(_parts_document(parts),),
            check=lambda one: text_of(one, "ETag"),
            refuses=_is_error,
        )
        return text_of(answer, "ETag"), answer.headers

    def abort_multipart_upload(self, upload: OpenUpload, timeout: float) -> None:
        """Remove what has arrived of an upload, within so many seconds."""
        self._send(
            "AbortMultipartUpload",
            "DELETE",
            upload.bucket,
            upload.key,
            [("uploadId", upload.id)],
            retries=Retries(timeout),
        )

    def interrupt(self) -> None:
        """Break off what is under way, and try nothing again that was asked for before."""
        self._service.interrupt()

    def _send(
        self,
        operation: str,
        method: str,
        bucket: str,
        key: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        headers: Headers | None = None,
        body: Body = (),
        length: int | None = None,
        check: Callable[[Answer], object] = lambda _: None,
        refuses: Callable[[Answer], bool] = lambda _: False,
        retries: Retries | None = None,
    ) -> Answer:
        """Call an operation on an object, and once more where its bucket is elsewhere.

        Raises:
            ServiceError: S3 refuses.
            NetworkError, SetupError, UnsendableError: It could not be asked.
        """
        target = "/" + quote(key, safe="/-_.~")
        if query:
            target += "?" + "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in query)
        sent = headers or {}
        call = Call(operation, method, target, sent, body, length, check=check, refuses=refuses)
        endpoint = self._endpoint(bucket)
        try:
            return self._service.send(call, endpoint, retries)
        except ServiceError as error:
            region = _moved_to(error)
            if region is None or region == endpoint.region:
                raise
            return self._service.send(call, self._follow(bucket, region), retries)

    def _endpoint(self, bucket: str) -> Endpoint:
        with self._lock:
            if bucket not in self._endpoints:
                self._endpoints[bucket] = self._locate(bucket, None)
            return self._endpoints[bucket]

    def _follow(self, bucket: str, region: str) -> Endpoint:
        with self._lock:
            if self._endpoints[bucket].region != region:
                _LOGGER.warning("bucket %s is in %s: redirected", bucket, region)
                self._endpoints[bucket] = self._locate(bucket, region)
            return self._endpoints[bucket]


def _moved_to(error: ServiceError) -> str | None:
    """Return the region that S3 says the bucket is in, if it is not the one that was asked.

    It becomes a part of a host's name.
    """
    region = error.headers.get("x-amz-bucket-region", "")
    moved = error.code in {*MOVED, "400"} and _REGION.fullmatch(region)
    return region if moved else None


def _is_error(answer: Answer) -> bool:
    """Tell an answer to CompleteMultipartUpload that turns out to be an error."""
    found = root_of(answer)
    return found is not None and found.tag.rpartition("}")[2] == "Error"


def _has_size(answer: Answer) -> None:
    if not _SIZE.fullmatch(answer.headers.get("content-length", "")):
        raise UnreadableAnswer(answer, "the answer does not say how large the object is")


def _has_etag(answer: Answer) -> None:
    if not answer.headers.get("etag"):
        raise UnreadableAnswer(answer, "the answer has no ETag")


def _parts_document(parts: Sequence[Part]) -> bytes:
    from xml.etree.ElementTree import Element, SubElement, tostring

    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    document = Element("CompleteMultipartUpload", xmlns=namespace)
    for part in parts:
        one = SubElement(document, "Part")
        SubElement(one, "PartNumber").text = str(part.number)
        SubElement(one, "ETag").text = part.etag
        SubElement(one, "ChecksumCRC32").text = part.crc32
    return tostring(document)
