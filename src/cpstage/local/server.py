"""The embedded local AWS as a server on the loopback address.

It authenticates, authorizes and records every request, and hands it to what answers it. werkzeug's
server listens and reads the requests. Its request handler closes the connection after every answer;
the handler here keeps the connection open, as AWS does and boto3 expects.

Under `/_cpstage/`, beside the AWS APIs, another process adds jobs and reads the record, in JSON. A
web page in a browser cannot: the control endpoint requires a header that a page may not send across
origins, and a loopback Host, which a rebound DNS name is not.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.exceptions import ClientDisconnected
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response

from cpstage.local.access import (
    ACCOUNT,
    JSON_SERVICES,
    Authorization,
    Identity,
    Refusal,
    Request,
    json_reply,
    refuse,
)
from cpstage.local.backend import SSE, SSE_KEY, Backend, Operation, json_object, s3_operation
from cpstage.local.client import CONTROL_HEADER, CONTROL_PREFIX, SESSION_ACTIONS, Call, NewJob
from cpstage.local.history import ActionTypeKey, History, Properties
from cpstage.local.job_api import OPERATIONS, JobWorkerAPI
from cpstage.local.jobs import REDELIVER_SECONDS, JobService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_LOG = logging.getLogger(__name__)
_TARGETS = {"CodePipeline_20150709": "codepipeline", "TrentService": "kms"}

CALLER_ACTIONS = frozenset(f"codepipeline:{name}" for name in OPERATIONS)
"""What the caller may do: the job-worker API. Nothing on S3 or KMS."""

DEBUGGER_ACTIONS = frozenset(
    {
        "codepipeline:GetActionType",
        "codepipeline:GetPipeline",
        "codepipeline:ListActionExecutions",
        "codepipeline:ListActionTypes",
        "codepipeline:ListPipelineExecutions",
        "codepipeline:ListPipelines",
        "kms:Decrypt",
        "s3:GetObject",
        "s3:ListBucket",
    }
)
"""What a person needs to debug past executions."""

LOOPBACK = "127.0.0.1"
_RUNNING = threading.Lock()


class LocalAWS(JobService):
    """S3, KMS, STS, IAM and the CodePipeline job-worker API on a loopback port.

    Use it as a context manager, or call `start` and `stop`. Its state lives in this process and
    is gone when it stops. One process can hold one at a time, because moto's state is the
    process's; many processes can each have their own.

    Args:
        region: The pipeline's region.
        port: The port on 127.0.0.1; 0 for a free one.
        session_seconds: Life of the session credentials that come with a job.
        session_actions: What they may do, unless a job says otherwise.
        caller_actions: What the caller may do.
        redeliver_seconds: How long a dispatched job waits for its acknowledgement before it goes
            to another poll.

    Attributes:
        history: The past executions of pipelines.
        action_types: Action types with their properties, and whether each property is secret.
    """

    history: History
    action_types: dict[ActionTypeKey, Properties]

    def __init__(
        self,
        region: str = "us-east-1",
        port: int = 0,
        session_seconds: float = 3600.0,
        session_actions: Iterable[str] = SESSION_ACTIONS,
        caller_actions: Iterable[str] = CALLER_ACTIONS,
        *,
        redeliver_seconds: float = REDELIVER_SECONDS,
    ) -> None:
        super().__init__(
            region,
            session_seconds=session_seconds,
            session_actions=session_actions,
            redeliver_seconds=redeliver_seconds,
        )
        self._port = port
        self._caller_actions = frozenset(caller_actions)
        self._server: LoopbackServer | None = None
        self._calls_lock = threading.Lock()

    def start(self) -> None:
        """Start with an empty account, the pipeline's bucket and its key.

        Raises:
            OSError: The port is taken.
            RuntimeError: This process has a local AWS running already.
        """
        if not _RUNNING.acquire(blocking=False):
            raise RuntimeError("This process has a local AWS running already; stop that first")
        try:
            Backend.clear()
            self._open()
            self.history = History(self)
            self.action_types = self.history.action_types
            self._admin = self._identities.add_user("admin", {"*"})
            self._caller = self._identities.add_user("caller", self._caller_actions)
            self._api = JobWorkerAPI(self)
            self._calls: list[Call] = []
            self._server = LoopbackServer(self._port, self._answer)
        except BaseException:
            _RUNNING.release()
            raise

    def _answer(self, request: Request) -> Response:
        """Answer a request, and record it if it is one to AWS."""
        if request.raw_path.startswith(CONTROL_PREFIX):
            return self._control(request)
        authorization: Authorization | None = None
        asked = _asked(request, None)
        error = None
        try:
            authorization = Authorization.read(request)
            asked = _asked(request, authorization)
            reply = self._serve(request, asked, authorization)
        except Refusal as refusal:
            reply, error = refusal.reply(asked.service), refusal.code
        except Exception:
            _LOG.exception("the local AWS failed on %s %s", request.method, request.raw_path)
            failure = Refusal(500, "InternalError", "The local AWS failed; see its log.")
            reply, error = failure.reply(asked.service), failure.code
        if asked.service in JSON_SERVICES:  # as AWS does, and S3 and STS have it in their replies
            reply.headers.setdefault("x-amzn-RequestId", str(uuid.uuid4()))
        call = self._call(request, asked, authorization, reply, error)
        with self._calls_lock:
            self._calls.append(replace(call, sequence=len(self._calls) + 1))
        return reply

    def _serve(
        self, request: Request, asked: Operation, authorization: Authorization | None
    ) -> Response:
        if authorization is None:
            refuse("anonymous", asked.service)
        identity = self._identities.authenticate(request, authorization)
        region = authorization.region
        if asked.service == "s3":
            return self._backend.answer_s3(request, asked, identity, region)
        if asked.service == "kms":
            return self._backend.answer_kms(request, asked.operation, identity, region)
        if (asked.service, asked.operation) == ("sts", "GetCallerIdentity"):
            return _caller_identity(identity)  # which takes no permission
        identity.require(f"{asked.service}:{asked.operation}", "*")
        if asked.service == "codepipeline":
            api = self.history if asked.operation in self.history.operations else self._api
            return api.answer(asked.operation, request.get_data(), region)
        if asked.service not in ("iam", "sts"):
            refuse("denied", asked.service, f"The local AWS has no {asked.service}.")
        return self._backend.answer(request, asked.service, region)

    def _call(
        self,
        request: Request,
        asked: Operation,
        authorization: Authorization | None,
        reply: Response,
        error: str | None,
    ) -> Call:
        identity = self._identities.find(authorization.access_key) if authorization else None
        stranger = "unknown" if authorization else "anonymous"
        is_s3, headers = asked.service == "s3", request.headers
        document = {} if is_s3 else json_object(request.get_data())
        return Call(
            sequence=0,
            service=asked.service,
            action=asked.operation,
            identity=identity.name if identity else stranger,
            session=identity.session if identity else None,
            job_id=_text(document.get("jobId")) or (identity.job_id if identity else None),
            bucket=asked.bucket,
            key=asked.key,
            server_side_encryption=headers.get(SSE) if is_s3 else None,
            kms_key_id=headers.get(SSE_KEY) if is_s3 else _text(document.get("KeyId")),
            bucket_key=headers.get(f"{SSE}-bucket-key-enabled") == "true",
            byte_range=headers.get("range"),
            status=reply.status_code,
            error=error or _error_of(reply),
        )

    def _control(self, request: Request) -> Response:
        """Answer `GET record`, `POST jobs` and `GET jobs/<id>` of the control endpoint."""
        host = request.headers.get("host", "").partition(":")[0]
        if host not in (LOOPBACK, "localhost") or request.headers.get(CONTROL_HEADER) != "1":
            return _message(403, f"Send {CONTROL_HEADER}: 1 from this machine")
        resource, _, job_id = request.raw_path.removeprefix(CONTROL_PREFIX).partition("/")
        if (request.method, resource, job_id) == ("GET", "record", ""):
            return _json([asdict(call) for call in self.calls()])
        if (request.method, resource, job_id) == ("POST", "jobs", ""):
            try:
                new = self.submit(NewJob.from_json(json.loads(request.get_data())))
            except (TypeError, ValueError, AttributeError) as error:
                return _message(400, f"not a description of a job: {error}")
            return _json({"job_id": new})
        job = self.find(job_id) if resource == "jobs" else None
        if request.method == "GET" and job is not None:
            return _json(job.to_json())
        return _message(404, "There is nothing here")

    def stop(self) -> None:
        """Stop listening; safe to call twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            _RUNNING.release()

    def __enter__(self) -> LocalAWS:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """The URL to give to AWS tools as `--endpoint-url`."""
        if self._server is None:
            raise RuntimeError("The local AWS is not running")
        return f"http://{LOOPBACK}:{self._server.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make AWS tools the caller: a job worker without rights on S3."""
        return self._environment(self._caller)

    @property
    def admin_environment(self) -> dict[str, str]:
        """The variables that make AWS tools the administrator, with all permissions."""
        return self._environment(self._admin)

    def add_user(self, name: str, actions: Iterable[str]) -> dict[str, str]:
        """Make another identity, and return the variables that make AWS tools that one.

        Args:
            name: Its name in the record of calls.
            actions: What it may do, on every resource, such as `codepipeline:GetJobDetails`.
        """
        return self._environment(self._identities.add_user(name, actions))

    @property
    def debugger_environment(self) -> dict[str, str]:
        """The variables of a person who reads past executions and their artifacts."""
        return self.add_user("debugger", DEBUGGER_ACTIONS)

    def expire_sessions(self, job_id: str) -> None:
        """End all session credentials that a job has been given so far."""
        self._identities.expire(job_id)

    def calls(self) -> list[Call]:
        """Return the record of who called what."""
        with self._calls_lock:
            return list(self._calls)

    def _environment(self, identity: Identity) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # A proxy is of no use on the way to this machine itself.
            "NO_PROXY": LOOPBACK,
        }


