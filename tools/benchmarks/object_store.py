"""An S3 for benchmarks: SeaweedFS with SSE-KMS under a key of moto's KMS.

moto's own S3 is too slow to measure anything with; SeaweedFS encrypts with real data keys that
it gets from a KMS. It refuses requests that carry a session token, and takes a static identity.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.servers import LOOPBACK, Network, Server, free_ports, listens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
ACCESS_KEY = "benchmark"
SECRET_KEY = "benchmark-secret"
_START_SECONDS = 60.0
_SIGNING = Config(
    signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}
)


@dataclass(frozen=True)
class Stored:
    """What HEAD says of an object."""

    size: int
    encryption: str | None
    kms_key_id: str | None


class ObjectStore:
    """A running SeaweedFS, its KMS key, and what a benchmark does to it between its runs.

    Args:
        endpoint_url: For tools.
        http_url: For the benchmark itself.
        kms_endpoint_url: Of the KMS.
        key_arn: Of the key.
        weed: SeaweedFS.
    """

    def __init__(
        self, endpoint_url: str, http_url: str, kms_endpoint_url: str, key_arn: str, weed: Server
    ) -> None:
        self.endpoint_url = endpoint_url
        self.kms_endpoint_url = kms_endpoint_url
        self.key_arn = key_arn
        self._weed = weed
        self._numbers = count(1)
        self._s3: S3Client = boto3.client("s3", config=_SIGNING, **_identity(http_url))

    def cpu_seconds(self) -> float:
        """Return the processor time that SeaweedFS has used so far."""
        return self._weed.cpu_seconds()

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """Make a bucket for one run, and throw it away with all that is in it.

        Objects that are deleted or overwritten are not freed; a bucket's volumes are. The first
        object makes those volumes, which is none of the measured tools' work.
        """
        name = f"benchmark-{next(self._numbers)}"
        self._s3.create_bucket(Bucket=name)
        try:
            self._s3.put_object(Bucket=name, Key="first", Body=b"first")
            yield name
        finally:
            self._s3.delete_bucket(Bucket=name)

    def put(self, bucket: str, key: str, file: Path, *, encrypted: bool = True) -> None:
        extra = {"ContentType": "application/zip"}
        if encrypted:
            extra |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.key_arn}
        self._s3.upload_file(str(file), bucket, key, ExtraArgs=extra)

    def get(self, bucket: str, key: str, file: Path) -> None:
        self._s3.download_file(bucket, key, str(file))

    def look_at(self, bucket: str, key: str) -> Stored:
        answer = self._s3.head_object(Bucket=bucket, Key=key)
        return Stored(
            answer["ContentLength"], answer.get("ServerSideEncryption"), answer.get("SSEKMSKeyId")
        )

    def url(self, bucket: str, key: str) -> str:
        """Return a URL that reads an object without credentials."""
        return self._s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=86_400
        )

    def answers(self) -> bool:
        """Tell whether it stores objects already: it listens long before it does."""
        try:
            with self.bucket():
                return True
        except (BotoCoreError, ClientError):
            return False


@contextmanager
def running(weed: str, directory: Path, network: Network) -> Iterator[ObjectStore]:
    """Start a KMS and SeaweedFS.

    Args:
        weed: The program.
        directory: Where the data go; best in memory.
        network: How tools reach SeaweedFS.
    """
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        kms_endpoint_url, key_arn = stack.enter_context(_key_service(directory))
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        config = directory / "s3.json"
        config.write_text(json.dumps(_configuration(kms_endpoint_url)))
        temporary = directory / "tmp"
        temporary.mkdir()
        environment = {
            # Its sockets lie in the temporary directory, under names that others have too.
            **{"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(temporary)},
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        server = stack.enter_context(
            Server(
                _command(weed, directory, config, ports, network),
                directory / "weed.log",
                environment,
            )
        )
        http_url = f"http://{network.address}:{ports['s3.port']}"
        endpoint_url = network.url(ports["s3.port.https" if network.tls else "s3.port"])
        store = ObjectStore(endpoint_url, http_url, kms_endpoint_url, key_arn, server)
        server.wait_until(store.answers, _START_SECONDS)
        yield store


_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc", "s3.port.https"),
)


def _command(
    weed: str, directory: Path, config: Path, ports: dict[str, int], network: Network
) -> list[str]:
    data = directory / "data"
    data.mkdir()
    tls = network.tls
    if not tls:
        ports = {name: port for name, port in ports.items() if name != "s3.port.https"}
    files = [f"-s3.{name}.file={tls.certificate}" for name in ("cert", "key")] if tls else []
    return [
        *(weed, "server", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
        *("-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-s3.ip.bind={network.address}", *files),
        *("-volume.max=100", "-master.volumeSizeLimitMB=1024", "-master.telemetry=false"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def _configuration(kms_endpoint_url: str) -> object:
    provider = {
        **{"type": "aws", "region": REGION, "endpoint": kms_endpoint_url},
        **{"access_key": "kms", "secret_key": "kms", "cache_enabled": True, "cache_ttl": "1h"},
    }
    identity = {
        "name": "benchmark",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    kms = {"default_provider": "moto", "providers": {"moto": provider}}
    return {"identities": [identity], "kms": kms}


@contextmanager
def _key_service(directory: Path) -> Iterator[tuple[str, str]]:
    """Start moto's KMS, and make a key."""
    (port,) = free_ports(1)
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]
    with Server(command, directory / "moto.log", environment) as server:
        server.wait_until(lambda: listens(port), _START_SECONDS)
        endpoint_url = f"http://{LOOPBACK}:{port}"
        kms = boto3.client("kms", **_identity(endpoint_url))
        yield endpoint_url, kms.create_key()["KeyMetadata"]["Arn"]


def _identity(endpoint_url: str) -> dict[str, Any]:
    return {
        "endpoint_url": endpoint_url,
        "region_name": REGION,
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
    }
