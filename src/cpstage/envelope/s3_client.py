"""Telling the objects of another tool: the Amazon S3 Encryption Client.

It keeps its wrapped key in the object's metadata, or in an object beside it, and the object itself
looks like random bytes. cpstage does not open these; it only says what they are.
"""

from __future__ import annotations

from collections.abc import Mapping

_FORMATS = (("x-amz-c", 3), ("x-amz-key-v2", 2), ("x-amz-cek-alg", 2), ("x-amz-key", 1))
"""Which name gives which format away (S3 Encryption Client specification, Content Metadata)."""

S3_CLIENT_HINT = (
    "get it with an Amazon S3 Encryption Client and the key it was encrypted with, or fetch it "
    "as it is with --no-decrypt"
)


def s3_client_object(metadata: Mapping[str, str]) -> str | None:
    """Say what an object of the S3 Encryption Client is; None for any other object.

    Args:
        metadata: The user's metadata as HeadObject and GetObject return it: names in lower case,
            without ``x-amz-meta-``.
    """
    for name, version in _FORMATS:
        if name in metadata:
            return f"encrypted by the Amazon S3 Encryption Client (format version {version})"
    return None
