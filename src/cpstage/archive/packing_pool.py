"""Packing portions of a list in processes or threads; the results come in the order of the list."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from typing import Generic, TypeVar

from cpstage.archive.packing_list import AHEAD, Batch, FilePart, PackingList
from cpstage.archive.processes import Processes, is_worth_forking
from cpstage.archive.threads import in_order

_MOST_EARLY = 32
"""Batches that may be packed before the list is complete; each has 1 MiB of files at most."""

Packed = TypeVar("Packed")


class PackingPool(Generic[Packed]):
    """Packs the portions of lists; of one that is not complete yet, the first batches.

    It is a context, which ends with no process at work.

    Args:
        pack: Reads and packs a portion; what it changes in memory may not be seen here.
        count: How many threads or processes.
    """

    def __init__(self, pack: Callable[[Batch | FilePart], Packed], count: int) -> None:
        self._pack = pack
        self._count = count
        self._listed = 0
        self._stack = ExitStack()
        self._processes: Processes | None = None
        self._begun: dict[Batch, int] = {}

    def __enter__(self) -> PackingPool[Packed]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, batch: Batch) -> None:
        """Take a batch of a list that is not complete yet, and pack it, once there are many files.

        To list them takes one processor; this gives the others something to do.

        Raises:
            LocalIOError: A process was killed.
        """
        self._listed += batch.count
        processes = self._expect(self._listed)
        if processes and len(self._begun) < _MOST_EARLY:
            self._begun[batch] = processes.send(pickle.dumps(batch))

    def packed(self, entries: PackingList) -> Generator[Packed, None, None]:
        """Pack all portions of a list, and yield the result of each, in their order.

        Raises:
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        processes = self._expect(len(entries))
        if processes:
            return self._by_processes(entries.portions(), processes)
        return in_order(
            self._pack, entries.portions(), threads=self._count, ahead=self._count + AHEAD
        )

    def _by_processes(
        self, portions: Iterable[Batch | FilePart], processes: Processes
    ) -> Generator[Packed, None, None]:
        def sent(portion: Batch | FilePart) -> int:
            begun = self._begun.pop(portion, None) if isinstance(portion, Batch) else None
            return processes.send(pickle.dumps(portion)) if begun is None else begun

        for packed in processes.in_order(map(sent, portions)):
            yield pickle.loads(packed)  # noqa: S301 (our own child's)

    def _expect(self, entries: int) -> Processes | None:
        """Return the processes, which are started once they are worth it for so many entries."""
        if self._processes is None and is_worth_forking(entries):
            self._processes = self._stack.enter_context(Processes(self._work, self._count))
        return self._processes

    def _work(self, note: bytes, _: bytes | memoryview) -> bytes:
        return pickle.dumps(self._pack(pickle.loads(note)))  # noqa: S301 (our own parent's)
