"""What the tests of encrypted messages share: messages made by the SDK, and the official CLI."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import subprocess
import sys
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import moto.kms.models
import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.identifiers import AlgorithmSuite
from aws_encryption_sdk.key_providers.kms import KMSMasterKey

from aws_clients import kms
from cpstage import AwsConfig
from cpstage.aws.job_session import JobCredentials
from cpstage.encryption.messages import decrypt, encrypt
from cpstage.job import SessionCredentials
from cpstage.job.model import Secret, secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cpstage.aws.client import AwsClient
    from cpstage.local import LocalAWS

CONTEXT = {"cpstage:pipeline": "Shop", "cpstage:artifact": "App"}
COMMITTING = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
COMMITTING_SIGNED = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
LEGACY = AlgorithmSuite.AES_128_GCM_IV12_TAG16
LEGACY_SIGNED = AlgorithmSuite.AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384
LEGACY_SIGNED_P256 = AlgorithmSuite.AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256

_CLI = ("aws-encryption-sdk-cli==4.3.0", "aws-encryption-sdk~=3.1", "base64io")
"""With a separate SDK, which is older than that of cpstage, and found before it."""


@dataclass
class Keeper:
    """Encrypts and decrypts as one identity of the local AWS."""

    environment: Mapping[str, str]
    key_id: str
    asked_regions: list[str | None] = field(default_factory=list)

    def kms(self, region: str | None) -> AwsClient:
        self.asked_regions.append(region)
        return _client(tuple(self.environment.items()), region)

    def encrypt(
        self,
        plaintext: bytes | Iterable[bytes],
        context: Mapping[str, str] = CONTEXT,
        keys: Sequence[str] | None = None,
    ) -> bytes:
        chunks = [plaintext] if isinstance(plaintext, bytes) else plaintext
        message = encrypt(chunks, key_ids=keys or [self.key_id], context=context, kms=self.kms)
        return b"".join(message.chunks)

    def open(
        self,
        message: bytes,
        context: Mapping[str, str] = CONTEXT,
        keys: Sequence[str] | None = None,
        **options: Any,
    ) -> bytes:
        key_ids = [self.key_id] if keys is None else keys
        source = io.BytesIO(message)
        options = {"requires_commitment": False, **options}
        return b"".join(decrypt(source, context=context, key_ids=key_ids, kms=self.kms, **options))

    def by_sdk(
        self,
        plaintext: bytes,
        algorithm: AlgorithmSuite,
        frame_length: int,
        context: Mapping[str, str] = CONTEXT,
    ) -> bytes:
        """Encrypt with the SDK's own master key, as another tool would."""
        policy = (
            CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
            if algorithm.is_committing()
            else CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT
        )
        message, _ = EncryptionSDKClient(commitment_policy=policy).encrypt(
            source=plaintext,
            key_provider=KMSMasterKey(key_id=self.key_id, client=kms(self.environment)),
            encryption_context=dict(context),
            algorithm=algorithm,
            frame_length=frame_length,
        )
        return bytes(message)


@cache
def _client(environment: tuple[tuple[str, str], ...], region: str | None) -> AwsClient:
    return kms_service(dict(environment), region)


def kms_service(environment: Mapping[str, str], region: str | None = None) -> AwsClient:
    """KMS, as one identity, and without another try."""
    there = region or environment["AWS_REGION"]
    keys = SessionCredentials(
        environment["AWS_ACCESS_KEY_ID"],
        Secret(environment["AWS_SECRET_ACCESS_KEY"]),
        secret(environment.get("AWS_SESSION_TOKEN")),
    )
    config = AwsConfig(endpoint_url=environment["AWS_ENDPOINT_URL"], timeout=1e-6)
    config = replace(config, connect_timeout=0, read_timeout=0)
    return config.kms(JobCredentials(keys, lambda: keys, math.inf), there)


def administrator(aws: LocalAWS, key_id: str | None = None) -> Keeper:
    return Keeper(aws.admin_environment, key_id or aws.key_arn)


def multi_region_key(aws: LocalAWS, region: str) -> tuple[str, str]:
    """A multi-region key, and its replica in another region.

    moto makes ids of 40 characters for them, which its ciphertexts have no room for; those of AWS
    are ``mrk-`` and 32 hexadecimal digits.
    """
    admin = kms(aws.admin_environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moto.kms.models, "generate_key_id", lambda *_: f"mrk-{uuid.uuid4().hex}")
        primary = admin.create_key(MultiRegion=True)["KeyMetadata"]["Arn"]
    backend = moto.kms.models.kms_backends["123456789012"][aws.region]
    return primary, str(backend.replicate_key(primary.rpartition("/")[2], region).arn)


class Pipe(io.RawIOBase):
    """Chunks as a file, without keeping them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._chunks, b"")
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


@contextmanager
def kms_that_answers(status: int, code: str) -> Iterator[AwsClient]:
    """A KMS that refuses everything, with a code that the local AWS never gives."""

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"__type": code}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        secrets = dict.fromkeys(names, "x")
        try:
            yield kms_service({"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", **secrets})
        finally:
            server.shutdown()
            thread.join()


def official_cli(root: Path) -> Path:
    """Install the official CLI once for all workers of a test run; skip where it cannot be."""
    packages = root / "aws-encryption-cli"
    program = packages / "bin" / "aws-encryption-cli"
    with (root / "aws-encryption-cli.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target")
            done = subprocess.run([*pip, str(packages), *_CLI], capture_output=True, text=True)
            if done.returncode:
                program.unlink(missing_ok=True)
                pytest.skip(f"{_CLI[0]} cannot be installed: {done.stderr.strip()[-300:]}")
    return program


def run_cli(program: Path, aws: LocalAWS, directory: Path, *arguments: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    packages = str(program.parents[1])
    environment = {**clean, **aws.admin_environment, "HOME": str(directory), "PYTHONPATH": packages}
    wrapping = ("--wrapping-keys", f"key={aws.key_arn}", "--suppress-metadata")
    done = subprocess.run(
        [str(program), *arguments, *wrapping],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def flipped(message: bytes, offset: int) -> bytes:
    """The message with one bit of one byte changed; which bit depends on where."""
    changed = bytearray(message)
    changed[offset] ^= 1 << (offset % 8)
    return bytes(changed)


def modules_loaded_by(code: str) -> set[str]:
    listing = f"import sys\n{code}\nprint(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return {name.partition(".")[0] for name in said.stdout.split()}
