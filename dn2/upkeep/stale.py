"""The unused files of a store: found without changing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dn2 import layout
from dn2.errors import NotFoundError
from dn2.images.manifest import Parts, all_parts, number_of
from dn2.layout import SUMMARY
from dn2.records import Size
from dn2.store.listing import StoredFile
from dn2.store.storage import Store
from dn2.upkeep.inventory import Inventory
from dn2.upkeep.limits import KINDS, Limits, Unused
from dn2.upkeep.marks import standing
from dn2.upkeep.needed import Needed, needed_by_banks, scores_of
from dn2.upkeep.owned import OwnedFiles
from dn2.upkeep.vanished import Lives, lives_of

_THUMBNAILS = ".thumbnails.parquet"
_FOLDERS = (layout.report, layout.scores, layout.cleaning)  # each stands for one thing


@dataclass(slots=True)
class Plan:
    """What prune would delete.

    Attributes:
        unused: in the order in which it is deleted.
        vanished_rows: rows of vanished images in shards that stay; None if nobody looked.
        vanished_bytes: what they take there, roughly.
    """

    unused: list[Unused] = field(default_factory=list)
    vanished_rows: int | None = None
    vanished_bytes: int = 0


def plan(store: str | os.PathLike[str] | Store, limits: Limits, *, seen: Inventory, quick: bool = False) -> Plan:
    """Return what is unused.

    Args:
        store: where dn2 keeps its files.
        limits: what is old.
        seen: what lay there a moment ago. What was written since is not touched.
        quick: leave out what only the union of all manifest parts can tell: vanished images.

    Raises:
        NotFoundError: a file that tells what is needed is missing, or lies behind a link that leads nowhere.
        SchemaError: one is damaged.
        StoreError: the store cannot be read.
    """
    store = Store.open(store)
    _check_links(store)
    found = _Search(store, limits, seen, quick)
    found.run()
    order = list(KINDS)
    found.plan.unused.sort(key=lambda one: order.index(one.kind))
    return found.plan


def _check_links(store: Store) -> None:
    """Raise if a folder that tells what is needed is a link to nowhere: it would look as if nothing were needed."""
    for top in ("banks", "manifests", "reports") if store.is_local else ():
        for path in (top, *(f"{top}/{name}" for name in store.names(top))):
            place = store.local(path)
            if place is not None and place.is_symlink() and not place.exists():
                raise NotFoundError(
                    f"{store.uri_of(path)}: got a link to {place.readlink()}, expected a folder; mount it, or "
                    f"delete the link"
                )


@dataclass(slots=True)
class _Shard:
    """An embedding shard with its thumbnails, or what is left of them."""

    dataset: str
    part: str
    rows: tuple[int, int]
    files: list[StoredFile] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return any(not file.path.endswith(_THUMBNAILS) for file in self.files)

    @property
    def path(self) -> str:
        return self.files[0].path.removesuffix(_THUMBNAILS).removesuffix(".parquet") + ".parquet"


class _Search:
    """One look for unused files; what is slow to read is read when it is asked for first."""

    def __init__(self, store: Store, limits: Limits, seen: Inventory, quick: bool) -> None:
        self.plan = Plan()
        self._store, self._limits, self._seen, self._quick = store, limits, seen, quick
        self._owned = OwnedFiles(store)
        self._times = {file.path: file.modified for file in seen.files["manifests"]}
        self._parts: dict[str, Parts] = {}
        self._needed_shards: set[str] | None = None
        self._banks: Needed = needed_by_banks(store, rows=False)
        self._reports_that_stay: list[str] = []

    def run(self) -> None:
        """Fill the plan."""
        self._reports()
        unused = self._unused_embedders()
        self._shards(unused)
        self._manifests()
        self._marks()
        self._cleanings()
        self._rejects()
        for file in self._seen.files[".tmp"]:
            if self._limits.old(file.modified):
                self._add("unfinished", file.path, [file])

    def _add(self, kind: str, path: str, found: Sequence[StoredFile], *, is_folder: bool = False) -> None:
        """Plan to delete those of some files that are dn2's own, if there are any."""
        files = sorted((file for file in found if self._owned.has(file.path)), key=_order)
        if files:
            size = Size(len(files), sum(file.size for file in files))
            self.plan.unused.append(Unused(kind, path, size, tuple(file.path for file in files), is_folder))

    def _add_folder(self, kind: str, path: str) -> None:
        self._add(kind, path, self._owned.files_in(path), is_folder=True)

    def _is_needed(self, path: str) -> bool:
        if self._needed_shards is None:
            self._needed_shards = set(needed_by_banks(self._store).shards)
            for report in self._reports_that_stay:
                scored = scores_of(self._store, report)
                self._needed_shards |= {part.shard for part in scored.parts} if scored else set()
        return path in self._needed_shards

    def _parts_of(self, dataset: str) -> Parts:
        if dataset not in self._parts:
            self._parts[dataset] = all_parts(self._store, dataset)
        return self._parts[dataset]

    def _replaced_for_good(self, dataset: str, part: str) -> bool:
        """Return whether no run that is under way can read a part: it was merged over a day ago, or is not there."""
        parts = self._parts_of(dataset)
        if part not in parts.replaced:
            return part not in parts.counted
        return self._limits.old(self._times.get(layout.manifest(dataset, parts.replaced[part])))

    def _reports(self) -> None:
        folders = {
            path: folder for path, folder in self._seen.folders.items() if any(form.parse(path) for form in _FOLDERS)
        }
        whole = []
        by_bank: dict[str, list[tuple[str, float]]] = {}
        for path, folder in folders.items():
            if path.startswith("reports/") and folder.whole is not None:
                whole.append(path)
                if self._owned.has(f"{path}/{SUMMARY}"):
                    by_bank.setdefault(path.split("/")[1], []).append((path, folder.whole))
            elif not path.startswith("scores/") and folder.whole is None and self._limits.old(folder.newest):
                self._add_folder("unfinished", path)
        beyond = set().union(*(self._limits.beyond(reports) for reports in by_bank.values()))
        self._reports_that_stay = [path for path in whole if path not in beyond]
        for path in sorted(beyond):
            self._add_folder("reports", path)
        if self._limits.reports is None and self._limits.age is None:
            return
        told = {path: scored.folder for path in whole if (scored := scores_of(self._store, path)) is not None}
        kept = {told[path] for path in self._reports_that_stay if path in told}
        for path, folder in sorted(folders.items()):
            if path.startswith("scores/") and path not in kept and self._limits.old(folder.newest):
                self._add_folder("scores", path)

    def _unused_embedders(self) -> set[str]:
        newest: dict[str, float] = {}
        files: dict[str, list[StoredFile]] = {}
        for file in self._seen.files["embeddings"]:
            embedder = file.path.split("/")[1]
            if not layout.is_removable(file.path):
                continue
            files.setdefault(embedder, []).append(file)
            time_ = float("inf") if file.modified is None else file.modified
            newest[embedder] = max(newest.get(embedder, 0.0), time_)
        unused = {name for name, last in newest.items() if name not in self._banks.embedders and self._limits.old(last)}
        if not self._banks.versions and newest:
            unused -= {max(newest, key=lambda name: (newest[name], name))}
        unused -= {name for name in unused if any(self._is_needed(file.path) for file in files[name])}
        for name in sorted(unused):
            self._add("embedders", f"embeddings/{name}", files[name], is_folder=True)
        return unused

    def _shards(self, unused: set[str]) -> None:
        by_dataset: dict[str, list[_Shard]] = {}
        for shard in self._grouped(unused):
            old = all(self._limits.old(file.modified) for file in shard.files)
            if not shard.is_whole:
                if old:
                    self._add("unfinished", shard.path, shard.files)
            elif shard.part in self._parts_of(shard.dataset).counted:
                by_dataset.setdefault(shard.dataset, []).append(shard)
            elif old and self._replaced_for_good(shard.dataset, shard.part) and not self._is_needed(shard.path):
                self._add("shards", shard.path, shard.files)
        if not self._quick:
            self.plan.vanished_rows = 0
            for dataset, shards in sorted(by_dataset.items()):
                self._vanished(dataset, shards)

    def _vanished(self, dataset: str, shards: Sequence[_Shard]) -> None:
        old = [
            part
            for part in self._parts_of(dataset).counted
            if self._limits.old(self._times.get(layout.manifest(dataset, part)))
        ]
        if len(old) < 2:  # one part alone holds no two rows of one image
            return
        lives: dict[str, Lives] = lives_of(self._store, dataset, old)
        for shard in shards:
            if shard.part not in lives:
                continue
            rows, living = shard.rows[1] - shard.rows[0], lives[shard.part].between(*shard.rows)
            fresh = not all(self._limits.old(file.modified) for file in shard.files)
            if living or fresh or self._is_needed(shard.path):
                self.plan.vanished_rows = (self.plan.vanished_rows or 0) + rows - living
                self.plan.vanished_bytes += sum(file.size for file in shard.files) * (rows - living) // rows
            else:
                self._add("vanished", shard.path, shard.files)

    def _grouped(self, unused: set[str]) -> Iterator[_Shard]:
        """Yield the shards of the embedders that stay, each with its thumbnails."""
        found: dict[str, _Shard] = {}
        for file in self._seen.files["embeddings"]:
            known = layout.embeddings.parse(file.path) or layout.shard_thumbnails.parse(file.path)
            if known and known["embedder"] not in unused and self._owned.has(file.path):
                shard = _Shard(known["dataset"], known["part"], (known["start"], known["stop"]))
                found.setdefault(layout.embeddings(*known.values()), shard).files.append(file)
        yield from (found[key] for key in sorted(found))

    def _manifests(self) -> None:
        files = {file.path: file for file in self._seen.files["manifests"]}
        for dataset in self._seen.below("manifests"):
            parts = self._parts_of(dataset)
            for part in sorted(parts.replaced, key=lambda name: (number_of(name), name)):
                file = files.get(layout.manifest(dataset, part))
                if file is not None and self._replaced_for_good(dataset, part):
                    self._add("parts", file.path, [file])

    def _marks(self) -> None:
        by_folder: dict[tuple[str, str], dict[StoredFile, tuple[str, str]]] = {}
        for file in sorted(self._seen.files["watermarks"], key=lambda file: file.path):
            known = layout.watermark.parse(file.path)
            if known:
                by_folder.setdefault((known["name"], known["dataset"]), {})[file] = known["part"], known["version"]
        for (_, dataset), marks in by_folder.items():
            gone = {
                file: mark
                for file, mark in marks.items()
                if self._limits.old(file.modified) and self._replaced_for_good(dataset, mark[0])
            }
            stay = standing(self._store, dataset, self._parts_of(dataset).counted, marks.values()) if gone else set()
            for file, mark in gone.items():
                if mark not in stay:
                    self._add("marks", file.path, [file])

    def _cleanings(self) -> None:
        whole = [
            (path, folder.whole)
            for path, folder in self._seen.folders.items()
            if folder.whole is not None and self._owned.has(f"{path}/{SUMMARY}") and path.startswith("cleaning/")
        ]
        for path in sorted(self._limits.beyond(whole) - self._banks.cleanings):
            self._add_folder("cleanings", path)

    def _rejects(self) -> None:
        by_dataset: dict[str, list[StoredFile]] = {}
        for file in self._seen.files["rejects"]:
            if not self._owned.has(file.path):
                continue
            by_dataset.setdefault(file.path.rpartition("/")[0], []).append(file)
        for files in by_dataset.values():
            times = [(one.path, float("inf") if one.modified is None else one.modified) for one in files]
            beyond = self._limits.beyond(times)
            for file in files:
                if file.path in beyond:
                    self._add("rejects", file.path, [file])


def _order(file: StoredFile) -> tuple[int, str]:
    """Sort the files of one thing: first what makes it whole, last what the others depend on."""
    name = file.path.rpartition("/")[2]
    if name == SUMMARY:
        return 0, file.path
    if name == "probes.parquet":
        return 3, file.path
    return (2 if name.endswith(_THUMBNAILS) else 1), file.path
