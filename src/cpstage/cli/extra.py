"""What to say when an optional part of cpstage is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cpstage.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
