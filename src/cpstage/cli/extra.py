"""What to say when an optional part of cpstage is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cpstage.errors import ConfigurationError


@contextmanager
def local_extra() -> Iterator[None]:
    """Name the line that installs the extra ``local`` where a part of it is missing.

    Raises:
        ConfigurationError: It is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cpstage"):
            raise
        raise ConfigurationError(
            f"the embedded local AWS is not installed ({error.name} is missing)",
            hint="install it with: python -m pip install 'cpstage[local]'",
        ) from error
