"""Text that looks and deflates like source code, made from a seed: no network, no corpus.

A pool of paragraphs is written once; files are cut out of shuffled paragraphs, which is quick
enough for gigabytes. The pool is many times as large as deflate's window of 32 KiB, so that a
paragraph that comes again is as good as new.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

_PARAGRAPHS = 8_000
_WORDS = 3_500
_SYLLABLE_LIST = """
ar ba be bo ca ce co da de di do ex fa fe fi fo ga ge go ha he hi in ja ke la le li lo ma me
mi mo na ne no on pa pe po qu ra re ri ro sa se si so ta te ti to un va ve vi wa we xo ya zo
"""
_SYLLABLES = _SYLLABLE_LIST.split()
_LINES = (
    "{0} = {1}.{2}({3}, {4})",
    "if {0}.{1} is not None and {2}:",
    "    return self.{0}({1}, {2}={3})",
    "for {0} in {1}.{2}:",
    "    {0}.append({1}[{2}])",
    "# {0} {1} {2} {3} {4} {0} {1}",
    "raise {0}Error(f'{1} {2} {{{3}}}: {4}')",
    "self.{0} = {0}",
    "def {0}_{1}(self, {2}: {3}, {4}: int = 0) -> {3}:",
    "assert {0}({1}) == {2}, '{3}'",
    "import {0}.{1}",
    "}}",
)


class SourceText:
    """An endless supply of text.

    Args:
        random_source: Where its choices come from; the same state gives the same text.
    """

    def __init__(self, random_source: random.Random) -> None:
        self._random = random_source
        words = ["".join(random_source.choices(_SYLLABLES, k=k % 4 + 1)) for k in range(_WORDS)]
        # A few words are used all the time and most are rare, as in any text.
        self._weights = list(accumulate(1 / (rank + 8) for rank in range(_WORDS)))
        self._words = words
        self._paragraphs = [self._paragraph() for _ in range(_PARAGRAPHS)]

    def _paragraph(self) -> bytes:
        used = self._random.choices(self._words, cum_weights=self._weights, k=5)
        indent = "    " * self._random.randint(1, 3)
        forms = self._random.sample(_LINES, 3)
        lines = []
        for _ in range(self._random.randint(10, 30)):
            chosen = self._random.choices(used, k=5)
            lines.append(indent + self._random.choice(forms).format(*chosen))
        return ("\n".join(lines) + "\n\n").encode()

    def take(self, size: int) -> bytes:
        """Return exactly so many bytes of text; meant for some megabytes at most."""
        pieces: list[bytes] = []
        missing = size
        while missing > 0:
            more = self._random.choices(self._paragraphs, k=missing // 600 + 1)
            pieces += more
            missing -= sum(map(len, more))
        return b"".join(pieces)[:size]


def blocks(size: int, block: int) -> Iterator[int]:
    """Cut a size into blocks: their sizes, the last one being what is left."""
    for offset in range(0, size, block):
        yield min(block, size - offset)
