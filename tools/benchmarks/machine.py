"""The line below every table: the machine, the files, the credentials, the rounds and the date."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Credentials = Literal["environment", "profile"]
"""Where tools find their access keys: environment variables, or a profile in ~/.aws."""

_CREDENTIALS = {
    "environment": "credentials from environment variables",
    "profile": "credentials from a profile in ~/.aws",
}


@dataclass(frozen=True)
class Conditions:
    """What figures depend on besides the tools; `credentials` is None where it does not matter."""

    cores: int
    processor: str
    system: str
    python: str
    file_system: str
    rounds: int
    date: str
    versions: Mapping[str, str]
    credentials: Credentials | None = None

    @property
    def line(self) -> str:
        """One sentence for the foot of a table."""
        often = "one round" if self.rounds == 1 else f"median of {self.rounds} rounds"
        parts = [
            f"{self.cores} cores ({self.processor}), {self.system}, Python {self.python}",
            f"files on {self.file_system or 'a disk'}",
            *([_CREDENTIALS[self.credentials]] if self.credentials else []),
            often,
            self.date,
        ]
        return f"{'; '.join(parts)}."


def conditions(
    file_system: str,
    rounds: int,
    versions: Mapping[str, str],
    credentials: Credentials | None = None,
) -> Conditions:
    return Conditions(
        cores=os.cpu_count() or 1,
        processor=_processor(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        file_system=file_system,
        rounds=rounds,
        date=datetime.date.today().isoformat(),
        versions=versions,
        credentials=credentials,
    )


def _processor() -> str:
    """Return the model of the processor, where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
