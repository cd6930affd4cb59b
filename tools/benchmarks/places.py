"""The options that every benchmark of whole processes has: where things are, and where they go."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_BUSY = 0.5


def add_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument(
        "--rounds", type=_at_least_one, default=rounds, help=f"how often ({rounds})"
    )
    parser.add_argument(
        "--checkout", type=Path, default=_CHECKOUT, help="the cpstage to measure (this one)"
    )
    parser.add_argument(
        "--tools-dir",
        type=Path,
        default=_CHECKOUT / ".benchmark",
        help="where the tools are installed and kept (.benchmark in this checkout)",
    )
    parser.add_argument(
        "--work", type=Path, help="where files are written (in memory, if 12 GiB of it are free)"
    )
    parser.add_argument(
        "--credentials",
        choices=["environment", "profile"],
        default="environment",
        help="where the tools find their access keys (environment)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=_CHECKOUT / "docs" / "benchmarks",
        help="where the results go (docs/benchmarks in this checkout)",
    )


def chosen(parser: argparse.ArgumentParser, text: str, known: list[str]) -> list[str]:
    """Return the names of a list with commas."""
    names = text.split(",")
    unknown = sorted({*names} - {*known})
    if unknown:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    return names


def get_ready(output: Path) -> None:
    """Prepare for a long run: see to its end, to its results, and to what it may be spoilt by."""
    # The servers have to end, and what was written has to go, however this ends.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(number, lambda *_: sys.exit("terminated"))
    output.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    if load > _BUSY:
        print(f"this machine is busy (load {load:.1f}): all figures will be too high", flush=True)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 at least")
    return number
