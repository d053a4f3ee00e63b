"""What each image contributes to the distance of its group.

A group's vector is the mean of something over its n members, so its squared distance to a normal group b is a sum over
them: |d - b|^2 = sum of <f_i - b, d - b> / n. Contributions are these terms, averaged over the k nearest groups. One
below zero belongs to an image that draws its group towards the normal ones. With `concat` they are the distances of the
images themselves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dn2.groups.bank import GroupBank
from dn2.groups.grouping import Grouping
from dn2.groups.judge import Verdicts
from dn2.progress import advance
from dn2.records import Embedded
from dn2.scoring.rows import image_vectors
from dn2.store.storage import Store


def explain(
    embedded: Embedded, store: Store, bank: GroupBank, grouping: Grouping, verdicts: Verdicts
) -> list[npt.NDArray[np.float32]]:
    """Return for each shard (R,) float32: what each row contributes; nan where its group has no score.

    Args:
        embedded: the batch.
        store: where its embeddings lie.
        bank: what it was compared with.
        grouping: its groups.
        verdicts: what was found out about them.
    """
    terms = _Terms(bank, verdicts, grouping.members[verdicts.scored])
    found = []
    read = zip(image_vectors(embedded, store), grouping.group_of, grouping.readable, strict=True)
    for embeddings, groups, readable in read:
        place = verdicts.places(groups[readable])
        mine = place >= 0
        values = np.full(len(place), np.nan, np.float32)
        values[mine] = terms.of(place[mine], bank.pooling.features(embeddings[mine]))
        rows = np.full(len(groups), np.nan, np.float32)
        rows[readable] = values
        found.append(rows)
        advance("explain", len(values), total=embedded.embedded)
    return found


class _Terms:
    """The terms of S groups: contribution = (<f, u> + c) / n, and |f|^2 on top for images put one after the other."""

    def __init__(self, bank: GroupBank, verdicts: Verdicts, sizes: npt.NDArray[np.int64]) -> None:
        vectors = verdicts.vectors
        self._concat = bank.record.pooling == "concat"
        places = bank.record.sizes[0] if self._concat else 1
        shape = (len(vectors), places, vectors.shape[1] // places)
        center = np.zeros(vectors.shape, np.float32)
        squares = np.zeros((len(vectors), places))
        for column in range(bank.record.k):
            near = bank.vectors[verdicts.neighbors.rows[:, column]].astype(np.float32)
            center += near / bank.record.k
            squares += (near.reshape(shape) ** 2).sum(axis=2) / bank.record.k
        own = vectors.astype(np.float32)
        if self._concat:
            self._direction, self._constant = -2 * center.reshape(shape), squares
        else:
            self._direction = (own - center).reshape(shape)
            self._constant = squares - (own * center).sum(axis=1, keepdims=True)
        self._sizes = np.ones_like(sizes) if self._concat else sizes
        self._seen = np.zeros(len(sizes), np.int64)

    def of(self, groups: npt.NDArray[np.int64], features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (M,) float32 for the next images: (M,) their groups, (M, P) their features."""
        places = np.zeros(len(groups), np.int64)
        if self._concat:
            order = np.argsort(groups, kind="stable")
            _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
            places[order] = np.arange(len(groups)) - first[inverse] + self._seen[groups[order]]
            np.add.at(self._seen, groups, 1)
        found = np.einsum("mp,mp->m", features, self._direction[groups, places]) + self._constant[groups, places]
        if self._concat:
            found += (features**2).sum(axis=1)
        terms: npt.NDArray[np.float32] = (found / self._sizes[groups]).astype(np.float32)
        return terms
