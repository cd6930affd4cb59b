"""Who packs what goes into a zip: child processes where there are many files, else threads."""

from __future__ import annotations

import pickle
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cpstage.archive.flow.early import Early
from cpstage.archive.flow.forked import Work, forked, is_worth_forking
from cpstage.archive.flow.ordered import in_order
from cpstage.archive.portions import AHEAD, Block, Group, PackingList
from cpstage.archive.zip.packed import Packed, pack_portion

if TYPE_CHECKING:
    from collections.abc import Generator

_MOST_EARLY = 24 << 20
"""Bytes that may be packed, and kept, before the list is complete and anybody takes them."""


class ZipPacker:
    """Packs the portions of lists; of one that is not complete yet, the first.

    With 20,000 files on two processors, two threads took no less time than one, and so there are
    processes for them.

    Args:
        level: How hard to deflate, from 0 (not at all) to 9.
        count: How many threads, and how many processes.
    """

    def __init__(self, level: int, count: int) -> None:
        self._level = level
        self._count = count
        self._ahead = count + AHEAD
        self._listed = 0
        self._processes = ExitStack()
        self._do: Work | None = None
        self._early = Early[Group | Block, Packed](
            self._pack,
            threads=count,
            ahead=self._ahead,
            most=_MOST_EARLY,
            size=lambda packed: len(packed.data),
        )

    def __enter__(self) -> ZipPacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._early.close()
        self._processes.close()

    def begin(self, group: Group) -> None:
        """Take a group of a list that is not complete yet, and pack it, once there are many files.

        To list them takes one processor; this gives the others something to do.

        Raises:
            LocalIOError: A file of an earlier group cannot be read, or changed.
        """
        self._listed += group.count
        self._expect(self._listed)
        if self._do is not None:
            self._early.begin(group)

    def packed(self, entries: PackingList) -> Generator[Packed, None, None]:
        """Pack all portions of a list, and yield what comes of each, in their order.

        Raises:
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        self._expect(len(entries))
        return in_order(self._early, entries.portions(), threads=self._count, ahead=self._ahead)

    def _expect(self, entries: int) -> None:
        """Start the processes, if they are worth it for so many entries."""
        if self._do is None and is_worth_forking(entries):
            self._do = self._processes.enter_context(forked(self._pack_as_child, self._count))

    def _pack(self, portion: Group | Block) -> Packed:
        if self._do is None:
            return pack_portion(portion, self._level)
        packed: Packed = pickle.loads(self._do(pickle.dumps(portion), b""))  # noqa: S301 (our own child's)
        return packed

    def _pack_as_child(self, note: bytes, _: bytes | memoryview) -> bytes:
        return pickle.dumps(pack_portion(pickle.loads(note), self._level))  # noqa: S301 (our own parent's)
