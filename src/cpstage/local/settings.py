"""Keeping the user's own AWS settings out of the local AWS.

moto asks boto3 for the list of regions when it is imported, and boto3 looks at the profile: one
that does not exist would stop a server that has no use for it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_aws_settings() -> Iterator[None]:
    """Take every AWS variable out of the environment, and put all back at the end."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
