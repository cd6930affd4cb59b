"""AWS STS's Query API, as far as it tells who somebody is (AWS STS API Reference)."""

from __future__ import annotations

from dataclasses import dataclass

from cpstage.aws.message import Answer
from cpstage.aws.service import Call, Credentials, Endpoint, Service
from cpstage.aws.transport import Transport
from cpstage.aws.xml_answer import explain, text_of
from cpstage.retries import Retries

_OPERATION = "GetCallerIdentity"
_BODY = f"Action={_OPERATION}&Version=2011-06-15".encode()
_FORM = "application/x-www-form-urlencoded; charset=utf-8"


@dataclass(frozen=True)
class Caller:
    """Whose credentials they are.

    Attributes:
        account: The number of the account.
        arn: The user, or the role and its session.
    """

    account: str
    arn: str


class Sts:
    """Asks STS.

    Args:
        endpoint: Where it is.
        transport: What sends.
        credentials: What signs.
        retries: How long to go on when something fails that may pass.
    """

    def __init__(
        self, endpoint: Endpoint, transport: Transport, credentials: Credentials, retries: Retries
    ) -> None:
        self._endpoint = endpoint
        self._service = Service("sts", transport, credentials, retries, explain)

    def caller(self) -> Caller:
        """Return whose the credentials are (GetCallerIdentity), which takes no permission.

        Raises:
            ServiceError: STS refuses, or does not tell.
            NetworkError, SetupError, UnsendableError: It could not be asked.
        """
        target = "" if self._endpoint.path else "/"
        headers = {"Content-Type": _FORM}
        call = Call(_OPERATION, "POST", target, headers, (_BODY,), check=_caller)
        return _caller(self._service.send(call, self._endpoint))


def _caller(answer: Answer) -> Caller:
    account, arn = (
        text_of(answer, f"{_OPERATION}Result/{{*}}{member}") for member in ("Account", "Arn")
    )
    return Caller(account, arn)
