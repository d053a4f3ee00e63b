"""The marks of manifest parts that banks have scored, and those of a merged part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dn2 import layout
from dn2.errors import NotFoundError
from dn2.images.manifest import is_merged, made_of
from dn2.neighbors.versions import pointed_at
from dn2.scoring.watermark import is_scored, marks_in
from dn2.store.documents import WATERMARK, write_document
from dn2.store.storage import Store


@dataclass(frozen=True, slots=True)
class Marks:
    """What of a dataset is scored.

    Attributes:
        dataset: its name.
        by_bank: for each bank that has scored anything of it, the versions that have scored each part.
    """

    dataset: str
    by_bank: dict[str, dict[str, set[str]]]

    def write(self, store: Store, merged: Sequence[str], living: Sequence[int], part: str, *, source: str) -> None:
        """Mark a merged part for every bank that has scored all parts that it is made of, before it is visible.

        A version has scored it if it has scored all of them. If no one version has, the mark is that of one that is
        not the current one: what only older versions have scored can then still be scored again on demand.

        Args:
            store: where dn2 keeps its files.
            merged: the parts.
            living: for each of them the number of living rows; parts without any count as scored by everyone.
            part: name of the merged part.
            source: where the dataset's images come from.

        Raises:
            StoreError: the store cannot be written.
        """
        wanted = [name for name, count in zip(merged, living, strict=False) if count] or list(merged)
        for bank, scored in self.by_bank.items():
            versions = [scored.get(name, set()) for name in wanted]
            if not all(versions):
                continue
            common = set.intersection(*versions)
            for version in sorted(common or self._stand_in(store, bank, set.union(*versions))):
                content = {"bank": bank, "version": version, "dataset": self.dataset, "source": source, "part": part}
                path = layout.watermark(bank, self.dataset, part, version)
                write_document(store, path, WATERMARK, {**content, "report": None, "made_of": list(merged)})

    @staticmethod
    def _stand_in(store: Store, bank: str, versions: set[str]) -> set[str]:
        return {min(versions - {pointed_at(store, bank)})}


def marks_of(store: Store, dataset: str, parts: Sequence[str]) -> Marks:
    """Return which versions of which banks have scored which of some manifest parts.

    Raises:
        StoreError: the store cannot be read.
    """
    by_bank: dict[str, dict[str, set[str]]] = {}
    for bank in store.names("watermarks"):
        scored: dict[str, set[str]] = {}
        for part, version in marks_in(store, bank, dataset):
            scored.setdefault(part, set()).add(version)
        for part in parts:  # scored while it was being merged, see dn2.scoring.watermark
            if is_merged(part):
                below = [scored.get(one, set()) for one in made_of(store, dataset, part)]
                if all(below):
                    scored.setdefault(part, set()).update(set.intersection(*below))
        found = {part: scored[part] for part in parts if scored.get(part)}
        if found:
            by_bank[bank] = found
    return Marks(dataset, by_bank)


def standing(
    store: Store, dataset: str, counted: Sequence[str], marks: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return which marks of replaced parts must stay: nothing else says that a merged part is scored.

    A run that began before the merge, and ended after it, has marked the parts that it knew. Its version's marks stay
    until the merged part has one of its own; those that do not cover it, until it has one of any version.

    Args:
        store: where dn2 keeps its files.
        dataset: name of the dataset.
        counted: its manifest parts.
        marks: part and version of each mark of one bank.

    Raises:
        SchemaError: a merged part is damaged.
        StoreError: the store cannot be read.
    """
    versions: dict[str, set[str]] = {}  # that have marked a part
    parts: dict[str, set[str]] = {}  # that a version has marked
    for part, version in marks:
        versions.setdefault(part, set()).add(version)
        parts.setdefault(version, set()).add(part)
    found = set()
    for merged in counted:
        own = versions.get(merged, set())
        for part in _below(store, dataset, merged):
            for version in versions.get(part, set()) - own:
                if not own or is_scored(store, dataset, merged, parts[version]):
                    found.add((part, version))
    return found


def _below(store: Store, dataset: str, part: str) -> Iterator[str]:
    """Yield the parts that a part was made of, and those that these were made of, as far as that is known."""
    if not is_merged(part):
        return
    try:
        names = made_of(store, dataset, part)
    except NotFoundError:  # pruned
        return
    for name in names:
        yield name
        yield from _below(store, dataset, name)
