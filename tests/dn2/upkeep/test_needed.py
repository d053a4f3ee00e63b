"""What banks and reports need, compared with their files read once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from dn2.errors import NotFoundError
from dn2.upkeep.needed import needed_by_banks, scores_of
from tests.dn2.upkeep.full import Full
from tests.dn2.upkeep.pruning import needs_of


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Full:
    folder = tmp_path_factory.mktemp("needed")
    return Full(str(folder / "store"), folder / "photos")


def test_all_versions_of_banks_of_images_and_of_groups_count(full: Full):
    found = needed_by_banks(full.store)
    by_the_book = {path for path in needs_of(full.store.uri.removeprefix("file://")) if path.startswith("embeddings/")}
    assert found.shards == {
        path for path in by_the_book if not path.endswith(("probes.parquet", ".thumbnails.parquet"))
    }
    assert len(found.shards) == 2  # of the normal images, and of the groups
    assert (found.versions, found.embedders) == (3, {full.first.embedder})
    assert found.cleanings == {full.path(full.cleaning.uri)}
    assert needed_by_banks(full.store, rows=False).shards == set()


def test_report_needs_its_scores_and_one_of_groups_none(full: Full):
    told = scores_of(full.store, full.path(full.reports[0].uri))
    assert told is not None
    assert all(Path(full.store.uri.removeprefix("file://"), part.path).exists() for part in told.parts)
    assert scores_of(full.store, full.path(full.odd.uri)) is None
    with pytest.raises(NotFoundError, match=r"no file 'reports/parts/none/summary\.json'"):
        scores_of(full.store, "reports/parts/none")
