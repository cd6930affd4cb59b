"""Hands connections on between a port on the loopback and a socket in the file system.

A program of its own: `python relay.py FROM TO`, each `tcp:PORT` or `unix:PATH`. It says `ready`
when it listens. A socket in the file system leads from one network namespace into another.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_LOOPBACK = "127.0.0.1"
_BLOCK = 1 << 16
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(place: str) -> Ends:
    kind, _, name = place.partition(":")
    if kind == "unix":
        return await asyncio.open_unix_connection(name)
    return await asyncio.open_connection(_LOOPBACK, int(name))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BLOCK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(listen: str, connect: str) -> None:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await _connect(connect)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))

    kind, _, name = listen.partition(":")
    if kind == "unix":
        server = await asyncio.start_unix_server(accepted, name, backlog=128)
    else:
        server = await asyncio.start_server(accepted, _LOOPBACK, int(name), backlog=128)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
