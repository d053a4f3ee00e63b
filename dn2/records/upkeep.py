"""What lies in a store by size, what of it is unused, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """How much something takes.

    Attributes:
        files: number of files.
        bytes: of all of them.
    """

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.bytes + other.bytes)


NOTHING = Size()


@dataclass(frozen=True, slots=True)
class Compacted:
    """What became of the manifest parts of a dataset.

    Attributes:
        dataset: the dataset's name.
        part: name of the merged part; None if nothing was merged.
        merged: names of the parts it was made of, oldest first.
        images: rows of the merged part.
        shards: embedding shards that were written for it; those that were there already are not counted.
        size: what the merged part and its shards take.
        notes: what was left apart, and why.
    """

    dataset: str
    part: str | None = None
    merged: tuple[str, ...] = ()
    images: int = 0
    shards: int = 0
    size: Size = NOTHING
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stale:
    """Unused things of one kind.

    Attributes:
        kind: what they are.
        count: how many.
        size: what they take.
        examples: paths of some of them in the store.
    """

    kind: str
    count: int
    size: Size
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pruned:
    """The unused things of a store.

    Attributes:
        store: absolute URI of its root.
        kinds: the kinds of which there is something.
        vanished_rows: rows of vanished images in embedding shards that also hold living ones; None if not counted.
        vanished_bytes: what they take there, roughly.
        removed: whether all of it was deleted.
    """

    store: str
    kinds: tuple[Stale, ...] = ()
    vanished_rows: int | None = None
    vanished_bytes: int = 0
    removed: bool = False

    @property
    def size(self) -> Size:
        """What all kinds take together."""
        return sum((one.size for one in self.kinds), NOTHING)
