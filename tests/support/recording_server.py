"""A server on loopback that records requests: an endpoint, a proxy, and AWS behind that proxy.

As a proxy it answers every host itself. A tunnel ends in the recorder, which certifies itself for
the host that the tunnel was asked for, so that requests to the real names of AWS can be compared.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from certificates import Authority, hand_on
from http_messages import Head, Stream, read_head, request_body

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

BUCKET, KEY, OUTPUT_KEY = "our-bucket", "pipe/App/abc.zip", "pipe/Built/abc"
KMS_KEY = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
CONTENT = b"the content of an object"
ETAG = '"5d41402abc4b2a76b9719d911017c592"'

JOB_KEY, JOB_SECRET, JOB_TOKEN = "ASIAJOBJOBJOBJOBJOB1", "job-secret" * 4, "job-token" * 4
ASSUMED_KEY, CONTAINER_KEY, INSTANCE_KEY = (
    "ASIAASSUMEDASSUMED01",
    "ASIACONTAINER0000001",
    "ASIAIMDS",
)
SSO_KEY = "ASIASSOSSOSSOSSOSSO1"

Answer = tuple[int, Mapping[str, str], bytes]

_TLS_RECORD = b"\x16"
_SCOPE = re.compile(r"Credential=([^/]+)/[0-9]{8}/([^/]+)/([^/]+)/aws4_request")
_SIGNED_HEADERS = re.compile(r"SignedHeaders=([^,]+)")


def job_document(bucket: str = BUCKET) -> dict[str, Any]:
    """Return the output of GetJobDetails for a job with an input App and an output Built."""

    def artifact(name: str, key: str) -> dict[str, Any]:
        location = {"bucketName": bucket, "objectKey": key}
        return {"name": name, "location": {"type": "S3", "s3Location": location}}

    keys = {"accessKeyId": JOB_KEY, "secretAccessKey": JOB_SECRET, "sessionToken": JOB_TOKEN}
    data = {
        "inputArtifacts": [artifact("App", KEY)],
        "outputArtifacts": [artifact("Built", OUTPUT_KEY)],
        "artifactCredentials": keys,
    }
    return {"jobDetails": {"id": "some-job", "accountId": "123456789012", "data": data}}


class Certificates:
    """Contexts of a server, by the name that it has; every thread may ask.

    Args:
        directory: Where the files go.
    """

    def __init__(self, directory: Path) -> None:
        self._authority = Authority(directory)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    @property
    def file(self) -> Path:
        """The certificate of the CA."""
        return self._authority.file

    def context(self, name: str) -> ssl.SSLContext:
        with self._lock:
            if name not in self._contexts:
                self._contexts[name] = self._authority.context(name)
            return self._contexts[name]


@dataclass(frozen=True)
class Sent:
    """A request as it was sent.

    Attributes:
        method: Its method.
        url: What it was sent to, the query included.
        via: How it came: "direct", "proxy", or "tunnel".
        headers: Values by lower-case name.
        body: Its body.
        login: The Proxy-Authorization of the request or its tunnel.
        connection: The number of the connection, from 1.
    """

    method: str
    url: str
    via: str
    headers: Mapping[str, str]
    body: bytes
    login: str | None
    connection: int

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def scope(self) -> tuple[str, str, str] | None:
        """Access key, region and service of the credential scope; None where there is none."""
        found = _SCOPE.search(self.headers.get("authorization", ""))
        return (found[1], found[2], found[3]) if found else None

    @property
    def access_key(self) -> str | None:
        return self.scope[0] if self.scope else None

    @property
    def signed_headers(self) -> frozenset[str]:
        found = _SIGNED_HEADERS.search(self.headers.get("authorization", ""))
        return frozenset(found[1].split(";")) if found else frozenset()

    @property
    def token(self) -> str | None:
        return self.headers.get("x-amz-security-token")

    @property
    def payload(self) -> str | None:
        """The kind of the payload's hash: "digest", or a constant such as UNSIGNED-PAYLOAD."""
        sent = self.headers.get("x-amz-content-sha256")
        return "digest" if sent and re.fullmatch("[0-9a-f]{64}", sent) else sent

    @property
    def agent(self) -> list[str]:
        """The parts of the User-Agent."""
        return self.headers.get("user-agent", "").split(" ")

    @property
    def operation(self) -> str:
        """The operation, as far as the tests need to know it."""
        target = self.headers.get("x-amz-target", "")
        if target:
            return target.rpartition(".")[2]
        form = dict(parse_qsl(self.body.decode("latin-1")))
        if self.method == "POST" and "Action" in form:
            return form["Action"]
        if self.path.endswith((KEY, OUTPUT_KEY)):
            return {"HEAD": "HeadObject", "GET": "GetObject", "PUT": "PutObject"}[self.method]
        return f"{self.method} {self.path}"


