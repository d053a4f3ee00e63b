"""Names of the files that make a report or a cleaning."""

from __future__ import annotations

from dn2 import layout
from dn2.layout import GROUPS_FILE, PAGE, PICTURE, ROWS, SUMMARY

__all__ = ["GROUPS_FILE", "PAGE", "PICTURE", "ROWS", "SUMMARY", "part_path"]


def part_path(folder: str, number: int) -> str:
    """Return the path of one of the Parquet files with a row for every image, in a folder of scores or of a report."""
    return f"{folder}/{layout.part(number)}"