def _asked(request: Request, authorization: Authorization | None) -> Operation:
    """Read what a request asks for; the service is that of the signature, or else guessed."""
    prefix, _, operation = request.headers.get("x-amz-target", "").partition(".")
    is_form = request.mimetype == "application/x-www-form-urlencoded"
    action = request.form.get("Action", "") if is_form else ""
    guessed = _TARGETS.get(prefix, "sts" if action else "s3")
    service = authorization.service if authorization else guessed
    if service == "s3":
        return s3_operation(request)
    return Operation(service, operation or action or request.method)


def _caller_identity(identity: Identity) -> Response:
    body = (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<GetCallerIdentityResult><Arn>{identity.arn}</Arn>"
        f"<UserId>{identity.access_key}</UserId><Account>{ACCOUNT}</Account>"
        "</GetCallerIdentityResult><ResponseMetadata><RequestId>local</RequestId>"
        "</ResponseMetadata></GetCallerIdentityResponse>"
    )
    return Response(body, content_type="text/xml")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _error_of(reply: Response) -> str | None:
    """Return the error code that moto put into an answer."""
    if reply.status_code < 400:
        return None
    body = reply.get_data()
    code = json_object(body).get("__type")
    if code is not None:
        return str(code).rpartition("#")[2]
    _, found, rest = body.partition(b"<Code>")
    return rest.partition(b"</Code>")[0].decode() if found else str(reply.status_code)