@dataclass
class Recorder:
    """What a recorder is told, and what came to it.

    Attributes:
        port: Where it is, on 127.0.0.1.
        statuses: Statuses other than 200, by operation.
        login: The Proxy-Authorization that it wants as a proxy, if any.
        requests: Every request, in their order; that for a tunnel is none.
        tunnels: The host and port of every tunnel, in their order.
        connections: How many connections were made.
        silent: Operations that are never answered.
    """

    port: int
    certificates: Certificates
    statuses: Mapping[str, int] = field(default_factory=dict)
    login: str | None = None
    requests: list[Sent] = field(default_factory=list)
    tunnels: list[str] = field(default_factory=list)
    connections: int = 0
    silent: frozenset[str] = frozenset()
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self, operation: str) -> list[Sent]:
        """Return the requests of an operation."""
        return [one for one in self.requests if one.operation == operation]

    def serve(self, client: socket.socket) -> None:
        """Answer all requests of a connection."""
        self.connections += 1
        number = self.connections
        if client.recv(1, socket.MSG_PEEK) != _TLS_RECORD:
            self._answer_all(Stream(client), number, "http")
            return
        plain, inside = socket.socketpair()  # there may be a tunnel with TLS inside TLS
        with self._taken(client, "127.0.0.1") as safe, plain, inside:
            threading.Thread(target=hand_on, args=(safe, inside), daemon=True).start()
            self._answer_all(Stream(plain), number, "https")

    def _taken(self, client: socket.socket, name: str) -> socket.socket:
        return self.certificates.context(name).wrap_socket(client, server_side=True)

    def _answer_all(
        self,
        stream: Stream,
        number: int,
        scheme: str,
        via: str = "direct",
        tunnel: Head | None = None,
    ) -> None:
        while (head := read_head(stream)) is not None:
            method, target = head.first_line[:2]
            login = (tunnel or head).headers.get("proxy-authorization")
            is_a_proxy = method == "CONNECT" or "://" in target
            if is_a_proxy and self.login not in (None, login):
                stream.send(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n")
                continue
            if method == "CONNECT":
                self.tunnels.append(target)
                stream.send(b"HTTP/1.1 200 Connected\r\n\r\n")
                name = target.rpartition(":")[0].strip("[]")
                with self._taken(stream.sock, name) as inner:
                    self._answer_all(Stream(inner), number, "https", "tunnel", head)
                return
            if "100-continue" in head.headers.get("expect", "").lower():
                stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = b"".join(request_body(stream, head))
            came = "proxy" if "://" in target else via
            url = target if came == "proxy" else f"{scheme}://{head.headers['host']}{target}"
            sent = Sent(method, url, came, head.headers, body, login, number)
            self.requests.append(sent)
            if sent.operation in self.silent:
                self.ended.wait()
                return
            stream.send(_message(sent, *self._answer(sent)))

    def _answer(self, sent: Sent) -> Answer:
        status = self.statuses.get(sent.operation, 200)
        if status != 200:
            return status, {}, b""
        return _good_answer(sent)


@contextmanager
def recorder(certificates: Certificates, **told: Any) -> Iterator[Recorder]:
    """Record until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    recorded = Recorder(listener.getsockname()[1], certificates, **told)

    def listen() -> None:
        with suppress(OSError):  # it is closed in the end
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:  # a client that does not trust us goes away
            recorded.serve(client)

    with listener:
        threading.Thread(target=listen, daemon=True).start()
        try:
            yield recorded
        finally:
            recorded.ended.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts


def _message(sent: Sent, status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    length = {} if "Content-Length" in headers else {"Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in {**headers, **length}.items()]
    first = f"HTTP/1.1 {status} {'OK' if status < 300 else 'Failed'}"
    return "\r\n".join([first, *lines, "", ""]).encode() + (b"" if sent.method == "HEAD" else body)


def _good_answer(sent: Sent) -> Answer:
    """Return what AWS answers."""
    operation = sent.operation
    if operation == "GetJobDetails":
        return _json(job_document())
    if operation == "GenerateDataKey":
        key = base64.b64encode(bytes(32)).decode()
        return _json({"KeyId": KMS_KEY, "CiphertextBlob": key, "Plaintext": key})
    if operation in ("HeadObject", "GetObject"):
        return _object(sent)
    if operation == "PutObject":
        name = "x-amz-server-side-encryption"
        return 200, {"ETag": ETAG, name: sent.headers.get(name, "AES256")}, b""
    if operation in ("AssumeRole", "AssumeRoleWithWebIdentity"):
        return 200, {"Content-Type": "text/xml"}, _assumed(operation)
    return _of_a_provider(sent)


def _object(sent: Sent) -> Answer:
    headers = {"ETag": ETAG, "Accept-Ranges": "bytes"}
    found = re.fullmatch("bytes=([0-9]+)-([0-9]+)", sent.headers.get("range", ""))
    if found is None:
        return 200, {**headers, "Content-Length": str(len(CONTENT))}, CONTENT
    first, last = int(found[1]), min(int(found[2]), len(CONTENT) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(CONTENT)}"
    return 206, headers, CONTENT[first : last + 1]


def _of_a_provider(sent: Sent) -> Answer:
    """Return what hands out credentials: a container, an instance, or SSO."""
    expiry = "2100-01-01T00:00:00Z"
    kept = {"SecretAccessKey": "s" * 40, "Token": "t" * 40, "Expiration": expiry}
    if sent.path == "/container":
        return _json({"AccessKeyId": CONTAINER_KEY, **kept})
    if sent.path == "/latest/api/token":
        return 200, {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}, b"of the instance"
    if sent.path.endswith("/security-credentials/"):
        return 200, {}, b"its-role"
    if sent.path.endswith("/its-role"):
        since = "2020-01-01T00:00:00Z"
        about = {"Code": "Success", "LastUpdated": since, "Type": "AWS-HMAC"}
        return _json({"AccessKeyId": INSTANCE_KEY, **about, **kept})
    if sent.path == "/federation/credentials":
        keys = {"accessKeyId": SSO_KEY, "secretAccessKey": "s" * 40, "sessionToken": "t" * 40}
        return _json({"roleCredentials": {**keys, "expiration": 4102444800000}})
    return 404, {}, b""


def _assumed(operation: str) -> bytes:
    return (
        f'<{operation}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<{operation}Result><Credentials><AccessKeyId>{ASSUMED_KEY}</AccessKeyId>"
        f"<SecretAccessKey>{'s' * 40}</SecretAccessKey>"
        f"<SessionToken>{'assumed' * 4}</SessionToken>"
        "<Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>"
        f"</{operation}Result></{operation}Response>"
    ).encode()


def _json(document: object) -> Answer:
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document).encode()
