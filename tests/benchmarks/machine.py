"""The line below every table: what it was measured on, how often and when."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Conditions:
    """What figures depend on besides the tools."""

    cores: int
    processor: str
    system: str
    python: str
    file_system: str
    rounds: int
    date: str
    versions: Mapping[str, str]

    @property
    def line(self) -> str:
        """One sentence for the foot of a table."""
        often = "one round" if self.rounds == 1 else f"median of {self.rounds} rounds"
        return (
            f"{self.cores} cores ({self.processor}), {self.system}, Python {self.python}; "
            f"files on {self.file_system or 'a disk'}; {often}; {self.date}."
        )


def conditions(file_system: str, rounds: int, versions: Mapping[str, str]) -> Conditions:
    return Conditions(
        cores=os.cpu_count() or 1,
        processor=_processor(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        file_system=file_system,
        rounds=rounds,
        date=datetime.date.today().isoformat(),
        versions=versions,
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
