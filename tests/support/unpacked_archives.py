"""Archives of a few bytes, unpacked as a fetch would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage import Limits
from cpstage.archive.blob import BytesBlob, ReadAhead
from cpstage.archive.formats import recognise
from cpstage.archive.members import Contents
from cpstage.archive.options import ExtractOptions
from cpstage.archive.unpack import Unpacker
from cpstage.filesystem.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path


def unpack(
    body: bytes,
    into: Path,
    name: str = "",
    limits: Limits | None = None,
    *,
    options: ExtractOptions | None = None,
) -> Contents:
    """Unpack what is recognised as an archive, into a directory that is made for it."""
    kind = recognise(body[:4096], name=name)
    assert kind is not None
    into.mkdir()
    chosen = options or ExtractOptions(limits or Limits())
    with (
        Tree(into) as tree,
        ReadAhead(BytesBlob(body)) as stream,
        Unpacker(tree, chosen) as unpacker,
    ):
        contents = unpacker.add(stream, kind, "App")
        unpacker.finish()
    return contents
