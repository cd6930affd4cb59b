"""Two hundred transfers through a network that loses every twentieth request, and not one byte."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import cpstage
from aws_clients import s3
from cpstage.local import Input, LocalAWS, Output
from fault_plans import RandomFaults
from fault_proxy import FaultProxy
from samples import tar_of, zip_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

SEED = int(os.environ.get("SOAK_SEED", "1"))
"""The same one, the same sizes and the same faults."""

JOBS = 100
LARGE_EVERY = 20
RATE = 0.05
MIB = 1 << 20


@dataclass(frozen=True)
class Errand:
    """A job whose input is fetched, and pushed as its output.

    Attributes:
        content: Of the one file in the input.
    """

    number: int
    job_id: str
    content: bytes


@pytest.fixture
def errands(aws: LocalAWS) -> list[Errand]:
    return list(_errands(aws))


def _errands(aws: LocalAWS) -> Iterator[Errand]:
    dice = random.Random(SEED)
    for number in range(JOBS):
        large = number % LARGE_EVERY == 0
        size = dice.randrange(9 * MIB, 10 * MIB) if large else int(10 ** dice.uniform(0, 5))
        content = dice.randbytes(size)
        pack, suffix = (tar_of, "tar") if large else (zip_of, "zip")
        job_id = aws.add_job(
            [Input("App", pack({"f": content}), key=f"soak/{SEED}/{number}.{suffix}")],
            [Output("Built", key=f"soak/{SEED}/{number}")],
        )
        yield Errand(number, job_id, content)


def test_two_hundred_transfers_on_a_bad_day(
    aws: LocalAWS, errands: list[Errand], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    with FaultProxy(aws.endpoint_url, RandomFaults(SEED, RATE)) as proxy:
        config = cpstage.AwsConfig(endpoint_url=proxy.url, timeout=60)

        def run(errand: Errand) -> int:
            place = tmp_path / str(errand.number)
            job = cpstage.get_job(errand.job_id, config=config)
            fetched = cpstage.fetch(job, place, config=config)
            assert (place / "in/App/f").read_bytes() == errand.content
            pushed = cpstage.push(
                job,
                place,
                cpstage.PushOptions({"Built": place / "in/App/f"}),
                config=config,
            )
            return fetched.retries + pushed.retries

        with ThreadPoolExecutor(4) as pool:
            retries = sum(pool.map(run, errands))

    store = s3(aws.admin_environment)
    for errand in errands:
        there = aws.job(errand.job_id).outputs[0]
        stored = store.get_object(Bucket=there.bucket, Key=there.key)["Body"].read()
        assert stored == errand.content, errand.number
    struck = [one for one in proxy.log if one.struck]
    assert retries > 0
    assert len(struck) > len(proxy.log) * RATE / 2
