"""Envelopes: artifacts encrypted before they leave the machine, with the AWS Encryption SDK.

A message is recognised by its header, sealed under KMS keys and opened again, as a stream and in
bounded memory. These modules know KMS, but nothing of S3, jobs or archives; the SDK is imported
when a message is first sealed or opened.
"""

from cpstage.envelope.context import job_context
from cpstage.envelope.header import HEAD_BYTES, Header, read_header
from cpstage.envelope.kms import Clients
from cpstage.envelope.opening import open_sealed
from cpstage.envelope.s3_client import S3_CLIENT_HINT, s3_client_object
from cpstage.envelope.sealing import MOST_KEYS, Sealed, seal

__all__ = [
    "HEAD_BYTES",
    "MOST_KEYS",
    "S3_CLIENT_HINT",
    "Clients",
    "Header",
    "Sealed",
    "job_context",
    "open_sealed",
    "read_header",
    "s3_client_object",
    "seal",
]
