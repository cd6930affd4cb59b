"""A terminal that remembers: what each of its rows showed, and when.

It is as long as the session, so that nothing scrolls out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyte

COLUMNS = 80
PROMPT = "$ "
_LENGTH = 200
_BEFORE_TYPING = 0.7
BY_KEY = 0.06
_BEFORE_ENTER = 0.6
_TO_READ = 1.2
_TO_READ_ROW = 0.1
_GLIMPSE = 0.04
"""What is shown for a shorter time than this is not seen."""


@dataclass(frozen=True)
class Row:
    """What one row shows for a time.

    Attributes:
        number: Which row, from 0.
        text: What it shows.
        since: From when on.
        until: Up to when; None for ever.
        keys: How many keys of it are typed one by one, behind the prompt.
    """

    number: int
    text: str
    since: float
    until: float | None = None
    keys: int = 0


class Screen:
    """Shows a session, command by command, while its clock goes on."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(COLUMNS, _LENGTH)
        self._stream = pyte.Stream(self._screen)
        self._now = 0.0
        self._began = 0.0
        self._past: list[Row] = []
        self._latest: dict[int, Row] = {}

    def prompt(self) -> None:
        """Show the prompt."""
        self._feed(PROMPT)

    def type(self, line: str) -> None:
        """Show the prompt, and have a command line typed: what is long at its end is pasted."""
        self.prompt()
        words = line.split(" ")
        pasted = len(words[-1]) if len(words[-1]) > 30 else 0
        keys = len(line) - pasted
        self._now += _BEFORE_TYPING
        self._feed(line, keys)
        self._now += keys * BY_KEY + _BEFORE_ENTER
        self._feed("\r\n")
        self._began = self._now

    def show(self, text: str, *, after: float) -> None:
        """Show output.

        Args:
            text: What comes out of the command.
            after: Seconds since it began.
        """
        self._now = self._began + after
        self._feed(text)

    def read(self) -> None:
        """Leave time to read what has come since the last command."""
        new = sum(1 for row in self._latest.values() if row.since >= self._began)
        self._now += _TO_READ + _TO_READ_ROW * new

    def rows(self) -> list[Row]:
        """Return all that was to be seen."""
        seen = (row for row in self._past if row.until and row.until - row.since >= _GLIMPSE)
        return sorted([*seen, *self._latest.values()], key=lambda row: (row.number, row.since))

    def _feed(self, text: str, keys: int = 0) -> None:
        self._stream.feed(text)
        display = self._screen.display
        for number in sorted(self._screen.dirty):
            shown = display[number].rstrip()
            before = self._latest.get(number)
            if shown == (before.text if before else ""):
                continue
            if before:
                self._past.append(replace(before, until=self._now))
            self._latest[number] = Row(number, shown, self._now, keys=keys)
        self._screen.dirty.clear()
