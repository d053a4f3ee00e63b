"""A store that lies in its own source: what dn2 writes is never taken for the user's images."""

from __future__ import annotations

from pathlib import Path

import pytest

import dn2
from dn2.images.drops import find_drops, look
from dn2.store.files import locate
from tests.conftest import make_pictures


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, and a store among them that holds one."""
    make_pictures(tmp_path / "photos", 3)
    make_pictures(tmp_path / "photos" / "dn2-store" / "reports" / "parts", 1)
    make_pictures(tmp_path / "photos" / "dn2-store-of-photos", 1)
    return tmp_path / "photos"


def test_pictures_in_the_store_are_not_listed(photos: Path):
    dataset = dn2.ingest(photos, photos / "dn2-store")
    assert (dataset.images, dataset.added, dataset.ignored) == (4, 4, 0)
    assert dn2.ingest(photos, photos / "dn2-store").added == 0


@pytest.mark.s3
def test_pictures_in_a_store_in_the_same_bucket_are_not_listed(photos: Path, s3_bucket: str):
    url = f"{s3_bucket}/store-in-source"
    place = locate(url)
    place.fs.put(str(photos), place.path, recursive=True)
    dataset = dn2.ingest(url, f"{url}/dn2-store")
    assert dataset.images == 4


def test_store_below_a_watched_prefix_is_no_drop(photos: Path):
    uri = f"file://{photos}"
    drops, loose = find_drops(photos, without=f"{uri}/dn2-store")
    assert [drop.uri for drop in drops] == [f"{uri}/dn2-store-of-photos"]
    assert loose == 3
    seen = look(photos, photos / "dn2-store", bank="parts", unit="prefix")
    assert [drop.images for drop in seen.drops] == [4]


def test_source_in_its_store_is_listed(photos: Path):
    """The other way round: nothing that dn2 writes lies below it."""
    assert dn2.ingest(photos / "dn2-store-of-photos", photos).images == 1


def test_source_that_is_its_store_is_listed_without_reports(photos: Path):
    make_pictures(photos / "reports", 1)
    assert dn2.ingest(photos, photos).images == 5
