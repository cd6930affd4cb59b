"""Services that speak AWS JSON 1.1, as CodePipeline and KMS do.

A call is a POST of a JSON object whose operation is named in ``X-Amz-Target``; an error is named in
``__type`` or ``x-amzn-ErrorType`` (Smithy, "AWS JSON 1.1 protocol").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpstage.aws.message import Answer
from cpstage.aws.service import Call, Credentials, Endpoint, Service, UnreadableAnswer
from cpstage.aws.transport import Transport
from cpstage.retries import Retries


@dataclass(frozen=True)
class Api:
    """A service's API: its signing name, and what stands before operations in X-Amz-Target."""

    name: str
    target: str


class JsonService:
    """Calls operations of one service.

    Args:
        api: Its API.
        endpoint: Where it is.
        transport: What sends.
        credentials: What signs; None sends unsigned requests.
        retries: How long to go on when something fails that may pass.
        renew: Renews the credentials after a token has expired, if they can be.

    Attributes:
        endpoint: Where it is.
        renews: Whether its credentials are renewed, as those of a job's session are.
    """

    def __init__(
        self,
        api: Api,
        endpoint: Endpoint,
        transport: Transport,
        credentials: Credentials | None,
        retries: Retries,
        *,
        renew: Callable[[str | None], object] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.renews = renew is not None
        self._target = api.target
        self._service = Service(api.name, transport, credentials, retries, _explain, renew=renew)

    def call(
        self, operation: str, parameters: Mapping[str, Any], secrets: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Call an operation, and return the members of its answer.

        Args:
            operation: As the API reference has it.
            parameters: Its request members, as JSON has them.
            secrets: Values that the service may quote back, and nobody may see.

        Raises:
            ServiceError: The service refuses.
            NetworkError, SetupError, UnsendableError: It could not be asked.
        """
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"{self._target}.{operation}",
        }
        body = json.dumps(parameters).encode()
        target = "" if self.endpoint.path else "/"
        call = Call(operation, "POST", target, headers, (body,), secrets=secrets, check=_members)
        return _members(self._service.send(call, self.endpoint))


def _members(answer: Answer) -> dict[str, Any]:
    """Read an answer; an operation that returns nothing may send nothing."""
    found = _document(answer) if answer.body else {}
    if found is None:
        raise UnreadableAnswer(answer, "the answer is no JSON object")
    return found


def _explain(answer: Answer) -> tuple[str, str]:
    found = _document(answer) or {}
    kind = answer.headers.get("x-amzn-errortype") or found.get("__type") or found.get("code")
    code = str(kind or answer.status).partition(":")[0].rpartition("#")[2]
    message = found.get("message") or found.get("Message") or found.get("errorMessage")
    return code, str(message or "")


def _document(answer: Answer) -> dict[str, Any] | None:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
