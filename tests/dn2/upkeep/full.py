"""A store with one of everything."""

from __future__ import annotations

from pathlib import Path

import dn2
from dn2.records import BankVersion, Cleaning, Embedded, GroupBankVersion, GroupReport, Report
from dn2.store.storage import Store
from tests.dn2.groups.synthetic import normal_groups, write_groups
from tests.dn2.images.listing import touch
from tests.dn2.scoring.synthetic import normal_vectors, write_shards


def embedded(store: Store, seed: int, count: int = 30) -> Embedded:
    return write_shards(store, normal_vectors(count, seed=seed), name=f"n{seed}")


class Full:
    """A store with one of everything, and what the steps returned when they made it.

    Attributes:
        store: where it lies.
        photos: the source of the dataset `photos`, 3 images.
        dataset: that dataset.
        first, second: versions of the bank `parts`; the second one is cleaned.
        groups: the only version of the bank of groups `lots`.
        cleaning: the cleaning of the second version.
        reports: two reports of the bank `parts`, the older one first.
        odd: the report of groups.
    """

    def __init__(self, url: str, photos: Path) -> None:
        self.store = store = Store.open(url)
        touch(photos, "a.png", "b.png", "c.png")
        self.photos = f"file://{photos}"
        self.dataset = dn2.ingest(photos, store, dataset="photos")
        rate = dn2.FitConfig(false_alarm_rate=0.2)
        normal = embedded(store, 0)
        self.first: BankVersion = dn2.fit(normal, store, bank="parts", config=rate)
        self.cleaning: Cleaning = dn2.clean(normal, store, config=dn2.CleanConfig(rule="auto", contamination=0.1))
        self.second: BankVersion = dn2.fit(normal, store, bank="parts", config=rate, cleaning=self.cleaning)
        lots = write_groups(store, normal_groups([4] * 12, seed=0), name="lots")
        group_config = dn2.GroupFitConfig(false_alarm_rate=0.2)
        self.groups: GroupBankVersion = dn2.fit_groups(lots, store, bank="lots", config=group_config)
        self.reports: list[Report] = [
            dn2.score(embedded(store, seed, 20), store, bank=bank) for seed, bank in ((1, self.first), (2, self.second))
        ]
        self.odd: GroupReport = dn2.score_groups(lots, store, bank=self.groups)

    def path(self, uri: str) -> str:
        """Return the path of a URI in the store."""
        return uri.removeprefix(f"{self.store.uri}/")
