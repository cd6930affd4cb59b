"""Whom to trust: the certificates behind ``https://``.

Those that are configured, else those that botocore brings, which are the AWS CLI's.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cpstage.aws.message import SetupError, why

if TYPE_CHECKING:
    import ssl

TRUST_HINT = "trust the certificate with --ca-bundle FILE"

_OTHER_NAME = {62, 64}
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""


@dataclass
class Tls:
    """Whom to trust; certificates are read once, when they are first needed.

    Attributes:
        verify: False trusts everybody.
        ca_bundle: A file of CA certificates; None takes those that botocore brings.
    """

    verify: bool = True
    ca_bundle: str | None = None
    _context: ssl.SSLContext | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def context(self) -> ssl.SSLContext:
        """Return what connections are made with.

        Raises:
            SetupError: The certificates cannot be read.
        """
        with self._lock:
            if self._context is None:
                self._context = self._new_context()
            return self._context

    def _new_context(self) -> ssl.SSLContext:
        import ssl

        if not self.verify:
            return ssl._create_unverified_context()  # noqa: S323 (asked for by --no-verify-ssl)
        bundle = self.ca_bundle or _botocores_bundle()
        try:
            if bundle and os.path.isdir(bundle):
                return ssl.create_default_context(capath=bundle)
            return ssl.create_default_context(cafile=bundle)
        except OSError as error:
            what = f"cannot use the CA certificates in {bundle}: {why(error)}"
            raise SetupError(what, "check --ca-bundle, AWS_CA_BUNDLE and the profile") from None


def distrust(error: OSError) -> tuple[str, str] | None:
    """Say why a certificate is refused, and what to do; None for any other failure."""
    import ssl

    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    hint = "check --endpoint-url" if error.verify_code in _OTHER_NAME else TRUST_HINT
    return f"is not trusted: {error.verify_message}".rstrip("."), hint


def _botocores_bundle() -> str | None:
    """Return the certificates that the AWS CLI trusts, without loading botocore."""
    from importlib.util import find_spec

    spec = find_spec("botocore")
    place = os.path.join(os.path.dirname(spec.origin or ""), "cacert.pem") if spec else ""
    return place if os.path.exists(place) else None
