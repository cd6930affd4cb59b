"""Encrypted messages over the local KMS: encrypted, recognised, decrypted, or refused."""

from __future__ import annotations

import gc
import io
import os
import random
import socket
import struct
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from aws_encryption_sdk import EncryptionSDKClient
from aws_encryption_sdk.identifiers import AlgorithmSuite
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aws_clients import kms, session
from cpstage.encryption.header import (
    HEAD_BYTES,
    AllowedKeys,
    Header,
    job_context,
    read_header,
    s3_client_object,
)
from cpstage.encryption.messages import FRAME_LENGTH, KmsMaterials, decrypt, encrypt
from cpstage.errors import (
    AccessDenied,
    ArtifactRejected,
    ConfigurationError,
    CpstageError,
    LocalIOError,
    ServiceUnavailable,
)
from encrypted_messages import (
    COMMITTING,
    COMMITTING_SIGNED,
    CONTEXT,
    LEGACY,
    LEGACY_SIGNED,
    LEGACY_SIGNED_P256,
    Keeper,
    Pipe,
    administrator,
    flipped,
    kms_service,
    kms_that_answers,
    modules_loaded_by,
    multi_region_key,
    official_cli,
    run_cli,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow

ALL_SUITES = list(AlgorithmSuite)
PLAINTEXT = bytes(range(256)) + b"some more"
SMALL_FRAME = 128
ELSEWHERE = "eu-west-1"
ANOTHER_ACCOUNT = "999999999999"


@pytest.fixture
def keeper(aws: LocalAWS) -> Keeper:
    return administrator(aws)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.getbasetemp()
    return official_cli(root.parent if "PYTEST_XDIST_WORKER" in os.environ else root)


def new_key(aws: LocalAWS, region: str | None = None) -> str:
    return kms(aws.admin_environment, region).create_key()["KeyMetadata"]["Arn"]


def session_of(aws: LocalAWS, key: str, *actions: str) -> tuple[str, Keeper]:
    """A job's session that may do these things with its key."""
    job_id = aws.add_job(outputs=["Out"], encryption_key=key, session_actions=frozenset(actions))
    return job_id, Keeper(session(aws, job_id), key)


def kms_calls(aws: LocalAWS) -> int:
    return sum(call.service == "kms" for call in aws.calls())


class TestRoundTrip:
    @pytest.mark.parametrize(
        "size",
        [0, 1, FRAME_LENGTH - 1, FRAME_LENGTH, FRAME_LENGTH + 1, 3 * FRAME_LENGTH, 5_000_000],
    )
    def test_what_is_sealed_opens_again(self, keeper: Keeper, size: int) -> None:
        plaintext = os.urandom(size)

        message = keeper.encrypt(plaintext)

        assert keeper.open(message) == plaintext
        assert size < len(message) < size + 1000 + 40 * (size // FRAME_LENGTH)

    def test_chunks_of_any_length_are_taken(self, keeper: Keeper) -> None:
        sizes = [0, 1, FRAME_LENGTH, 7, 2 * FRAME_LENGTH + 3, 0, 5]
        chunks = [os.urandom(size) for size in sizes]

        assert keeper.open(keeper.encrypt(iter(chunks))) == b"".join(chunks)

    def test_a_stream_passes_through_in_bounded_memory(self, keeper: Keeper) -> None:
        keeper.open(keeper.encrypt(b""))  # the import of the SDK is not what is measured
        chunk, count = os.urandom(1 << 20), 48
        tracemalloc.start()
        try:
            encrypted = encrypt(
                (chunk for _ in range(count)),
                key_ids=[keeper.key_id],
                context=CONTEXT,
                kms=keeper.kms,
            )
            source = io.BufferedReader(Pipe(encrypted.chunks), 1 << 20)
            opened = decrypt(source, context=CONTEXT, key_ids=[keeper.key_id], kms=keeper.kms)
            length = sum(len(part) for part in opened)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert length == count << 20
        assert peak < 8 << 20

    def test_the_least_rights_are_enough(self, aws: LocalAWS) -> None:
        key = new_key(aws)
        _, encrypter = session_of(aws, key, "kms:GenerateDataKey")
        _, opener = session_of(aws, key, "kms:Decrypt")

        assert opener.open(encrypter.encrypt(b"text")) == b"text"

    def test_kms_is_asked_before_the_source_is_read(self, aws: LocalAWS) -> None:
        _, keeper = session_of(aws, new_key(aws), "kms:Decrypt")
        taken: list[int] = []

        def source() -> Iterator[bytes]:
            taken.append(1)
            yield b"text"

        with pytest.raises(AccessDenied, match="AccessDeniedException"):
            encrypt(source(), key_ids=[keeper.key_id], context=CONTEXT, kms=keeper.kms)
        assert not taken

    @pytest.mark.parametrize("error", [LocalIOError("disk gone"), ValueError("odd"), KeyError("k")])
    def test_an_error_of_the_source_goes_through(self, keeper: Keeper, error: Exception) -> None:
        def source() -> Iterator[bytes]:
            yield os.urandom(FRAME_LENGTH)
            raise error

        with pytest.raises(type(error)) as caught:
            keeper.encrypt(source())
        assert caught.value is error

    def test_an_error_of_the_stored_message_goes_through(self, keeper: Keeper) -> None:
        error = LocalIOError("disk gone")

        def stored() -> Iterator[bytes]:
            yield keeper.encrypt(os.urandom(2 * FRAME_LENGTH))[:FRAME_LENGTH]
            raise error

        source = io.BufferedReader(Pipe(stored()), 1000)
        opening = decrypt(source, context={}, key_ids=[keeper.key_id], kms=keeper.kms)
        with pytest.raises(LocalIOError) as caught:
            list(opening)
        assert caught.value is error


class TestKeys:
    def test_bare_ids_and_aliases_stand_for_their_key(self, aws: LocalAWS) -> None:
        arn = new_key(aws)
        alias = f"alias/{arn[-12:]}"
        kms(aws.admin_environment).create_alias(AliasName=alias, TargetKeyId=arn)
        alias_arn = f"{arn.rpartition(':')[0]}:{alias}"
        forms = [arn, arn.rpartition("/")[2], alias, alias_arn]
        keeper = administrator(aws, arn)

        for form in forms:
            message = keeper.encrypt(b"text", keys=[form])
            assert header_of(message).keys == (arn,)
            for other in forms:
                assert keeper.open(message, keys=[other]) == b"text"

    def test_an_alias_of_another_key_opens_nothing(self, aws: LocalAWS) -> None:
        arn, other = new_key(aws), new_key(aws)
        alias = f"alias/{other[-12:]}"
        kms(aws.admin_environment).create_alias(AliasName=alias, TargetKeyId=other)
        keeper = administrator(aws, arn)

        with pytest.raises(AccessDenied, match=alias):
            keeper.open(keeper.encrypt(b"text"), keys=[alias])

    def test_each_of_several_keys_opens_alone(self, aws: LocalAWS) -> None:
        keys = [new_key(aws), new_key(aws, ELSEWHERE), new_key(aws, "ap-south-1")]
        keeper = administrator(aws)

        message = keeper.encrypt(b"text", keys=keys)

        assert sorted(header_of(message).keys) == sorted(keys)
        for key in keys:
            keeper.asked_regions.clear()
            assert keeper.open(message, keys=[key]) == b"text"
            assert keeper.asked_regions == [key.split(":")[3]]

    def test_the_pipelines_region_is_asked_for_bare_ids(self, keeper: Keeper) -> None:
        message = keeper.encrypt(b"text", keys=[keeper.key_id.rpartition("/")[2]])

        assert keeper.asked_regions == [None]
        assert header_of(message).keys == (keeper.key_id,)

    def test_an_account_stands_for_its_keys(self, aws: LocalAWS, keeper: Keeper) -> None:
        message = keeper.encrypt(b"text", keys=[new_key(aws, ELSEWHERE)])
        account = keeper.key_id.split(":")[4]

        assert keeper.open(message, keys=[], account_id=account) == b"text"
        assert keeper.open(message, account_id=account) == b"text"

    def test_a_multi_region_key_opens_under_its_replica_in_the_jobs_region(
        self, aws: LocalAWS
    ) -> None:
        primary, replica = multi_region_key(aws, "eu-west-1")
        message = administrator(aws, replica).encrypt(b"text")

        named = administrator(aws, primary)
        assert named.open(message) == b"text"
        of_account = administrator(aws)
        trusted: dict[str, Any] = {"account_id": "123456789012", "region": aws.region}
        assert of_account.open(message, keys=[], **trusted) == b"text"

        assert {*named.asked_regions, *of_account.asked_regions} == {aws.region}

    def test_a_replica_of_another_key_opens_nothing(self, aws: LocalAWS) -> None:
        _, replica = multi_region_key(aws, "eu-west-1")
        other, _ = multi_region_key(aws, "eu-west-1")
        message = administrator(aws, replica).encrypt(b"text")

        with pytest.raises(AccessDenied, match="is encrypted under"):
            administrator(aws, other).open(message)

    @pytest.mark.parametrize(
        "options",
        [
            {"keys": []},
            {"keys": [], "account_id": ANOTHER_ACCOUNT},
            {"keys": [], "account_id": "123456789012", "partition": "aws-cn"},
            {"keys": [f"arn:aws:kms:us-east-1:{ANOTHER_ACCOUNT}:key/k"]},
            {"keys": [f"arn:aws:kms:{ELSEWHERE}:123456789012:alias/k"]},
            {"keys": ["00000000-0000-0000-0000-000000000000"]},
            {"keys": ["nonsense:", ""]},
        ],
    )
    def test_another_key_is_refused_without_asking_kms(
        self, aws: LocalAWS, keeper: Keeper, options: dict[str, Any]
    ) -> None:
        message = keeper.encrypt(b"text")
        before = kms_calls(aws)

        with pytest.raises(AccessDenied, match=f"encrypted under {keeper.key_id}"):
            keeper.open(message, **options)
        assert kms_calls(aws) == before

    def test_the_second_key_opens_when_the_first_cannot(self, aws: LocalAWS) -> None:
        first, second = new_key(aws), new_key(aws, ELSEWHERE)
        keeper = administrator(aws)
        message = keeper.encrypt(b"text", keys=[first, second])
        kms(aws.admin_environment).disable_key(KeyId=first)

        assert keeper.open(message, keys=[first, second]) == b"text"

        kms(aws.admin_environment, ELSEWHERE).schedule_key_deletion(KeyId=second)
        with pytest.raises(AccessDenied, match=r"DisabledException.*KMSInvalidStateException"):
            keeper.open(message, keys=[first, second])

    @pytest.mark.parametrize("count", [0, 6])
    def test_none_or_six_keys_are_not_sealed_under(self, keeper: Keeper, count: int) -> None:
        with pytest.raises(ConfigurationError, match=f"{count} KMS keys"):
            encrypt([], key_ids=[keeper.key_id] * count, context={}, kms=keeper.kms)

    def test_more_than_five_keys_are_refused(self, aws: LocalAWS, keeper: Keeper) -> None:
        six = [new_key(aws) for _ in range(6)]
        client = EncryptionSDKClient()
        materials = KmsMaterials(keeper.kms, AllowedKeys(six), {})
        options = {"algorithm": COMMITTING, "encryption_context": CONTEXT}
        message, _ = client.encrypt(source=b"text", materials_manager=materials, **options)
        before = kms_calls(aws)

        assert len(header_of(message).keys) == 6
        with pytest.raises(ArtifactRejected, match="more than 5 keys"):
            keeper.open(message, keys=six)
        assert kms_calls(aws) == before


class TestKmsRefuses:
    def test_no_permission(self, aws: LocalAWS) -> None:
        key = new_key(aws)
        message = administrator(aws, key).encrypt(b"text")
        _, keeper = session_of(aws, key, "kms:DescribeKey")

        with pytest.raises(AccessDenied, match=r"AccessDeniedException.*kms:Decrypt") as opening:
            keeper.open(message)
        with pytest.raises(AccessDenied, match=r"AccessDeniedException.*kms:GenerateDataKey"):
            keeper.encrypt(b"text")
        assert key in opening.value.message
        assert "\n" not in str(opening.value)

    def test_no_permission_for_one_more_key(self, aws: LocalAWS) -> None:
        key, other = new_key(aws), new_key(aws)
        _, keeper = session_of(aws, key, "kms:GenerateDataKey")

        with pytest.raises(AccessDenied, match=f"{other}: AccessDeniedException.*kms:Encrypt"):
            keeper.encrypt(b"text", keys=[key, other])

    def test_expired_session(self, aws: LocalAWS, keeper: Keeper) -> None:
        message = keeper.encrypt(b"text")
        job_id, expired = session_of(aws, aws.key_arn, "kms:Decrypt", "kms:GenerateDataKey")
        aws.expire_sessions(job_id)

        with pytest.raises(AccessDenied, match="ExpiredToken"):
            expired.open(message)
        with pytest.raises(AccessDenied, match="ExpiredToken"):
            expired.encrypt(b"text")

    @pytest.mark.parametrize(
        ("state", "code"),
        [("disabled", "DisabledException"), ("pending deletion", "KMSInvalidStateException")],
    )
    def test_key_that_is_not_enabled(self, aws: LocalAWS, state: str, code: str) -> None:
        key = new_key(aws)
        keeper = administrator(aws, key)
        message = keeper.encrypt(b"text")
        client = kms(aws.admin_environment)
        if state == "disabled":
            client.disable_key(KeyId=key)
        else:
            client.schedule_key_deletion(KeyId=key)

        with pytest.raises(AccessDenied, match=f"{key}: {code}"):
            keeper.open(message)
        with pytest.raises(AccessDenied, match=f"{key}: {code}"):
            keeper.encrypt(b"text")

    @pytest.mark.parametrize(
        "key",
        [
            "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
            f"arn:aws:kms:us-east-1:{ANOTHER_ACCOUNT}:key/00000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-000000000000",
            "alias/none",
        ],
    )
    def test_no_such_key(self, keeper: Keeper, key: str) -> None:
        with pytest.raises(AccessDenied, match=f"{key}: NotFoundException"):
            keeper.encrypt(b"text", keys=[key])

    @pytest.mark.parametrize("key", ["arn:aws:s3:::bucket", "arn:aws:kms:a.b/:1:key/k", ""])
    def test_no_name_of_a_key(self, keeper: Keeper, key: str) -> None:
        with pytest.raises(ConfigurationError):
            keeper.encrypt(b"text", keys=[key])

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (400, "IncorrectKeyException", AccessDenied),
            (400, "InvalidKeyUsageException", AccessDenied),
            (400, "InvalidCiphertextException", ArtifactRejected),
            (400, "ValidationException", ConfigurationError),
            (400, "ThrottlingException", ServiceUnavailable),
            (500, "KeyUnavailableException", ServiceUnavailable),
            (500, "KMSInternalException", ServiceUnavailable),
            (503, "DependencyTimeoutException", ServiceUnavailable),
        ],
    )
    def test_every_other_code(
        self, keeper: Keeper, status: int, code: str, kind: type[CpstageError]
    ) -> None:
        message = io.BytesIO(keeper.encrypt(b"text"))

        with kms_that_answers(status, code) as client:
            opening = decrypt(
                message, context=CONTEXT, key_ids=[keeper.key_id], kms=lambda _: client
            )
            with pytest.raises(kind, match=f"{keeper.key_id}: {code}"):
                next(opening)

    def test_unreachable(self, keeper: Keeper) -> None:
        message = keeper.encrypt(b"text")
        with socket.socket() as deaf:  # bound, so that nobody else can listen there
            deaf.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            client = kms_service({**keeper.environment, "AWS_ENDPOINT_URL": url})
            with pytest.raises(ServiceUnavailable, match="connect"):
                encrypt([b"text"], key_ids=[keeper.key_id], context=CONTEXT, kms=lambda _: client)
            opening = decrypt(
                io.BytesIO(message), context=CONTEXT, key_ids=[keeper.key_id], kms=lambda _: client
            )
            with pytest.raises(ServiceUnavailable, match="connect"):
                next(opening)

    def test_nothing_is_written_beside_the_error(
        self, aws: LocalAWS, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = new_key(aws)
        message = administrator(aws, key).encrypt(b"text")
        _, keeper = session_of(aws, key, "kms:DescribeKey")

        with pytest.raises(AccessDenied):
            keeper.open(message)
        with pytest.raises(AccessDenied):
            keeper.encrypt(b"text")
        assert [record.name for record in caplog.records if record.levelname != "DEBUG"] == []


class TestContext:
    def test_a_place_in_a_pipeline(self) -> None:
        context = job_context(
            account="123456789012", pipeline="Shop", stage="Build", action="Make", artifact="App"
        )

        assert context == {
            "cpstage:account": "123456789012",
            "cpstage:pipeline": "Shop",
            "cpstage:stage": "Build",
            "cpstage:action": "Make",
            "cpstage:artifact": "App",
        }
        assert job_context(pipeline="Shop", stage=None) == {"cpstage:pipeline": "Shop"}

    def test_pairs_beyond_the_expected_ones_are_fine(self, keeper: Keeper) -> None:
        message = keeper.encrypt(b"text", {**CONTEXT, "team": "grün\n"})

        assert keeper.open(message) == b"text"
        assert keeper.open(message, {"team": "grün\n"}) == b"text"
        assert keeper.open(keeper.encrypt(b"text", {}), {}) == b"text"

    @pytest.mark.parametrize(
        ("expected", "words"),
        [
            ({**CONTEXT, "cpstage:artifact": "Web"}, "cpstage:artifact is 'App', not 'Web'"),
            ({**CONTEXT, "cpstage:artifact": "app"}, "cpstage:artifact is 'App', not 'app'"),
            ({**CONTEXT, "team": "blue"}, "has no team"),
        ],
    )
    def test_a_swapped_artifact_is_refused_without_asking_kms(
        self, aws: LocalAWS, keeper: Keeper, expected: dict[str, str], words: str
    ) -> None:
        message = keeper.encrypt(b"text")
        before = kms_calls(aws)

        with pytest.raises(ArtifactRejected, match=words):
            keeper.open(message, expected)
        assert kms_calls(aws) == before

    def test_a_context_rewritten_in_the_header_is_refused(self, keeper: Keeper) -> None:
        message = keeper.encrypt(b"text").replace(
            b"cpstage:artifact\0\3App", b"cpstage:artifact\0\3Web"
        )

        with pytest.raises(ArtifactRejected, match="InvalidCiphertextException"):
            keeper.open(message, {"cpstage:artifact": "Web"})

    @pytest.mark.parametrize("name", ["aws-crypto-public-key", "aws-crypto-x", ""])
    def test_reserved_names_are_refused(self, keeper: Keeper, name: str) -> None:
        with pytest.raises(ConfigurationError, match="cannot have a pair"):
            keeper.encrypt(b"text", {name: "x"})

    def test_a_context_that_no_header_can_hold_is_refused(self, keeper: Keeper) -> None:
        with pytest.raises(ConfigurationError, match="too large"):
            keeper.encrypt(b"text", {"a": "x" * 40_000, "b": "x" * 40_000})


class TestTampered:
    """No byte of a message can be changed, left out or added."""

    @pytest.mark.parametrize(
        ("algorithm", "frame_length"),
        [(COMMITTING, SMALL_FRAME), (COMMITTING_SIGNED, SMALL_FRAME), (LEGACY, 0)],
        ids=["committing", "committing and signed", "legacy without frames"],
    )
    def test_a_flipped_bit_in_any_byte(
        self, keeper: Keeper, algorithm: AlgorithmSuite, frame_length: int
    ) -> None:
        message = keeper.by_sdk(PLAINTEXT, algorithm, frame_length)
        blob = keeper_blob(message, keeper.key_id)
        provider = message.index(b"aws-kms")

        for offset in range(len(message)):
            # Only what says which key it was may make it look like a message for somebody else.
            about_the_key = provider - 4 <= offset < blob.stop
            allowed = (ArtifactRejected, AccessDenied) if about_the_key else ArtifactRejected
            with pytest.raises(allowed) as caught:
                keeper.open(flipped(message, offset))
            assert "\n" not in str(caught.value), offset

    @pytest.mark.parametrize("algorithm", [COMMITTING, LEGACY_SIGNED], ids=str)
    def test_a_cut_at_any_byte(self, keeper: Keeper, algorithm: AlgorithmSuite) -> None:
        message = keeper.by_sdk(PLAINTEXT, algorithm, SMALL_FRAME)

        for length in range(len(message)):
            with pytest.raises(ArtifactRejected):
                keeper.open(message[:length])

    @pytest.mark.parametrize("size", [0, 1, FRAME_LENGTH, 2 * FRAME_LENGTH + 1])
    def test_a_frame_missing_doubled_or_swapped(self, keeper: Keeper, size: int) -> None:
        message = keeper.encrypt(os.urandom(size))
        start, frame = header_of(message).length, 4 + 12 + FRAME_LENGTH + 16
        head, body = message[:start], message[start:]
        first, rest = body[:frame], body[frame:]

        for changed in (head + rest, head, head + first + body, head + rest + first):
            if changed != message:
                with pytest.raises(ArtifactRejected):
                    keeper.open(changed)

    @pytest.mark.parametrize("algorithm", [COMMITTING, LEGACY_SIGNED], ids=str)
    def test_bytes_after_the_end(self, keeper: Keeper, algorithm: AlgorithmSuite) -> None:
        message = keeper.by_sdk(PLAINTEXT, algorithm, SMALL_FRAME)

        for added in (b"\0", b"junk", message, os.urandom(100_000)):
            with pytest.raises(ArtifactRejected, match="bytes follow the end"):
                keeper.open(message + added)

    def test_a_frame_of_another_message(self, keeper: Keeper) -> None:
        one, other = (keeper.encrypt(b"a" * FRAME_LENGTH + end) for end in (b"1", b"2"))
        start = header_of(one).length

        with pytest.raises(ArtifactRejected):
            keeper.open(one[:start] + other[start:])

    @pytest.mark.parametrize("length", [(16 << 20) + 1, (1 << 31) - 1, 0xFFFFFFFF, 0])
    def test_an_impossible_frame_length(self, keeper: Keeper, length: int) -> None:
        message = bytearray(keeper.encrypt(b"text"))
        end = header_of(bytes(message)).length - 16 - 32
        message[end - 4 : end] = struct.pack(">I", length)

        with pytest.raises(ArtifactRejected):
            keeper.open(bytes(message))

    def test_longer_frames_than_memory_should_hold(self, keeper: Keeper) -> None:
        framed = keeper.by_sdk(b"text", COMMITTING, (16 << 20) + SMALL_FRAME)
        whole = keeper.by_sdk(bytes((16 << 20) + 1), LEGACY, 0)

        for message in (framed, whole):
            with pytest.raises(ArtifactRejected, match="more than 16 MiB"):
                keeper.open(message)

    def test_what_is_left_half_read_makes_no_noise(
        self, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noise: list[object] = []
        monkeypatch.setattr(sys, "unraisablehook", noise.append)
        message = keeper.encrypt(os.urandom(3 * FRAME_LENGTH))

        opening = decrypt(
            io.BytesIO(message), context=CONTEXT, key_ids=[keeper.key_id], kms=keeper.kms
        )
        assert len(next(opening)) == FRAME_LENGTH
        del opening
        with pytest.raises(ArtifactRejected):
            keeper.open(message[:-1])
        gc.collect()

        assert noise == []


class TestRecognition:
    @pytest.mark.parametrize("algorithm", ALL_SUITES, ids=str)
    @pytest.mark.parametrize("frame_length", [0, SMALL_FRAME, 4096])
    def test_every_message_is_recognised_and_opened(
        self, keeper: Keeper, algorithm: AlgorithmSuite, frame_length: int
    ) -> None:
        message = keeper.by_sdk(PLAINTEXT, algorithm, frame_length)

        header = header_of(message)

        assert header.algorithm == algorithm.name
        assert header.version == algorithm.message_format_version
        assert header.frame_length == frame_length
        assert header.keys == (keeper.key_id,)
        assert {**header.context, **CONTEXT} == header.context
        assert keeper.open(message) == PLAINTEXT
        assert read_header(message[: header.length]) == header
        assert read_header(message[: header.length - 1]) is None

    def test_ours_says_what_it_is_before_it_is_read(self, keeper: Keeper) -> None:
        encrypted = encrypt([b"text"], key_ids=[keeper.key_id], context=CONTEXT, kms=keeper.kms)

        assert encrypted.header.document() == {
            "format": "AWS Encryption SDK, message format 2",
            "algorithm": "AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
            "keys": [keeper.key_id],
            "encryption_context": CONTEXT,
            "frame_length": FRAME_LENGTH,
        }
        assert read_header(b"".join(encrypted.chunks)) == encrypted.header

    def test_a_header_that_is_too_long_is_not_recognised(self) -> None:
        def message(pairs: int) -> bytes:
            key = b"\0\7aws-kms" + b"\xff\xff" + b"k" * 0xFFFF + b"\xff\xff" + b"c" * 0xFFFF
            keys = struct.pack(">H", pairs) + key * pairs
            return b"\2\4\x78" + bytes(32 + 2) + keys + b"\2" + bytes([0, 0, 16, 0]) + bytes(48)

        assert header_of(message(1)).keys == ("k" * 0xFFFF,)
        assert len(message(2)) > HEAD_BYTES
        assert read_header(message(2)) is None

    def test_random_bytes_behind_the_first_ones_of_a_message(self) -> None:
        seed = random.Random(1)
        noise = seed.randbytes(1 << 20)
        starts = [
            (b"\1\x80" if suite.message_format_version == 1 else b"\2") + bytes(suite.id_as_bytes())
            for suite in ALL_SUITES
        ]
        found = 0
        for number in range(20_000):
            offset = seed.randrange(len(noise) - (80 << 10))
            head = starts[number % len(starts)] + noise[offset : offset + (80 << 10)]
            found += read_header(head) is not None

        assert found == 0

    @given(st.binary(max_size=300))
    @example(b"")
    @settings(max_examples=300, deadline=None)
    def test_no_bytes_make_it_fail(self, data: bytes) -> None:
        for start in (b"", b"\1\x80\3\x78", b"\2\4\x78" + bytes(32), b"\2\5\x78" + bytes(34)):
            header = read_header(start + data)
            assert header is None or isinstance(header, Header)

    @given(st.data())
    @settings(max_examples=300, deadline=None)
    def test_no_change_of_a_header_makes_it_fail(self, data: st.DataObject) -> None:
        head = bytearray(_HEAD)
        for _ in range(data.draw(st.integers(1, 4))):
            head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(head)))

        header = read_header(bytes(head[:cut]))

        assert header is None or header.length <= cut

    def test_other_files_are_none(self) -> None:
        for head in (b"", b"\1", b"\2\4\x78", b"PK\3\4", b"\x1f\x8b\x08", b"AYADeA==", bytes(600)):
            assert read_header(head) is None

    def test_it_needs_no_sdk(self) -> None:
        loaded = modules_loaded_by(
            f"import cpstage.encryption.header as e; assert e.read_header({_HEAD!r}) is not None"
        )

        assert not loaded.intersection({"aws_encryption_sdk", "cryptography"})


