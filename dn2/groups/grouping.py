"""Which image belongs to which group, read shard by shard: a group may lie in any number of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dn2.errors import ConfigError
from dn2.neighbors.segments import keys
from dn2.records import Embedded, EmbeddedShard
from dn2.scoring.rows import living_rows
from dn2.sources.opening import tells_groups
from dn2.store.storage import Store

_COLUMNS = ["group_id", "label", "content_sha256", "reject_reason"]
_UNGROUPED = (
    "{}: got images without groups, expected groups; give a pattern such as '{{group_id}}/*', or a table with a column "
    "group_id as the source"
)


def check_grouped(source: str, pattern: str | None) -> None:
    """Refuse, before anything is embedded, a source of which nothing says what its groups are.

    Raises:
        ConfigError: it is neither table nor tar, and the pattern has no {group_id}.
    """
    if not tells_groups(source) and "{group_id}" not in (pattern or ""):
        raise ConfigError(_UNGROUPED.format(source))


@dataclass(eq=False)
class Grouping:
    """The groups of a dataset. In memory are the groups, and a few bytes for each image.

    Attributes:
        group_ids: G names, in the order they were first seen.
        labels: what is known about each group; None where nothing is, or its images differ.
        group_of: for each shard (R,) int64, the number of each row's group; -1 where it has none, -2 where it is
            of no interest.
        readable: for each shard (R,) bool, whether the row has an embedding.
        image_keys: for each shard (R,) int64, hashes of the images' bytes.
        members: (G,) int64 readable images.
        rejected: (G,) int64 images that could not be read.
        contents: (G,) uint64, sums of hashes of the members' bytes.
        ungrouped: images that belong to no group.
    """

    group_ids: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    group_of: list[npt.NDArray[np.int64]] = field(default_factory=list)
    readable: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    image_keys: list[npt.NDArray[np.int64]] = field(default_factory=list)
    members: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rejected: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    contents: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    ungrouped: int = 0

    @classmethod
    def of(cls, embedded: Embedded, store: Store) -> Grouping:
        """Return the groups of an embedded dataset.

        Raises:
            ConfigError: no image belongs to a group, or a group lies below several labels of the source's pattern.
            StoreError: the store cannot be read.
        """
        grouping = cls()
        number_of: dict[str, int] = {}
        for shard in embedded.shards:
            grouping._add(shard, store, number_of)
        if not grouping.group_ids:
            raise ConfigError(_UNGROUPED.format(embedded.dataset.source))
        return grouping

    def _add(self, shard: EmbeddedShard, store: Store, number_of: dict[str, int]) -> None:
        rows = living_rows(shard, store, _COLUMNS)
        names, labels = rows["group_id"].to_pylist(), rows["label"].to_pylist()
        group_of = np.full(len(names), -1, np.int64)
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            if name is None:
                continue
            if name not in number_of:
                number_of[name] = len(number_of)
                self.group_ids.append(name)
                self.labels.append(label)
            group_of[row] = number = number_of[name]
            if self.labels[number] != label:
                _check_one_label(shard.shard.pattern, name, self.labels[number], label)
                self.labels[number] = None
        readable = ~rows["reject_reason"].is_valid().to_numpy()
        self.group_of.append(group_of)
        self.readable.append(readable)
        hashes = keys(rows["content_sha256"].to_pylist())
        self.image_keys.append(hashes)
        self.ungrouped += int((group_of < 0).sum())
        self._count(group_of, readable, hashes.view(np.uint64))

    def _count(
        self, group_of: npt.NDArray[np.int64], readable: npt.NDArray[np.bool_], hashes: npt.NDArray[np.uint64]
    ) -> None:
        more = len(self.group_ids) - len(self.members)
        self.members, self.rejected = (np.pad(old, (0, more)) for old in (self.members, self.rejected))
        self.contents = np.pad(self.contents, (0, more))
        mine = (group_of >= 0) & readable
        np.add.at(self.members, group_of[mine], 1)
        np.add.at(self.rejected, group_of[(group_of >= 0) & ~readable], 1)
        np.add.at(self.contents, group_of[mine], hashes[mine])

    def forget_untouched(self, new: Sequence[bool]) -> None:
        """Keep only groups with an image in one of the new shards, and of the images without a group the new ones.

        Args:
            new: whether each shard is new.
        """
        touched = np.zeros(len(self.group_ids), bool)
        for groups, is_new in zip(self.group_of, new, strict=True):
            if is_new:
                touched[groups[groups >= 0]] = True
        number = np.append(np.where(touched, np.cumsum(touched) - 1, -2), -1)  # the last one is that of no group
        self.group_of = [
            np.where((groups == -1) & (not is_new), -2, number[groups])
            for groups, is_new in zip(self.group_of, new, strict=True)
        ]
        self.group_ids = [one for one, kept in zip(self.group_ids, touched, strict=True) if kept]
        self.labels = [one for one, kept in zip(self.labels, touched, strict=True) if kept]
        self.members, self.rejected = self.members[touched], self.rejected[touched]
        self.contents = self.contents[touched]
        self.ungrouped = sum(int((groups == -1).sum()) for groups in self.group_of)


def _check_one_label(pattern: str | None, name: str, one: str | None, other: str | None) -> None:
    """Refuse two folders of one name below two labels: whether they are one group cannot be known.

    Labels that lie below a group, as in `{group_id}/{label}/*`, may differ.
    """
    if pattern is not None and pattern.index("{label}") < pattern.rindex("{group_id}"):
        raise ConfigError(
            f"pattern {pattern!r}: group {name!r} lies below the labels {one!r} and {other!r}; if these are two "
            f"groups, write {{group_id}} in place of {{label}} too"
        )
