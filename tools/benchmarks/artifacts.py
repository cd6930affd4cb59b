"""The four kinds of artifact that are measured, made from a seed; the same on every machine."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.source_text import SourceText, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MIB = 1 << 20
_NAME_LIST = """
adapter api app assets auth base batch build cache chart client codec config core data db
deploy docs domain engine events export filter form format graph hooks http index io job
layout lib loader locale log mail map media merge model net node order page parser path plan
plugin pool proxy query queue report route rule schema search server session shape sort spec
stage state store stream style sync table task test theme token tool tree type ui unit user
util value view watch web widget worker zone
"""
_NAMES = _NAME_LIST.split()
_SUFFIXES = (".py", ".ts", ".java", ".go", ".html", ".json", ".md", ".c", ".h", ".css")


@dataclass(frozen=True)
class Kind:
    """One kind of artifact.

    Attributes:
        name: One letter.
        title: What it stands for, in a few words.
        make: Writes it into an empty directory.
    """

    name: str
    title: str
    make: Callable[[Path, random.Random], None]

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.make(directory, random.Random(f"cpstage {self.name}"))


def write_file(path: Path, chunks: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)


def small_files(
    directory: Path, rng: random.Random, *, files: int, directories: int, size: int
) -> None:
    """Write many small files of text into nested directories; `size` is about what all have."""
    text = SourceText(rng)
    places = _nested_directories(directory, rng, directories)
    weights = [rng.lognormvariate(0, 1.0) for _ in range(files)]
    unit = size / sum(weights)
    for number, weight in enumerate(weights):
        # Each directory gets a file at least, where there are enough of them.
        place = places[number] if number < len(places) else rng.choice(places)
        name = f"{rng.choice(_NAMES)}_{number:x}{rng.choice(_SUFFIXES)}"
        (place / name).write_bytes(text.take(max(64, int(weight * unit))))


def _nested_directories(root: Path, rng: random.Random, count: int) -> list[Path]:
    """Make directories in which a source tree grows: anywhere, but seldom very deep."""
    places = [root]
    depth = {root: 0}
    while len(places) < count + 1:
        parent = rng.choice(places)
        if depth[parent] > 8:
            continue
        place = parent / f"{rng.choice(_NAMES)}{len(places) % 97}"
        if place not in depth:
            place.mkdir()
            places.append(place)
            depth[place] = depth[parent] + 1
    return places[1:] or places


def _sources(directory: Path, rng: random.Random) -> None:
    small_files(directory, rng, files=20_000, directories=5_000, size=250_000_000)


def _assets(directory: Path, rng: random.Random) -> None:
    """200 files, 1 GiB: every other one cannot be compressed, as images and packages cannot."""
    text = SourceText(rng)
    weights = [rng.uniform(0.2, 1.8) for _ in range(100)]
    sizes = [int((weight * 512 * _MIB) / sum(weights)) for weight in weights]
    for number, size in enumerate(sizes):
        place = directory / _NAMES[number % 10]
        place.mkdir(exist_ok=True)
        write_file(
            place / f"image{number}.bin", (rng.randbytes(part) for part in blocks(size, _MIB))
        )
        write_file(place / f"data{number}.txt", (text.take(part) for part in blocks(size, _MIB)))


def _one_large_file(directory: Path, rng: random.Random) -> None:
    """2 GiB: stretches of text, and others that cannot be compressed."""
    text = SourceText(rng)
    write_file(directory / "image.dat", mixed(text, rng, 2048 * _MIB))


def mixed(text: SourceText, rng: random.Random, size: int) -> Iterator[bytes]:
    """Yield text and incompressible bytes by turns, in stretches of 64 KiB to 2 MiB."""
    left = size
    while left:
        stretch = min(left, rng.randint(64 << 10, 2 << 20))
        yield text.take(stretch) if rng.random() < 0.5 else rng.randbytes(stretch)
        left -= stretch


def _tiny(directory: Path, rng: random.Random) -> None:
    small_files(directory, rng, files=5, directories=2, size=20_000)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("A", "20,000 source files, 250 MB", _sources),
        Kind("B", "200 files, 1 GiB, half incompressible", _assets),
        Kind("C", "one file of 2 GiB", _one_large_file),
        Kind("D", "5 files, 20 KB", _tiny),
    )
}
