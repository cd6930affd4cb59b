r"""Look for input that is met with anything but one of our own errors, guided by coverage.

Needs Atheris, which nothing else does: make a venv for it, and in it

    python -m pip install . atheris
    PYTHONPATH=tools:tests/support python -m fuzz zip -max_total_time=600

The targets are those of targets.py; what follows is for libFuzzer, such as a directory to keep
inputs in that lead further. An input that is a find is written to the current directory, and is
shown by `python -m fuzz zip FILE`. Once mended, a find goes into corpus/ as `refused-…`, below
4 KB, and test_fuzz_corpus.py replays it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

with atheris.instrument_imports(include=["cpstage", "unpacked_archives"]):
    from fuzz import repair
    from fuzz.targets import CORPUS, TARGETS

_REPAIRS: Mapping[str, Callable[[bytes], bytes]] = {
    "zip": repair.zip,
    "tar": repair.tar,
    "gzip": repair.gzip,
}
_LONGEST = 4096
"""Bytes: as long as what may lie in the corpus."""

_REPAIRED = 70
"""Of a hundred inputs; the others stay as broken as they are."""


def main(arguments: list[str]) -> None:
    """Fuzz one target until something is found, or until libFuzzer is told to stop."""
    if len(arguments) < 2 or arguments[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {'|'.join(TARGETS)} [OPTION OF LIBFUZZER…] [FILE…]")
    name, *options = arguments[1:]
    target = TARGETS[name]
    mend = _REPAIRS.get(name)

    def read(data: bytes) -> None:
        target(data)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        changed: bytes = atheris.Mutate(data, longest)
        if mend and random.Random(seed).randrange(100) < _REPAIRED:
            changed = mend(changed)[:longest]
        return changed

    own = [f"-artifact_prefix={name}-", f"-max_len={_LONGEST}", "-timeout=10"]
    dictionary = CORPUS.parent / f"{name}.dict"
    if dictionary.exists():
        own.append(f"-dict={dictionary}")
    if not any(Path(option).is_file() for option in options):
        seeds = sorted(str(path) for path in (CORPUS / name).iterdir())
        own.append(f"-seed_inputs={','.join(seeds)}")
    atheris.Setup([arguments[0], *own, *options], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