class TestS3EncryptionClient:
    @pytest.mark.parametrize(
        ("metadata", "version"),
        [
            ({"x-amz-key": "a", "x-amz-iv": "b", "x-amz-matdesc": "{}"}, 1),
            ({"x-amz-key-v2": "a", "x-amz-cek-alg": "AES/GCM/NoPadding"}, 2),
            ({"x-amz-cek-alg": "AES/GCM/NoPadding"}, 2),
            ({"x-amz-c": "115", "x-amz-3": "a", "x-amz-w": "12", "x-amz-d": "b"}, 3),
        ],
    )
    def test_its_objects_are_told(self, metadata: dict[str, str], version: int) -> None:
        said = s3_client_object(metadata)

        assert said is not None
        assert f"Amazon S3 Encryption Client (format version {version})" in said

    def test_other_objects_are_not(self) -> None:
        assert s3_client_object({}) is None
        assert s3_client_object({"key": "x", "codepipeline-artifact": "y"}) is None


class TestOfficialCli:
    """The official command-line tool, with a separate SDK."""

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("--algorithm", COMMITTING.name, "--frame-length", str(SMALL_FRAME)),
            ("--commitment-policy", "forbid-encrypt-allow-decrypt"),
            *[
                ("--commitment-policy", "forbid-encrypt-allow-decrypt", "--algorithm", suite.name)
                for suite in (LEGACY, LEGACY_SIGNED_P256)
            ],
        ],
    )
    def test_its_messages_open_here(
        self,
        aws: LocalAWS,
        keeper: Keeper,
        program: Path,
        tmp_path: Path,
        arguments: tuple[str, ...],
    ) -> None:
        plaintext = os.urandom(100_000)
        (tmp_path / "plain").write_bytes(plaintext)
        context = [f"{name}={value}" for name, value in CONTEXT.items()]
        files = ("--encrypt", "--input", "plain", "--output", "encrypted")
        run_cli(program, aws, tmp_path, *files, *arguments, "--encryption-context", *context)
        message = (tmp_path / "encrypted").read_bytes()

        assert header_of(message).keys == (aws.key_arn,)
        assert keeper.open(message) == plaintext
        with pytest.raises(CpstageError):
            keeper.open(message, {**CONTEXT, "cpstage:artifact": "Web"})

    @pytest.mark.parametrize("size", [0, 2 * FRAME_LENGTH, 1_000_000])
    def test_our_messages_open_there(
        self, aws: LocalAWS, keeper: Keeper, program: Path, tmp_path: Path, size: int
    ) -> None:
        plaintext = os.urandom(size)
        (tmp_path / "encrypted").write_bytes(keeper.encrypt(plaintext))
        context = [f"{name}={value}" for name, value in CONTEXT.items()]
        files = ("--decrypt", "--input", "encrypted", "--output", "plain")
        limits = ("--commitment-policy", "require-encrypt-require-decrypt")
        run_cli(program, aws, tmp_path, *files, *limits, "--encryption-context", *context)

        assert (tmp_path / "plain").read_bytes() == plaintext


_HEAD = (
    b"\2\4\x78"
    + bytes(range(32))
    + b"\0\x09\0\1\0\1a\0\2bc"
    + b"\0\1\0\7aws-kms\0\3arn\0\4blob"
    + b"\2\0\0\x10\0"
    + bytes(48)
)
"""A header of message format 2, written out by hand."""


def header_of(message: bytes) -> Header:
    header = read_header(message[:HEAD_BYTES])
    assert header is not None
    return header


def keeper_blob(message: bytes, key_id: str) -> slice:
    """Where the wrapped data key lies in a message of one key."""
    start = message.index(key_id.encode()) + len(key_id)
    (length,) = struct.unpack_from(">H", message, start)
    return slice(start + 2, start + 2 + length)
