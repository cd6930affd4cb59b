"""The caller's credentials are refreshed while a program runs, and what they are refreshed with."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

import cpstage
from cpstage.errors import AccessDenied
from run_jobs import add_job

if TYPE_CHECKING:
    from pathlib import Path

    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e


def test_malformed_credentials_of_a_refresh_are_named(
    aws: LocalAWS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now(timezone.utc) + timedelta(seconds=120)
    given = dict(aws.environment)
    printed = tmp_path / "printed"
    document = {
        "Version": 1,
        "AccessKeyId": given.pop("AWS_ACCESS_KEY_ID"),
        "SecretAccessKey": given.pop("AWS_SECRET_ACCESS_KEY"),
        "Expiration": f"{soon:%Y-%m-%dT%H:%M:%SZ}",
    }
    printed.write_text(json.dumps(document))
    settings = tmp_path / "config"
    settings.write_text(f"[default]\ncredential_process = cat {printed}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**given, "AWS_CONFIG_FILE": str(settings)}.items():
        monkeypatch.setenv(name, value)
    job_id, config = add_job(aws), cpstage.AwsConfig()
    cpstage.get_job(job_id, config=config)
    printed.write_text("garbage")

    with pytest.raises(AccessDenied, match="credentials cannot be read: they are malformed"):
        cpstage.get_job(job_id, config=config)