def _json(document: object, status: int = 200) -> Response:
    return json_reply(document, status, "application/json")


def _message(status: int, message: str) -> Response:
    return _json({"message": message}, status)


class _RequestHandler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cpstage-local"
    # The reply goes out at once, not when the client has acknowledged the one before.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        # A request that the client has cut off is dropped without a word.
        with suppress(ClientDisconnected, OSError):
            super().handle()

    def run_wsgi(self) -> None:
        body, status, headers = run_wsgi_app(self.server.app, self.make_environ(), buffered=True)
        code, _, phrase = status.partition(" ")
        self.send_response(int(code), phrase)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.writelines(body)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing: the record of calls says more."""


class LoopbackServer(ThreadedWSGIServer):
    """A server in a thread, on 127.0.0.1 only; it calls ``answer`` in many threads at once.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, port: int, answer: Callable[[Request], Response]) -> None:
        def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            request = Request(environ, populate_request=False)
            request.get_data()  # all of it, so that the next request can follow
            return answer(request)(environ, start)

        self._connections: WeakSet[socket.socket] = WeakSet()
        with socket.socket() as listening:
            # werkzeug would exit the process if the port is taken.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((LOOPBACK, port))
            listening.listen(self.request_queue_size)
            super().__init__(LOOPBACK, port, application, _RequestHandler, fd=listening.fileno())
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, and handle its requests in a new thread."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def stop(self) -> None:
        """Stop listening, and cut the open connections."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):  # the connection has just ended
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def without_aws_settings() -> Iterator[None]:
    """Take every AWS variable out of the environment, and put all back at the end.

    moto asks boto3 for the list of regions when it is imported, and boto3 looks at the profile: one
    that does not exist would stop a server that has no use for it.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
