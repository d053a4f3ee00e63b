"""What the command line says of keeping house."""

from __future__ import annotations

from collections.abc import Iterator

from dn2.records import Compacted, Pruned
from flows.console import say
from flows.words import bytes_in_words, many, size_in_words


def describe_compacted(done: Compacted) -> None:
    """Say which manifest parts were merged; what was left apart has been told as a warning."""
    if done.part is None:
        say(f"dataset {done.dataset}: nothing to merge")
        return
    say(
        f"dataset {done.dataset}: {many(len(done.merged), 'manifest part')} merged into {done.part}, "
        f"{many(done.images, 'image')}, {many(done.shards, 'shard')} written; {size_in_words(done.size)}"
    )


def pruned_lines(found: Pruned) -> Iterator[str]:
    """Yield what nobody needs any more, kind by kind, with some paths, and whether it was removed."""
    yield f"store {found.store}"
    for one in found.kinds:
        yield f"  {one.kind}: {one.count:,} ({size_in_words(one.size)})"
        yield from (f"    {path}" for path in one.examples)
        if one.count > len(one.examples):
            yield f"    and {one.count - len(one.examples):,} more"
    if found.vanished_rows:
        yield (
            f"rows of vanished or changed images in shards that also hold others: {found.vanished_rows:,} (about "
            f"{bytes_in_words(found.vanished_bytes)}); dn2 compact leaves them behind"
        )
    if not found.kinds:
        yield "nothing to remove"
    elif found.removed:
        yield f"removed: {size_in_words(found.size)}"
    else:
        yield f"nothing was removed; with --yes {size_in_words(found.size)} would be"
