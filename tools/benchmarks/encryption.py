"""How fast artifacts are encrypted and decrypted, next to AES-GCM alone on the same machine.

Run it with `python tools/benchmarks/encryption.py [--size MIB] [--rounds N]`, from an environment
that cpstage and its extra `local` are installed in. A figure is the best of the rounds, in MiB/s:
by the clock, and by the processor time of this process, which other load on the machine changes
less.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cpstage import AwsConfig
from cpstage.encryption.messages import FRAME_LENGTH, decrypt, encrypt
from cpstage.local import LocalAWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CHUNK = 1 << 20
_CONTEXT = {"cpstage:pipeline": "benchmark"}
_FRAME_LENGTHS = (4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20)
_NONCE = bytes(12)


class Bench:
    """Encrypts and decrypts the same plaintext over and over."""

    def __init__(self, aws: LocalAWS, size: int, rounds: int) -> None:
        self._aws = aws
        self._chunk = os.urandom(_CHUNK)
        self._count = size
        self._rounds = rounds
        os.environ.update(aws.admin_environment)
        self._client = AwsConfig().kms(None, None)

    def raw(self, frame_length: int) -> None:
        """AES-256-GCM of frames, and nothing else."""
        cipher = AESGCM(AESGCM.generate_key(256))
        plain = self._chunk[:frame_length]
        message = cipher.encrypt(_NONCE, plain, None)
        frames = self._count * _CHUNK // frame_length
        one_way = self._measure(
            lambda: (cipher.encrypt(_NONCE, plain, None) for _ in range(frames))
        )
        back = self._measure(lambda: (cipher.decrypt(_NONCE, message, None) for _ in range(frames)))
        _row("AES-GCM alone", frame_length, one_way, back)

    def messages(self, frame_length: int) -> None:
        """The same bytes through `encrypt` and `decrypt`."""
        message = b"".join(self._seal(frame_length))
        one_way = self._measure(partial(self._seal, frame_length))
        back = self._measure(partial(self._open, message))
        mark = " (ours)" if frame_length == FRAME_LENGTH else ""
        _row(f"messages{mark}", frame_length, one_way, back)

    def _seal(self, frame_length: int) -> Iterator[bytes]:
        return encrypt(
            (self._chunk for _ in range(self._count)),
            key_ids=[self._aws.key_arn],
            context=_CONTEXT,
            kms=lambda _: self._client,
            frame_length=frame_length,
        ).chunks

    def _open(self, message: bytes) -> Iterator[bytes]:
        return decrypt(
            io.BytesIO(message),
            context=_CONTEXT,
            key_ids=[self._aws.key_arn],
            kms=lambda _: self._client,
        )

    def _measure(self, start: Callable[[], Iterable[bytes]]) -> tuple[float, float]:
        """Return the best MiB/s by the clock, and by processor time."""
        clock, processor = [], []
        for _ in range(self._rounds):
            began = time.perf_counter(), time.process_time()
            for _chunk in start():
                pass
            clock.append(time.perf_counter() - began[0])
            processor.append(time.process_time() - began[1])
        return self._count / min(clock), self._count / min(processor)


def _row(
    name: str, frame_length: int, one_way: tuple[float, float], back: tuple[float, float]
) -> None:
    print(
        f"{name:18}{frame_length >> 10:>6} KiB"
        f"{one_way[0]:>10.0f}{one_way[1]:>10.0f}{back[0]:>10.0f}{back[1]:>10.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="MiB to encrypt and to decrypt (256)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure (3)")
    options = parser.parse_args()
    print(f"{options.size} MiB, MiB/s      frame   encrypt       CPU   decrypt       CPU")
    with LocalAWS() as aws:
        bench = Bench(aws, options.size, options.rounds)
        for frame_length in _FRAME_LENGTHS:
            bench.raw(frame_length)
            bench.messages(frame_length)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"peak memory {peak} MiB, with the message of {options.size} MiB in it")


if __name__ == "__main__":
    main()
