"""A CodePipeline that answers GetJobDetails, from documents in a directory.

The session credentials in them are SeaweedFS's static identity, with an empty token. Run as a
program it is the server; imported it writes the documents, and starts that program.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.servers import Network

_TARGET = "CodePipeline_20150709.GetJobDetails"
_START_SECONDS = 30.0
_ACCOUNT = "123456789012"


class JobApi:
    """A running job API, and the jobs that it knows."""

    def __init__(self, endpoint_url: str, directory: Path, credentials: Mapping[str, str]) -> None:
        self.endpoint_url = endpoint_url
        self._directory = directory
        self._credentials = dict(credentials)

    def add(
        self, bucket: str, key_arn: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> str:
        """Make a job, and return its id; artifacts are given as keys by their names."""
        job_id = str(uuid.uuid4())
        details = {
            "id": job_id,
            "accountId": _ACCOUNT,
            "data": {
                "actionTypeId": {
                    **{"category": "Build", "owner": "Custom"},
                    **{"provider": "Benchmark", "version": "1"},
                },
                "actionConfiguration": {"configuration": {}},
                "pipelineContext": {
                    "pipelineName": "Benchmark",
                    "stage": {"name": "Build"},
                    "action": {"name": "Build", "actionExecutionId": str(uuid.uuid4())},
                },
                "inputArtifacts": _artifacts(bucket, inputs),
                "outputArtifacts": _artifacts(bucket, outputs),
                "artifactCredentials": self._credentials,
                "encryptionKey": {"id": key_arn, "type": "KMS"},
            },
        }
        (self._directory / job_id).write_text(json.dumps({"jobDetails": details}))
        return job_id


@contextmanager
def running(directory: Path, credentials: Mapping[str, str], network: Network) -> Iterator[JobApi]:
    """Start a job API whose jobs lie in a directory of their own."""
    from benchmarks.servers import Server, free_ports, listens

    jobs = directory / "jobs"
    jobs.mkdir(parents=True)
    (port,) = free_ports(1)
    command = [sys.executable, __file__, network.address, str(port), str(jobs)]
    if network.tls:
        command.append(str(network.tls.certificate))
    with Server(command, directory / "job-api.log", {"PATH": os.environ["PATH"]}) as server:
        server.wait_until(lambda: listens(port, network.address), _START_SECONDS)
        yield JobApi(network.url(port), jobs, credentials)


def _artifacts(bucket: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "location": {"type": "S3", "s3Location": {"bucketName": bucket, "objectKey": key}},
        }
        for name, key in keys.items()
    ]


class _Handler(BaseHTTPRequestHandler):
    """Answers JSON 1.1 as CodePipeline does; it takes every signature."""

    protocol_version = "HTTP/1.1"
    # Pieces of an answer, and of TLS handshakes, must not wait for acknowledgments of TCP.
    wbufsize = -1
    disable_nagle_algorithm = True
    jobs: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.headers.get("X-Amz-Target") != _TARGET:
            self._answer(400, b'{"__type": "UnknownOperationException"}')
            return
        job = self.jobs / Path(json.loads(body)["jobId"]).name
        if job.is_file():
            self._answer(200, job.read_bytes())
        else:
            self._answer(400, b'{"__type": "JobNotFoundException", "message": "no such job"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _serve(address: str, port: str, jobs: str, *certificate: str) -> None:
    _Handler.jobs = Path(jobs)
    server = ThreadingHTTPServer((address, int(port)), _Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        # The handshake belongs to the connection's thread, which reads first.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
