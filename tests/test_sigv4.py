"""Signatures, held against those of botocore."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import quote

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpstage.aws.sigv4 import signed_headers

EMPTY_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Keys(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
KEYS_OF_OBJECTS = st.one_of(
    TEXT, st.text("ab/.~+% =&?#äÿ漢😀", min_size=1), st.lists(st.sampled_from(["a", "..", ".", ""]))
).map(lambda key: key if isinstance(key, str) else "/".join(key))
VALUES = st.text("ab ,;:=/+\t", max_size=20).map(lambda text: f"x{text}y")
HEADERS = st.dictionaries(
    st.sampled_from(["x-amz-checksum-crc32", "If-Match", "Range", "Content-Type", "x-amz-meta-a"]),
    VALUES,
)
QUERIES = st.lists(
    st.tuples(st.sampled_from(["partNumber", "uploadId", "uploads", "a"]), st.just("") | TEXT),
    unique_by=lambda pair: pair[0],
)
KEYS = st.builds(
    Keys,
    st.text("ABC123", min_size=1),
    st.text("ab/+=ä", min_size=1),
    st.none() | st.text("ab/+=", min_size=1),
)
AUTHORITIES = st.sampled_from(["b.s3.eu-west-1.amazonaws.com", "127.0.0.1:5000", "[::1]:8080"])


def _same(
    auth: SigV4Auth, method: str, authority: str, target: str, headers: dict[str, str], keys: Keys
) -> None:
    """Have botocore sign a request, and sign it again at the time it chose."""
    service = "s3" if isinstance(auth, S3SigV4Auth) else "kms"
    request = AWSRequest(method, f"http://{authority}{target}", {**headers})
    request.headers["X-Amz-Content-SHA256"] = EMPTY_DIGEST
    auth.add_auth(request)
    stamp = request.headers["X-Amz-Date"]

    ours = signed_headers(
        method,
        authority,
        target,
        {**headers, "User-Agent": "any"},
        EMPTY_DIGEST,
        keys=keys,
        region="eu-west-1",
        service=service,
        now=datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc),
    )

    assert ours.pop("User-Agent") == "any"
    theirs = {name.lower(): value for name, value in request.headers.items()}
    assert {name.lower(): value for name, value in ours.items()} == theirs


def _credentials(keys: Keys) -> Credentials:
    return Credentials(keys.access_key, keys.secret_key, keys.token)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    AUTHORITIES,
    KEYS_OF_OBJECTS,
    QUERIES,
    HEADERS,
    KEYS,
)
@example("GET", "127.0.0.1:5000", "a/../b//c/./~+% é", [], {}, Keys("A", "b", None))
@example("POST", "127.0.0.1:5000", "a", [("uploads", "")], {}, Keys("A", "b", "t"))
def test_a_request_to_s3_is_signed_as_botocore_does(
    method: str,
    authority: str,
    key: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    keys: Keys,
) -> None:
    target = "/" + quote(key, safe="/-_.~")
    if query:
        pairs = (f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query))
        target += "?" + "&".join(pairs)

    auth = S3SigV4Auth(_credentials(keys), "s3", "eu-west-1")
    _same(auth, method, authority, target, headers, keys)


@settings(deadline=None, max_examples=60)
@given(AUTHORITIES, st.text("ab/.~%2", max_size=20), HEADERS, KEYS)
@example("127.0.0.1:5000", "a%20b/../c//", {}, Keys("A", "b", None))
def test_a_request_to_any_other_service_is_signed_as_botocore_does(
    authority: str, path: str, headers: dict[str, str], keys: Keys
) -> None:
    auth = SigV4Auth(_credentials(keys), "kms", "eu-west-1")
    _same(auth, "POST", authority, f"/{path}", headers, keys)
