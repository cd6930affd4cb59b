"""Opening: one message of the AWS Encryption SDK in, its plaintext out, frame by frame.

Each frame is authentic when it is handed on, but the message is complete only when the last one
was: what comes out may be published after the iterator has ended, and not before. Whatever is
wrong with a message is refused here, in one place.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from cpstage.encryption.encrypt import MOST_KEYS
from cpstage.encryption.keys import Trust
from cpstage.encryption.kms import Clients, Kms
from cpstage.errors import ArtifactRejected

LONGEST_FRAME = 16 << 20
"""A frame, and the body of a message without frames, is in memory as a whole."""


def decrypt(
    source: BinaryIO,
    *,
    context: Mapping[str, str],
    key_ids: Sequence[str],
    account_id: str | None = None,
    partition: str = "aws",
    region: str | None = None,
    kms: Clients,
    requires_commitment: bool = True,
) -> Iterator[bytes]:
    """Open a message: the plaintext, to be published only after the iterator has ended.

    Args:
        source: The message and nothing after it; it is read once, in order.
        context: Pairs that the message's encryption context must have.
        key_ids: The keys that may open it: ARNs, bare ids or aliases.
        account_id: An account whose keys may open it too.
        partition: The partition of that account.
        region: Where replicas of multi-region keys are asked first.
        kms: Gives KMS in a region; None asks for the pipeline's, where bare ids are.
        requires_commitment: Whether a message without key commitment is refused.

    Raises:
        ArtifactRejected: The message was changed, cut or added to, was sealed for something else,
            or is over a limit.
        AccessDenied: It was sealed under another key, or KMS refuses; with KMS's own code.
        ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
    """
    from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient

    from cpstage.encryption.materials import KmsMaterials

    require, allow = (
        CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
        CommitmentPolicy.REQUIRE_ENCRYPT_ALLOW_DECRYPT,
    )
    client = EncryptionSDKClient(
        commitment_policy=require if requires_commitment else allow,
        max_encrypted_data_keys=MOST_KEYS,
    )
    trust = Trust(key_ids, account_id, partition, region)
    stream = client.stream(
        mode="d",
        source=source,
        materials_manager=KmsMaterials(Kms(kms), trust, context),
        max_body_length=LONGEST_FRAME,
    )
    try:
        with _refusals():
            # A read of one frame's length is one frame: longer ones are sliced over again.
            length = stream.header.frame_length or LONGEST_FRAME
            chunk = stream.read(length)
        while chunk:
            yield chunk
            with _refusals():
                chunk = stream.read(length)
        with _refusals():
            stream.close()  # complains where the last frame was not reached
        if source.read(1):
            raise ArtifactRejected("there are bytes after the end of the envelope")
    finally:
        # Without this, the SDK complains on stderr about a message that was not read to its end.
        io.IOBase.close(stream)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the SDK raises for a message that is not as it was sealed into our refusal."""
    from aws_encryption_sdk.exceptions import (
        ActionNotAllowedError,
        AWSEncryptionSDKClientError,
        CustomMaximumValueExceeded,
        MaxEncryptedDataKeysExceeded,
    )
    from cryptography.exceptions import InvalidSignature, InvalidTag

    try:
        yield
    except MaxEncryptedDataKeysExceeded as error:
        raise ArtifactRejected(
            f"the envelope is sealed under more than {MOST_KEYS} keys"
        ) from error
    except CustomMaximumValueExceeded as error:
        raise ArtifactRejected(
            f"the envelope has frames of more than {LONGEST_FRAME >> 20} MiB"
        ) from error
    except InvalidTag as error:
        raise ArtifactRejected("the envelope was changed after it was sealed") from error
    except InvalidSignature as error:
        raise ArtifactRejected("the signature of the envelope is wrong") from error
    except ActionNotAllowedError as error:  # of the commitment policy
        raise ArtifactRejected(
            "the envelope is sealed without key commitment",
            hint="if it is from a writer you trust, allow it with "
            "--commitment-policy require-encrypt-allow-decrypt",
        ) from error
    except AWSEncryptionSDKClientError as error:
        why = error.args[0] if error.args else type(error).__name__
        raise ArtifactRejected(f"the envelope is damaged or cut: {why}".rstrip(".")) from error
    except (LookupError, ValueError) as error:  # a field that the SDK read without looking at it
        raise ArtifactRejected(f"the envelope is damaged: {error}") from error
