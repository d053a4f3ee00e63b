"""What the tests of sources share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dn2.images.listing import touch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the tables lie, with a.png, b.png and sub/c.jpg."""
    touch(tmp_path / "data", "a.png", "b.png", "sub/c.jpg", content=b"first")
    return tmp_path / "data"


@pytest.fixture
def memory() -> str:
    """URL of an empty place in memory."""
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def nobody() -> Iterator[None]:
    """Without root's right to look everywhere."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)
