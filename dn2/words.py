"""Numbers in words."""

from __future__ import annotations


def bytes_in_words(count: int) -> str:
    """Return a number of bytes with three digits, in units of a thousand."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return many(count, "byte") if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.4g} TB"


def many(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number of things."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
